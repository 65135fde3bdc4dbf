"""Adaptive n over seeds: accuracy, RI, cost and error of every threshold, and the gain over fixed n."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from sharedlabel.config.sections import EvaluationConfig
from sharedlabel.metrics import cost
from sharedlabel.metrics.information import label_entropy
from sharedlabel.metrics.intervals import interval, wilson
from sharedlabel.metrics.uncertainty import Estimate, independent, seed_average
from sharedlabel.records import AdaptivePoint, Identity, Row
from sharedlabel.scoring.data import Data, clusters
from sharedlabel.scoring.scores import accuracy_and_ri
from sharedlabel.summary.seeds import drawn_again
from sharedlabel.types import Tuples

VERSION = 2
_COLUMNS = 6  # right, bits, instances, error, and the gains in the first two
_ROUNDING = 1e-9  # weights sum to 1 but for rounding
Key: TypeAlias = tuple[str, str, float]  # rule, aim and value of a threshold
Ends: TypeAlias = tuple[Tensor, Tensor, Tensor]  # estimate, lower and upper end of its interval


@dataclass(frozen=True)
class Stopped:
    """A finished cell: one of its rows, and the output of its stage `adaptive`."""

    row: Row
    tensors: Mapping[str, Tensor]
    meta: Mapping[str, Any]

    @property
    def thresholds(self) -> dict[Key, dict[str, Any]]:
        """Fitted thresholds by rule, aim and value, in the order of the columns of the tensors."""
        return {(one["rule"], one["aim"], one["value"]): one for one in self.meta["thresholds"]}


class _Seed(NamedTuple):
    """What one seed's thresholds gave on test; `m` thresholds."""

    scores: Float64[Tensor, "p t 6*m"]
    lengths: Float64[Tensor, "2 m"]
    missed: Float64[Tensor, "2*m"]
    decided: Float64[Tensor, "m"]
    truncated: Float64[Tensor, "m"]
    spent: Float64[Tensor, "m"]


def summarize(cells: Iterable[Stopped], data: Data, evaluation: EvaluationConfig) -> list[AdaptivePoint]:
    """Summarise finished cells: each method with its seeds, at the thresholds that could be fitted for all of them.

    Args:
        cells: finished, of one grid.
        data: the splits that the tuples index.
        evaluation: how the tuples were drawn.
    """
    methods: dict[Identity, list[Stopped]] = {}
    for cell in cells:
        methods.setdefault(Identity.of(cell.row), []).append(cell)
    drawn = {
        protocol: drawn_again(data, "test", protocol, evaluation)
        for protocol in {cell[0].row.protocol for cell in methods.values()}
    }
    entropy, points = label_entropy(data.prior.log()), []
    for seeds in methods.values():
        protocol = seeds[0].row.protocol
        images = len(data.splits["test"]), clusters(data, "test", protocol, drawn[protocol])
        points += _points(seeds, drawn[protocol], *images, entropy)
    return points


def _points(
    seeds: Sequence[Stopped], drawn: Tuples, instances: int, groups: Tensor | None, entropy: float
) -> list[AdaptivePoint]:
    """Summarise the thresholds of a method; a ragged tuple counts everywhere, with its last instance where it ends."""
    common = [key for key in seeds[0].thresholds if all(key in other.thresholds for other in seeds)]
    n_max, lengths_of = drawn.indices.shape[2], drawn.lengths
    drawn = dataclasses.replace(drawn, lengths=None)
    scored = [_score(seed, drawn, lengths_of, [list(seed.thresholds).index(key) for key in common]) for seed in seeds]
    scores = torch.stack([seed.scores for seed in scored])
    lengths, missed, decided, truncated, spent = (
        torch.stack(each).mean(0) for each in list(zip(*scored, strict=True))[1:]
    )
    looked_at, compared = (lengths - _ROUNDING).ceil().long().tolist()
    estimate = seed_average(scores, drawn, looked_at * (_COLUMNS - 2) + compared * 2, instances, groups)
    count = independent(looked_at, instances, groups)
    unseen = _unseen(scores, estimate, independent(compared * 2, instances, groups), entropy)
    columns = _intervals(_unsure(estimate, missed, unseen), n_max, count, entropy, decided)
    columns |= {"cost_dense_passes": spent, "truncated": truncated, "decided": decided}
    return [
        _point(seeds, key, n_max, {name: float(values[at]) for name, values in columns.items()})
        for at, key in enumerate(common)
    ]


