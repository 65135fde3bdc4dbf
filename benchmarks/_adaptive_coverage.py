"""How often the 95% interval of the gain of adaptive n over fixed n covers it, in populations that are known.

Each repetition draws validation and test images of Gaussian classes, fits temperatures and thresholds on validation,
and summarises test as a run does. The truth of its thresholds is computed on many more tuples: mean score at the stop,
minus the best mix of fixed numbers of instances at the same mean cost.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks._rows import made_row
from sharedlabel.aggregators._pool import pooled
from sharedlabel.config.sections import EvaluationConfig
from sharedlabel.data import gaussian
from sharedlabel.metrics.information import label_entropy
from sharedlabel.scoring import thresholds
from sharedlabel.scoring.data import Data
from sharedlabel.scoring.thresholds import FittedThreshold, Watched, watch
from sharedlabel.summary.adaptive_n import Stopped, hull, summarize
from sharedlabel.types import Role, Tuples

CLASSES, N_MAX = 5, 8
RULE = "threshold"
EVALUATION = EvaluationConfig(n=(1, N_MAX), partitions=10)
_PRIOR = torch.full((CLASSES,), 1 / CLASSES, dtype=torch.float64)
_UNITS = {"n_accuracy": 1.0, "information": label_entropy(_PRIOR.log())}
_NAMES = {"n_accuracy": "n_accuracy_gain", "information": "ri_gain"}
_REFERENCE = 1000 * N_MAX  # images of each class that stand for the population
_EXACT = 1e-9  # sums of the same tuples in another order differ by less


@dataclass(frozen=True)
class Population:
    """Gaussian classes to draw splits from.

    Attributes:
        separation: root mean square distance between two class means.
        each: images of each class in validation, and in test.
    """

    separation: float
    each: int


POPULATIONS = {
    "hard, 45 images a class": Population(3.0, 45),
    "easy, 45 images a class": Population(5.0, 45),
    "easy, 200 images a class": Population(5.0, 200),
}


@dataclass(frozen=True)
class _Drawn:
    """All images of a population, cut into a reference and the splits of repetitions.

    Attributes:
        data: with the reference as `backbone`, and everything else still to be split.
        single: log-posterior of each image.
        order: images of each class in turn, `[c m]`.
    """

    data: Data
    single: Tensor
    order: Tensor


def coverage(repetitions: int, seed: int) -> dict[str, float]:
    """Return how often intervals of the gain hold the truth.

    Args:
        repetitions: splits drawn from each population, at least 1.
        seed: of all draws.

    Returns:
        By population and score: the share of intervals that hold it, over repetitions and thresholds (without those at
        which adaptive n is a fixed n); of those that have no width, though the estimate is wrong; and the median width
        in units of that of an interval by the actual spread.
    """
    values: dict[str, float] = {}
    for name, population in POPULATIONS.items():
        drawn = _draw(population, repetitions, seed)
        points = [_repetition(drawn, population.each, number) for number in range(repetitions)]
        for score, gain in _NAMES.items():
            estimate, low, high, truth = torch.tensor([one[score] for one in points], dtype=torch.float64).unbind(-1)
            actual = 2 * 1.96 * (estimate - truth).square().mean(dim=0).sqrt()
            width, wrong = high - low, (estimate - truth).abs() > _EXACT
            values[f"{name}, {gain}: covered"] = float(
                ((low <= truth + _EXACT) & (truth <= high + _EXACT))[:, actual > _EXACT].double().mean()
            )
            values[f"{name}, {gain}: no width"] = float((wrong & (width < _EXACT)).double().mean())
            values[f"{name}, {gain}: width"] = float((width / actual)[:, actual > _EXACT].median())
    return values


def _draw(population: Population, repetitions: int, seed: int) -> _Drawn:
    each = _REFERENCE + 2 * population.each * repetitions
    config = gaussian.Config(
        classes=CLASSES, dim=4, separation=population.separation, instances_per_class=each, seed=seed
    )
    dataset = gaussian.load(config, Path())
    images = torch.arange(len(dataset.labels))
    single = gaussian.exact_log_posterior(config, dataset, images[:, None], _PRIOR.log())[:, 0]
    empty = images[:0]
    data = Data(dataset, dict.fromkeys(("backbone", "aggregator", "validation", "test"), empty), _PRIOR, "")
    return _Drawn(data, single, images.view(CLASSES, each))


def _split(drawn: _Drawn, first: int, each: int) -> Tensor:
    return drawn.order[:, first : first + each].flatten()


def _repetition(drawn: _Drawn, each: int, number: int) -> dict[str, list[list[float]]]:
    """Return estimate, ends and truth of the gain of each threshold, by score."""
    first = _REFERENCE + 2 * each * number
    splits: dict[Role, Tensor] = {
        "validation": _split(drawn, first, each),
        "test": _split(drawn, first + each, each),
        "backbone": _split(drawn, 0, _REFERENCE),
    }
    data = dataclasses.replace(drawn.data, splits={**drawn.data.splits, **splits})
    tuples_of = {
        role: data.tuples(role, "iid", N_MAX, 1 if role == "backbone" else EVALUATION.partitions, number)
        for role in splits
    }
    posteriors = {role: _pooled(drawn, splits[role], own) for role, own in tuples_of.items()}
    temperatures = thresholds.temperatures({"aggregator": posteriors["validation"]}, tuples_of["validation"])
    seen = {
        role: watch({"aggregator": posteriors[role]}, own, temperatures, (RULE,)) for role, own in tuples_of.items()
    }
    fitted = thresholds.fit(seen["validation"], tuples_of["validation"], (), None)
    evaluation = dataclasses.replace(EVALUATION, seed=number)
    cell = _cell(seen["test"], tuples_of["test"], fitted, thresholds.means(seen["validation"], tuples_of["validation"]))
    points = summarize([cell], data, evaluation)
    truth = _truth(seen["backbone"], fitted)
    return {
        score: [
            [*(getattr(point, gain + end) for end in ("", "_low", "_high")), true / _UNITS[score]]
            for point, true in zip(points, truth[score].tolist(), strict=True)
        ]
        for score, gain in _NAMES.items()
    }


def _pooled(drawn: _Drawn, split: Tensor, own: Tuples) -> Tensor:
    return pooled(drawn.single[split[own.indices.flatten(0, 1)]], _PRIOR.log())


def _cell(
    seen: Watched,
    own: Tuples,
    fitted: list[FittedThreshold],
    validation: Mapping[str, list[float]],
) -> Stopped:
    """Return what the stage `adaptive` would have stored, of a network whose passes are all that costs."""
    shape, stops = own.labels.shape, thresholds.stop(seen, fitted)
    row = made_row(macs_effective=1.0, macs_dense=1)
    tensors = {
        "correct": seen.right.to(torch.uint8),
        "information": seen.information.float(),
        "instances": stops.instances.to(torch.int16),
        "reached": stops.reached,
    }
    nothing = [0] * N_MAX
    return Stopped(
        row,
        {name: tensor.unflatten(0, shape) for name, tensor in tensors.items()},
        {
            "thresholds": [dataclasses.asdict(one) for one in fitted],
            "validation": validation,
            "macs": nothing,
            "anytime_macs": nothing,
        },
    )


def _truth(seen: Watched, fitted: list[FittedThreshold]) -> dict[str, Tensor]:
    """Return the gain of each threshold over the best mix of fixed numbers, on the tuples of the reference."""
    used = thresholds.stop(seen, fitted).instances
    fixed = list(range(1, N_MAX + 1))
    gains = {}
    for name, scores in {"n_accuracy": seen.right.double(), "information": seen.information}.items():
        mean = scores.mean(dim=0).tolist()
        corners = hull([float(size) for size in fixed], mean)
        mixed = np.interp(used.double().mean(dim=0), [fixed[at] for at in corners], [mean[at] for at in corners])
        gains[name] = scores.gather(1, used - 1).mean(dim=0) - torch.from_numpy(mixed)
    return gains
