"""Exact selection of the highest scores, in one layer or over many; of equal ones the first.

Over many layers it takes linear time and little memory: floating-point numbers become integers of the same order, whose
k-th largest is found digit by digit. Counting how often each leading digit occurs tells which digit the k-th largest
starts with, and so on. Beside the scores only parts of a fixed size are in memory, while sorting would need several
copies of them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

_PART = 2**20  # scores handled at once
_BITS = 16
_DIGITS = 2**_BITS


def keep_highest(scores: Shaped[Tensor, "w"], k: int) -> Bool[Tensor, "w"]:
    """Mark exactly the `k` highest scores; of equal ones the first.

    >>> keep_highest(torch.tensor([1.0, 3.0, 1.0, 2.0]), 3)
    tensor([ True,  True, False,  True])
    """
    if k == 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    threshold = scores.kthvalue(len(scores) - k + 1).values
    above, equal = scores > threshold, scores == threshold
    return above | (equal & (equal.cumsum(0) <= k - above.sum()))


def normalized_ranks(scores: Shaped[Tensor, "w"]) -> Float[Tensor, "w"]:
    """Rank scores within (0, 1): the lowest of w gets 0.5 / w, the highest 1 - 0.5 / w; equal ones in order.

    Cutting several layers at one normalised rank removes the same share of each, with Webster's rounding. Unlike
    largest remainders it never gives a layer fewer weights when the total grows, so masks nest.

    >>> normalized_ranks(torch.tensor([5.0, 9.0]))
    tensor([0.2500, 0.7500], dtype=torch.float64)
    """
    size = len(scores)
    ranks = torch.empty(size, dtype=torch.float64, device=scores.device)
    best_first = scores.argsort(descending=True, stable=True)
    ranks[best_first] = (size - 0.5 - torch.arange(size, dtype=torch.float64, device=scores.device)) / size
    return ranks


def layer_quotas(sizes: Sequence[int], most: Sequence[int], k: int) -> list[int]:
    """Divide `k` weights over layers in proportion to their sizes, none getting more than it has.

    The weights of a layer of size w stand at the ranks 1 - 0.5 / w, 1 - 1.5 / w, ...; the k highest ranks of all layers
    get a weight, of equal ones the first layer's. So no layer gets fewer when k grows, and masks nest.

    Args:
        sizes: weights of each layer.
        most: weights of each layer that may be kept.
        k: weights to keep in all, at most the sum of `most`.

    Returns:
        Weights to keep of each layer.

    >>> layer_quotas([10, 20], [10, 20], 15)
    [5, 10]
    """
    size, limit = torch.tensor(sizes, dtype=torch.float64), torch.tensor(most, dtype=torch.float64)

    def above(rank: float) -> Tensor:
        count = (size * (1 - rank) + 0.5).floor()
        # That product is rounded, while equal ranks are equal numbers: they decide about the last weight.
        count += ((size - 0.5 - count) / size > rank).double()
        count -= ((size + 0.5 - count) / size <= rank).double()
        return count.clamp(min=0).minimum(limit)

    low, high = -1.0, 2.0  # all weights and none stand above these
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if above(middle).sum() >= k else (low, middle)
    quotas, more = above(high), above(low)
    # Between neighbouring numbers lie only equal ranks.
    missing = int(k - quotas.sum())
    return (quotas + (more - quotas).clamp(max=1) * ((more > quotas).cumsum(0) <= missing)).int().tolist()


def keep_highest_of(scores: Mapping[str, Tensor], k: int) -> dict[str, Tensor]:
    """Mark exactly the `k` highest scores of all layers together; of equal ones the first.

    Args:
        scores: by layer, of any shape, without NaN; read several times and one layer at a time.
        k: how many to mark, at most as many as there are.

    Returns:
        By layer, `bool` in the shape of the scores.

    >>> keep_highest_of({"one": torch.tensor([1.0, 3.0]), "two": torch.tensor([2.0, 1.0])}, 2)
    {'one': tensor([False,  True]), 'two': tensor([ True, False])}
    """
    if k == 0:
        return {name: torch.zeros_like(score, dtype=torch.bool) for name, score in scores.items()}
    wide = any(score.dtype not in (torch.float32, torch.float16, torch.bfloat16) for score in scores.values())

    def parts() -> Iterator[Tensor]:
        return _joined(part for score in scores.values() for part in _parts(score, wide))

    threshold, equal = _kth_largest(parts, k, 64 if wide else 32)
    keep = {}
    for name, score in scores.items():
        keep[name] = torch.empty(score.shape, dtype=torch.bool, device=score.device)
        for target, part in zip(keep[name].view(-1).split(_PART), _parts(score, wide), strict=True):
            torch.gt(part, threshold, out=target)
            if equal:
                first = (part == threshold).nonzero()[:equal]
                target[first] = True
                equal -= len(first)
    return keep


def _parts(scores: Tensor, wide: bool) -> Iterator[Int[Tensor, "w"]]:
    """Yield scores as integers of the same order."""
    floats, integers = (torch.float64, torch.int64) if wide else (torch.float32, torch.int32)
    for part in scores.detach().reshape(-1).split(_PART):
        bits = (part.to(floats) + 0.0).view(integers)  # adding zero turns -0.0 into 0.0
        # Negative numbers have a sign bit and grow with their magnitude: flipping the other bits puts them in order.
        yield bits.bitwise_xor_((bits >> (8 * bits.itemsize - 1)).bitwise_and_(torch.iinfo(integers).max))


def _joined(parts: Iterable[Tensor]) -> Iterator[Tensor]:
    """Join parts of small layers: counting takes as long for few integers as for many."""
    waiting: list[Tensor] = []
    for part in parts:
        waiting.append(part)
        if sum(map(len, waiting)) >= _PART:
            yield torch.cat(waiting)
            waiting.clear()
    if waiting:
        yield torch.cat(waiting)


def _kth_largest(parts: Callable[[], Iterator[Tensor]], k: int, bits: int) -> tuple[int, int]:
    """Return the k-th largest integer and how many of those equal to it belong to the k largest."""
    leading, left = 0, k
    for shift in range(bits - _BITS, -1, -_BITS):
        counts = torch.zeros(_DIGITS, dtype=torch.int64)
        top = shift == bits - _BITS
        for part in parts():
            digits = (part >> shift) + _DIGITS // 2 if top else _continuing(part, shift, leading)
            counts += digits.bincount(minlength=_DIGITS).cpu()
        at_least = counts.flip(0).cumsum(0)
        position = int(torch.searchsorted(at_least, left))
        left -= int(at_least[position - 1]) if position else 0
        digit = _DIGITS - 1 - position
        leading = digit - _DIGITS // 2 if top else leading << _BITS | digit
    return leading, left


def _continuing(part: Int[Tensor, "w"], shift: int, leading: int) -> Int[Tensor, "v"]:
    """Return the next digit of the integers that start with these leading digits."""
    digits: Tensor = (part[(part >> (shift + _BITS)) == leading] >> shift) & (_DIGITS - 1)
    return digits