def _point(seeds: Sequence[Stopped], key: Key, n_max: int, measured: dict[str, float]) -> AdaptivePoint:
    fitted = [seed.thresholds[key] for seed in seeds]
    errors = [one["error"] for one in fitted if one["error"] is not None]
    facts: dict[str, Any] = {"data": seeds[0].row.data, **Identity.of(seeds[0].row)._asdict()}
    facts |= dict(zip(("rule", "aim", "value"), key, strict=True)) | measured
    if not facts.pop("decided"):
        facts |= dict.fromkeys(("error", "error_low", "error_high"))
    return AdaptivePoint(
        **facts,
        n_max=n_max,
        seeds=len(seeds),
        threshold=fmean(one["threshold"] for one in fitted),
        validation_error=fmean(errors) if errors else None,
        validation_instances=fmean(one["instances"] for one in fitted),
    )


def _score(seed: Stopped, drawn: Tuples, lengths: Tensor | None, at: Sequence[int]) -> _Seed:
    """Score the stops of some thresholds of one seed; means of scores are estimates, their spread is that of these."""
    mass = drawn.weights.double() / drawn.weights.double().sum()
    instances, reached = seed.tensors["instances"][:, :, at].long(), seed.tensors["reached"][:, :, at].double()
    everywhere = [seed.tensors[name].double() for name in ("correct", "information")]
    stopped = [scores.gather(2, instances - 1) for scores in everywhere]
    fixed, anytime = costs(seed)
    if lengths is not None:  # a fixed number of instances is as many as there are
        looked_at = torch.minimum(lengths[:, None], torch.arange(1, len(fixed) + 1))
        fixed = mass.sum(0) @ fixed[looked_at - 1]
    spent = anytime[instances - 1]
    cost_of, used = (torch.einsum("pt,ptm->m", mass, each.double()) for each in (spent, instances))
    gains, missed = [], []
    for own, scores, name in zip(stopped, everywhere, ("n_accuracy", "information"), strict=True):
        validation = torch.tensor(seed.meta["validation"][name], dtype=torch.float64)
        gains.append(gain(own, scores, spent, fixed, validation, mass))
        means = torch.einsum("pt,ptn->n", mass, scores)
        best, chosen = (mixed(cost_of, fixed, means, knots(fixed, curve)) for curve in (means, validation))
        missed.append(best - chosen)
    error = ratio((1 - stopped[0]) * reached, reached, mass)
    afforded = torch.searchsorted(fixed, cost_of - _ROUNDING).clamp(max=len(fixed) - 1) + 1.0
    reach = torch.einsum("pt,ptm->m", mass, reached)
    return _Seed(
        scores=torch.cat([*stopped, instances.double(), error, *gains], dim=2),
        lengths=torch.stack([used, torch.maximum(used, afforded)]),
        missed=torch.cat(missed),
        decided=reach,
        truncated=torch.einsum("pt,ptm->m", mass, 1 - reached),
        spent=cost_of,
    )


def costs(seed: Stopped) -> tuple[Float64[Tensor, "n"], Float64[Tensor, "n"]]:
    """Return the cost of n instances in dense passes: of a fixed n, and of a stop there, which asks after each one."""
    sizes, row = np.arange(1, len(seed.meta["macs"]) + 1, dtype=np.float64), seed.row
    fixed, anytime = (
        cost.dense_passes(cost.cost(sizes, row.macs_effective, np.asarray(seed.meta[name])), row.macs_dense)
        for name in ("macs", "anytime_macs")
    )
    return torch.as_tensor(fixed), torch.as_tensor(anytime)


