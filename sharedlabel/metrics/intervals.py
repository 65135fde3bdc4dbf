"""Intervals, p-values and their adjustment, from a mean and its standard error."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from scipy import special
from torch import Tensor


def _quantile(level: float, degrees_of_freedom: Float[Tensor, "k"]) -> Float[Tensor, "k"]:
    quantiles = special.stdtrit(degrees_of_freedom.cpu().double().numpy(), (1 + level) / 2)
    return torch.as_tensor(np.asarray(quantiles), dtype=torch.float64).to(degrees_of_freedom.device)


def interval(
    mean: Float[Tensor, "k"],
    se: Float[Tensor, "k"],
    degrees_of_freedom: Float[Tensor, "k"],
    level: float = 0.95,
) -> tuple[Float[Tensor, "k"], Float[Tensor, "k"]]:
    """Return the ends of Student's interval.

    Args:
        mean: estimates.
        se: standard errors.
        degrees_of_freedom: of the standard errors; `inf` for the normal interval.
        level: coverage, in (0, 1).
    """
    half = _quantile(level, degrees_of_freedom) * se
    return mean - half, mean + half


def _wilson(
    share: Float[Tensor, "k"], count: Float[Tensor, "k"], z: Float[Tensor, "k"]
) -> tuple[Float[Tensor, "k"], Float[Tensor, "k"]]:
    scale = 1 + z.square() / count
    middle = (share + z.square() / (2 * count)) / scale
    half = z / scale * (share * (1 - share) / count + (z / (2 * count)).square()).sqrt()
    return (middle - half).clamp(min=0).minimum(share), (middle + half).clamp(max=1).maximum(share)  # despite rounding


def wilson(
    accuracy: Float[Tensor, "k"],
    se: Float[Tensor, "k"],
    degrees_of_freedom: Float[Tensor, "k"],
    independent: Float[Tensor, "k"],
    level: float = 0.95,
) -> tuple[Float[Tensor, "k"], Float[Tensor, "k"]]:
    """Return the ends of Wilson's interval for a share, with the sample size that its standard error stands for.

    The effective size is a (1 - a) / SE^2. Without a single error it says nothing: the number of independent tuples
    stands in. No interval with errors ends above the lower end of one without, nor is it the tighter one near 0.

    Args:
        accuracy: shares in [0, 1].
        se: their standard errors.
        degrees_of_freedom: of the standard errors.
        independent: how many disjoint tuples of each length the split holds, N / n.
        level: coverage, in (0, 1).

    Reference:
        Wilson, "Probable inference, the law of succession, and statistical inference" (1927).
    """
    z = _quantile(level, degrees_of_freedom)
    spread = se.square()
    effective = accuracy * (1 - accuracy) / spread.where(spread > 0, 1.0)
    low, high = _wilson(accuracy, torch.where((spread > 0) & (effective > 0), effective, independent), z)
    lowest, _ = _wilson(torch.ones_like(accuracy), independent, z)
    _, highest = _wilson(torch.zeros_like(accuracy), independent, z)
    return torch.minimum(low, lowest), torch.maximum(high, highest)


def two_sided(
    mean: Float[Tensor, "k"], se: Float[Tensor, "k"], degrees_of_freedom: Float[Tensor, "k"]
) -> Float[Tensor, "k"]:
    """Return the two-sided p-value of a zero mean; 1 where neither mean nor standard error differs from 0."""
    ratio = torch.where(mean == 0, 0.0, mean.abs() / se)
    tail = special.stdtr(degrees_of_freedom.cpu().double().numpy(), -ratio.cpu().double().numpy())
    return 2 * torch.as_tensor(np.asarray(tail), dtype=torch.float64).to(mean.device)


def holm(p_values: Float[Tensor, "m"]) -> Float[Tensor, "m"]:
    """Adjust p-values for the number of comparisons.

    Args:
        p_values: of all comparisons in the family.

    Reference:
        Holm, "A simple sequentially rejective multiple test procedure" (1979).

    >>> holm(torch.tensor([0.01, 0.04, 0.03], dtype=torch.float64))
    tensor([0.0300, 0.0600, 0.0600], dtype=torch.float64)
    """
    order = p_values.argsort(stable=True)
    steps = torch.arange(len(p_values), 0, -1, dtype=torch.float64, device=p_values.device)
    adjusted = (p_values.double()[order] * steps).clamp(max=1).cummax(dim=0).values
    return torch.empty_like(adjusted).scatter_(0, order, adjusted)
