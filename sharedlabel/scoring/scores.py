"""From an aggregator and tuples to scores: one pass serves every n."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import pkgutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float, Float32, Float64, Int16, Int64, UInt8
from torch import Tensor

from sharedlabel import metrics, records
from sharedlabel.aggregators._base import Aggregator, Standardize
from sharedlabel.errors import DataError, TrainingError
from sharedlabel.metrics._scored import Scored
from sharedlabel.metrics.accuracy import correct
from sharedlabel.metrics.calibration import apply_temperature, temperatures
from sharedlabel.metrics.diagrams import reliability
from sharedlabel.metrics.information import floor_posterior, label_entropy, log2_posterior_of_label
from sharedlabel.metrics.intervals import loss_interval, wilson
from sharedlabel.metrics.uncertainty import Estimate, estimate, independent
from sharedlabel.types import Tuples

# The metrics that have columns in rows: every file of `metrics/` with a function `columns`.
METRICS: tuple[ModuleType, ...] = tuple(
    module
    for module in (
        importlib.import_module(f"{metrics.__name__}.{info.name}")
        for info in sorted(pkgutil.iter_modules(metrics.__path__), key=lambda info: info.name)
        if not info.name.startswith("_")
    )
    if "columns" in vars(module)
)
_COLUMNS = {field.name for field in dataclasses.fields(records.Scores)}
_CPU = torch.device("cpu")
_ROUNDING = 1e-12  # of sums of weights, which are 1 but for it


@dataclass(frozen=True)
class Scores:
    """What one aggregator scored on one split.

    Attributes:
        correct: 1 where the most probable label is right.
        predicted: the most probable label.
        information: log2 of the calibrated posterior of the label, bits.
        temperature: per prefix length, fitted on validation.
        metrics: per prefix length, the metric columns of `records.Row`.
        reliability: per prefix length, before and after calibration, the bins of the reliability diagram.
    """

    correct: UInt8[Tensor, "p t k"]
    predicted: Int16[Tensor, "p t k"]
    information: Float32[Tensor, "p t k"]
    temperature: Float64[Tensor, "k"]
    metrics: list[dict[str, float]]
    reliability: list[dict[str, Any]]


def posterior_over(
    aggregator: Aggregator,
    sources: tuple[Float[Tensor, "m d"], Float[Tensor, "m c"]],
    drawn: Tuples,
    n: Sequence[int],
    device: torch.device = _CPU,
) -> Float[Tensor, "pt k c"]:
    """Return the log-posterior of every tuple of every partition after each n, from one pass over the largest.

    Args:
        aggregator: in evaluation mode, on the CPU.
        sources: embeddings and calibrated logits of the split, likewise.
        drawn: tuples of at least `max(n)` instances.
        n: prefix lengths.
        device: that computes; the posterior is on the CPU.

    Raises:
        DataError: prefixes that the tuples do not have, or features of another width than the aggregator was built for.
        TrainingError: the aggregator returned NaN or Inf.
    """
    _check_sources(aggregator, sources, drawn, n)
    there = aggregator if device == _CPU else copy.deepcopy(aggregator).to(device)
    with torch.inference_mode():
        embeddings, logits = (source.to(device) for source in sources)
        log_posterior = there.over(embeddings, logits, drawn.indices.flatten(0, 1).to(device), n).cpu()
    if not torch.isfinite(log_posterior).all():
        raise TrainingError(
            f"expected finite posteriors, got NaN or Inf from {type(aggregator).__name__}; lower fit.learning_rate"
        )
    return log_posterior


def _check_sources(aggregator: Aggregator, sources: tuple[Tensor, Tensor], drawn: Tuples, n: Sequence[int]) -> None:
    if not n or not 1 <= min(n) <= max(n) <= drawn.indices.shape[2]:
        raise DataError(
            f"expected numbers of instances from 1 to the {drawn.indices.shape[2]} of a tuple, got {list(n)}; change n"
        )
    name = type(aggregator).__name__
    for module in aggregator.modules():
        if isinstance(module, Standardize):
            _check_width("embeddings", "values", module.mean.numel(), sources[0].shape[1], name)
    for place, buffer in aggregator.named_buffers():
        if place.split(".")[-1] == "log_prior":
            _check_width("logits", "classes", buffer.numel(), sources[1].shape[1], name)


def _check_width(what: str, unit: str, expected: int, got: int, name: str) -> None:
    if expected != got:
        raise DataError(
            f"expected {what} of {expected} {unit}, as {name} was trained on, got {got}; "
            "use the features of the backbone that it was trained with"
        )


def score(
    posterior: Float[Tensor, "pt k c"],
    drawn: Tuples,
    prior: Float[Tensor, "c"],
    n: Sequence[int],
    instances: int,
    clusters: Int64[Tensor, "m"] | None,
    temperature: Float64[Tensor, "k"] | None,
) -> Scores:
    """Score log-posteriors, raw and calibrated by one temperature per n, both floored by mixing with the uniform.

    Args:
        posterior: of every tuple after each n.
        drawn: the tuples.
        prior: of the labels.
        n: prefix lengths.
        instances: images in the split.
        clusters: group of each image under the grouped protocol.
        temperature: fitted elsewhere, or None to fit it here.
    """
    raw = floor_posterior(posterior)
    if temperature is None:
        temperature = temperatures(posterior, drawn, n, clusters)
    calibrated = floor_posterior(apply_temperature(posterior, temperature))
    scored = Scored(posterior, raw, calibrated, drawn, prior, label_entropy(prior.log()))
    right = correct(posterior, scored.labels).unflatten(0, drawn.labels.shape)
    bits = log2_posterior_of_label(calibrated, scored.labels).unflatten(0, drawn.labels.shape)
    columns = {"temperature": temperature, **_columns(scored)}
    columns |= _with_intervals(right, bits, scored, n, instances, clusters)
    rows = [{name: float(values[index]) for name, values in columns.items()} for index in range(len(n))]
    predicted = posterior.argmax(2).to(torch.int16).unflatten(0, drawn.labels.shape)
    return Scores(right.to(torch.uint8), predicted, bits.float(), temperature, rows, list(_diagrams(scored, n)))


def _columns(scored: Scored) -> dict[str, Float64[Tensor, "k"]]:
    """Return the columns of all metrics; what rows have no place for is found here, not after hours of a grid."""
    columns: dict[str, Tensor] = {}
    for metric in METRICS:
        own = metric.columns(scored)
        if wrong := (own.keys() & columns.keys()) | (own.keys() - _COLUMNS):
            raise TypeError(f"{metric.__name__}: expected columns of records.Scores, each once, got {sorted(wrong)}")
        columns |= own
    return columns


def _diagrams(scored: Scored, n: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Yield the bins of the reliability diagram at every n, after calibration and then before."""
    for name, version in scored.versions.items():
        for size, *bins in zip(n, *reliability(version, scored.labels, scored.weights), strict=True):
            confidence, accuracy, mass = (values.tolist() for values in bins)
            yield {"n": size, "calibrated": not name, "confidence": confidence, "accuracy": accuracy, "mass": mass}


