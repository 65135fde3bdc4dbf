"""`prune`, `finalize` and `compression_ratio`, for any module."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from sharedlabel import rng
from sharedlabel.api import _arguments
from sharedlabel.backbones._masking import count_parameters, masked_weights
from sharedlabel.config import anew, resolve
from sharedlabel.errors import CompressionError, ConfigError
from sharedlabel.plugins import load
from sharedlabel.pruners._base import Context
from sharedlabel.pruners._masks import bake, removed
from sharedlabel.pruners._modules import prune_module

_DENSE = "_dense_parameters"  # attribute of pruned modules: how many parameters they had at first


def prune(
    module: nn.Module,
    ratio: float | Real,
    method: str | Mapping[str, Any] = "magnitude",
    *,
    example_inputs: Any = None,
    classifier: str | None = "",
    data: tuple[Tensor, Tensor] | None = None,
    validation: Tensor | None = None,
    train: Callable[[nn.Module], Any] | None = None,
    seed: int = 0,
    **options: Any,
) -> nn.Module:
    """Return a pruned copy of a module, of the same class, to be trained further like any other.

    Weights are removed by masks, or physically by methods that remove units and channels (`unit`, `filter_l1`, ...).
    Masks are buffers beside the weights, and whoever uses a weight gets weight * mask. So the copy stays pruned under
    any optimiser and loop, when a state is loaded into it, and when it is copied, pickled or moved. `finalize` bakes
    the masks in.

    Reading `layer.weight` makes a product, and what is written to that is lost (`nn.init.zeros_(layer.weight)`,
    `layer.weight.data.mul_(2)`); it has no `grad`, and cannot be frozen. Write to the parameter,
    `dict(layer.named_parameters())["weight"]`, load a state, or call `layer.reset_parameters()`, which draws what is
    left anew. TorchScript, quantisation, `fully_shard` and `weight_norm` take what `finalize` returns.

    Weights of convolutions, linear layers and attention are prunable; biases and normalisation are not, nor is the
    classifier: the linear layer whose output the module returns, alone, in a dict or tuple, or through a softmax,
    a sigmoid, a tanh or a change of shape. Where that is not one layer, the classifier is asked for; a module without
    linear layers has none. Layers of your own count by their weights: where a subclass computes another weight from
    its own (weight standardisation), that one may be dense.

    Args:
        module: any module, trained or not; it is left as it is.
        ratio: compression ratio, at least 1: all parameters at first / those left. That of a module that was pruned
            before counts from what it was at first, too.
        method: a pruner, by name, or as a mapping with `name` and its options. It prunes once; schedules are what
            `sharedlabel.run` has.
        example_inputs: a batch that the module can be called with: a tensor, a tuple of arguments, or a mapping of
            keywords. The module is run on it once, as a copy in evaluation mode. The inputs of `data` if left out.
        classifier: name of the linear layer that stays whole, where it is not the one whose output the module returns,
            or where there are several; None leaves none whole.
        data: training inputs `[b ...]` and labels `[b]`, for methods that look at some (`snip`, `grasp`, `obd`, ...).
        validation: other inputs `[v ...]`, for methods that measure sensitivities (`sipp`, `pfp`).
        train: trains a module in place, for methods that train (`edge_popup`); the module that it is given maps
            inputs to logits as yours does.
        seed: of methods that draw random numbers.
        options: options of the method, such as `scope="layer"`.

    Returns:
        The copy.

    Raises:
        ConfigError: an unknown method or option.
        CompressionError: the ratio cannot be reached, the classifier cannot be told, or the method does not take this
            module, or lacks data.

    >>> import torch
    >>> network = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 2))
    >>> pruned = prune(network, ratio=3, example_inputs=torch.randn(1, 8))
    >>> round(compression_ratio(pruned), 2)
    3.0
    """
    if not isinstance(module, nn.Module) or not isinstance(ratio, Real):
        raise CompressionError(
            f"expected a torch module and a number, got a {type(module).__name__} and {ratio!r}; pass the network, "
            "then its compression ratio"
        )
    spec = {**method, **options} if isinstance(method, Mapping) else {"name": method, **options}
    with anew():
        plugin = resolve("pruners", spec)
    pruner = load("pruners", plugin.name)
    if "schedule" in options or (not isinstance(method, str) and "schedule" in method):
        raise ConfigError(
            f"schedule: expected none for {plugin.name}, which prunes once here, got one; leave it out, and prune and "
            "train in rounds of your own"
        )
    _check_needs(plugin.name, pruner.NEEDS, data=data, validation=validation, train=train)
    _check_data(data)
    if example_inputs is None:
        if data is None:
            raise CompressionError("expected example_inputs that the module can be called with, got none; pass a batch")
        example_inputs = data[0][:2]
    dense = _count_at_first(module)
    of_now = float(ratio) * count_parameters(module) / dense
    context = Context(
        generator=rng.generator(seed, "prune", plugin.name),
        images=None if data is None else data[0],
        labels=None if data is None else data[1],
        validation=validation,
        train=train,
    )
    pruned = prune_module(pruner, module, of_now, plugin.config, context, example_inputs, classifier)
    object.__setattr__(pruned, _DENSE, dense)
    return pruned


def finalize(module: nn.Module) -> nn.Module:
    """Return a copy of a pruned module whose masks are baked in: plain modules, with zeros where weights are removed.

    Do this last. Whoever trains it further trains what was removed, too.

    Args:
        module: from `prune`, alone or as a part of another module.

    Raises:
        CompressionError: it is no module, or there are masks of `torch.nn.utils.prune` in it.

    >>> import torch
    >>> network = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 2))
    >>> final = finalize(prune(network, ratio=3, example_inputs=torch.randn(1, 8)))
    >>> list(final.state_dict()) == list(network.state_dict())
    True
    """
    removed(_arguments.module(module))  # refuses masks that are not ours
    final = copy.deepcopy(module)
    bake(final)
    return final


def compression_ratio(module: nn.Module, dense: nn.Module | None = None) -> float:
    """Return the compression ratio of a module, over all parameters: those at first / those left.

    Masked weights are not left; nor are weights of two and more axes that are exactly 0, as `finalize` leaves them. So
    what was finalized at 4x and is pruned again counts at least 4, whatever ratio its masks are for.

    Args:
        module: pruned or not, as a whole or in parts.
        dense: the module before, where `prune` has not made this one, nor parts of it: what it makes remembers how many
            parameters there were.

    Raises:
        CompressionError: it is no module, there are masks of `torch.nn.utils.prune` in it, or no parameter is left.

    >>> compression_ratio(nn.Linear(3, 2))
    1.0
    """
    _arguments.module(module)
    before = _count_at_first(module) if dense is None else count_parameters(_arguments.module(dense))
    removed(module)  # refuses masks that are not ours
    masks = {id(place.weight): place.mask for place in masked_weights(module)}
    left = sum(_left(weight, masks.get(id(weight))) for weight in module.parameters())
    if not left:
        raise CompressionError("expected a module with parameters, got none that is not 0; initialise it first")
    return before / left


def _left(weight: Tensor, mask: Tensor | None) -> int:
    if weight.ndim < 2:
        return weight.numel()
    return int((weight if mask is None else weight[mask != 0]).count_nonzero())


def _check_needs(name: str, needs: Collection[str], **given: Any) -> None:
    """Refuse a method that lacks what it looks at."""
    for argument, asked, what in (
        ("data", {"data", "labels"}, "training inputs and labels, (inputs, labels)"),
        ("validation", {"validation"}, "inputs to measure sensitivities on"),
        ("train", {"trainer"}, "a function that trains a module in place"),
    ):
        if asked & set(needs) and given[argument] is None:
            raise CompressionError(f"{argument}: expected {what}, for {name}, got none; pass {argument}=...")


def _check_data(data: Any) -> None:
    """Refuse what are no inputs and labels: losses of torch take some of these, and mean something else."""
    if data is None:
        return
    if not (isinstance(data, Sequence) and len(data) == 2 and all(isinstance(part, Tensor) for part in data)):
        raise CompressionError("data: expected two tensors, (inputs, labels), got something else; use torch.as_tensor")
    if (labels := data[1]).dtype != torch.int64 or labels.ndim != 1:
        raise CompressionError(
            f"data: expected labels as int64 [b], a class index of each input, got "
            f"{str(labels.dtype).removeprefix('torch.')} {list(labels.shape)}; pass indices, such as labels.long()"
        )


def _count_at_first(module: nn.Module) -> int:
    """Count the parameters of a module before any part of it was pruned."""
    gone: int = sum(part.__dict__[_DENSE] - count_parameters(part) for part in _pruned_parts(module, set()))
    return count_parameters(module) + gone


def _pruned_parts(module: nn.Module, seen: set[nn.Module]) -> Iterator[nn.Module]:
    """Yield what `prune` has made, each once, but no parts of these: the whole remembers for them."""
    if module in seen:
        return
    seen.add(module)
    if _DENSE in module.__dict__:
        seen.update(module.modules())
        yield module
        return
    for child in module.children():
        yield from _pruned_parts(child, seen)
