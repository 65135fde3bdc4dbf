"""What metrics refuse, each in one sentence: arguments that would give a number without a meaning.

Every public function of the package calls one of these before it computes. They read an argument once or twice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral
from typing import Any, NoReturn, TypeAlias

import torch
from torch import Tensor

from sharedlabel.errors import DataError
from sharedlabel.types import Tuples

Bound: TypeAlias = int | float
CLOSE = 1e-3  # how far the sum of a distribution may be from 1; float32 keeps 1e-5 over a thousand classes
_ADVICE = {"t n c": "a single tuple is values[None], a single prefix values[:, None]"}


def shape(name: str, values: Any, axes: str, **sizes: int) -> None:
    """Refuse another number or size of axes, and values that are no floating-point numbers.

    Args:
        name: what the message calls the values.
        values: to check.
        axes: a letter for each axis, such as `t n c`.
        sizes: sizes that axes must have, by letter.
    """
    tensor(name, values, axes)
    letters, lengths = axes.split(), list(values.shape)
    if values.ndim != len(letters) or not values.is_floating_point():
        kind = str(values.dtype).removeprefix("torch.")
        advice = _ADVICE.get(axes, "bring it into this form")
        raise DataError(f"expected {name} as floating-point numbers [{axes}], got {kind} {lengths}; {advice}")
    for letter, size in sizes.items():
        if values.shape[letters.index(letter)] != size:
            raise DataError(
                f"expected {name} [{axes}] with {letter} = {size}, got {lengths}; pass what belongs together"
            )


def tensor(name: str, values: Any, axes: str) -> None:
    """Refuse what is no tensor."""
    if not isinstance(values, Tensor):
        raise DataError(f"expected {name} as a tensor [{axes}], got a {type(values).__name__}; use torch.as_tensor")


def array(name: str, values: Any, axes: str, low: Bound = -math.inf, high: Bound = math.inf, **sizes: int) -> None:
    """Refuse what `shape` does, NaN, and numbers outside [low, high]."""
    shape(name, values, axes, **sizes)
    number(name, values, low, high)


def number(name: str, value: Any, low: Bound = -math.inf, high: Bound = math.inf) -> None:
    """Refuse NaN and what is outside [low, high], of a number or an array of them."""
    values = torch.as_tensor(value)
    inside = (values >= low) & (values <= high)
    if not bool(inside.all()):
        wrong = float(values[~inside].flatten()[0])
        raise DataError(f"expected {name} {_span(low, high)}, got {wrong:g}; check where it comes from")


def whole(name: str, value: Any, low: int) -> None:
    """Refuse what is not a whole number of at least so much; 2.0 is not."""
    if not isinstance(value, Integral):
        raise DataError(f"expected {name} as a whole number of at least {low}, got {value!r}; pass one")
    number(name, value, low)


def positive(name: str, value: Any) -> None:
    """Refuse what is not a finite number above 0, of a number or an array of them."""
    values = torch.as_tensor(value)
    inside = (values > 0) & values.isfinite()
    if not bool(inside.all()):
        wrong = float(values[~inside].flatten()[0])
        raise DataError(f"expected {name} above 0, got {wrong:g}; check where it comes from")


def _span(low: Bound, high: Bound) -> str:
    if math.isinf(low) and math.isinf(high):
        return "without NaN"
    if math.isinf(high):
        return f"of at least {low:g}"
    return f"of at most {high:g}" if math.isinf(low) else f"in [{low:g}, {high:g}]"


def distributions(name: str, values: Tensor, axes: int) -> None:
    """Refuse what is not a distribution over the last axes."""
    number(name, values, 0, 1 + CLOSE)
    sums = values.flatten(-axes).sum(-1)
    apart = (sums - 1).abs() > CLOSE
    if bool(apart.any()):
        raise DataError(f"expected {name} that sum to 1, got a sum of {float(sums[apart][0]):g}; divide by their sum")


def posterior(values: Tensor, *, normalised: bool = False) -> None:
    """Refuse what are no log-posteriors `[t n c]`: probabilities, NaN, infinity, labels of which none is possible.

    Args:
        values: natural log, on any scale unless `normalised`.
        normalised: whether probabilities must sum to 1.
    """
    shape("log-posteriors", values, "t n c")
    logs("log-posteriors", values, normalised=normalised)


def logs(name: str, values: Tensor, *, normalised: bool) -> None:
    """Refuse probabilities in the place of their logs, NaN, and rows without a finite largest entry."""
    if not values.numel():
        return
    largest = values.amax(-1)
    if not bool(largest.isfinite().all()):
        wrong = float(largest[~largest.isfinite()][0])
        raise DataError(f"expected finite {name}, got {wrong}; check the aggregator and its features")
    if float(values.amin()) >= 0 and bool(((values.sum(-1) - 1).abs() <= CLOSE).all()):
        raise DataError(f"expected {name}, got probabilities; pass their logarithm, values.log()")
    if normalised:
        sums = values.double().logsumexp(-1)
        if bool((sums.abs() > CLOSE).any()):
            wrong = float(sums[sums.abs() > CLOSE][0].exp())
            raise DataError(
                f"expected {name} whose probabilities sum to 1, got a sum of {wrong:g}; normalise them with log_softmax"
            )


def labels(values: Any, tuples: int, classes: int) -> None:
    """Refuse labels that are not one class index `[t]` for each tuple."""
    tensor("labels", values, "t")
    if values.dtype != torch.int64 or list(values.shape) != [tuples]:
        kind = str(values.dtype).removeprefix("torch.")
        advice = "give one to each tuple" if values.dtype == torch.int64 else "pass labels.long()"
        raise DataError(f"expected labels as int64 [{tuples}], got {kind} {list(values.shape)}; {advice}")
    outside = (values < 0) | (values >= classes)
    if bool(outside.any()):
        wrong = int(values[outside][0])
        raise DataError(f"expected labels from 0 to {classes - 1}, got {wrong}; number classes as the posteriors do")


def weights(values: Tensor | None, tuples: int) -> None:
    """Refuse weights that are not one finite number of at least 0 for each tuple; all may be 0, as in one batch."""
    if values is None:
        return
    array("weights", values, "t", 0, t=tuples)
    if tuples and math.isinf(total := float(values.sum())):
        _refuse_total(total)


def mean(tuples: int, total: float) -> None:
    """Refuse a mean over no tuples, or over such as weigh nothing.

    Args:
        tuples: number of tuples.
        total: sum of their weights.
    """
    if not tuples:
        raise DataError(
            "expected at least one tuple to take a mean over, got none; check the split that they are from, and give "
            "them to a metric by update before compute"
        )
    if not 0 < total < math.inf:
        _refuse_total(total)


def _refuse_total(total: float) -> NoReturn:
    raise DataError(f"expected weights with a finite sum above 0, got {total:g}; leave them out to weigh all alike")


def scored(log_posterior: Tensor, of: Tensor, by: Tensor | None = None, *, normalised: bool = False) -> None:
    """Refuse log-posteriors, labels and weights that do not belong together.

    Args:
        log_posterior: `[t n c]`.
        of: label of each tuple.
        by: weight of each tuple, or None.
        normalised: whether probabilities must sum to 1.
    """
    posterior(log_posterior, normalised=normalised)
    labels(of, len(log_posterior), log_posterior.shape[2])
    weights(by, len(log_posterior))


def prefixes(values: Sequence[int], longest: int) -> None:
    """Refuse prefixes that a tuple does not have."""
    wrong = [value for value in values if not (1 <= value <= longest and value == int(value))]
    if wrong or not len(values):
        raise DataError(
            f"expected numbers of instances from 1 to the {longest} of a tuple, got {wrong[0] if wrong else 'none'}; "
            "change the prefixes"
        )


def scores(
    values: Tensor,
    tuples: Tuples,
    sizes: Sequence[int],
    instances: int,
    clusters: Tensor | None,
    axes: str,
) -> None:
    """Refuse scores that do not belong to these tuples and prefixes, or tuples of other instances.

    Args:
        values: to check, `[... p t k]`.
        tuples: that were scored.
        sizes: the n of each column.
        instances: in the split.
        clusters: group of each instance, or None.
        axes: a letter for each axis.
    """
    partitions, count, width = tuples.indices.shape
    array("scores", values, axes, p=partitions, t=count, k=len(sizes))
    if not bool(values.isfinite().all()):
        raise DataError("expected finite scores, got infinity; floor posteriors before taking their logarithm")
    prefixes(sizes, width)
    last = int(tuples.indices.max())
    if last >= instances:
        raise DataError(f"expected tuples of {instances} instances, got one with number {last}; pass the split's size")
    if clusters is None and tuples.lengths is not None:
        raise DataError(
            "expected tuples of one size where instances are drawn independently, got ragged ones; cut them inside "
            "groups, and pass the group of each instance"
        )
    if clusters is not None and list(clusters.shape) != [instances]:
        raise DataError(f"expected a group of each of {instances} instances, got {list(clusters.shape)}; pass one each")