def _with_intervals(
    right: Tensor,
    bits: Tensor,
    scored: Scored,
    n: Sequence[int],
    instances: int,
    clusters: Tensor | None,
) -> dict[str, Float64[Tensor, "k"]]:
    """Return n-accuracy and RI with their intervals over images (or groups)."""
    means = estimate(torch.cat([right.double(), bits.double()], dim=2), scored.drawn, [*n, *n], instances, clusters)
    ends = ("", "_low", "_high")
    values = accuracy_and_ri(means, independent(n, instances, clusters), scored.entropy)
    pairs = zip(("n_accuracy", "ri"), values, strict=True)
    return {f"{name}{end}": value for name, triple in pairs for end, value in zip(ends, triple, strict=True)}


def accuracy_and_ri(
    means: Estimate, count: Float64[Tensor, "k"], entropy: float
) -> tuple[tuple[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]:
    """Return n-accuracy and RI, each with the ends of its interval, per n.

    Args:
        means: estimate over right or wrong at every n, then over log2 posteriors of the label at every n.
        count: how many tuples of each length share nothing (`uncertainty.independent`).
        entropy: H(Y) in bits.
    """
    accuracy, bits = means[slice(len(count))], means[slice(len(count), None)]
    mean = torch.where(accuracy.mean > 1 - _ROUNDING, 1.0, accuracy.mean)
    return (mean, *wilson(mean, accuracy.spread, count)), relative_information_ends(bits, count, entropy)


def relative_information_ends(
    bits: Estimate, count: Float64[Tensor, "k"], entropy: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return RI and the ends of its interval, which is one of what is lost of the information, 1 - RI.

    Args:
        bits: estimate over log2 posteriors of the label.
        count: how many tuples of each length share nothing.
        entropy: H(Y) in bits.
    """
    loss = -bits.mean / entropy
    low, high = loss_interval(loss, bits.spread.scaled(entropy), count)
    return 1 - loss, 1 - high, 1 - low
