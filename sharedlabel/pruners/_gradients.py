"""What pruners that differentiate share: copies to differentiate, batches, and gradients of single examples.

Where torch has no derivative of something a network does, `derivatives` words what it says as a refusal.
"""

from __future__ import annotations

import contextlib
import copy
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Float, Int64, Num
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from sharedlabel.backbones._base import Backbone
from sharedlabel.errors import CompressionError
from sharedlabel.pruners._masks import Layer, prunable

Statistics: TypeAlias = Literal["batch", "running"]

_BATCH = 128
_PIXELS = _BATCH * 64 * 64  # of a batch of larger images
_VALUES = 2**25  # numbers in the gradients of single examples that are in memory together

_ABSOLUTE = "sharedlabel.pruners._absolute"  # has an operation of its own
# What torch says about derivatives that it lacks; the first group, if there is one, names the operation.
_MISSING = re.compile(
    r"derivative (?:for|of) '?(?:aten::)?([\w.]+).* is not implemented"
    r"|implement either the backward or vjp method|marked with @once_differentiable"
    r"|does not require grad and does not have a grad_fn|not have been used in the graph"
)


def differentiable_copy(backbone: Backbone, statistics: Statistics = "running") -> tuple[Backbone, dict[str, Tensor]]:
    """Copy a network to differentiate it by its prunable weights.

    Args:
        backbone: the network.
        statistics: what batch normalisation uses, those of the `batch` or its `running` ones. All else evaluates.

    Returns:
        The copy, and its prunable weights by layer name: all that requires a gradient.
    """
    network = copy.deepcopy(backbone).requires_grad_(False).eval()
    if statistics == "batch":
        for module in network.modules():
            module.training = isinstance(module, _BatchNorm)
    weights: dict[str, Tensor] = {name: layer.weight.requires_grad_() for name, layer in prunable(network).items()}
    for weight in weights.values():
        weight.grad = None
    return network, weights


@contextlib.contextmanager
def derivatives(network: Backbone, twice: bool = False) -> Iterator[None]:
    """Turn gradients on, with kernels that have them, and refuse what has none.

    Args:
        network: the network that is differentiated.
        twice: whether it is differentiated twice.

    Raises:
        CompressionError: torch has no derivative of an operation of the network; names it.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(refusals(network, twice))
        stack.enter_context(torch.enable_grad())
        if any(isinstance(module, nn.RNNBase) for module in network.modules()):
            # cuDNN's recurrence has no derivative in evaluation mode, and no second one.
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        if twice:  # fused attention has no second derivative
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            stack.enter_context(_TwiceDifferentiable())
        yield


@contextlib.contextmanager
def refusals(network: Backbone, twice: bool = False) -> Iterator[None]:
    """Turn what torch says about a missing derivative into a refusal that names the operation.

    Args:
        network: the network that is differentiated.
        twice: whether it is differentiated twice.

    Raises:
        CompressionError: torch has no derivative of an operation of the network.
    """
    try:
        yield
    except RuntimeError as error:
        if (found := _MISSING.search(str(error))) is None:
            raise
        operation = found[1] or ", ".join(_custom_functions(network)) or "one that detaches its results"
        raise CompressionError(
            f"expected operations that torch can differentiate{' twice' * twice}, got {operation}, which has no "
            f"{'second ' * twice}derivative; use a pruner that takes none, such as magnitude"
        ) from error


def _custom_functions(network: Backbone) -> list[str]:
    """Name the operations of a network that are not torch's own: their errors do not."""
    images = torch.zeros(2, *network.image_shape, device=network.normalize.mean.device, requires_grad=True)
    with torch.enable_grad():
        logits = copy.deepcopy(network).eval()(images)
    ahead, names, seen = [logits.grad_fn], set[str](), set[Any]()
    while ahead:
        node = ahead.pop()
        if node is not None and node not in seen:
            seen.add(node)
            ahead.extend(before for before, _ in node.next_functions)
            if isinstance(node, BackwardCFunction):
                function = type(node)._forward_cls  # type: ignore[attr-defined]
                names.update([function.__name__] if function.__module__ != _ABSOLUTE else [])
    return sorted(names)


def _hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:  # noqa: A002  (the name in torch)
    """Return what `hardsigmoid` does, with the same first derivative everywhere, by operations that have a second."""
    result = nn.functional.hardtanh(input.clone() if inplace else input, -3.0, 3.0) / 6 + 0.5
    return input.copy_(result) if inplace else result


