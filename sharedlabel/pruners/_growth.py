"""The loss of a network while one group of its channels is grown from none.

Only what depends on the group is computed anew for each candidate: the network is traced once (torch.fx), values that do
not depend on the group are kept, and the layers that read the group are linear in its channels, so that adding one costs
one channel of their work.
"""

from __future__ import annotations

import operator
from collections import OrderedDict
from collections.abc import Collection, Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  (the name everyone reads)
from jaxtyping import Float, Int64
from torch import Tensor, fx, nn

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


def traced(network: Backbone) -> fx.GraphModule:
    """Trace a network from normalised images to logits; names of layers stay, and so do the layers themselves.

    Args:
        network: the network. Its activations no longer work in place, as intermediate values are kept.

    Raises:
        CompressionError: what the network does depends on the values it sees.
    """
    for module in network.modules():
        if hasattr(module, "inplace"):
            module.inplace = False
    root = nn.Sequential(OrderedDict(body=network.body, flatten=nn.Flatten(), classifier=network.classifier))
    try:
        graph = _Tracer().trace(root)
    except (fx.proxy.TraceError, TypeError) as error:
        raise CompressionError(
            f"expected a network that runs the same layers for all images, got: {error}; choose a pruner that scores "
            "channels by their weights (filter_l1)"
        ) from error
    for node in graph.nodes:
        node.target = _IN_PLACE.get(node.target, node.target)
    return fx.GraphModule(root, graph)


class _Replay(fx.Interpreter):
    """Runs a traced network and keeps some values.

    Args:
        module: the traced network.
        wanted: nodes whose values are kept, in `kept`.
        factors: by layer, what its input channels are multiplied with.
    """

    def __init__(self, module: fx.GraphModule, wanted: Collection[fx.Node], factors: Mapping[str, Tensor]) -> None:
        super().__init__(module)
        self.wanted, self.factors = wanted, factors
        self.kept: dict[fx.Node, Any] = {}

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
            args = (args[0] * factors.view(1, -1, *[1] * (args[0].ndim - 2)), *args[1:])
        return super().call_module(target, args, kwargs)


class Growth:
    """A network of which one group of channels is grown.

    The layers that read the n channels of the group see them scaled by n a_j; a is 0 before the first step.

    Args:
        module: the traced network, in evaluation mode.
        group: the group.
        images: normalised images.
        labels: their class indices.
    """

    def __init__(
        self, module: fx.GraphModule, group: Group, images: Float[Tensor, "b C H W"], labels: Int64[Tensor, "b"]
    ) -> None:
        self.module, self.group, self.labels = module, group, labels
        self.share = torch.zeros(group.size, device=images.device)
        self.steps = 0
        self.index = {slot.layer: slot.index.to(images.device) for slot in group.readers}
        self._split(images)
        # What the layers respond to all else, and to what has grown; those that read the group for the first time only.
        self.rest = {node: self._without_group(node) for node in self.first if node.target in self.index}
        self.grown = {node: torch.zeros_like(rest) for node, rest in self.rest.items()}

    @torch.no_grad()
    def losses(self, candidates: Int64[Tensor, "m"]) -> Float[Tensor, "m"]:
        """Return the mean cross-entropy after a step towards each of some channels."""
        return torch.stack([self._loss(*self._after(channel)) for channel in candidates.tolist()])

    def slopes(self) -> Float[Tensor, "n"]:
        """Return the derivative of the loss by the a_j of every channel."""
        share = self.share.clone().requires_grad_()
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(self._loss(share, {}), share)
        return gradient

    @torch.no_grad()
    def add(self, channel: int) -> None:
        """Make a step towards a channel."""
        self.share, responses = self._after(channel)
        self.grown = {node: responses[node] - rest for node, rest in self.rest.items()}
        self.steps += 1

    @torch.no_grad()
    def _split(self, images: Tensor) -> None:
        """Tell what depends on the group, and keep the values that it is computed from."""
        starts = {*self.index, *self.group.entering}
        changed: set[fx.Node] = set()
        self.first: list[fx.Node] = []
        for node in self.module.graph.nodes:
            reads = node.op == "call_module" and node.target in starts
            if changed.intersection(node.all_input_nodes):
                changed.add(node)
            elif reads:
                changed.add(node)
                self.first.append(node)
        before = {source for node in changed for source in node.all_input_nodes} - changed
        replay = _Replay(self.module, before, {})
        replay.run(images)
        # Other nodes are never looked at, but have to look computed.
        same = [node for node in self.module.graph.nodes if node not in changed]
        self.values = {node: replay.kept.get(node) for node in same}

    def _after(self, channel: int) -> tuple[Tensor, dict[fx.Node, Tensor]]:
        """Return a and the layers' responses after a step towards a channel."""
        step = 1 / (self.steps + 1)
        share = self.share * (1 - step)
        share[channel] += step
        responses = {
            node: torch.add(rest + (1 - step) * self.grown[node], self._response(node, channel), alpha=step * len(share))
            for node, rest in self.rest.items()
        }
        return share, responses

    def _loss(self, share: Float[Tensor, "n"], responses: Mapping[fx.Node, Tensor]) -> Float[Tensor, ""]:
        """Return the loss for some a; layers with given responses are not run."""
        known = {node.target for node in responses}
        factors = {name: (share.detach() > 0).to(share.dtype) for name in self.group.entering}
        for name, index in self.index.items():
            if name not in known:
                inputs = self.module.get_submodule(name).get_parameter("weight").shape[1]
                scale = (share * len(share))[:, None].expand(index.shape)
                factors[name] = torch.ones(inputs, device=share.device).index_put((index,), scale)
        logits = _Replay(self.module, (), factors).run(initial_env={**self.values, **responses})
        return F.cross_entropy(logits, self.labels)

    def _without_group(self, node: fx.Node) -> Tensor:
        """Return what a layer responds when the group is zero."""
        layer, inputs = self.module.get_submodule(str(node.target)), self.values[node.args[0]]
        index = self.index[str(node.target)].flatten()
        return layer(inputs.index_fill(1, index, 0))

    def _response(self, node: fx.Node, channel: int) -> Tensor:
        """Return what a layer responds to one channel alone."""
        layer, inputs = self.module.get_submodule(str(node.target)), self.values[node.args[0]]
        index = self.index[str(node.target)][channel]
        weight = layer.get_parameter("weight")[:, index]
        if isinstance(layer, nn.Linear):
            return F.linear(inputs[:, index], weight)
        return layer._conv_forward(inputs[:, index], weight, None)
