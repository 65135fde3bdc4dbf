"""Attention written out in layers that are called, for pruners that look at what a layer is given or replace it."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sharedlabel.backbones._base import Backbone
from sharedlabel.backbones._masking import MASK
from sharedlabel.errors import CompressionError
from sharedlabel.pruners._gradients import replaced
from sharedlabel.pruners._masks import Layer, called_layers, prunable


def written_out(backbone: Backbone) -> Backbone:
    """Copy a network with `WrittenAttention` for `nn.MultiheadAttention`: all that `prunable` names are layers then.

    Args:
        backbone: the network; the copy has weights of its own.

    Raises:
        CompressionError: attention with additional keys.
    """
    return replaced(backbone, _written(backbone))


def layer_twins(backbone: Backbone) -> dict[str, Layer]:
    """Return a layer for every weight that `prunable` names: the network's own, and copies where attention has none.

    Args:
        backbone: the network; unlike `written_out` this copies nothing of it but attention.

    Raises:
        CompressionError: attention with additional keys.
    """
    layers = called_layers(backbone)
    for place, attention in _written(backbone).items():
        layers |= {
            f"{place}.{name}": layer for name, layer in attention.named_children() if isinstance(layer, nn.Linear)
        }
    return {name: layers[name] for name in prunable(backbone)}


def _written(backbone: Backbone) -> dict[str, WrittenAttention]:
    modules = dict(backbone.named_modules())
    return {name: WrittenAttention(m) for name, m in modules.items() if isinstance(m, nn.MultiheadAttention)}


class WrittenAttention(nn.Module):
    """Attention of several heads that calls its projections, `in_proj` or `q_proj`, `k_proj`, `v_proj`, and `out_proj`.

    `in_proj` is called once for what attends to itself, else once for each of query, key and value.

    Args:
        attention: the layer whose values are copied.

    Raises:
        CompressionError: it has additional keys (`bias_kv`, `add_zero_attn`).
    """

    in_proj_bias = None  # tells nn.TransformerEncoderLayer not to take the fused path around this module

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        if attention.bias_k is not None or attention.add_zero_attn:
            raise CompressionError(
                "expected attention over what it is given, got one with additional keys (add_bias_kv, add_zero_attn); "
                "use a pruner that needs no inputs of layers, such as magnitude or snip"
            )
        self.heads, self.batch_first, self.dropout = attention.num_heads, attention.batch_first, attention.dropout
        bias: Tensor | None = attention.in_proj_bias
        if attention._parameters["in_proj_weight"] is not None:
            self.in_proj = _copied(attention, "in_proj_weight", bias)
        else:
            for index, key in enumerate(("q_proj", "k_proj", "v_proj")):
                own = None if bias is None else bias.chunk(3)[index]
                self.add_module(key, _copied(attention, f"{key}_weight", own))
        self.out_proj = _copied(attention.out_proj, "weight", attention.out_proj.bias)
        self.train(attention.training)

    def forward(
        self,
        query: Float[Tensor, "..."],
        key: Float[Tensor, "..."],
        value: Float[Tensor, "..."],
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Return what `nn.MultiheadAttention` returns for a batch."""
        del is_causal  # a hint; the mask says it too
        q, k, v = (self._split(part) for part in self._project(query, key, value))  # [b h n e]
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
        if attn_mask is not None:
            attn_mask = attn_mask.unflatten(0, scores.shape[:2]) if attn_mask.ndim == 3 else attn_mask
            scores = _masked(scores, attn_mask)
        if key_padding_mask is not None:
            scores = _masked(scores, key_padding_mask[:, None, None])
        shares = nn.functional.dropout(scores.softmax(-1), self.dropout, self.training)
        outputs = self.out_proj((shares @ v).transpose(1, 2).flatten(2))
        outputs = outputs if self.batch_first else outputs.transpose(0, 1)
        return outputs, (shares.mean(1) if average_attn_weights else shares) if need_weights else None

    def _project(self, query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
        """Return queries, keys and values, examples first."""
        inputs = [query, key, value]
        if query is key is value:
            inputs = [query if self.batch_first else query.transpose(0, 1)] * 3
        elif not self.batch_first:
            inputs = [part.transpose(0, 1) for part in inputs]
        if "in_proj" not in self._modules:
            return [self.get_submodule(f"{which}_proj")(part) for which, part in zip("qkv", inputs, strict=True)]
        if query is key is value:
            return list(self.in_proj(inputs[0]).chunk(3, -1))
        return [self.in_proj(part).chunk(3, -1)[index] for index, part in enumerate(inputs)]

    def _split(self, projected: Float[Tensor, "b n d"]) -> Float[Tensor, "b h n e"]:
        return projected.reshape(*projected.shape[:2], self.heads, -1).transpose(1, 2)


def _masked(scores: Tensor, mask: Tensor) -> Tensor:
    """Leave out where a mask is true, or add a mask of numbers."""
    return torch.where(mask, -torch.inf, scores) if mask.dtype == torch.bool else scores + mask


def _copied(owner: nn.Module, key: str, bias: Tensor | None) -> nn.Linear:
    """Return a linear layer of a weight, its mask and a bias."""
    weight = owner.get_parameter(key)
    layer: nn.Linear = nn.utils.skip_init(
        nn.Linear, weight.shape[1], weight.shape[0], bias is not None, device=weight.device, dtype=weight.dtype
    )
    layer.weight = nn.Parameter(weight.detach().clone(), weight.requires_grad)
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone(), bias.requires_grad)
    mask = owner._buffers.get(f"{key}_mask")
    if mask is not None:
        layer.register_buffer(MASK, mask.clone())
    return layer
