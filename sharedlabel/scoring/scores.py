"""From an aggregator and tuples to scores: one pass serves every n."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import pkgutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float, Float32, Float64, Int16, Int64, UInt8
from torch import Tensor, nn

from sharedlabel import metrics, records
from sharedlabel.aggregators._base import Aggregator, Standardize
from sharedlabel.errors import DataError, TrainingError
from sharedlabel.metrics._ragged import Shelf, cut, joined, shelves
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
        tuples: per prefix length, how many tuples of a partition reach it.
    """

    correct: UInt8[Tensor, "p t k"]
    predicted: Int16[Tensor, "p t k"]
    information: Float32[Tensor, "p t k"]
    temperature: Float64[Tensor, "k"]
    metrics: list[dict[str, float]]
    reliability: list[dict[str, Any]]
    tuples: list[int]


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
        drawn: tuples of at least `max(n)` instances, or ragged ones.
        n: prefix lengths.
        device: that computes; the posterior is on the CPU.

    Returns:
        Of a ragged tuple, the posterior at an n that it does not reach is that at the last one that it reaches.

    Raises:
        DataError: prefixes that the tuples do not have, or features of another width than the aggregator was built for.
        TrainingError: the aggregator returned NaN or Inf.
    """
    _check_sources(aggregator, sources, drawn, n)
    there = aggregator if device == _CPU else copy.deepcopy(aggregator).to(device)
    with torch.inference_mode():
        embeddings, logits = (source.to(device) for source in sources)

        def ask(rows: Tensor, sizes: Sequence[int]) -> Tensor:
            return there.over(embeddings, logits, rows.to(device), sizes).cpu()

        log_posterior = _held(drawn, n, ask)
    if not torch.isfinite(log_posterior).all():
        raise TrainingError(
            f"expected finite posteriors, got NaN or Inf from {type(aggregator).__name__}; lower fit.learning_rate"
        )
    return log_posterior


def _held(
    drawn: Tuples, n: Sequence[int], ask: Callable[[Int64[Tensor, "t m"], Sequence[int]], Tensor]
) -> Float[Tensor, "pt k c"]:
    """Return posteriors of tuples after each n; of ragged ones those of similar lengths are asked for together.

    Args:
        drawn: tuples.
        n: prefix lengths.
        ask: returns the posteriors of tuples after some prefixes.
    """
    if drawn.lengths is None:
        return ask(drawn.indices.flatten(0, 1), n)
    every, ascending = [], sorted(n)
    for some, lengths in _alike(drawn.indices, drawn.lengths):
        asked = [size for size in ascending if size <= some.shape[2]] or ascending[:1]
        width = max(asked[-1], some.shape[2])
        rows = nn.functional.pad(some, (0, width - some.shape[2]))
        posterior = ask(rows.flatten(0, 1), asked).unflatten(0, some.shape[:2])  # [p t j c]
        reached = (torch.tensor(asked) <= lengths[:, None]).sum(1).clamp(min=1) - 1  # the last one of each tuple
        columns = torch.tensor([asked.index(size) if size in asked else len(asked) - 1 for size in n])
        index = torch.minimum(columns, reached[:, None])[None, :, :, None]
        every.append(posterior.gather(2, index.expand(len(posterior), -1, -1, posterior.shape[3])))
    return torch.cat(every, dim=1).flatten(0, 1)


def _alike(
    indices: Int64[Tensor, "p t n"], lengths: Int64[Tensor, "t"]
) -> Iterator[tuple[Int64[Tensor, "p s m"], Int64[Tensor, "s"]]]:
    """Yield ragged tuples in parts whose longest has less than twice the instances of the shortest, cut to its size."""
    first = 0
    while first < len(lengths):
        longest = int(lengths[first])
        last = int((2 * lengths > longest).sum())
        yield indices[:, first:last, :longest], lengths[first:last]
        first = last


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

    Of ragged tuples, those that reach an n count there.

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
    labels, entropy, of_tuples = drawn.labels.flatten(), label_entropy(prior.log()), drawn.labels.shape
    right = correct(posterior, labels).unflatten(0, of_tuples)
    bits = log2_posterior_of_label(calibrated, labels).unflatten(0, of_tuples)
    columns = {"temperature": temperature, **_intervals(right, bits, drawn, entropy, n, instances, clusters)}
    parts: list[tuple[Shelf, dict[str, Tensor]]] = []
    diagrams: list[dict[str, Any]] = []
    for shelf in shelves(drawn, n):
        of_shelf = [cut(one.unflatten(0, of_tuples), shelf, 1).flatten(0, 1) for one in (posterior, raw, calibrated)]
        scored = Scored(of_shelf[0], of_shelf[1], of_shelf[2], shelf.drawn, prior, entropy)
        parts.append((shelf, _columns(scored)))
        diagrams += _diagrams(scored, [n[at] for at in shelf.columns.tolist()])
    columns |= {name: joined([(shelf, values[name]) for shelf, values in parts]) for name in parts[0][1]}
    rows = [{name: float(values[index]) for name, values in columns.items()} for index in range(len(n))]
    predicted = posterior.argmax(2).to(torch.int16).unflatten(0, of_tuples)
    diagrams.sort(key=lambda one: not one["calibrated"])
    reached = [drawn.reaching(size).labels.shape[1] for size in n]
    return Scores(right.to(torch.uint8), predicted, bits.float(), temperature, rows, diagrams, reached)


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


def _intervals(
    right: Tensor,
    bits: Tensor,
    drawn: Tuples,
    entropy: float,
    n: Sequence[int],
    instances: int,
    clusters: Tensor | None,
) -> dict[str, Float64[Tensor, "k"]]:
    """Return n-accuracy and RI with their intervals over images (or groups)."""
    means = estimate(torch.cat([right.double(), bits.double()], dim=2), drawn, [*n, *n], instances, clusters)
    ends = ("", "_low", "_high")
    values = accuracy_and_ri(means, independent(n, instances, clusters, drawn), entropy)
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
