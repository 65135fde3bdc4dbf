"""Moderated variances over seeds: what few seeds cannot tell is borrowed from the other comparisons.

A variance from two or four degrees of freedom says little. Those of all comparisons of a table are drawn towards a
common trend, log V = comparison + network, as far as they scatter less around it than chance alone would let them:

    V~ = (d0 V0 + k V) / (d0 + k) with d0 + k degrees of freedom.

d0 comes from the scatter, by moments, and is capped at 3, since networks share their seeds, so that the trend rests on
fewer independent variances than it seems. `python -m benchmarks.error_rates` confirms the cap on simulations.

Reference:
    Smyth, "Linear models and empirical Bayes methods for assessing differential expression in microarray experiments"
    (2004); the trend over two ways and the cap are ours.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from sharedlabel.metrics import _checks

CAP = 3.0
_SMALLEST = 1e-5  # of the median: a variance of zero would have no logarithm


def moderate(
    variances: Float[Tensor, "pairs places k"], freedom: int, cap: float = CAP
) -> tuple[Float[Tensor, "pairs places k"], Float[Tensor, "k"]]:
    """Draw variances over seeds towards their trend, each column by itself.

    Args:
        variances: of every comparison on every network; with one network the trend is their mean.
        freedom: degrees of freedom of each, k: seeds - 1.
        cap: largest d0.

    Returns:
        The moderated variances, and the degrees of freedom d0 + k of each column; where there is one comparison, or no
        spread at all, the variances as they are with k.
    """
    from scipy import special

    _checks.array("variances", variances, "pairs places k", 0)
    _checks.positive("degrees of freedom", freedom)
    pairs, places, _ = variances.shape
    median = variances.flatten(0, 1).median(dim=0).values
    usable = (median > 0) & (pairs > 1)
    floored = variances.clamp(min=(_SMALLEST * median).clamp(min=torch.finfo(variances.dtype).tiny))
    offset = float(special.digamma(freedom / 2)) - math.log(freedom / 2)
    logs = floored.log() - offset
    trend = logs.mean(dim=0, keepdim=True) + logs.mean(dim=1, keepdim=True) - logs.mean(dim=(0, 1), keepdim=True)
    left = (pairs - 1) * (places - 1)
    if left < 2:
        trend, left = logs.mean(dim=(0, 1), keepdim=True).expand_as(logs), pairs * places - 1
    scatter = (logs - trend).square().sum(dim=(0, 1)) / max(left, 1) - float(special.polygamma(1, freedom / 2))
    prior = torch.tensor([min(cap, _prior_freedom(float(value))) for value in scatter], dtype=variances.dtype)
    prior = torch.where(usable, prior, 0.0)
    centre = (trend + torch.tensor([_log_mean(float(d)) for d in prior], dtype=variances.dtype)).exp()
    moderated = (prior * centre + freedom * variances) / (prior + freedom)
    return torch.where(prior > 0, moderated, variances), prior + freedom


def _prior_freedom(scatter: float) -> float:
    """Return the degrees of freedom of a prior under which log variances scatter so much; infinite for none."""
    from scipy import special

    if scatter <= 1e-8:
        return math.inf
    half = 0.5 + 1 / scatter
    for _ in range(60):  # Newton's method for trigamma(half) = scatter, from above (Smyth 2004, appendix)
        value = float(special.polygamma(1, half))
        step = value * (1 - value / scatter) / float(special.polygamma(2, half))
        half += step
        if abs(step) < 1e-8 * half:
            break
    return 2 * half


def _log_mean(prior: float) -> float:
    """Return what the logarithm of the prior's variance is above the mean of the logarithms that it explains."""
    from scipy import special

    return float(special.digamma(prior / 2)) - math.log(prior / 2) if prior > 0 else 0.0
