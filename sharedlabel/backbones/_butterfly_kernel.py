"""All stages of a butterfly network in one Triton kernel, forward and backward.

On an H200 it is about twice as fast as the plain form (docs/benchmarks.md). Nothing uses it unless `Butterfly.fused` is
set: it has no second derivative, and its gradient is summed with atomic additions, so that the last bits vary between
runs.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

if importlib.util.find_spec("triton"):  # Triton comes with torch for CUDA, and not on every system
    import triton
    import triton.language as tl

    @triton.jit  # type: ignore[untyped-decorator]
    def forward_kernel(  # type: ignore[no-untyped-def]
        weights, starts, products, size, rows, stages: tl.constexpr, block: tl.constexpr
    ):
        row = tl.program_id(0)
        column = tl.program_id(1) * block + tl.arange(0, block)
        inside = column < size
        product = tl.full((block,), 1.0, dtype=weights.dtype.element_ty)
        for stage in tl.static_range(stages):
            start = tl.load(starts + stage * rows + row)
            product *= tl.load(weights + start + (column >> stage), mask=inside, other=0.0)
        tl.store(products + row * size + column, product, mask=inside)

    @triton.jit  # type: ignore[untyped-decorator]
    def backward_kernel(  # type: ignore[no-untyped-def]
        weights, starts, gradients, slopes, size, rows, stages: tl.constexpr, block: tl.constexpr
    ):
        # `above` is the gradient of what enters a stage, times the products of all stages before it, summed over the
        # columns that meet in each node: the paths to one output are a binary tree.
        row = tl.program_id(0)
        column = tl.arange(0, block)
        above = tl.load(gradients + row * size + column, mask=column < size, other=0.0)
        for stage in tl.static_range(stages):
            node = tl.arange(0, block >> stage)
            inside = node < (size + (1 << stage) - 1) >> stage
            rest = tl.full((block >> stage,), 1.0, dtype=weights.dtype.element_ty)
            for later in tl.static_range(stage + 1, stages):
                start = tl.load(starts + later * rows + row)
                rest *= tl.load(weights + start + (node >> (later - stage)), mask=inside, other=0.0)
            start = tl.load(starts + stage * rows + row)
            tl.atomic_add(slopes + start + node, above * rest, mask=inside)
            weight = tl.load(weights + start + node, mask=inside, other=0.0)
            above = tl.sum(tl.reshape(above * weight, (block >> (stage + 1), 2)), axis=1)


class _Compose(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, starts: Tensor, size: int, padded: int) -> Tensor:
        weights, stages, rows = weights.contiguous(), *starts.shape
        ctx.save_for_backward(weights, starts)
        ctx.sizes = size, padded
        products = weights.new_empty(rows, size)
        block = min(padded, 1024)
        forward_kernel[(rows, triton.cdiv(size, block))](weights, starts, products, size, rows, stages, block)
        return products

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (weights, starts), (size, padded) = ctx.saved_tensors, ctx.sizes
        stages, rows = starts.shape
        slopes = torch.zeros_like(weights)
        backward_kernel[(rows,)](
            weights,
            starts,
            gradients.contiguous(),
            slopes,
            size,
            rows,
            stages,
            padded,
            num_warps=max(1, min(16, padded // 256)),
        )
        return slopes, None, None, None


def compose(
    weights: Float[Tensor, "w"], shapes: Sequence[tuple[int, int]], low: int, high: int, rows: Int64[Tensor, "_ c"]
) -> Float[Tensor, "c _"]:
    """Multiply out the paths through some stages; what `_butterfly_paths.compose` does.

    Args:
        weights: of all stages, one after the other.
        shapes: rows and columns of the weights of every stage.
        low: first stage.
        high: stage after the last.
        rows: for each of these stages but the last, which of its rows leads to each row of the last.
    """
    offsets, sizes = _layout(tuple(shapes), low, high, weights.device)
    last = torch.arange(rows.shape[1], device=rows.device)
    starts = torch.cat([rows, last[None]]) * sizes[:, None] + offsets[:, None]
    size = shapes[low][1]
    product: Tensor = _Compose.apply(weights, starts, size, 1 << (size - 1).bit_length())
    return product


@functools.lru_cache(maxsize=256)
def _layout(shapes: tuple[tuple[int, int], ...], low: int, high: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return where the weights of each stage start, and the length of their rows, on the device."""
    ends = torch.tensor([rows * size for rows, size in shapes]).cumsum(0)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), ends])[low:high]
    return offsets.to(device), torch.tensor([size for _, size in shapes[low:high]], device=device)
