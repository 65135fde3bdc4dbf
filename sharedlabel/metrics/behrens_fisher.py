"""Tails of a mean that varies over images and over training seeds: the Behrens-Fisher distribution.

The variance over images, I, is estimated from many images; that over seeds, V, from few seeds. A t distribution with
Welch-Satterthwaite degrees of freedom fails far in its tail: where V comes out near zero by luck, the degrees of
freedom jump and the threshold collapses. Here V is integrated over what it may be, given its k degrees of freedom:

    p = E[2 F(-|d| / sqrt(I + k V / X))], X ~ chi-squared with k degrees of freedom,

F being the distribution function of Student's t with the degrees of freedom of I, times ((I + k V / X) / I)^2 since the
other part is given (Welch). It is exact when either variance is zero, and slightly conservative between.

Reference:
    Fisher, "The fiducial argument in statistical inference" (1935); Barnard, "Comparing the means of two independent
    samples" (1984).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from sharedlabel.metrics import _checks

_NODES = 96
_TABLE = 65
_KNOWN = 1000.0  # degrees of freedom from which the variance over images counts as known


@dataclass(frozen=True)
class Spread:
    """The two variances of a mean and their degrees of freedom.

    Attributes:
        of_images: variance of the mean over images (or groups).
        image_freedom: degrees of freedom of `of_images`.
        of_seeds: variance of the mean over training seeds; 0 with one seed, about which nothing is known.
        seed_freedom: degrees of freedom of `of_seeds`; not read where that is 0.
    """

    of_images: Float[Tensor, "*shape"]
    image_freedom: Float[Tensor, "*shape"]
    of_seeds: Float[Tensor, "*shape"]
    seed_freedom: Float[Tensor, "*shape"]

    @property
    def se(self) -> Float[Tensor, "*shape"]:
        """Standard error of the mean."""
        return (self.of_images + self.of_seeds).sqrt()

    def scaled(self, unit: float | Tensor) -> Spread:
        """Return the spread of the mean divided by a unit."""
        return Spread(self.of_images / unit**2, self.image_freedom, self.of_seeds / unit**2, self.seed_freedom)

    def __getitem__(self, at: object) -> Spread:
        """Return the spread of some of the means."""
        parts = (self.of_images, self.image_freedom, self.of_seeds, self.seed_freedom)
        return Spread(*(part[at] for part in parts))  # type: ignore[index]


def p_value(mean: Float[Tensor, "*shape"], spread: Spread) -> Float[Tensor, "*shape"]:
    """Return the two-sided p-value of a zero mean; 1 where neither mean nor standard error differs from 0.

    >>> spread = Spread(*torch.tensor([[4.0], [1e9], [0.0], [1.0]], dtype=torch.float64))
    >>> round(float(p_value(torch.tensor([3.92], dtype=torch.float64), spread)), 4)
    0.05
    """
    _checks.number("mean differences", mean)
    share, freedom, image_freedom = _flat(spread)
    ratio = torch.where(mean == 0, 0.0, mean.abs() / spread.se).double().flatten().numpy()
    values = np.empty_like(ratio)
    for rows, k, f in _alike(freedom, image_freedom):
        values[rows] = _two_tails(ratio[rows], share[rows], k, f)
    return torch.from_numpy(values).view(mean.shape)


def quantile(level: float | Tensor, spread: Spread) -> Float[Tensor, "*shape"]:
    """Return how many standard errors the two-sided interval of a level reaches to either side.

    Args:
        level: coverage, in (0, 1).
        spread: of the means.

    >>> spread = Spread(*torch.tensor([[0.0], [1e9], [1.0], [4.0]], dtype=torch.float64))
    >>> round(float(quantile(0.95, spread)), 3)
    2.776
    """
    _checks.number("a level", level, 0, 1)
    share, freedom, image_freedom = _flat(spread)
    missed = (1 - torch.as_tensor(level, dtype=torch.float64)).expand(spread.se.shape).flatten().numpy()
    values = np.empty_like(share)
    for rows, k, f in _alike(freedom, image_freedom, missed):
        level_missed = float(missed[rows][0])
        if share[rows].any():
            values[rows] = np.exp(_table(k, f, level_missed)(share[rows] ** 0.25))
        else:  # one seed, or seeds that agree: Student's t of the images alone
            values[rows] = _student(f, level_missed)
    return torch.from_numpy(values).view(spread.se.shape)


def _flat(spread: Spread) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the share of the seeds in the variance, and both degrees of freedom, in one dimension."""
    _checks.number("variances", torch.stack([spread.of_images, spread.of_seeds]), 0)
    _checks.positive("degrees of freedom of seeds", spread.seed_freedom)
    total = spread.of_images + spread.of_seeds
    share = torch.where(total > 0, spread.of_seeds / total.where(total > 0, 1.0), 0.0)
    freedom = torch.where(spread.of_seeds > 0, spread.seed_freedom, 1.0)
    image_freedom = spread.image_freedom.expand(total.shape).clamp(max=_KNOWN)
    return tuple(part.double().flatten().cpu().numpy() for part in (share, freedom, image_freedom))  # type: ignore[return-value]


