"""Count MACs and work on elements with tensors that hold values, so that no work hides from the count without."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from sharedlabel.aggregators._base import Aggregator
from sharedlabel.leaderboard.sandbox.properties import TUPLES, Violation, drawn
from sharedlabel.measurements import counts
from sharedlabel.types import SetShape

ELEMENTWISE = 8  # products of elements for each value of a tuple that no count of MACs has to show
POINTWISE = 16  # elements that elementwise work may write and reductions read, likewise; the zoo needs 6 at most
_PRODUCTS = {"mul", "div", "addcmul", "addcdiv", "lerp"}  # with their forms in place
_ALONG = {"prod", "cumprod", "scatter_reduce", "index_reduce", "segment_reduce"}  # they may multiply along a dimension
_COPIES = {"clone", "_to_copy"}  # torch writes expanded operands of products out; as work they count
# What multiplies or squares within one operation that neither a count of MACs nor a tag of torch shows.
_UNCOUNTED = re.compile(
    r"_fft_.*|_foreach_.*|.*_loss(_forward)?|binary_cross_entropy.*|dist|_pdist_forward|renorm|_?embedding_bag.*"
    r"|.*grid_sampler.*"
)
_LEAVES = {"_local_scalar_dense", "equal", "is_nonzero"}
_LEAVING = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


class _OneHot(TorchFunctionMode):
    """Knows when `one_hot` runs, which reads the least and the largest class to check them; nothing else may."""

    def __init__(self) -> None:
        super().__init__()
        self.runs = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run a function."""
        del types
        before, self.runs = self.runs, self.runs or func is torch.nn.functional.one_hot
        try:
            return func(*args, **(kwargs or {}))
        finally:
            self.runs = before


class _Elementwise(counts.Eager):
    """Counts work on elements, and refuses what writes more than came in: a matrix product, not summed.

    What writes no more than the tuples or an operand hold, or one element for each pair of instances, is elementwise
    work like any other; how much of it there may be in all is for the caller to say. It goes by torch's tags, not by
    names, wherever they tell.

    Args:
        values: of embeddings and logits.
        pairs: of instances of one tuple, over all tuples.
        one_hot: says when values may be read.
    """

    def __init__(self, values: int, pairs: int, one_hot: _OneHot) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.values = values
        self.most = max(values, pairs)
        self.one_hot = one_hot
        self.products = 0
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and look at its result."""
        del types
        operands = _tensors((args, kwargs))
        name = func.overloadpacket.__name__.removesuffix("_")
        self._check_leaving(func, name, operands)
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket not in flop_registry:
            self._look(func.tags, name, operands, sum(tensor.numel() for tensor in _tensors(out)))
        return out

    def _check_leaving(self, func: Any, name: str, operands: list[Tensor]) -> None:
        """Refuse what makes numbers or shapes of values; indices are no values, masks are."""
        masks = name != "index" or any(tensor.dtype in (torch.bool, torch.uint8) for tensor in operands[1:])
        if not self.one_hot.runs and (name in _LEAVES or (masks and _LEAVING & set(func.tags))):
            raise Violation(f"expected values that stay in tensors, got {name}: values leave the tensors; use torch")

    def _look(self, tags: Any, name: str, operands: list[Tensor], written: int) -> None:
        """Count what an operation does, and refuse it if that is too much for one."""
        read = max((tensor.numel() for tensor in operands), default=0)
        if _UNCOUNTED.fullmatch(name) or (name in _ALONG and read > self.values):
            raise Violation(f"expected work whose MACs count, got {name}, which hides MACs; use a matrix product")
        if torch.Tag.pointwise in tags:
            if name not in _COPIES:
                self._check_size(name, operands, written)
            self.total += written
        elif torch.Tag.reduction in tags or name in _ALONG:
            self.total += read
        self.products += written if name in _PRODUCTS else 0

    def _check_size(self, name: str, operands: list[Tensor], written: int) -> None:
        most = max(self.values if name in _PRODUCTS else self.most, *(_held(operand) for operand in operands), 0)
        if written > most:
            raise Violation(
                f"expected at most {most:,} elements from {name}, got {written:,}: work that is broadcast hides MACs; "
                "use a matrix product"
            )


def _tensors(values: Any) -> list[Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, Tensor)]


def _held(tensor: Tensor) -> int:
    """Count the elements of a tensor that were not made by expanding it."""
    return math.prod(size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride)


def check_counted(aggregator: Aggregator, shape: SetShape, macs: Mapping[int, int]) -> None:
    """Count again on tensors that hold values: code that only spares work where there are none is found out.

    Code that tells the two apart in another way, or this call from one that is scored, is not. Work that is done once
    per batch may make several tuples cheaper, but never dearer. Fused kernels have no formula, so they are off.

    Raises:
        Violation: another number of MACs, values that leave the tensors, or more work on elements than is honest.
    """
    real = copy.deepcopy(aggregator).float().eval().requires_grad_(True)
    for n, expected in macs.items():
        for tuples in (1, TUPLES):
            inputs = drawn(shape.embedding_dim, shape.num_classes, n, tuples)
            counted, work = _counted(real, inputs)
            if counted > tuples * expected or (tuples == 1 and counted < expected):
                raise Violation(
                    f"expected {tuples * expected:,} MACs for {tuples} tuples of {n}, as without values, got "
                    f"{counted:,}; compute the same whatever the tensors hold"
                )
            _check_work(counted, work, f"{tuples} tuples of {n}")


def _counted(aggregator: Aggregator, inputs: tuple[Tensor, Tensor]) -> tuple[int, _Elementwise]:
    """Count the MACs and the work on elements of one call."""
    tuples, n, _ = inputs[0].shape
    one_hot = _OneHot()
    work = _Elementwise(sum(tensor.numel() for tensor in inputs), tuples * n * n, one_hot)
    with counts.plain_kernels(), one_hot, work:
        return counts.call_macs(aggregator.last, *inputs), work


def _check_work(macs: int, work: _Elementwise, where: str) -> None:
    """Refuse more work on elements than the MACs and values explain."""
    kinds = (("products of elements", work.products, ELEMENTWISE), ("elements of other work", work.total, POINTWISE))
    for kind, done, free in kinds:
        most = macs + free * work.values
        if done > most:
            raise Violation(
                f"expected at most {most:,} {kind} for {where}, got {done:,}, which hides MACs; use a matrix product"
            )
