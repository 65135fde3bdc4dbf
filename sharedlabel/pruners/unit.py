"""Unit pruning: hidden units of linear layers are physically removed.

The score of a unit is the L2 norm of its incoming weights: a column of W for a layer ReLU(x W).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from sharedlabel.backbones._base import Backbone
from sharedlabel.errors import CompressionError
from sharedlabel.pruners._base import Context, check_ratio
from sharedlabel.pruners._masks import Scope, check_scores, masked, normalized_ranks

STRUCTURED = True
NESTED = True
NEEDS: frozenset[str] = frozenset()

# A removed unit must not have mattered beyond its weights: between the layers only what acts on each unit alone.
_BETWEEN = (nn.Flatten, nn.ReLU, nn.Dropout, nn.Identity)


@dataclass(frozen=True)
class Config:
    """Options of unit pruning.

    Args:
        scope: `layer` removes the same share of every layer's units, `global` compares the norms of all units.
    """

    scope: Scope = "layer"


def ceiling(backbone: Backbone, config: Config) -> float:
    """Return the largest compression ratio: one unit stays in every layer.

    Raises:
        CompressionError: the network is no chain of linear layers.
    """
    sizes = _sizes(backbone, _removal_order(backbone, config.scope))
    return int(sizes[0]) / int(sizes[-1])


def prune(backbone: Backbone, ratio: float, config: Config, context: Context) -> Backbone:
    """Remove the units of smallest norm until the parameter count is closest to the dense one / ratio.

    Args:
        backbone: a chain of linear layers; its parameters are the dense count.
        ratio: compression ratio over all parameters.
        config: options.
        context: not used.

    Raises:
        CompressionError: the network is no chain of linear layers, or the ratio cannot be reached.
    """
    del context
    order = _removal_order(backbone, config.scope)
    sizes = _sizes(backbone, order)
    dense, smallest = int(sizes[0]), int(sizes[-1])
    check_ratio(ratio, dense / smallest, f"with one unit in every layer {smallest} of {dense} parameters remain")
    number = int((sizes - dense / ratio).abs().argmin())
    pruned = copy.deepcopy(backbone)
    layers = _hidden(pruned)
    keep = torch.ones(sum(layer.out_features for layer in layers), dtype=torch.bool)
    keep[order[:number]] = False
    columns = torch.ones(layers[0].in_features, dtype=torch.bool)
    for layer, rows in zip(layers, torch.split(keep, [layer.out_features for layer in layers]), strict=True):
        _shrink(layer, rows, columns)
        columns = rows
    _shrink(pruned.classifier, torch.ones(pruned.classifier.out_features, dtype=torch.bool), columns)
    return pruned


def _hidden(backbone: Backbone) -> list[nn.Linear]:
    """Return the linear layers of a body that is a chain of them."""
    chain = list(backbone.body.named_children()) if isinstance(backbone.body, nn.Sequential) else [("", backbone.body)]
    for name, module in chain:
        if not isinstance(module, (nn.Linear, *_BETWEEN)):
            raise CompressionError(
                f"expected a chain of linear layers and ReLUs, got {type(module).__name__} at body.{name}: removing a "
                "unit there would change other layers; prune single weights of this network (magnitude)"
            )
    layers = [module for _, module in chain if isinstance(module, nn.Linear)]
    if not layers:
        raise CompressionError("expected a network with hidden units, got a body without a linear layer; add a layer")
    if any(True for _ in masked(backbone)):
        raise CompressionError("expected a network without weight masks, got masked layers; start from the dense one")
    return layers


def _removal_order(backbone: Backbone, scope: Scope) -> Int64[Tensor, "r"]:
    """Order the removable units, the first to go first; units are numbered through all hidden layers."""
    norms = {
        f"hidden {i}": layer.weight.detach().double().norm(dim=1).cpu() for i, layer in enumerate(_hidden(backbone))
    }
    check_scores(norms)
    keys = [score if scope == "global" else normalized_ranks(score) for score in norms.values()]
    # The best unit of every layer stays, so that the chain is never cut.
    protected = [key.index_fill(0, score.argmax(), torch.inf) for key, score in zip(keys, norms.values(), strict=True)]
    best_first = torch.cat(protected).argsort(descending=True, stable=True)
    return best_first[len(protected) :].flip(0)


def _sizes(backbone: Backbone, order: Int64[Tensor, "r"]) -> Int64[Tensor, "r1"]:
    """Count the parameters left after removing 0, 1, ..., r units in this order."""
    layers = _hidden(backbone)
    widths = torch.tensor([layer.out_features for layer in layers])
    owner = torch.arange(len(layers)).repeat_interleave(widths)[order]
    gone = nn.functional.one_hot(owner, len(layers)).cumsum(0)
    outputs = widths - torch.cat([torch.zeros(1, len(layers), dtype=torch.int64), gone])  # [r1, layers]
    inputs = torch.cat([torch.full_like(outputs[:, :1], layers[0].in_features), outputs[:, :-1]], dim=1)
    biases = torch.tensor([int(layer.bias is not None) for layer in layers])
    head = backbone.classifier
    return ((inputs + biases) * outputs).sum(1) + (outputs[:, -1] + int(head.bias is not None)) * head.out_features


def _shrink(layer: nn.Linear, rows: Tensor, columns: Tensor) -> None:
    """Keep the marked outputs and inputs of a layer, in place."""
    rows, columns = rows.to(layer.weight.device), columns.to(layer.weight.device)
    layer.weight = nn.Parameter(layer.weight.detach()[rows][:, columns], requires_grad=layer.weight.requires_grad)
    if layer.bias is not None:
        layer.bias = nn.Parameter(layer.bias.detach()[rows], requires_grad=layer.bias.requires_grad)
    layer.out_features, layer.in_features = layer.weight.shape