def _alike(*columns: NDArray[np.float64]) -> list[tuple[NDArray[np.intp], float, float]]:
    """Group positions whose degrees of freedom (and levels) are the same."""
    if not columns[0].size:
        return []
    kinds, group = np.unique(np.stack(columns), axis=1, return_inverse=True)
    order = np.argsort(group.ravel(), kind="stable")
    parts = np.split(order, np.cumsum(np.bincount(group.ravel()))[:-1])
    return [(part, float(kind[0]), float(kind[1])) for part, kind in zip(parts, kinds.T, strict=True)]


def _two_tails(
    ratio: NDArray[np.float64], share: NDArray[np.float64], freedom: float, image_freedom: float
) -> NDArray[np.float64]:
    """Return P(|D| > ratio) for D of unit variance, whose share `share` comes from the seeds."""
    from scipy import special

    nodes, weights = _chi_squared(freedom)
    images = (1 - share)[:, None]
    square = images + share[:, None] * freedom / nodes
    below: NDArray[np.float64]
    if image_freedom >= _KNOWN:
        below = special.ndtr(-ratio[:, None] / np.sqrt(square))
    else:
        widened = np.minimum(image_freedom * (square / np.maximum(images, 1e-12)) ** 2, 1e9)
        below = special.stdtr(widened, -ratio[:, None] / np.sqrt(square))
    tails: NDArray[np.float64] = (weights * 2 * below).sum(axis=1)
    return tails


def _chi_squared(freedom: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return nodes and weights of an expectation over chi-squared: trapezoids in the logarithm, where it is smooth."""
    nodes = np.geomspace(1e-15 ** (2 / freedom), 90 + 4 * freedom, _NODES)  # smaller ones have a mass below 1e-15
    log_density = freedom / 2 * np.log(nodes / 2) - nodes / 2
    weights = np.exp(log_density - log_density.max())
    return nodes, weights / weights.sum()


def _student(freedom: float, missed: float) -> float:
    """Return the quantile of Student's t; of a Gaussian where the variance is as good as known."""
    from scipy import special

    return float(-special.ndtri(missed / 2) if freedom >= _KNOWN else -special.stdtrit(freedom, missed / 2))


@functools.lru_cache(maxsize=256)  # all networks of a table ask for the same ones
def _table(freedom: float, image_freedom: float, missed: float) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """Return the logarithm of the quantile as a function of the fourth root of the seeds' share: nearly straight."""
    from scipy.interpolate import PchipInterpolator

    root = np.linspace(0, 1, _TABLE)
    share = root**4
    table: Callable[[NDArray[np.float64]], NDArray[np.float64]] = PchipInterpolator(
        root, np.log(_solve(share, freedom, image_freedom, missed))
    )
    return table


def _solve(share: NDArray[np.float64], freedom: float, image_freedom: float, missed: float) -> NDArray[np.float64]:
    """Return the ratio that is exceeded with a given chance: secants of log chance against log ratio, kept inside.

    The tail falls at most like that of Student's t with the fewer degrees of freedom, and at least like a Gaussian's.
    """
    from scipy import special

    low = np.full_like(share, special.ndtri(1 - missed / 2) / 2)
    high = np.full_like(share, 2 * special.stdtrit(min(freedom, image_freedom), 1 - missed / 2))

    def excess(at: NDArray[np.float64]) -> NDArray[np.float64]:
        tails = _two_tails(at, share, freedom, image_freedom)
        return np.asarray(np.log(np.maximum(tails, np.finfo(np.float64).tiny) / missed))

    at_low, at_high = excess(low), excess(high)
    for turn in range(60):
        slope = (at_high - at_low) / np.log(high / low)
        guess = low * np.exp(-at_low / slope) if turn % 3 else np.sqrt(low * high)
        value = excess(guess)
        over = value > 0
        low, at_low = np.where(over, guess, low), np.where(over, value, at_low)
        high, at_high = np.where(over, high, guess), np.where(over, at_high, value)
        if bool((np.abs(value) < 1e-6).all()) or bool((high / low < 1 + 1e-9).all()):
            break
    return guess
