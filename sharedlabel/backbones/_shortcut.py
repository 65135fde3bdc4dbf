"""The shortcut without parameters of residual networks, which follows when channels are removed."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  (the name everyone reads)
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn


class PadShortcut(nn.Module):
    """Subsample by a stride and pad with zero channels, half on each side.

    Once channels are removed, the buffer `source` holds for every output channel the input channel that it copies, -1
    for zeros. Until then there is none, so the state of a dense network has no such entry.

    Args:
        inputs: input channels.
        outputs: output channels.
        stride: subsampling step in pixels.
    """

    source: Tensor | None

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        extra = outputs - inputs
        self.inputs, self.before, self.after = inputs, extra // 2, extra - extra // 2
        self.stride = stride
        self.register_buffer("source", None)

    def forward(self, images: Float[Tensor, "b C H W"]) -> Float[Tensor, "b C2 H2 W2"]:
        """Reshape the input of a block to the shape of its output."""
        images = images[:, :, :: self.stride, :: self.stride]
        if self.source is None:
            return F.pad(images, (0, 0, 0, 0, self.before, self.after))
        # The index -1 is the zero channel behind the last.
        return F.pad(images, (0, 0, 0, 0, 0, 1))[:, self.source]

    @property
    def outputs(self) -> int:
        """Number of output channels."""
        return self.before + self.inputs + self.after if self.source is None else len(self.source)

    def sources(self) -> Int64[Tensor, "outputs"]:
        """Return the input channel of every output channel, -1 where it is zero."""
        if self.source is not None:
            return self.source
        return F.pad(torch.arange(self.inputs), (self.before, self.after), value=-1)

    def keep(self, inputs: Bool[Tensor, "inputs"], outputs: Bool[Tensor, "outputs"]) -> None:
        """Remove channels, in place.

        Args:
            inputs: which input channels stay.
            outputs: which output channels stay.
        """
        moved = torch.where(inputs, inputs.cumsum(0) - 1, -1)
        # One entry behind the last: the index -1 stays what it is.
        self.source = F.pad(moved, (0, 1), value=-1)[self.sources().to(inputs.device)][outputs]

    def clear(self, outputs: Bool[Tensor, "outputs"]) -> None:
        """Let output channels be zero, in place.

        Args:
            outputs: which are zero from now on.
        """
        self.source = self.sources().to(outputs.device).masked_fill(outputs, -1)
