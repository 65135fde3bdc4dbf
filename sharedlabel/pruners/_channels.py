"""Structured pruning: channels and units are removed physically, to an exact parameter count.

Channels come in groups (`_groups.py`), named by the first layer that writes them. Removing channels equals setting them
to zero (`_removal.py`).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from sharedlabel.backbones._base import Backbone
from sharedlabel.backbones._masking import count_parameters
from sharedlabel.errors import CompressionError
from sharedlabel.pruners._base import check_ratio
from sharedlabel.pruners._groups import INSTEAD, Group, Slot, trace
from sharedlabel.pruners._masks import prunable
from sharedlabel.pruners._removal import clear, remove, shape, verify
from sharedlabel.pruners._scores import Scope, check_scores
from sharedlabel.pruners._select import normalized_ranks

__all__ = [
    "Group",
    "Slot",
    "groups",
    "keep_channels",
    "mask_channels",
    "parameter_counts",
    "prune_channels_by_scores",
    "structured_ceiling",
    "writer_norms",
]


def groups(backbone: Backbone) -> dict[str, Group]:
    """Return the groups of channels that can be removed, by name, in the order of the network.

    Channels that pass a convolution with groups (other than a depthwise one) belong to none: they stay.

    Raises:
        CompressionError: the network has a layer that cannot lose channels (recurrent, attention, other normalisation),
            removing channels would not equal setting them to zero, no channel can be removed, or there are masks.
    """
    channel_groups = _traced(backbone)[0]
    verify(backbone, channel_groups)
    return channel_groups


def structured_ceiling(backbone: Backbone) -> float:
    """Return the largest compression ratio that removing channels reaches: one channel stays in every group.

    Raises:
        CompressionError: as of `groups`.
    """
    channel_groups = groups(backbone)
    one = torch.ones(1, len(channel_groups), dtype=torch.int64)
    return count_parameters(backbone) / int(parameter_counts(backbone, channel_groups, one))


def keep_channels(backbone: Backbone, keep: Mapping[str, Bool[Tensor, "_"]]) -> Backbone:
    """Copy a network without some of its channels.

    Args:
        backbone: the network.
        keep: which channels stay, by group; groups that are not named stay whole.

    Returns:
        A physically smaller network with the outputs of `mask_channels`.

    Raises:
        CompressionError: no channel of a group stays.
    """
    return remove(backbone, _traced(backbone)[0], keep)


def mask_channels(backbone: Backbone, keep: Mapping[str, Bool[Tensor, "_"]]) -> Backbone:
    """Copy a network with some channels zero in every layer that writes or carries them, shortcuts included.

    Args:
        backbone: the network.
        keep: which channels stay, by group; groups that are not named stay whole.

    Raises:
        CompressionError: no channel of a group stays.
    """
    masked = copy.deepcopy(backbone)
    clear(masked, _traced(backbone)[0], keep)
    return masked


def writer_norms(backbone: Backbone, order: Literal[1, 2]) -> dict[str, Float64[Tensor, "_"]]:
    """Return the norm of all weights that write each channel, those of every layer that writes it, by group.

    Args:
        backbone: the network.
        order: 1 adds absolute values, 2 is Euclidean.

    Raises:
        CompressionError: as of `groups`.
    """
    layers = prunable(backbone)

    def norms(writer: str) -> Tensor:
        weight = layers[writer].weight.detach().flatten(1)
        by_channel: Tensor = torch.linalg.vector_norm(weight, order, dim=1, dtype=torch.float64)
        return by_channel

    return {
        name: torch.linalg.vector_norm(torch.stack([norms(writer) for writer in group.writers]), order, dim=0)
        for name, group in groups(backbone).items()
    }


def prune_channels_by_scores(
    backbone: Backbone, ratio: float, scores: Mapping[str, Float[Tensor, "_"]], scope: Scope
) -> Backbone:
    """Copy a network without its lowest-scored channels, as many as bring the parameter count closest to its aim.

    Args:
        backbone: the network; its parameters are the dense count.
        ratio: compression ratio over all parameters.
        scores: of the channels, by group; higher is kept. Equal ones: the first is kept. The best of each group stays.
        scope: `global` ranks all channels together, `layer` removes the same share of every group.

    Raises:
        CompressionError: the ratio cannot be reached, or a score is not finite.
    """
    channel_groups, stay = _traced(backbone)
    check_scores({name: scores[name] for name in channel_groups})
    order = _removal_order([scores[name].detach().double().cpu() for name in channel_groups], scope)
    owner = torch.arange(len(channel_groups)).repeat_interleave(_widths(channel_groups))
    gone = torch.nn.functional.one_hot(owner[order], len(channel_groups)).cumsum(0)
    left = _widths(channel_groups) - torch.cat([torch.zeros(1, len(channel_groups), dtype=torch.int64), gone])
    counts = parameter_counts(backbone, channel_groups, left)
    dense, smallest = int(counts[0]), int(counts[-1])
    check_ratio(ratio, dense / smallest, _reason(dense, smallest, stay))
    keep = torch.ones(len(owner), dtype=torch.bool)
    keep[order[: int((counts - dense / ratio).abs().argmin())]] = False
    return remove(
        backbone, channel_groups, dict(zip(channel_groups, keep.split(_widths(channel_groups).tolist()), strict=True))
    )


def parameter_counts(
    backbone: Backbone, channel_groups: Mapping[str, Group], left: Int64[Tensor, "r groups"]
) -> Int64[Tensor, "r"]:
    """Count the parameters left for numbers of channels left, without removing any.

    Args:
        backbone: the network.
        channel_groups: its channel groups.
        left: channels left in each group, in the order of `channel_groups`; one row per case.
    """
    lost = _widths(channel_groups) - left
    rows: dict[str, Int64[Tensor, "r"]] = {}
    columns: dict[str, Int64[Tensor, "r"]] = {}
    for group, channels in zip(channel_groups.values(), lost.T, strict=True):
        for total, slots in ((rows, group.rows), (columns, group.readers)):
            for slot in slots:
                total[slot.layer] = total.get(slot.layer, 0) + channels * slot.index.shape[1]
    counts = torch.full_like(lost[:, 0], count_parameters(backbone))
    for name in rows | columns:
        layer = backbone.get_submodule(name)
        outputs, inputs = shape(layer)
        alone = sum(p.numel() // outputs for p in layer.parameters(recurse=False) if p.ndim < 2)
        pairs = sum(p.numel() // (outputs * inputs) for p in layer.parameters(recurse=False) if p.ndim > 1)
        counts -= outputs * (inputs * pairs + alone)
        counts += (outputs - rows.get(name, 0)) * ((inputs - columns.get(name, 0)) * pairs + alone)
    return counts


def _traced(backbone: Backbone) -> tuple[dict[str, Group], dict[str, str]]:
    channel_groups, stay = trace(backbone)
    if not channel_groups:
        raise CompressionError(f"expected a network with channels to remove, got none:{_staying(stay)}; {INSTEAD}")
    return channel_groups, stay


def _widths(channel_groups: Mapping[str, Group]) -> Int64[Tensor, "groups"]:
    return torch.tensor([group.size for group in channel_groups.values()])


def _removal_order(scores: list[Tensor], scope: Scope) -> Int64[Tensor, "r"]:
    """Order the removable channels, the first to go first; channels are numbered through all groups."""
    keys = [score if scope == "global" else normalized_ranks(score) for score in scores]
    # The best channel of every group stays, so that the network is never cut.
    protected = [key.index_fill(0, score.argmax(), torch.inf) for key, score in zip(keys, scores, strict=True)]
    best_first = torch.cat(protected).argsort(descending=True, stable=True)
    return best_first[len(protected) :].flip(0)


def _reason(dense: int, smallest: int, stay: Mapping[str, str]) -> str:
    reason = f"with one channel in every layer {smallest} of {dense} parameters remain"
    return f"{reason}, where{_staying(stay)}" if stay else reason


def _staying(stay: Mapping[str, str]) -> str:
    """Say why channels stay."""
    name, why = next(iter(stay.items()))
    more = f", and those of {len(stay) - 1} more layers" if len(stay) > 1 else ""
    return f" the output of {name} {why}{more}"