def ratio(
    part: Float64[Tensor, "p t m"], whole: Float64[Tensor, "p t m"], mass: Float64[Tensor, "p t"]
) -> Float64[Tensor, "p t m"]:
    """Return scores whose mean is mean(part) / mean(whole), and whose spread is that of the ratio to first order.

    Args:
        part: score of each tuple.
        whole: likewise; the ratio is 0 where its mean is.
        mass: weight of each tuple, all together 1.
    """
    top, bottom = (torch.einsum("pt,ptm->m", mass, scores) for scores in (part, whole))
    bottom = bottom.where(bottom > 0, 1.0)
    return top / bottom + (part - top / bottom * whole) / bottom


def gain(
    stopped: Float64[Tensor, "p t m"],
    everywhere: Float64[Tensor, "p t n"],
    spent: Float64[Tensor, "p t m"],
    fixed: Float64[Tensor, "n"],
    validation: Float64[Tensor, "n"],
    mass: Float64[Tensor, "p t"],
) -> Float64[Tensor, "p t m"]:
    """Return scores whose mean is the gain over fixed numbers of instances at equal mean cost, paired by tuple.

    Without a rule, any cost between those of two fixed numbers is had by taking one of them at random. The numbers to
    mix are the corners of the concave hull of (cost, score) on validation; the probability is the one that gives the
    mean cost on test. That cost is uncertain itself, which the spread of the scores includes to first order.

    Args:
        stopped: score at the stop of each threshold.
        everywhere: score after every instance.
        spent: cost at the stop of each threshold.
        fixed: cost of each fixed number of instances.
        validation: mean score of each fixed number on validation.
        mass: weight of each tuple, all together 1.
    """
    mean = torch.einsum("pt,ptm->m", mass, spent)
    low, high, share = _mix(mean, fixed, knots(fixed, validation))
    width = fixed[high] - fixed[low]
    step = everywhere[:, :, high] - everywhere[:, :, low]
    inside = (share > 0) & (share < 1)
    slope = torch.where(inside, torch.einsum("pt,ptm->m", mass, step) / width.where(width > 0, 1.0), 0.0)
    return stopped - everywhere[:, :, low] - share.clamp(0, 1) * step - slope * (spent - mean)


def mixed(
    spent: Float64[Tensor, "m"], fixed: Float64[Tensor, "n"], scores: Float64[Tensor, "n"], corners: Int64[Tensor, "k"]
) -> Float64[Tensor, "m"]:
    """Return the mean score of mixes of two fixed numbers of instances.

    Args:
        spent: mean cost of each mix.
        fixed: cost of each fixed number.
        scores: its mean score.
        corners: the numbers to mix, by position.
    """
    low, high, share = _mix(spent, fixed, corners)
    return scores[low] + share.clamp(0, 1) * (scores[high] - scores[low])


def _mix(
    spent: Float64[Tensor, "m"], fixed: Float64[Tensor, "n"], corners: Int64[Tensor, "k"]
) -> tuple[Int64[Tensor, "m"], Int64[Tensor, "m"], Float64[Tensor, "m"]]:
    """Return the two fixed numbers whose mix costs this much, by position, and the share of the dearer one."""
    after = torch.searchsorted(fixed[corners].contiguous(), spent).clamp(1, len(corners) - 1)
    low, high = corners[after - 1], corners[after]
    width = fixed[high] - fixed[low]
    return low, high, torch.where(width > 0, (spent - fixed[low]) / width.where(width > 0, 1.0), 0.0)


def knots(fixed: Float64[Tensor, "n"], scores: Float64[Tensor, "n"]) -> Int64[Tensor, "k"]:
    """Return the fixed numbers of instances to mix, by position; two at least, which may be the same."""
    corners = hull(fixed.tolist(), scores.tolist())
    return torch.tensor([corners[0], *corners] if len(corners) == 1 else corners)


