"""Any module as a network to prune: the way there, and the way back.

    pruned = prune_module(magnitude, my_module, 4.0, magnitude.Config(), context, example_inputs)

The result is a copy of the same classes whose masks hold in every use of its weights (`hold_masks`), or that is
physically smaller.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float, Num, Shaped
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_leaves

from sharedlabel.backbones._base import Backbone, Normalize
from sharedlabel.backbones._holding import hold_masks, release_masks
from sharedlabel.backbones._masking import masked_call
from sharedlabel.errors import CompressionError, first_line, nearest
from sharedlabel.pruners._base import Context
from sharedlabel.pruners._methods import prune

# Operations of autograd between a classifier and what a module returns that make no other layer of it.
_ENDS = re.compile(
    r"((Log)?(Softmax|Sigmoid)|Tanh|Squeeze|Unsqueeze|View|UnsafeView|ReshapeAlias|Select|Clone|ToCopy)Backward\d*"
)
_INNER = re.compile(r"(?<![\w.])body\.")  # what names of layers begin with inside of a backbone


class ModuleBackbone(Backbone):
    """A copy of any module, taken apart into a body and the linear layer that its output comes from.

    Inputs reach the module as they are. Made by `as_backbone`.

    Args:
        body: the module without its classifier.
        classifier: its last linear layer; without parameters if it ends otherwise.
        place: the classifier's name in the module; empty if it has none.
        inputs: a batch that it takes; None where it takes something else than one tensor.

    Attributes:
        runs: whether it can be run, from one tensor to logits. Otherwise there are only its weights to look at.
        linear: names of the linear layers whose outputs the module returns, none or several, where the classifier is
            not named and cannot be told; None elsewhere.
    """

    linear: tuple[str, ...] | None = None

    def __init__(self, body: nn.Module, classifier: nn.Linear, place: str, inputs: Any = None) -> None:
        super().__init__(body, classifier, (1, 1, 1))
        shape = tuple(inputs.shape[1:]) if isinstance(inputs, Tensor) else ()
        self.image_shape = shape
        if isinstance(inputs, Tensor) and not inputs.is_floating_point():
            self.input_dtype = inputs.dtype
        self.place = place
        self.normalize = _AsItIs(1).to(next(body.parameters(), torch.zeros(())).device)
        self.runs = bool(place and shape)

    def embed(self, images: Shaped[Tensor, "b ..."]) -> Float[Tensor, "b d"]:
        """Return what the classifier is given."""
        embedding: Tensor = masked_call(self.body, images) if self.has_masks else self.body(images)
        return embedding.flatten(1)

    def forward(self, images: Shaped[Tensor, "b ..."]) -> Float[Tensor, "b c"]:
        """Return the logits."""
        return self.classify(self.embed(images))


class _AsItIs(Normalize):
    """Normalises nothing: what a module is given is its own matter."""

    def forward(self, images: Num[Tensor, "b ..."]) -> Num[Tensor, "b ..."]:
        """Return a view of the inputs, which may be made to require a gradient."""
        return images.view_as(images)


def prune_module(
    method: ModuleType,
    network: nn.Module,
    ratio: float,
    config: Any,
    context: Context,
    example_inputs: Any,
    classifier: str | None = "",
) -> nn.Module:
    """Return a pruned copy of any module, which stays pruned under any optimiser and loop.

    Args:
        method: the pruner. Pruners that do more than look at single weights need a module that maps one tensor to the
            output of a linear layer, its classifier.
        network: the module; masks of earlier calls stay.
        ratio: compression ratio over all parameters.
        config: the pruner's options.
        context: what the pruner may draw on; inputs stand in the place of images.
        example_inputs: a batch that the module can be called with: a tensor, a tuple of arguments, or a mapping of
            keywords.
        classifier: name of a linear layer that stays whole; that which returns what the module returns if left out,
            alone, in a dict or tuple, or before a softmax or a reshape; None leaves none whole. A module without linear
            layers has none.

    Raises:
        CompressionError: the module does not run, its classifier cannot be told, the pruner does not take it, or the
            ratio cannot be reached.
    """
    backbone, name = as_backbone(network, example_inputs, classifier), method.__name__.rpartition(".")[2]
    if not backbone.runs and (method.STRUCTURED or method.NEEDS):
        raise CompressionError(
            f"expected, for {name}, a module from one tensor to the output of a linear layer, got one that takes or "
            "returns something else; return the logits alone and leave softmax to the loss, or use a pruner that looks "
            "at weights alone, such as magnitude"
        )
    if backbone.linear is not None:
        raise CompressionError(
            "classifier: expected one linear layer whose output the module returns, got "
            f"{' and '.join(map(repr, backbone.linear)) or 'none'}; pass sl.prune classifier=NAME of the layer that "
            "stays whole, or classifier=None to prune all"
        )
    try:
        pruned = prune(method, backbone, ratio, config, context)
    except CompressionError as error:  # names layers as the backbone does
        raise CompressionError(_INNER.sub("", str(error))) from error
    except RuntimeError as error:  # of torch
        what = "" if backbone.input_dtype.is_floating_point else f" inputs of {backbone.input_dtype}, without gradients"
        raise CompressionError(
            f"expected a module that {name} can run and differentiate, got{what}: {first_line(error)}; use a pruner "
            "that looks at weights alone, such as magnitude"
        ) from error
    return as_module(pruned)


def as_backbone(network: nn.Module, example_inputs: Any, classifier: str | None = "") -> ModuleBackbone:
    """Copy a module and take it apart; the classifier is the linear layer that returns what the module returns.

    Args:
        network: the module; it is run in evaluation mode, as a copy.
        example_inputs: as for `prune_module`.
        classifier: as for `prune_module`.

    Raises:
        CompressionError: it cannot be copied or run, or has no such classifier.
    """
    body = _copied(network)
    release_masks(body)
    linear, output = _returned(copy.deepcopy(body).eval(), example_inputs)
    place = (linear[0] if len(linear) == 1 else "") if classifier == "" else classifier
    if place:
        layer = _named(body, place)
        body.set_submodule(place, nn.Identity())
        backbone = ModuleBackbone(body, layer, place, example_inputs)
        if backbone.runs and _agrees(backbone, example_inputs, output):
            return backbone
        return ModuleBackbone(body, layer, place)  # it is somewhere inside: there are only weights to look at
    nothing = nn.Linear(1, 1, bias=False)
    nothing.weight = nn.Parameter(torch.empty(0, 1))
    whole = ModuleBackbone(body, nothing, "", example_inputs)
    whole.linear = tuple(linear) if classifier == "" and _linear(body) else None
    return whole


def as_module(backbone: Backbone) -> nn.Module:
    """Put a module together again, in place; its masks hold from now on.

    Args:
        backbone: from `as_backbone`, or what a pruner has made of it.
    """
    assert isinstance(backbone, ModuleBackbone)
    network = backbone.body
    if backbone.place:
        network.set_submodule(backbone.place, backbone.classifier)
    hold_masks(network)
    return network


def _named(network: nn.Module, name: str) -> nn.Linear:
    """Return a linear layer by its name."""
    linear = _linear(network)
    if name not in linear:
        raise CompressionError(
            f"classifier: expected the name of a linear layer, got {name!r}; {nearest(name, linear)}"
        )
    return linear[name]


def _linear(network: nn.Module) -> dict[str, nn.Linear]:
    return {name: module for name, module in network.named_modules() if isinstance(module, nn.Linear) and name}


def _copied(network: nn.Module) -> nn.Module:
    if isinstance(network, torch.jit.ScriptModule):
        raise CompressionError("expected a module of Python, got one of TorchScript; prune it before it is scripted")
    if not any(True for _ in network.parameters()):
        raise CompressionError(f"expected a module with weights, got {type(network).__name__} without any parameter")
    if any(is_lazy(parameter) for parameter in network.parameters()):
        raise CompressionError("expected a module with weights, got lazy layers without any; call it once before")
    try:
        return copy.deepcopy(network)
    except Exception as error:  # whatever is in a module of a user
        raise CompressionError(
            f"expected a module that can be copied, got {type(error).__name__}: {first_line(error)}; detach tensors "
            "that are kept in its attributes, and leave open files and locks out of it"
        ) from error


def _returned(network: nn.Module, inputs: Any) -> tuple[list[str], Any]:
    """Run a module; return the names of the linear layers whose output is in what it returns, and that.

    Where an output is `[b c]`, others are left out. Where a module returns none as it is, one counts that leads to what
    it returns by `_ENDS` alone.
    """
    outputs: dict[str, list[Any]] = {}
    names: dict[nn.Module, list[str]] = {}
    for name, module in network.named_modules(remove_duplicate=False):
        names.setdefault(module, []).append(name)
    for module, (name, *others) in names.items():
        if name and not others and isinstance(module, nn.Linear):
            made = outputs[name] = []
            module.register_forward_hook(lambda *call, made=made: made.append(call[2]))
    try:
        with torch.no_grad():
            output = _call(network, inputs)
    except Exception as error:  # whatever a network of a user raises
        raise CompressionError(
            f"expected a module that runs on example_inputs, got {type(error).__name__}: {first_line(error)}; pass a "
            "batch as the module takes it: a tensor, a tuple of arguments or a mapping of keywords"
        ) from error
    leaves = {id(leaf) for leaf in tree_leaves(output) if isinstance(leaf, Tensor)}
    returned = {name: made[0] for name, made in outputs.items() if len(made) == 1 and id(made[0]) in leaves}
    if outputs and not returned and isinstance(output, Tensor):
        return _behind(network, inputs, outputs), output
    return [name for name, made in returned.items() if made.ndim == 2] or list(returned), output


def _behind(network: nn.Module, inputs: Any, outputs: Mapping[str, list[Any]]) -> list[str]:
    """Name the linear layer that leads to what a module returns by `_ENDS` alone, if there is one.

    Args:
        network: the module, which is run again.
        inputs: what it is called with.
        outputs: by name of a linear layer, where its hook keeps what it returns.
    """
    try:
        for name, made in outputs.items():
            made.clear()
            network.get_submodule(name).requires_grad_()
        # the graph is looked at and not gone through, so that it need not keep any tensor
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(lambda _: None, lambda kept: kept):
            node = _call(network, inputs).grad_fn
            nodes = {made[0].grad_fn: name for name, made in outputs.items() if len(made) == 1}
    except Exception:  # it does not run with gradients
        return []
    while node is not None and node not in nodes and _ENDS.fullmatch(node.name()):
        node = node.next_functions[0][0]
    return [] if node is None or node not in nodes else [nodes[node]]


def _call(network: nn.Module, inputs: Any) -> Any:
    if isinstance(inputs, Mapping):
        return network(**inputs)
    return network(*inputs) if isinstance(inputs, tuple) else network(inputs)


@torch.no_grad()
def _agrees(backbone: ModuleBackbone, inputs: Tensor, output: Any) -> bool:
    """Tell whether a module that was taken apart does what it did, which it does not where it uses a layer twice."""
    apart = copy.deepcopy(backbone).eval()
    try:
        logits = apart(inputs)
        return logits.shape == output.shape and torch.allclose(logits, output, rtol=1e-4, atol=1e-5, equal_nan=True)
    except Exception:  # it looks at its classifier in some other way
        return False
