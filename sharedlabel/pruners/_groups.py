"""Channel groups: which channels of which layers can only be removed together.

torch-pruning follows the channels through the network (Fang et al., "DepGraph: Towards Any Structural Pruning", 2023);
what it finds becomes index tables here. Channels that pass anything but linear layers, convolutions, batch
normalisation and operations without parameters stay: a transformer loses units of its perceptrons, not of the stream
that passes layer normalisation, attention and class token.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Int64
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from sharedlabel.backbones._base import Backbone
from sharedlabel.backbones._restore import is_depthwise
from sharedlabel.backbones._shortcut import PadShortcut
from sharedlabel.errors import CompressionError, first_line
from sharedlabel.pruners._calls import calls, on_meta
from sharedlabel.pruners._masks import called_layers, masked

INSTEAD = "prune single weights of this network (magnitude)"


@dataclass(frozen=True, eq=False)
class Slot:
    """Where the channels of a group lie in a layer.

    Attributes:
        layer: name of the layer.
        index: for each channel its inputs (of a reader) or its entries (of a carrier). Behind a flattened map every
            channel has several consecutive ones, behind a concatenation they start at an offset.
    """

    layer: str
    index: Int64[Tensor, "channels k"]


@dataclass(frozen=True, eq=False)
class Group:
    """Channels that are removed together from every layer that they pass.

    Attributes:
        name: of the first layer that writes them.
        size: number of channels.
        writers: linear layers and convolutions whose output channels they are, in the order of the network; several
            where residual branches are added.
        readers: linear layers and convolutions that read them as input channels, the classifier included.
        carriers: layers with parameters that act on each channel alone: batch normalisation, depthwise convolutions.
        entering: names of the `PadShortcut`s whose input channels they are.
        leaving: names of the `PadShortcut`s whose output channels they are.
    """

    name: str
    size: int
    writers: tuple[str, ...]
    readers: tuple[Slot, ...]
    carriers: tuple[Slot, ...]
    entering: tuple[str, ...]
    leaving: tuple[str, ...]

    @property
    def rows(self) -> tuple[Slot, ...]:
        """Where the channels are rows (outputs): in writers and carriers."""
        return *(Slot(writer, torch.arange(self.size)[:, None]) for writer in self.writers), *self.carriers


def trace(backbone: Backbone) -> tuple[dict[str, Group], dict[str, str]]:
    """Find the channel groups.

    Args:
        backbone: the network; it is not run.

    Returns:
        The groups by name, in the order of the network, and why the channels of other layers have to stay, by layer.

    Raises:
        CompressionError: a layer of the network cannot lose channels, or its channels cannot be followed.
    """
    _check(backbone)
    network = on_meta(backbone)
    coupled = _coupled(network)
    names: dict[Any, str] = {module: name for name, module in network.named_modules()}
    names |= {parameter: name for name, parameter in network.named_parameters()}
    order = list(called_layers(network))
    channel_groups: dict[str, Group] = {}
    stay: dict[str, str] = {}
    for name, passed in coupled.items():
        group = _group(name, network.get_submodule(name).get_parameter("weight").shape[0], passed, names, order)
        if isinstance(group, Group):
            channel_groups[name] = group
        else:
            stay[name] = group
    return channel_groups, stay


def _check(backbone: Backbone) -> None:
    """Refuse networks with masks, or without any layer that could lose channels."""
    if any(True for _ in masked(backbone)):
        raise CompressionError("expected a network without weight masks, got masked layers; start from the dense one")
    if not called_layers(backbone):
        raise CompressionError(
            "expected a network with hidden units, got a body without a linear layer or convolution; add a layer"
        )


class _Hidden(nn.LayerNorm):
    """Takes the place of a module that torch-pruning loses its way in; like it, it needs all channels.

    Args:
        width: channels, the last dimension of what passes.
        kind: name of the module's class.
    """

    def __init__(self, width: int, kind: str) -> None:
        super().__init__(width, device="meta")
        self.kind = kind


def _hide_readers(network: Backbone) -> None:
    """Replace what reads the weights of its linear layers without calling them (Swin's attention), in place."""
    try:
        called = calls(network)
    except Exception as error:  # whatever a network of a user raises
        raise CompressionError(
            "expected a network whose forward can be followed without values, got one that depends on values, or puts "
            f"tensors on a device of its own: {first_line(error)}; {INSTEAD}"
        ) from error
    for name, layer in called_layers(network).items():
        place = name.rpartition(".")[0]
        parent = network.get_submodule(place)
        given, output = called.get(parent, (None, None))
        if layer in called or not (isinstance(given, Tensor) and isinstance(output, Tensor)):
            continue
        if isinstance(layer, nn.Linear) and given.shape == output.shape and given.shape[-1] == layer.in_features:
            network.set_submodule(place, _Hidden(layer.in_features, type(parent).__name__))


class _ShortcutPruner:
    """Tells torch-pruning that the channels on the two sides of a `PadShortcut` are removed independently."""

    def prune_out_channels(self, layer: PadShortcut, idxs: Sequence[int]) -> None:
        """Mark the output side; nothing is removed by the library."""

    def prune_in_channels(self, layer: PadShortcut, idxs: Sequence[int]) -> None:
        """Mark the input side; nothing is removed by the library."""

    def get_out_channels(self, layer: PadShortcut) -> int:
        """Return the number of output channels."""
        return layer.outputs

    def get_in_channels(self, layer: PadShortcut) -> int:
        """Return the number of input channels."""
        return layer.inputs


@dataclass(frozen=True)
class _Passed:
    """A layer that channels pass.

    Attributes:
        layer: the layer, a parameter outside of layers, or an operation without parameters.
        output: whether they are on its output side.
        entries: indices of inputs or outputs.
        channels: the channel of each entry.
    """

    layer: nn.Module | nn.Parameter
    output: bool
    entries: Sequence[int]
    channels: Sequence[int]


def _coupled(network: Backbone) -> dict[str, list[_Passed]]:
    """Let torch-pruning find what the output channels of each layer pass, once for layers that write the same ones."""
    coupled: dict[str, list[_Passed]] = {}
    written: set[nn.Module | nn.Parameter] = set()
    _hide_readers(network)
    try:
        graph = _dependencies(network)
        for name, layer in called_layers(network).items():
            if is_depthwise(layer) or layer in written:
                continue
            coupled[name] = []
            if layer in graph.module2node:
                remove = graph.get_pruner_of_module(layer).prune_out_channels
                for item in graph.get_pruning_group(layer, remove, list(range(layer.weight.shape[0]))):
                    output = graph.is_out_channel_pruning_fn(item.dep.handler)
                    coupled[name].append(_Passed(item.dep.target.module, output, item.idxs, item.root_idxs))
            written.update(passed.layer for passed in coupled[name] if passed.output)
    except Exception as error:  # whatever the library trips over: it has no errors of its own
        said = f": {error}" if isinstance(error, Warning) else ""
        raise CompressionError(
            "expected a network whose channels can be followed, got one that torch-pruning cannot follow, such as one "
            f"that shuffles, splits or mixes channels between layers{said}; {INSTEAD}"
        ) from error
    return coupled


def _dependencies(network: Backbone) -> Any:
    """Trace the network. A warning of the library means that it guesses: it becomes an error."""
    import torch_pruning

    with warnings.catch_warnings(), torch.inference_mode(False), torch.enable_grad():
        warnings.simplefilter("error")
        # Of parameters outside of layers it guesses the dimension with the channels; whatever passes them stays here.
        warnings.filterwarnings("ignore", "Unwrapped parameters detected", UserWarning)
        return torch_pruning.DependencyGraph().build_dependency(
            network.requires_grad_(True),
            network.blank(device="meta"),
            customized_pruners={PadShortcut: _ShortcutPruner()},
        )


def _group(name: str, size: int, coupled: Sequence[_Passed], names: Mapping[Any, str], order: list[str]) -> Group | str:
    """Sort the layers that channels pass by their roles, or say why the channels have to stay."""
    from torch_pruning.ops import _OutputOp

    if not coupled:
        return "is not on the way to the classifier"
    slots: dict[str, list[Slot]] = {"writer": [], "reader": [], "carrier": [], "entering": [], "leaving": []}
    staying: dict[Any, str] = {}
    for passed in coupled:
        if isinstance(passed.layer, _OutputOp):
            return "reaches the output beside the classifier"
        if passed.layer not in names:  # an operation without parameters
            continue
        if isinstance(passed.layer, nn.Parameter):
            staying[passed.layer] = f"passes the parameter {names[passed.layer]}"
            continue
        role, index = _role(passed.layer, passed.output), _index(passed.entries, passed.channels, size)
        whole = index is not None and torch.equal(index.flatten(), torch.arange(size))
        if role is None or index is None or (role in {"writer", "entering", "leaving"} and not whole):
            staying[passed.layer] = f"passes {_describe(passed.layer)} at {names[passed.layer]}"
            continue
        slots[role].append(Slot(names[passed.layer], index))
    if staying:  # the library's order differs from run to run
        return next(staying[layer] for layer in names if layer in staying)
    plain = {role: tuple(slot.layer for slot in of_role) for role, of_role in slots.items()}
    writers = tuple(sorted(plain["writer"], key=order.index))
    carriers, readers = tuple(slots["carrier"]), tuple(slots["reader"])
    return Group(name, size, writers, readers, carriers, plain["entering"], plain["leaving"])


def _role(module: nn.Module, output: bool) -> Literal["writer", "reader", "carrier", "entering", "leaving"] | None:
    """Tell what a layer does with channels on its output or input side; None where that is not known."""
    if isinstance(module, PadShortcut):
        return "leaving" if output else "entering"
    if isinstance(module, _BatchNorm) or is_depthwise(module):
        return "carrier"
    if isinstance(module, nn.Linear) or (isinstance(module, _ConvNd) and module.groups == 1 and not module.transposed):
        return "writer" if output else "reader"
    return None


def _index(entries: Sequence[int], channels: Sequence[int], size: int) -> Int64[Tensor, "channels k"] | None:
    """Sort entries by channel; None where channels have different numbers of them."""
    entry, channel = torch.tensor(entries), torch.tensor(channels)
    counts = channel.bincount(minlength=size)
    if len(counts) != size or not (counts == counts[0]).all():
        return None
    order = (channel * (int(entry.max()) + 1) + entry).argsort()
    return entry[order].view(size, -1)


def _describe(module: nn.Module) -> str:
    if isinstance(module, _ConvNd) and module.groups > 1:
        return f"a convolution with {module.groups} groups"
    name = module.kind if isinstance(module, _Hidden) else type(module).__name__
    return f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"