def hull(costs: Sequence[float], scores: Sequence[float]) -> list[int]:
    """Return the corners of the smallest concave rising function above points, by position.

    Args:
        costs: ascending.
        scores: of each.

    >>> hull([1.0, 2.0, 3.0, 4.0], [0.5, 0.5, 0.9, 0.8])
    [0, 2]
    """
    best = max(range(len(scores)), key=lambda at: (scores[at], -at))
    corners: list[int] = []
    for at in range(best + 1):
        while len(corners) > 1 and _slope(costs, scores, corners[-2], corners[-1]) <= _slope(
            costs, scores, corners[-1], at
        ):
            corners.pop()
        corners.append(at)
    return corners


def _slope(costs: Sequence[float], scores: Sequence[float], first: int, second: int) -> float:
    return (scores[second] - scores[first]) / (costs[second] - costs[first])


def _unseen(
    scores: Float64[Tensor, "s p t k"], estimate: Estimate, count: Float64[Tensor, "u"], entropy: float
) -> Float64[Tensor, "u"]:
    """Return what one more tuple like the most unusual one seen would change the gains by.

    Where nearly every tuple gains nothing, the few that do say little of those that were not seen. Where all gain the
    same, one that gains or loses a whole label is taken.

    Args:
        scores: of every seed and tuple, the gains last.
        estimate: their means.
        count: tuples that share nothing, of each gain: of n-accuracy, then of information.
        entropy: of labels, in bits.
    """
    gains = slice(len(estimate.mean) - len(count), None)
    most = (scores[..., gains].mean(dim=0) - estimate.mean[gains]).abs().amax(dim=(0, 1))
    label = torch.tensor([1.0, entropy], dtype=most.dtype).repeat_interleave(len(count) // 2)
    return most.where(most > _ROUNDING, label) / count


def _unsure(estimate: Estimate, missed: Float[Tensor, "u"], unseen: Float[Tensor, "u"]) -> Estimate:
    """Add to the standard error of the gains what the choice of the numbers to mix, and unseen tuples, may be worth.

    Validation chose the numbers. Test would choose others, whose mix it scores higher: by more than they deserve, so
    the difference is an upper bound, up to chance.
    """
    extra = torch.cat([torch.zeros(len(estimate.mean) - len(missed), dtype=missed.dtype), missed.square()])
    extra[len(estimate.mean) - len(unseen) :] += unseen.square()
    spread = dataclasses.replace(estimate.spread, of_images=estimate.spread.of_images + extra)
    return dataclasses.replace(estimate, spread=spread)


def _intervals(
    estimate: Estimate, n_max: int, count: Float64[Tensor, "m"], entropy: float, decided: Float[Tensor, "m"]
) -> dict[str, Tensor]:
    size = len(estimate.mean) // _COLUMNS
    parts = [estimate[slice(at * size, (at + 1) * size)] for at in range(_COLUMNS)]
    accuracy, ri = accuracy_and_ri(estimate[slice(2 * size)], count, entropy)
    share = 1 - parts[3].mean.clamp(0, 1)
    low, high = wilson(share, parts[3].spread, (count * decided).clamp(min=1))
    named: dict[str, Ends] = {
        "n_accuracy": accuracy,
        "ri": ri,
        "instances": _bounded(parts[2], n_max),
        "error": (1 - share, 1 - high, 1 - low),
        "n_accuracy_gain": _student(parts[4], 1.0),
        "ri_gain": _student(parts[5], entropy),
    }
    return {
        f"{name}{end}": v for name, ends in named.items() for end, v in zip(("", "_low", "_high"), ends, strict=True)
    }


def _student(estimate: Estimate, unit: float) -> Ends:
    low, high = interval(estimate.mean, estimate.spread)
    return estimate.mean / unit, low / unit, high / unit


def _bounded(estimate: Estimate, n_max: int) -> Ends:
    mean, low, high = (ends.clamp(1, n_max) for ends in _student(estimate, 1.0))
    return mean, low, high
