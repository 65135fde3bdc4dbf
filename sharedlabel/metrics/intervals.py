"""Intervals from a mean and its spread over images and seeds, and the adjustment of p-values."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from sharedlabel.metrics import _checks
from sharedlabel.metrics.behrens_fisher import Spread, quantile

LEVEL = 0.95


def rule_of_three(level: float | Tensor, independent: Float[Tensor, "k"]) -> Float[Tensor, "*shape"]:
    """Bound the share of what was not seen once in so many independent trials: -log(1 - level) / trials.

    Args:
        level: of the bound, in (0, 1).
        independent: trials, more than 0.

    Reference:
        Hanley & Lippman-Hand, "If nothing goes wrong, is everything all right?" (1983).

    >>> rule_of_three(0.95, torch.tensor([100.0], dtype=torch.float64))
    tensor([0.0300], dtype=torch.float64)
    """
    _checks.number("a level", level, 0, 1)
    _checks.positive("a number of trials", independent)
    missed = 1 - torch.as_tensor(level, dtype=torch.float64)
    return -missed.log() / independent


def interval(
    mean: Float[Tensor, "*shape"], spread: Spread, level: float | Tensor = LEVEL
) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
    """Return the ends of a symmetric interval.

    Args:
        mean: estimates.
        spread: their variances over images and seeds.
        level: coverage, in (0, 1).
    """
    half = quantile(level, spread) * spread.se
    return mean - half, mean + half


def loss_interval(
    loss: Float[Tensor, "k"], spread: Spread, independent: Float[Tensor, "k"], level: float = LEVEL
) -> tuple[Float[Tensor, "k"], Float[Tensor, "k"]]:
    """Return the ends of an interval for a mean loss that is never negative and may be close to zero.

    It is symmetric in the logarithm. Where hardly any tuple lost anything, the spread says nothing of losses that were
    not seen: by the rule of three their share is below 3 / `independent` at 95%, and the upper end is at least so much
    above the loss.

    Args:
        loss: mean loss, at least 0, such as 1 - RI: one unit is the loss of all information about a tuple.
        spread: its variances over images and seeds.
        independent: how many disjoint tuples of each length the split holds, N / n.
        level: coverage, in (0, 1).
    """
    _checks.number("a loss", loss, 0)
    positive = loss.clamp(min=torch.finfo(loss.dtype).tiny)
    factor = (quantile(level, spread) * spread.se / positive).clamp(max=700).exp()
    low = torch.where(loss > 0, loss / factor, 0.0)
    return low, torch.maximum(loss * factor, loss + rule_of_three(level, independent))


def _wilson(
    share: Float[Tensor, "k"], count: Float[Tensor, "k"], z: Float[Tensor, "k"]
) -> tuple[Float[Tensor, "k"], Float[Tensor, "k"]]:
    scale = 1 + z.square() / count
    middle = (share + z.square() / (2 * count)) / scale
    half = z / scale * (share * (1 - share) / count + (z / (2 * count)).square()).sqrt()
    return (middle - half).clamp(min=0).minimum(share), (middle + half).clamp(max=1).maximum(share)  # despite rounding


def wilson(
    accuracy: Float[Tensor, "k"], spread: Spread, independent: Float[Tensor, "k"], level: float = LEVEL
) -> tuple[Float[Tensor, "k"], Float[Tensor, "k"]]:
    """Return the ends of Wilson's interval for a share, with the sample size that its standard error stands for.

    The effective size is a (1 - a) / SE^2. Without a single error it says nothing: the number of independent tuples
    stands in. No interval with errors ends above the lower end of one without, nor is it the tighter one near 0.

    Args:
        accuracy: shares in [0, 1].
        spread: their variances over images and seeds.
        independent: how many disjoint tuples of each length the split holds, N / n.
        level: coverage, in (0, 1).

    Reference:
        Wilson, "Probable inference, the law of succession, and statistical inference" (1927).
    """
    _checks.number("shares", accuracy, 0, 1)
    z, variance = quantile(level, spread), spread.se.square()
    effective = accuracy * (1 - accuracy) / variance.where(variance > 0, 1.0)
    low, high = _wilson(accuracy, torch.where((variance > 0) & (effective > 0), effective, independent), z)
    lowest, _ = _wilson(torch.ones_like(accuracy), independent, z)
    _, highest = _wilson(torch.zeros_like(accuracy), independent, z)
    return torch.minimum(low, lowest), torch.maximum(high, highest)


def bonferroni(p_values: Float[Tensor, "*shape"], tests: int | Tensor) -> Float[Tensor, "*shape"]:
    """Adjust p-values for the number of tests in a family; intervals at the level 1 - alpha / tests agree with them.

    Args:
        p_values: each valid alone.
        tests: how many the family has; a tensor that broadcasts, where lines are of several families.

    >>> bonferroni(torch.tensor([0.01, 0.4]), 3)
    tensor([0.0300, 1.0000])
    """
    _checks.number("p-values", p_values, 0, 1)
    _checks.number("a number of tests", tests, 1)
    return (p_values * tests).clamp(max=1)
