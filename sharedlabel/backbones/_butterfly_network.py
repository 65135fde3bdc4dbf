"""A truncated butterfly network as a module, its start as a fast Johnson-Lindenstrauss transform, and its fast form.

The log2 n stages are memory-bound elementwise products with the whole batch. Instead the paths are multiplied out once
per batch, which takes about 2 n k products whatever the batch's size, and the batch meets one thin matrix product, or
two block-diagonal ones where k is large.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  (the name everyone reads)
from jaxtyping import Float, Int64
from torch import Tensor, nn

from sharedlabel.backbones._butterfly_paths import columns, compose, depth, sort_by_low_bits
from sharedlabel.errors import CompressionError

# Two block-diagonal products have to save this factor of MACs over one thin product, which is about as many times as
# fast per MAC (measured on a CPU).
_CUT_SAVES = 4


def check_width(width: int) -> None:
    """Refuse a width that has no butterfly network.

    Raises:
        CompressionError: it is below 2.
    """
    if width < 2:
        raise CompressionError(
            f"expected at least 2 features on either side of a butterfly layer, got a butterfly width of {width}; "
            "keep this layer dense"
        )


class Butterfly(nn.Module):
    """A truncated butterfly network J, `[k n]`.

    Args:
        width: inputs n, at least 2; padded to a power of two without weights for the padding.
        kept: `[k]`, the outputs kept, in [0, 2**ceil(log2 n)), each once.
        generator: draws the signs.
        cut: stage, in [1, ceil(log2 n)], at which the network is cut into two block-diagonal products; the last stage
            leaves it whole. None: whichever takes the fewest MACs.
    """

    kept: Tensor
    rows: Tensor
    head_rows: Tensor
    slots: Tensor
    places: Tensor
    fused: bool = False  # True multiplies the paths out in one Triton kernel instead of an operation per stage

    def __init__(
        self,
        width: int,
        kept: Int64[Tensor, "k"],
        generator: torch.Generator | None = None,
        cut: int | None = None,
    ) -> None:
        super().__init__()
        check_width(width)
        self.depth, self.k = depth(width), len(kept)
        self.register_buffer("width", torch.tensor(width))
        self._arrange(width, kept, cut)
        self.weights = nn.Parameter(self._fjlt(generator))

    def _arrange(self, width: int, kept: Int64[Tensor, "k"], cut: int | None) -> None:
        """Set the shapes and index tables that follow from the outputs kept."""
        kept = sort_by_low_bits(kept, self.depth)
        residues = [kept % 2**stage for stage in range(1, self.depth + 1)]
        distinct = [torch.unique_consecutive(residue, return_inverse=True) for residue in residues]
        self.shapes = tuple((len(values), size) for (values, _), size in zip(distinct, columns(width), strict=True))
        self.register_buffer("kept", kept)
        self.register_buffer("rows", torch.stack([inverse for _, inverse in distinct])[:-1], persistent=False)
        self.cut = self._best_cut(residues) if cut is None else cut
        if self.cut < self.depth:
            self._arrange_cut(*distinct[self.cut - 1])

    def _arrange_cut(self, residues: Int64[Tensor, "c"], inverse: Int64[Tensor, "k"]) -> None:
        """Give every kept output a slot beside the others of its residue; slots left over read row k, of zeros."""
        counts = torch.bincount(inverse)
        first = counts.cumsum(0) - counts
        places = inverse * counts.max() + torch.arange(self.k) - first[inverse]
        slots = torch.full((len(residues) * int(counts.max()),), self.k)
        slots[places] = torch.arange(self.k)
        self.register_buffer("head_rows", self.rows[: self.cut - 1, first], persistent=False)
        self.register_buffer("slots", slots.view(len(residues), -1), persistent=False)
        self.register_buffer("places", places, persistent=False)

    def _best_cut(self, residues: list[Tensor]) -> int:
        """Return the stage to cut at for the fewest MACs; the last one if cutting saves little."""
        rows, sizes = zip(*self.shapes, strict=True)
        macs = [
            rows[cut - 1] * sizes[cut] * (2**cut + int(torch.bincount(residues[cut - 1]).max()))
            for cut in range(1, self.depth)
        ]
        cut = min(range(1, self.depth), key=lambda stage: macs[stage - 1], default=self.depth)
        return cut if cut < self.depth and _CUT_SAVES * macs[cut - 1] < self.k * sizes[0] else self.depth

    def _fjlt(self, generator: torch.Generator | None) -> Float[Tensor, "w"]:
        """Return the weights of random signs, a Hadamard transform and the scale, which all stages share alike.

        J has entries +-1/sqrt(k): orthonormal rows times sqrt(n / k), n the padded width. The first stage takes in
        the signs (footnote 4 of the paper).
        """
        sizes = [size for _, size in self.shapes]
        signs = 1 - 2 * torch.randint(2, (sizes[0],), generator=generator)
        stages = []
        for stage, size in enumerate(sizes):
            upper = torch.unique_consecutive(self.kept % 2 ** (stage + 1)) >> stage  # bit of the node led to
            hadamard = 1 - 2 * (upper[:, None] & torch.arange(size) & 1)
            stages.append(hadamard if stage else hadamard * signs)
        scale = float(self.k) ** (-0.5 / self.depth)
        return torch.cat([stage.flatten() for stage in stages]).to(torch.get_default_dtype()).mul(scale)

    def matrix(self) -> Float[Tensor, "k n"]:
        """Return J, written out."""
        return self._compose(0, self.depth, self.rows)

    def forward(self, inputs: Float[Tensor, "b n"]) -> Float[Tensor, "b k"]:
        """Return J x for every row x."""
        if self.cut == self.depth:
            return F.linear(inputs, self.matrix())
        head, tail = self._blocks()
        padded = F.pad(inputs, (0, head[0].numel() - inputs.shape[1])).unflatten(1, head.shape[1:])
        inner = torch.einsum("bht,cht->chb", padded, head)
        return F.embedding(self.places, torch.einsum("clh,chb->clb", tail, inner).flatten(0, 1)).T

    def transposed(self, outputs: Float[Tensor, "b k"], bias: Float[Tensor, "n"] | None = None) -> Float[Tensor, "b n"]:
        """Return J^T y, plus a bias, for every row y."""
        if self.cut == self.depth:
            return F.linear(outputs, self.matrix().T, bias)
        head, tail = self._blocks()
        inner = torch.einsum("clh,clb->chb", tail, F.embedding(self.slots, F.pad(outputs.T, (0, 0, 0, 1))))
        products = torch.einsum("chb,cht->bht", inner, head).flatten(1)[:, : self.shapes[0][1]]
        return products.contiguous() if bias is None else products + bias.to(products.dtype)

    def extra_repr(self) -> str:
        """Describe the network in its printed form."""
        return f"width={self.shapes[0][1]}, k={self.k}, weights={len(self.weights)}"

    def _blocks(self) -> tuple[Float[Tensor, "c h t"], Float[Tensor, "c l h"]]:
        """Return the stages before and after the cut, multiplied out: c residues, blocks h, slots l, inputs t."""
        size = self.shapes[self.cut][1]
        head = self._compose(0, self.cut, self.head_rows)
        head = F.pad(head, (0, size * 2**self.cut - head.shape[1])).unflatten(1, (size, -1))
        tail = self._compose(self.cut, self.depth, self.rows[self.cut :])
        return head, F.embedding(self.slots, F.pad(tail, (0, 0, 0, 1)))

    def _compose(self, low: int, high: int, rows: Int64[Tensor, "_ c"]) -> Float[Tensor, "c _"]:
        """Multiply out the paths through the stages from `low` to before `high`."""
        if self.fused:
            from sharedlabel.backbones import _butterfly_kernel  # noqa: PLC0415  (Triton is not everywhere)

            return _butterfly_kernel.compose(self.weights, self.shapes, low, high, rows)
        flat = self.weights.split([rows * size for rows, size in self.shapes])
        stages = [part.view(shape) for part, shape in zip(flat, self.shapes, strict=True)]
        return compose(stages[low:high], rows)

    def _load_from_state_dict(self, state: Mapping[str, Any], prefix: str, *others: Any) -> None:
        """Load a state, which brings its own outputs kept."""
        kept = state.get(f"{prefix}kept")
        if kept is not None and kept.shape == self.kept.shape and not kept.equal(self.kept):
            device = self.kept.device
            self._arrange(self.shapes[0][1], kept.cpu(), None)
            self.to(device)
        super()._load_from_state_dict(state, prefix, *others)
