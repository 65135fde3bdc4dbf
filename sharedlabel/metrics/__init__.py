"""Metrics of posteriors: pure functions, and the same as `torchmetrics.Metric`.

```python
from sharedlabel.metrics import RelativeInformation, n_accuracy, relative_information

n_accuracy(log_posterior, labels)  # [t n c], [t] -> [n], shares
relative_information(log_posterior, labels)  # -> [n], shares of the label entropy
RelativeInformation(num_classes=10)  # the same for a training loop: update, compute, plot, several processes
```

Posteriors are natural logarithms, tensors `[t n c]` of t tuples after 1 to n instances over c labels; a single
posterior for each tuple is `values[:, None]`. The information metrics and the negative log-likelihood normalise them,
so that they take logits, too, and mix them with a millionth of the uniform distribution (`floor_posterior`): do not do
that before. The Brier score and the calibration error take posteriors as they are, and refuse what is not normalised.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sharedlabel.lazily import attach

if TYPE_CHECKING:
    from sharedlabel.metrics._shells import (
        BrierScore,
        CalibrationError,
        InformationGain,
        NAccuracy,
        NegativeLogLikelihood,
        RelativeInformation,
    )
    from sharedlabel.metrics.accuracy import n_accuracy
    from sharedlabel.metrics.brier import brier_score
    from sharedlabel.metrics.calibration import apply_temperature, fit_temperature, negative_log_likelihood
    from sharedlabel.metrics.diagrams import calibration_error, reliability
    from sharedlabel.metrics.gain import information_gain, relative_information
    from sharedlabel.metrics.information import floor_posterior, label_entropy
else:
    __getattr__, __dir__ = attach(
        __name__,
        {
            "BrierScore": "sharedlabel.metrics._shells",
            "CalibrationError": "sharedlabel.metrics._shells",
            "InformationGain": "sharedlabel.metrics._shells",
            "NAccuracy": "sharedlabel.metrics._shells",
            "NegativeLogLikelihood": "sharedlabel.metrics._shells",
            "RelativeInformation": "sharedlabel.metrics._shells",
            "apply_temperature": "sharedlabel.metrics.calibration",
            "brier_score": "sharedlabel.metrics.brier",
            "calibration_error": "sharedlabel.metrics.diagrams",
            "fit_temperature": "sharedlabel.metrics.calibration",
            "floor_posterior": "sharedlabel.metrics.information",
            "information_gain": "sharedlabel.metrics.gain",
            "label_entropy": "sharedlabel.metrics.information",
            "n_accuracy": "sharedlabel.metrics.accuracy",
            "negative_log_likelihood": "sharedlabel.metrics.calibration",
            "relative_information": "sharedlabel.metrics.gain",
            "reliability": "sharedlabel.metrics.diagrams",
        },
    )

__all__ = [
    "BrierScore",
    "CalibrationError",
    "InformationGain",
    "NAccuracy",
    "NegativeLogLikelihood",
    "RelativeInformation",
    "apply_temperature",
    "brier_score",
    "calibration_error",
    "fit_temperature",
    "floor_posterior",
    "information_gain",
    "label_entropy",
    "n_accuracy",
    "negative_log_likelihood",
    "relative_information",
    "reliability",
]
