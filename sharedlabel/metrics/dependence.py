"""How many independent instances a tuple of dependent ones is worth, and when looking more often stops paying.

The model is the exchangeable Gaussian one: given the label, the instances of a tuple are x_i = mu_y + u + e_i, with a
part u of the noise that they share, so that the noises of any two are correlated by rho. All that k of them say is in
their mean, whose noise is (1 + (k - 1) rho) / k times that of one. So they say what

    n_eff(k) = k / (1 + (k - 1) rho)

independent instances say: I(Y; x_1..x_k) = J(n_eff(k)), with J the information curve of independent ones, whatever the
number of classes and where their means lie. It rises to n_eff = 1 / rho and no further.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float64
from torch import Tensor

from sharedlabel.errors import DataError
from sharedlabel.metrics import _checks


def effective_instances(n: Float[Tensor, "k"], correlation: float) -> Float64[Tensor, "k"]:
    """Return how many independent instances so many correlated ones are worth: n / (1 + (n - 1) rho).

    Args:
        n: numbers of instances, at least 1.
        correlation: rho of any two, in [0, 1].

    Raises:
        DataError: a number below 1, or a correlation outside [0, 1].

    Reference:
        Kish, "Survey Sampling" (1965), the design effect of clusters.

    >>> import torch
    >>> effective_instances(torch.tensor([1.0, 4.0, 1e9]), 0.2).round(decimals=4).tolist()
    [1.0, 2.5, 5.0]
    """
    _checks.array("numbers of instances", n, "k", 1)
    if not 0 <= correlation <= 1:
        raise DataError(f"expected a correlation in [0, 1], got {correlation:g}; that of two instances of a tuple")
    wide = n.double()
    return wide / (1 + (wide - 1) * correlation)


def correlation(n: float, effective: float) -> float:
    """Return the correlation at which n instances are worth so many independent ones; below 0 if they are worth more.

    Args:
        n: number of instances, above 1.
        effective: of independent ones, above 0.

    Raises:
        DataError: numbers that are not above these.

    >>> round(correlation(4, 2.5), 6)
    0.2
    """
    if not (n > 1 and effective > 0):
        raise DataError(
            f"expected n above 1 and a positive number of independent instances, got {n:g} and {effective:g}"
        )
    return (n / effective - 1) / (n - 1)


def equal_instances(information: Sequence[float], n: Sequence[int], curve: Sequence[float]) -> Float64[np.ndarray, "m"]:
    """Return how many instances of a curve give so much information, by interpolation over log n.

    With the curve of independent instances and the information of dependent ones this is n_eff, without any model; with
    the curve of a compressed network and the information of a dense one it says how many images through the compressed
    network replace one through the dense.

    Args:
        information: what is looked for, such as relative information.
        n: numbers of instances of the curve, rising, at least 1.
        curve: their information; points at which it does not rise above all before are left out.

    Returns:
        Numbers of instances; NaN below the curve and above it.

    Raises:
        DataError: no curve, or numbers that do not rise.

    >>> equal_instances([0.4, 0.5, 0.9], [1, 2, 4], [0.4, 0.6, 0.8]).round(3).tolist()
    [1.0, 1.414, nan]
    """
    wanted, known, sizes = (np.asarray(values, dtype=np.float64) for values in (information, curve, n))
    if len(n) != len(curve) or len(n) < 2 or n[0] < 1 or any(a >= b for a, b in itertools.pairwise(n)):
        raise DataError(f"expected a curve over two rising numbers of instances or more, got n = {list(n)}")
    if not np.isfinite(known).all():
        raise DataError(f"expected a curve of numbers, got {list(curve)}; leave out what is not known")
    first = np.concatenate([[True], known[1:] > np.maximum.accumulate(known)[:-1]])
    rising = known[first]
    places = np.exp(np.interp(wanted, rising, np.log(sizes[first])))
    return np.where((wanted < rising[0]) | (wanted > rising[-1]), np.nan, places)


def break_even(images: float, needed: float) -> float:
    """Return the correlation above which looking more often through a compressed network stops paying.

    For the price of one dense pass the compressed network sees so many images; if they were independent, it would need
    fewer of them to say as much as the dense network does of one. Correlated by rho they are worth n_eff(images), which
    is as many as needed at rho = (images / needed - 1) / (images - 1). For many images that is 1 / needed.

    Args:
        images: that are seen for the price of one dense pass, above 1.
        needed: independent images through the compressed network that say what one through the dense network does.

    Returns:
        The correlation; below 0 where compressing does not pay even for independent instances.

    >>> round(break_even(images=8, needed=2), 3), round(break_even(images=8, needed=10), 3)
    (0.429, -0.029)
    """
    return correlation(images, needed)