class _TwiceDifferentiable(TorchFunctionMode):
    """Composes the activations that torch differentiates only once of others, wherever a network calls them."""

    _composed: Mapping[Any, Callable[..., Tensor]] = {
        nn.functional.hardsigmoid: _hardsigmoid,
        torch._C._nn.hardsigmoid: _hardsigmoid,
        torch._C._nn.hardsigmoid_: lambda input: _hardsigmoid(input, inplace=True),  # noqa: A006
    }

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, or what stands for it."""
        del types
        return self._composed.get(func, func)(*args, **(kwargs or {}))


def check_reached(missing: Iterable[str]) -> None:
    """Refuse a network whose loss has no derivative by some of its prunable weights.

    Args:
        missing: names of these layers.

    Raises:
        CompressionError: there are any.
    """
    for name in missing:
        raise CompressionError(
            f"expected a derivative by every prunable weight, got none for {name!r}, which the network leaves out or "
            "detaches; use a pruner that takes none, such as magnitude"
        )


def of_each_class(labels: Int64[Tensor, "n"], count: int) -> Int64[Tensor, "m"]:
    """Return the positions of the first `count` examples of each class, in order; of all where a class has fewer.

    >>> of_each_class(torch.tensor([2, 2, 0, 2, 0]), 2)
    tensor([0, 1, 2, 4])
    """
    return torch.cat([(labels == label).nonzero()[:count, 0] for label in labels.unique()]).sort().values


def replaced(backbone: Backbone, modules: Mapping[str, nn.Module]) -> Backbone:
    """Copy a network with other modules in the place of some of its own, which are not copied.

    Args:
        backbone: the network.
        modules: the new modules, by the old one's name.
    """
    # A deep copy takes what its memo holds for an object.
    return copy.deepcopy(backbone, {id(backbone.get_submodule(name)): module for name, module in modules.items()})


def batches(
    network: Backbone, images: Num[Tensor, "n ..."], labels: Int64[Tensor, "n"] | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield images and labels on the network's device, in batches of about equal size.

    Args:
        network: where to move the images; if its batch normalisation uses batch statistics, two images are needed.
        images: as the network takes them.
        labels: class indices; zeros if there are none.

    Raises:
        CompressionError: the examples do not fit the network, or batch statistics of a single image are asked for.
    """
    check_examples(network, images, labels)
    if len(images) == 1 and any(isinstance(m, _BatchNorm) and m.training for m in network.modules()):
        raise CompressionError(
            "expected at least 2 images for the batch statistics of batch normalisation, got 1; pass more images or "
            "use the running statistics"
        )
    device = network.normalize.mean.device
    limit = min(_BATCH, max(2, _PIXELS // images[0, 0].numel()))
    count = -(-len(images) // limit)
    labels = torch.zeros(len(images), dtype=torch.int64) if labels is None else labels
    for some, classes in zip(images.tensor_split(count), labels.tensor_split(count), strict=True):
        yield some.to(device), classes.to(device)


def check_examples(network: Backbone, images: Num[Tensor, "n ..."], labels: Int64[Tensor, "m"] | None = None) -> None:
    """Refuse examples that do not fit a network.

    Args:
        network: the network that is to be run on them.
        images: as the network takes them.
        labels: class indices, if they are used.

    Raises:
        CompressionError: images of another shape or with values that are not finite, other numbers of images and
            labels, or labels that are no classes of the network.
    """
    if tuple(images.shape[1:]) != tuple(network.image_shape):
        raise CompressionError(
            f"expected images of {_sizes(network.image_shape)} (channels, height, width), got "
            f"{_sizes(images.shape[1:])}; pass images of the size that the network was built for"
        )
    if bad := images.numel() - int(images.isfinite().sum()):
        raise CompressionError(
            f"expected finite images, got {bad} NaN or infinite of {images.numel()} values; remove these images"
        )
    if labels is None:
        return
    if len(labels) != len(images):
        raise CompressionError(
            f"expected one label per image, got {len(images)} images and {len(labels)} labels; pass both of the same "
            "examples"
        )
    classes = network.classifier.out_features
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise CompressionError(
            f"expected labels from 0 to {classes - 1}, got {int(labels.min())} to {int(labels.max())}; pass class "
            "indices, or a network with more classes"
        )


def _sizes(shape: Iterable[int]) -> str:
    return " x ".join(map(str, shape))


def gradients_by_example(
    layer: Layer, inputs: Float[Tensor, "b ..."], outputs: Float[Tensor, "b ..."]
) -> Iterator[Float[Tensor, "p ..."]]:
    """Yield the gradient of a layer's weight for every single example, a part of the batch at a time.

    Args:
        layer: convolution, of any groups, stride and padding, or linear layer.
        inputs: what it was given.
        outputs: gradient of its output.
    """
    weight = layer.weight.detach()

    def one(example: Tensor, output: Tensor) -> Tensor:
        def apply(values: Tensor) -> Tensor:
            result: Tensor = torch.func.functional_call(layer, {"weight": values}, (example[None],))
            return result

        gradient: Tensor = torch.func.vjp(apply, weight)[1](output[None])[0]
        return gradient

    parts = -(-len(inputs) * weight.numel() // _VALUES)
    for some, gradients in zip(inputs.tensor_split(parts), outputs.tensor_split(parts), strict=True):
        if len(some):
            yield torch.func.vmap(one)(some, gradients)


def squared_gradients(
    layer: Layer, inputs: Float[Tensor, "b ..."], outputs: Float[Tensor, "b ..."]
) -> Float[Tensor, "..."]:
    """Return the squared gradients that single examples give a layer's weight, summed up over the examples.

    Args:
        layer: as for `gradients_by_example`.
        inputs: what it was given.
        outputs: gradient of its output.
    """
    if inputs.ndim == 2 and isinstance(layer, nn.Linear):  # (o_i a_j)^2 needs no example's gradient
        return outputs.square().T @ inputs.square()
    total = torch.zeros_like(layer.weight, requires_grad=False)
    for by_example in gradients_by_example(layer, inputs, outputs):
        total += by_example.square_().sum(0)
    return total


def check_called(missing: Iterable[str]) -> None:
    """Refuse a network that does not call some of its prunable layers, so that nothing is known about their inputs.

    Args:
        missing: names of these layers.

    Raises:
        CompressionError: there are any.
    """
    for name in missing:
        raise CompressionError(
            f"expected every prunable layer to be called, got {name!r}, which the network leaves out or whose weight "
            "it reads directly; use a pruner that needs no inputs of layers, such as magnitude"
        )
