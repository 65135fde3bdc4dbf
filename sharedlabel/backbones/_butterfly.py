"""Butterfly layers: linear layers of nearly linear size.

A dense n2 x n1 layer becomes J2^T W J1: J1 (k1 x n1) and J2 (k2 x n2) are truncated butterfly networks, W (k2 x k1) is
dense. All three are trained. The butterflies start as fast Johnson-Lindenstrauss transforms (FJLT).

Reference: Ailon, Leibovitch & Nair, "Sparse Linear Networks with a Fixed Butterfly Structure: Theory and Practice"
(2021). The code that its authors published averages outputs instead of truncating; this follows the paper.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F  # noqa: N812  (the name everyone reads)
from jaxtyping import Float, Int64
from torch import Tensor, nn

from sharedlabel.backbones._butterfly_network import Butterfly, check_width
from sharedlabel.backbones._butterfly_paths import draw_order
from sharedlabel.errors import CompressionError

_KEPT = ".inputs.kept"


class ButterflyLinear(nn.Module):
    """A linear layer J2^T W J1 + bias with trainable truncated butterfly networks J1 and J2.

    Args:
        in_features: inputs n1, at least 2.
        out_features: outputs n2, at least 2.
        k_in: outputs k1 of J1, from 1 to n1; None: log2 n1, rounded.
        k_out: rows k2 of W, from 1 to n2; None: log2 n2, rounded.
        bias: whether a bias is added.
        generator: draws the subsets, the signs, W and the bias; None: torch's global one.
        orders: outputs of either butterfly, those to keep first; drawn if None.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        k_in: int | None = None,
        k_out: int | None = None,
        bias: bool = True,
        generator: torch.Generator | None = None,
        orders: tuple[Int64[Tensor, "_"], Int64[Tensor, "_"]] | None = None,
    ) -> None:
        super().__init__()
        check_width(min(in_features, out_features))
        self.in_features, self.out_features = in_features, out_features
        order_in, order_out = orders or (draw_order(in_features, generator), draw_order(out_features, generator))
        self.inputs = Butterfly(in_features, order_in[: _checked_k(k_in, in_features)], generator)
        self.outputs = Butterfly(out_features, order_out[: _checked_k(k_out, out_features)], generator)
        # The paper draws W as torch draws a dense k1 -> k2 layer, which makes outputs n1 / k1 times as large, squared,
        # as those of the dense n1 -> n2 layer. With the bound of the latter they have its variance.
        bound = in_features**-0.5
        self.core = nn.Parameter(
            torch.empty(self.outputs.k, self.inputs.k).uniform_(-bound, bound, generator=generator)
        )
        self.bias = (
            nn.Parameter(torch.empty(out_features).uniform_(-bound, bound, generator=generator)) if bias else None
        )

    def forward(self, inputs: Float[Tensor, "*b n1"]) -> Float[Tensor, "*b n2"]:
        """Apply the layer to the last dimension."""
        hidden = F.linear(self.inputs(inputs.reshape(-1, self.in_features)), self.core)
        return self.outputs.transposed(hidden, self.bias).reshape(*inputs.shape[:-1], self.out_features)

    def dense_weight(self) -> Float[Tensor, "n2 n1"]:
        """Return the weight of the dense layer that computes the same."""
        return self.outputs.matrix().T @ self.core @ self.inputs.matrix()

    @torch.no_grad()
    def plain(self) -> nn.Module:
        """Return ordinary linear layers that compute the same: two of the smaller k between them, or a dense one.

        With k near log2 n they take no more products than the butterflies, and far fewer calls.
        """
        joined, last = self.core @ self.inputs.matrix(), self.outputs.matrix().T
        if self.inputs.k < self.outputs.k:
            joined, last = self.inputs.matrix(), last @ self.core
        if joined.numel() + last.numel() < self.in_features * self.out_features:
            return nn.Sequential(_linear(joined, None), _linear(last, self.bias))
        return _linear(last @ joined, self.bias)

    @torch.no_grad()
    def project(self, weight: Float[Tensor, "n2 n1"]) -> None:
        """Set W so that the layer is as near to a dense weight as its butterflies let it be (least squares).

        With n a power of two that is the paper's J2 W J1^T times k1 k2 / (n1 n2): the paper's is right on average over
        the draws, but its outputs are larger by sqrt(n1 n2 / (k1 k2)).
        """
        left, right = (torch.linalg.pinv(side.matrix().double()) for side in (self.outputs, self.inputs))
        self.core.copy_(left.T @ weight.double() @ right)

    def extra_repr(self) -> str:
        """Describe the layer in its printed form."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


def unfold(network: nn.Module) -> None:
    """Put ordinary linear layers in the place of butterfly layers, in place, for prediction."""
    for name, module in list(network.named_modules()):
        if isinstance(module, ButterflyLinear):
            network.set_submodule(name, module.plain())


def weights(network: nn.Module) -> int:
    """Count the weights of all butterfly layers of a network, biases not included."""
    layers = [module for module in network.modules() if isinstance(module, ButterflyLinear)]
    return sum(p.numel() for layer in layers for name, p in layer.named_parameters() if name != "bias")


def rebuild(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put butterfly layers where a stored state has them, in place; their values are still to be loaded.

    Args:
        network: the network as it was built, with dense layers.
        tensors: the state.
    """
    for name in [key.removesuffix(_KEPT) for key in tensors if key.endswith(_KEPT)]:
        kept = tensors[f"{name}.inputs.kept"], tensors[f"{name}.outputs.kept"]
        width_in, width_out = int(tensors[f"{name}.inputs.width"]), int(tensors[f"{name}.outputs.width"])
        bias = f"{name}.bias" in tensors
        layer = ButterflyLinear(width_in, width_out, len(kept[0]), len(kept[1]), bias, torch.Generator(), kept)
        network.set_submodule(name, layer)


def _linear(weight: Float[Tensor, "o i"], bias: Float[Tensor, "o"] | None) -> nn.Linear:
    layer: nn.Linear = nn.utils.skip_init(
        nn.Linear, weight.shape[1], weight.shape[0], bias is not None, dtype=weight.dtype
    )
    layer.weight.copy_(weight)
    if bias is not None:
        layer.bias.copy_(bias)
    return layer


def default_k(width: int) -> int:
    """Return log2 of a width, rounded to the nearest integer; at least 1."""
    return max(1, round(math.log2(width)))


def _checked_k(k: int | None, width: int) -> int:
    if k is None:
        return default_k(width)
    if not isinstance(k, int) or not 1 <= k <= width:
        raise CompressionError(
            f"expected a whole number k from 1 to {width}, the width of the butterfly, got k={k}; choose one in between"
        )
    return k
