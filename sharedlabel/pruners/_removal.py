"""Take channels out of a network, or set them to zero, and check on random weights that both are the same."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sharedlabel import rng
from sharedlabel.backbones._base import Backbone
from sharedlabel.backbones._restore import update_sizes
from sharedlabel.backbones._shortcut import PadShortcut
from sharedlabel.errors import CompressionError
from sharedlabel.pruners._groups import INSTEAD, Group

# Of the largest output. A wrong channel shows as a share of it, float32 rounding in the deepest networks as 1e-5.
_TOLERANCE = 1e-4


def remove(backbone: Backbone, channel_groups: Mapping[str, Group], keep: Mapping[str, Bool[Tensor, "_"]]) -> Backbone:
    """Copy a network without some channels.

    Args:
        backbone: the network.
        channel_groups: its channel groups.
        keep: which channels stay, by group; groups that are not named stay whole.
    """
    cuts = _cuts(backbone, channel_groups, keep)
    memo: dict[int, Any] = {}  # the copy takes these instead of the tensors of the original
    for name, (rows, columns) in cuts.items():
        for _, tensor in _tensors(backbone.get_submodule(name)):
            part = _part(tensor.detach(), rows, columns)
            leaf = nn.Parameter(part, requires_grad=tensor.requires_grad)
            memo[id(tensor)] = leaf if isinstance(tensor, nn.Parameter) else part
    small = copy.deepcopy(backbone, memo)
    for name in cuts:
        update_sizes(small.get_submodule(name))
    for shortcut, inputs, outputs in _shortcuts(small, channel_groups, keep):
        shortcut.keep(inputs, outputs)
    return small


@torch.no_grad()
def clear(backbone: Backbone, channel_groups: Mapping[str, Group], keep: Mapping[str, Bool[Tensor, "_"]]) -> None:
    """Set channels to zero in every layer that writes or carries them, in place.

    Args:
        backbone: the network.
        channel_groups: its channel groups.
        keep: which channels stay, by group; groups that are not named stay whole.
    """
    for name, (rows, _) in _cuts(backbone, channel_groups, keep).items():
        for key, tensor in _tensors(backbone.get_submodule(name)):
            if key != "running_var":  # a variance of zero is no network that one can train
                tensor[~rows] = 0
    for shortcut, _, outputs in _shortcuts(backbone, channel_groups, keep):
        shortcut.clear(~outputs)


def verify(backbone: Backbone, channel_groups: Mapping[str, Group]) -> None:
    """Check that removing channels equals setting them to zero: half of every group, in a network of random weights.

    It fails where something between the layers makes of zeros what is not zero (a sigmoid), or mixes channels.

    Raises:
        CompressionError: the outputs differ.
    """
    if not _differs(backbone, channel_groups):
        return
    guilty = [name for name, group in channel_groups.items() if _differs(backbone, {name: group})] or list(
        channel_groups
    )
    raise CompressionError(
        "expected a network where removed channels are as good as zero ones, got other outputs without those of "
        f"{', '.join(guilty)}: what follows these layers mixes channels or is not zero at zero; {INSTEAD}"
    )


def shape(layer: nn.Module) -> tuple[int, int]:
    """Return the rows (outputs) and columns (inputs, 1 for normalisation) of a layer."""
    if isinstance(layer, _BatchNorm):
        return layer.num_features, 1
    rows, columns, *_ = layer.get_parameter("weight").shape
    return rows, columns


def _differs(backbone: Backbone, channel_groups: Mapping[str, Group]) -> bool:
    """Compare a network of random weights that lost half of its channels with one where they are zero."""
    generator = rng.generator(0, "channels")
    network = randomized(backbone, generator)
    keep = {
        name: torch.randperm(group.size, generator=generator) < (group.size + 1) // 2
        for name, group in channel_groups.items()
    }
    images = backbone.blank(2)
    if images.is_floating_point():
        images.uniform_(generator=generator)
    with torch.inference_mode():
        try:
            outputs = remove(network, channel_groups, keep)(images)
        except (RuntimeError, ValueError, IndexError):  # sizes that do not fit
            return True
        clear(network, channel_groups, keep)
        expected = network(images)
    return not bool((outputs - expected).abs().max() <= _TOLERANCE * expected.abs().max())


def randomized(backbone: Backbone, generator: torch.Generator) -> Backbone:
    """Copy a network to the CPU with random weights: nothing cancels and, with positive biases, little is cut off."""
    memo: dict[int, Any] = {}
    for module in backbone.modules():
        for _, tensor in _tensors(module):
            value = torch.empty(tensor.shape)
            if tensor.ndim > 1:
                value.normal_(0, (len(tensor) / tensor.numel()) ** 0.5, generator=generator)
            else:
                value.uniform_(0.5, 1.5, generator=generator)
            memo[id(tensor)] = nn.Parameter(value) if isinstance(tensor, nn.Parameter) else value
    return copy.deepcopy(backbone, memo).cpu().float().eval()


def _tensors(layer: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield what a layer has for each of its outputs: parameters and running statistics."""
    yield from layer.named_parameters(recurse=False)
    if isinstance(layer, _BatchNorm) and layer.running_mean is not None and layer.running_var is not None:
        yield from (("running_mean", layer.running_mean), ("running_var", layer.running_var))


def _cuts(
    backbone: Backbone, channel_groups: Mapping[str, Group], keep: Mapping[str, Tensor]
) -> dict[str, tuple[Tensor, Tensor]]:
    """Mark the rows and columns that stay, for every layer that may lose some."""
    device = next(backbone.parameters()).device
    cuts: dict[str, tuple[Tensor, Tensor]] = {}
    for name, kept in keep.items():
        if not kept.any():
            raise CompressionError(
                f"expected at least one channel of {name} to stay, got none of {channel_groups[name].size}; keep some"
            )
        for side, slots in enumerate((channel_groups[name].rows, channel_groups[name].readers)):
            for slot in slots:
                if slot.layer not in cuts:
                    rows, columns = shape(backbone.get_submodule(slot.layer))
                    cuts[slot.layer] = _marks(rows, device), _marks(columns, device)
                cuts[slot.layer][side][slot.index.to(device)] = kept.to(device)[:, None]
    return cuts


def _marks(count: int, device: torch.device) -> Tensor:
    return torch.ones(count, dtype=torch.bool, device=device)


def _part(tensor: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Copy the marked rows and, of a matrix or a filter, columns; the memory format stays."""
    part = tensor[rows] if tensor.ndim < 2 else tensor[rows][:, columns]
    last = tensor.ndim == 4 and not tensor.is_contiguous() and tensor.is_contiguous(memory_format=torch.channels_last)
    return part.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


def _shortcuts(
    backbone: Backbone, channel_groups: Mapping[str, Group], keep: Mapping[str, Tensor]
) -> Iterator[tuple[PadShortcut, Tensor, Tensor]]:
    """Yield the shortcuts that may lose channels, with marks of the inputs and outputs that stay."""
    device = next(backbone.parameters()).device
    for name, module in backbone.named_modules():
        if isinstance(module, PadShortcut):
            entering = [kept for key, kept in keep.items() if name in channel_groups[key].entering]
            leaving = [kept for key, kept in keep.items() if name in channel_groups[key].leaving]
            if entering or leaving:
                inputs = entering[0].to(device) if entering else _marks(module.inputs, device)
                yield module, inputs, leaving[0].to(device) if leaving else _marks(module.outputs, device)
