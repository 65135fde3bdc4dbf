"""sharedlabel: a benchmark suite for shared-label prediction under compression.

```python
import sharedlabel as sl

results = sl.run("configs/digits.yaml", seeds=[0, 1])  # the same as the command, from Python
sl.plot.ri_against_ratio(results)  # a matplotlib Axes
small = sl.prune(network, ratio=4, example_inputs=images)  # any module; it stays pruned while it is trained
sl.metrics.relative_information(log_posterior, labels)  # of posteriors from anywhere
```

`docs/api.md` shows every name. Each is imported when it is first used, so this package itself imports no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sharedlabel.lazily import attach

__version__ = "0.1.0"

if TYPE_CHECKING:
    from sharedlabel import metrics
    from sharedlabel.api import plot
    from sharedlabel.api.backbone import backbone
    from sharedlabel.api.classifier import SharedLabelClassifier
    from sharedlabel.api.fusion import Fusion, aggregator
    from sharedlabel.api.models import load_model
    from sharedlabel.api.pruning import compression_ratio, finalize, prune
    from sharedlabel.api.results import Results, load_results
    from sharedlabel.api.run import run
    from sharedlabel.api.sweet_spot import sweet_spot
    from sharedlabel.config import Experiment
    from sharedlabel.training.callbacks import KeepPruned
    from sharedlabel.training.datamodule import SharedLabelDataModule
    from sharedlabel.training.modules import AggregatorModule, BackboneModule, SharedLabelModule
else:
    __getattr__, __dir__ = attach(
        __name__,
        {
            "AggregatorModule": "sharedlabel.training.modules",
            "BackboneModule": "sharedlabel.training.modules",
            "Experiment": "sharedlabel.config",
            "Fusion": "sharedlabel.api.fusion",
            "KeepPruned": "sharedlabel.training.callbacks",
            "Results": "sharedlabel.api.results",
            "SharedLabelClassifier": "sharedlabel.api.classifier",
            "SharedLabelDataModule": "sharedlabel.training.datamodule",
            "SharedLabelModule": "sharedlabel.training.modules",
            "aggregator": "sharedlabel.api.fusion",
            "backbone": "sharedlabel.api.backbone",
            "compression_ratio": "sharedlabel.api.pruning",
            "finalize": "sharedlabel.api.pruning",
            "load_model": "sharedlabel.api.models",
            "load_results": "sharedlabel.api.results",
            "metrics": "sharedlabel.metrics",
            "plot": "sharedlabel.api",
            "prune": "sharedlabel.api.pruning",
            "run": "sharedlabel.api.run",
            "sweet_spot": "sharedlabel.api.sweet_spot",
        },
    )

__all__ = [
    "AggregatorModule",
    "BackboneModule",
    "Experiment",
    "Fusion",
    "KeepPruned",
    "Results",
    "SharedLabelClassifier",
    "SharedLabelDataModule",
    "SharedLabelModule",
    "__version__",
    "aggregator",
    "backbone",
    "compression_ratio",
    "finalize",
    "load_model",
    "load_results",
    "metrics",
    "plot",
    "prune",
    "run",
    "sweet_spot",
]
