"""When to stop looking at further instances of a tuple: confidences, stopping times, thresholds.

A rule watches a confidence in [0, 1] after every instance and stops where it first reaches a threshold. Who never gets
there has looked at all n instances: the tuple is truncated, its decision is forced.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from sharedlabel.errors import DataError
from sharedlabel.metrics import _checks
from sharedlabel.metrics._weights import normalized

NEVER = 1.0  # no floored posterior reaches it
_CANDIDATES = 500


class Stops(NamedTuple):
    """When tuples stop under each threshold.

    Attributes:
        instances: instances looked at, from 1 to n.
        reached: whether the threshold was reached; if not, the tuple is truncated.
    """

    instances: Int64[Tensor, "t m"]
    reached: Bool[Tensor, "t m"]


class Rates(NamedTuple):
    """What each threshold leads to.

    Attributes:
        error: share of wrong decisions among the tuples that reached the threshold; NaN where none did.
        instances: mean number of instances looked at.
        truncated: share of the tuples that never reached the threshold.
    """

    error: Float[Tensor, "m"]
    instances: Float[Tensor, "m"]
    truncated: Float[Tensor, "m"]


def largest(log_posterior: Float[Tensor, "t n c"]) -> Float[Tensor, "t n"]:
    """Return the largest posterior probability, in float64.

    Args:
        log_posterior: normalised, natural log; floor it first (`floor_posterior`).
    """
    top: Tensor = _checked(log_posterior).amax(dim=2)
    return top.exp()


def margin(log_posterior: Float[Tensor, "t n c"]) -> Float[Tensor, "t n"]:
    """Return the difference of the two largest posterior probabilities, in float64.

    Args:
        log_posterior: normalised, natural log; floor it first (`floor_posterior`).

    Reference:
        Scheffer, Decomain & Wrobel, "Active hidden Markov models for information extraction" (2001).
    """
    checked = _checked(log_posterior)
    _checks.number("a number of labels", checked.shape[2], 2)
    first, second = checked.topk(2, dim=2).values.exp().unbind(2)
    gap: Tensor = first - second
    return gap


def _checked(log_posterior: Tensor) -> Tensor:
    _checks.posterior(log_posterior, normalised=True)
    return log_posterior.double()


def stops(confidence: Float[Tensor, "t n"], thresholds: Float[Tensor, "m"]) -> Stops:
    """Stop each tuple at the first instance whose confidence is at least the threshold, else at the last.

    Args:
        confidence: after every instance.
        thresholds: 0 stops at the first instance.

    >>> stopped = stops(torch.tensor([[0.4, 0.9, 0.7]]), torch.tensor([0.4, 0.8, 0.95]))
    >>> stopped.instances, stopped.reached
    (tensor([[1, 2, 3]]), tensor([[ True,  True, False]]))
    """
    _check_confidence(confidence)
    _checks.array("thresholds", thresholds, "m")
    risen = confidence.cummax(dim=1).values.contiguous()
    wanted = thresholds.to(risen.dtype).expand(len(risen), -1).contiguous()
    below = torch.searchsorted(risen, wanted)  # instances whose running maximum is below the threshold
    length = confidence.shape[1]
    return Stops((below + 1).clamp(max=length), below < length)


def _check_confidence(confidence: Tensor) -> None:
    _checks.array("confidences", confidence, "t n", 0, 1 + _checks.CLOSE)


def rates(stopped: Stops, right: Bool[Tensor, "t n"], weights: Float[Tensor, "t"] | None = None) -> Rates:
    """Return error, mean number of instances and share truncated of each threshold.

    Args:
        stopped: when tuples stop.
        right: whether the decision after every instance is right.
        weights: weight of each tuple; equal if None.
    """
    if right.dtype != torch.bool or right.ndim != 2 or len(right) != len(stopped.instances):
        kind, wanted = str(right.dtype).removeprefix("torch."), len(stopped.instances)
        raise DataError(f"expected bool [{wanted}, n] of what is right, got {kind} {list(right.shape)}; use `correct`")
    mass = normalized(stopped.instances[:, 0], weights)
    wrong = mass @ (stopped.reached & ~right.gather(1, stopped.instances - 1)).double()
    further = mass @ (stopped.instances - 1).double()
    return Rates(wrong / (mass @ stopped.reached.double()), 1 + further, mass @ (~stopped.reached).double())


def candidates(confidence: Float[Tensor, "t n"]) -> Float[Tensor, "m"]:
    """Return thresholds to choose from, ascending: 0, points between what running maxima take on, and `NEVER`.

    A program of another runtime rounds differently. So no threshold lies at a value that was seen: of every run of
    neighbouring values it is the middle of the widest gap, and there is none where all gaps are within rounding.
    """
    _check_confidence(confidence)
    values = confidence.double().cummax(dim=1).values.flatten().sort().values
    width = (values.diff() / _rounding(values[1:])).split(max(len(values) // _CANDIDATES, 1))
    starts = torch.tensor([0, *(len(run) for run in width[:-1])]).cumsum(0)
    widest = torch.stack([run.max(dim=0).indices for run in width]) + starts if len(values) > 1 else starts[:0]
    lower = widest[torch.cat(width)[widest] > 1]
    ends = values.new_tensor([0.0, NEVER])
    thresholds: Tensor = torch.cat([(values[lower] + values[lower + 1]) / 2, ends]).unique()
    return thresholds


def _rounding(confidence: Float[Tensor, "m"]) -> Float[Tensor, "m"]:
    """Return how far two confidences must lie apart to come out in the same order from any program in float32.

    Rounding moves what a posterior is computed from, log-probabilities: little where it is near 1.
    """
    return 1e-6 + 1e-4 * (1 - confidence)


def for_error(measured: Rates, error: float, units: Float[Tensor, "m"]) -> int | None:
    """Choose the lowest threshold whose error is at most the nominal one; None where there is none.

    One more wrong decision than was seen is counted, or few decisions without an error would promise any error: with m
    decisions, (m * error + 1) / (m + 1). That is conformal risk control of the loss "wrong, less the nominal error if
    decided" over exchangeable units, where m is their number times the share of the tuples that reach the threshold.
    Units are disjoint tuples: images divided by the mean number of instances. Where tuples were cut inside groups,
    whose tuples err together, units are the groups: with G of them no error below 1 / (G + 1) can be promised.

    Args:
        measured: rates of ascending thresholds, on validation.
        error: nominal share of wrong decisions among those that reach the threshold, in (0, 1).
        units: how many exchangeable units were seen, for each threshold.

    Returns:
        Position of the threshold.

    Raises:
        DataError: an error outside (0, 1).

    Reference:
        Angelopoulos et al., "Conformal Risk Control" (2022).
    """
    if not 0 < error < 1:
        raise DataError(f"expected a nominal error in (0, 1), got {error:g}; 0.02 lets 2% of the decisions be wrong")
    decisions = units * (1 - measured.truncated)
    careful = (decisions * measured.error.nan_to_num(1.0) + 1) / (decisions + 1)
    kept = (careful <= error).nonzero()
    return int(kept[0, 0]) if len(kept) else None


def for_instances(measured: Rates, instances: float) -> int:
    """Choose the highest threshold whose mean number of instances is at most the given one.

    Args:
        measured: rates of ascending thresholds that begin with 0, on validation.
        instances: mean number of instances, at least 1.

    Returns:
        Position of the threshold.
    """
    _checks.number("a mean number of instances", instances, 1)
    return int((measured.instances <= instances + 1e-9).nonzero()[-1, 0])
