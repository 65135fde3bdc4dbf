"""The loss of a network while one group of its channels is grown from none.

Only what depends on the group is computed anew for each candidate: the network is traced once (torch.fx), values that
do not depend on the group are kept, and as the layers that read the group are linear in its channels, adding one costs
one channel of their work.
"""

from __future__ import annotations

import functools
import inspect
import operator
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  (the name everyone reads)
from jaxtyping import Float, Int64
from torch import Tensor, fx, nn
from torch.nn.modules.conv import _ConvNd

from sharedlabel.backbones._base import Backbone
from sharedlabel.backbones._shortcut import PadShortcut
from sharedlabel.errors import CompressionError
from sharedlabel.pruners._channels import Group

_IN_PLACE = {operator.iadd: operator.add, operator.imul: operator.mul}


class _Tracer(fx.Tracer):
    """Leaves `PadShortcut` whole, like the layers of torch."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Tell which modules are not looked into."""
        return isinstance(m, PadShortcut) or super().is_leaf_module(m, module_qualified_name)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Trace a module, without the checks of shapes around it: they refuse what stands for a tensor here."""
        del forward
        unchecked = functools.partial(inspect.unwrap(type(m).forward), m)
        return super().call_module(m, unchecked, args, kwargs)


def traced(network: Backbone) -> fx.GraphModule:
    """Trace a network from normalised images to logits; names of layers stay, and so do the layers themselves.

    Args:
        network: the network. Its activations no longer work in place, as intermediate values are kept.

    Raises:
        CompressionError: what the network does depends on the values it sees.
    """
    for module in network.modules():
        if getattr(module, "inplace", False):
            setattr(module, "inplace", False)  # noqa: B010  (not an attribute of every module)
    root = nn.Sequential(OrderedDict(body=network.body, flatten=nn.Flatten(), classifier=network.classifier))
    try:
        graph = _Tracer().trace(root)
    except (fx.proxy.TraceError, TypeError, RuntimeError) as error:
        raise CompressionError(
            f"expected a network that runs the same layers for all images, got: {error}; choose a pruner that scores "
            "channels by their weights (filter_l1)"
        ) from error
    for node in graph.nodes:
        node.target = _IN_PLACE.get(node.target, node.target)
    return fx.GraphModule(root, graph)


class _Replay(fx.Interpreter):
    """A traced network, to run it in parts.

    Attributes:
        wanted: nodes whose values are to be kept, in `kept`.
        factors: by layer, what its input channels are multiplied with.
    """

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.wanted: Collection[fx.Node] = ()
        self.kept: dict[fx.Node, Tensor] = {}
        self.factors: Mapping[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Compute the value of a node."""
        value = super().run_node(n)
        if n in self.wanted:
            self.kept[n] = value
        return value

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a layer."""
        if target in self.factors:
            factors = self.factors[target]
            # Channels are the last dimension of what a linear layer reads, else the second.
            after = 0 if isinstance(self.module.get_submodule(target), nn.Linear) else args[0].ndim - 2
            args = (args[0] * factors.view(-1, *[1] * after), *args[1:])
        return super().call_module(target, args, kwargs)


class Growth:
    """A network of which one group of channels is grown.

    The layers that read the n channels of the group see them scaled by n a_j; a is 0 before the first step.

    Args:
        module: the traced network, in evaluation mode.
        group: the group.
        images: normalised images.
        labels: their class indices.

    Raises:
        CompressionError: a layer that reads the group is not in the trace.
    """

    @torch.no_grad()
    def __init__(
        self, module: fx.GraphModule, group: Group, images: Float[Tensor, "b ..."], labels: Int64[Tensor, "b"]
    ) -> None:
        self.group, self.labels = group, labels
        self._module = module
        self.share = torch.zeros(group.size, device=images.device)
        self.steps = 0
        self._index = {slot.layer: slot.index.to(images.device) for slot in group.readers}
        self._replay = _Replay(module)
        self._split(images)
        # What layers respond to all else, and to what has grown: those whose input does not depend on other readers.
        self._rest = {node: self._without_group(node) for node in self._first if node.target in self._index}
        self._grown = {node: torch.zeros_like(rest) for node, rest in self._rest.items()}

    @torch.no_grad()
    def losses(self, candidates: Int64[Tensor, "m"]) -> Float[Tensor, "m"]:
        """Return the mean cross-entropy after a step towards each of some channels."""
        step = 1 / (self.steps + 1)
        fixed = {node: torch.add(rest, self._grown[node], alpha=1 - step) for node, rest in self._rest.items()}
        losses = []
        for channel in candidates.tolist():
            responses = {
                node: response.add(self._response(node, channel), alpha=step * self.group.size)
                for node, response in fixed.items()
            }
            losses.append(self._loss(self._after(channel), responses))
        return torch.stack(losses)

    def slopes(self) -> Float[Tensor, "n"]:
        """Return the derivative of the loss by the a_j of every channel."""
        share = self.share.clone().requires_grad_()
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(self._loss(share, {}), share)
        return gradient

    @torch.no_grad()
    def add(self, channel: int) -> None:
        """Make a step towards a channel."""
        step = 1 / (self.steps + 1)
        for node, grown in self._grown.items():
            grown.mul_(1 - step).add_(self._response(node, channel), alpha=step * self.group.size)
        self.share = self._after(channel)
        self.steps += 1

    def _split(self, images: Tensor) -> None:
        """Tell what depends on the group, and keep the values that it is computed from."""
        starts = {*self._index, *self.group.entering}
        nodes = list(self._module.graph.nodes)
        if hidden := starts - {node.target for node in nodes}:
            raise CompressionError(
                f"expected layers that the network calls one by one, got {min(hidden)!r} inside a module of torch that "
                "is run as a whole; choose a pruner that scores channels by their weights (filter_l1)"
            )
        changed: set[fx.Node] = set()
        self._first: list[fx.Node] = []
        for node in nodes:
            if changed.intersection(node.all_input_nodes):
                changed.add(node)
            elif node.op == "call_module" and node.target in starts:
                changed.add(node)
                self._first.append(node)
        self._replay.wanted = {source for node in changed for source in node.all_input_nodes} - changed
        self._replay.run(images)
        # Other nodes are never looked at, but have to look computed.
        self._values = {node: self._replay.kept.get(node) for node in nodes if node not in changed}
        self._replay.wanted = ()

    def _after(self, channel: int) -> Float[Tensor, "n"]:
        """Return a after a step towards a channel."""
        step = 1 / (self.steps + 1)
        share = self.share * (1 - step)
        share[channel] += step
        return share

    def _loss(self, share: Float[Tensor, "n"], responses: Mapping[fx.Node, Tensor]) -> Float[Tensor, ""]:
        """Return the loss for some a; layers with given responses are not run."""
        known = {node.target for node in responses}
        # A shortcut has no weights that could take on a scale: it is without the channels that are not chosen.
        factors = {name: (share.detach() > 0).to(share.dtype) for name in self.group.entering}
        for name, index in self._index.items():
            if name not in known:
                scale = (share * len(share))[:, None].expand(index.shape)
                ones = torch.ones(self._layer(name).get_parameter("weight").shape[1], device=share.device)
                factors[name] = ones.index_put((index,), scale)
        self._replay.factors = factors
        logits: Tensor = self._replay.run(initial_env={**self._values, **responses})
        return F.cross_entropy(logits, self.labels)

    def _layer(self, name: str) -> nn.Module:
        return self._module.get_submodule(name)

    def _read(self, node: fx.Node) -> tuple[nn.Module, Int64[Tensor, "n k"], Tensor]:
        """Return a layer that reads the group, where it does, and its input."""
        name, source = str(node.target), node.all_input_nodes[0]
        return self._layer(name), self._index[name], self._replay.kept[source]

    def _without_group(self, node: fx.Node) -> Tensor:
        """Return what a layer responds when the group is zero."""
        layer, index, inputs = self._read(node)
        response: Tensor = layer(inputs.index_fill(-1 if isinstance(layer, nn.Linear) else 1, index.flatten(), 0))
        return response

    def _response(self, node: fx.Node, channel: int) -> Tensor:
        """Return what a layer responds to one channel alone."""
        layer, index, inputs = self._read(node)
        weight = layer.get_parameter("weight")[:, index[channel]]
        if isinstance(layer, nn.Linear):
            return F.linear(inputs[..., index[channel]], weight)
        assert isinstance(layer, _ConvNd)
        response: Tensor = layer._conv_forward(inputs[:, index[channel]], weight, None)
        return response
