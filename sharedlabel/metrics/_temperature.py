"""The search behind `calibration.fit_temperature`: a penalised likelihood of all tuple sizes together.

Unknown is theta = -log(T / s) for some sizes, s being the mean distance of the largest log-posterior from the mean one:
whatever multiplies all log-posteriors multiplies s, and T with it. The penalty is that of a Gaussian process over
x = log n with covariance LEVEL^2 + SLOPE^2 x x' + WALK^2 min(x, x'), around the level that the smallest size asks for
when one more tuple, of unknown label, is added to what was seen. So T exists where every answer was right, and sizes
with little evidence follow those with much.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor

# Standard deviations of log T a priori: around the level, per unit of log n steadily, and per unit of log n at random.
# Chosen in simulations with exact posteriors, right or scaled by powers of n (docs/metrics.md, "Temperatures").
LEVEL, SLOPE, WALK = 1.0, 0.5, 0.3
_FURTHEST = 7.0  # of the level from the scale of the log-posteriors: a factor of 1100
_STEPS, _CONVERGED = 200, 1e-10


class Evidence(NamedTuple):
    """What tuples say about temperatures.

    Attributes:
        scores: log-posteriors, 0 at their largest, in units of their scale; soonest where memory has classes first.
        target: mean score of the label.
        mass: weight of each tuple, all together 1; a column for all sizes where all tuples have them all.
        worth: how many independent tuples the evidence on each size is worth.
    """

    scores: Float64[Tensor, "t k c"]
    target: Float64[Tensor, "k"]
    mass: Float64[Tensor, "t #k"]
    worth: Float64[Tensor, "k"]


class _Likelihood(NamedTuple):
    """Of the negative log-likelihood of each size in nats: its slope, the derivative by theta, and a curvature.

    The second derivative is a variance plus the slope; the curvature is the variance plus the slope where that is
    positive. So it is never too small, and steps do not go too far.
    """

    slope: Float64[Tensor, "k"]
    curvature: Float64[Tensor, "k"]


def anchors(sizes: Sequence[int]) -> list[int]:
    """Return the tuple sizes that a temperature is searched for: 1, 2, 4, ... as far as given, and both ends.

    Temperatures of a size therefore do not depend on which others are asked for between.

    >>> anchors([1, 2, 3, 4, 5, 6])
    [1, 2, 4, 6]
    """
    ends = {min(sizes), max(sizes)}
    return [size for size in sorted(sizes) if size in ends or size & (size - 1) == 0]


def separate(sizes: Float64[Tensor, "k"]) -> Float64[Tensor, "k"]:
    """Return how much each of ascending sizes adds to the evidence of the one below: all of it from a doubling on.

    Tuples of similar sizes hold the same images and err together.
    """
    doublings = torch.log2(sizes).diff().clamp(max=1)
    return torch.cat([torch.ones_like(sizes[:1]), doublings])


def search(evidence: Evidence, sizes: Float64[Tensor, "k"]) -> Float64[Tensor, "k"]:
    """Return theta of each of ascending sizes, by Newton steps of 1 at most.

    Args:
        evidence: on tuples of validation.
        sizes: of the tuples, n.
    """
    center = _center(evidence)
    precision = _precision(sizes)
    theta = center.expand(len(sizes))
    for _ in range(_STEPS):
        likelihood = _likelihood(evidence, theta)
        slope = evidence.worth * likelihood.slope + precision @ (theta - center)
        curvature = torch.diag(evidence.worth * likelihood.curvature) + precision
        step = torch.linalg.solve(curvature, slope)
        theta = theta - step / step.abs().max().clamp(min=1)
        if float(step.abs().max()) < _CONVERGED:
            break
    return theta


def _precision(sizes: Tensor) -> Float64[Tensor, "k k"]:
    x = (sizes / sizes[0]).log()
    covariance = LEVEL**2 + SLOPE**2 * torch.outer(x, x) + WALK**2 * torch.minimum(x[:, None], x)
    precision: Tensor = torch.linalg.inv(covariance)
    return precision


def _center(evidence: Evidence) -> Float64[Tensor, "1"]:
    """Return what the smallest size asks for when one tuple of unknown label is added.

    It is finite where all answers are right. Where no temperature helps, the steps end at nearly uniform posteriors.
    """
    first = evidence._replace(scores=evidence.scores[:, :1], mass=evidence.mass[:, :1])
    unknown = mean(first.scores.mean(dim=2), first.mass)
    worth = evidence.worth[:1]
    first = first._replace(target=(worth * evidence.target[:1] + unknown) / (worth + 1))
    theta = torch.zeros_like(unknown)
    for _ in range(_STEPS):
        likelihood = _likelihood(first, theta)
        step = (likelihood.slope / likelihood.curvature.clamp(min=1e-12)).clamp(-1, 1)
        theta = (theta - step).clamp(-_FURTHEST, _FURTHEST)
        if float(step.abs()) < _CONVERGED:
            break
    return theta


def _likelihood(evidence: Evidence, theta: Float64[Tensor, "k"]) -> _Likelihood:
    inverse = theta.exp()
    odds = (evidence.scores * inverse[:, None]).exp()  # of each label to the most probable one
    total = odds.sum(dim=2)
    expected = (odds * evidence.scores).sum(dim=2) / total
    spread = (odds * (evidence.scores - expected[..., None]).square()).sum(dim=2) / total
    slope = inverse * (mean(expected, evidence.mass) - evidence.target)
    curvature = inverse.square() * mean(spread, evidence.mass) + slope.clamp(min=0)
    return _Likelihood(slope, curvature)


def mean(values: Float64[Tensor, "t k"], mass: Float64[Tensor, "t #k"]) -> Float64[Tensor, "k"]:
    """Return the mean over tuples of each size."""
    return mass[:, 0] @ values if mass.shape[1] == 1 else (mass * values).sum(dim=0)
