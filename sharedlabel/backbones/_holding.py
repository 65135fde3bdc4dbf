"""Masks that hold in any module: whoever reads a masked weight of a layer reads weight * mask.

    network.layer.register_buffer("weight_mask", mask)
    hold_masks(network)
    optimiser.step()  # may write to what is removed: no later pass sees it, and network.state_dict() has zeros

A `Backbone` knows where its passes begin and multiplies all weights there at once, which is faster. Other modules are
called in parts (`network.encoder(x)`), or parts of them are read without a call (the projections of attention).

What is read is a product: a write to it is lost. Who sets weights writes to the parameter (`named_parameters()`).
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable
from typing import Any, NoReturn

from torch import Tensor, nn

from sharedlabel.backbones._masking import after_loading, before_state, enforce, masked_weights
from sharedlabel.errors import CompressionError

_RESETS = ("reset_parameters", "_reset_parameters")  # what layers of torch draw their weights anew by


def hold_masks(network: nn.Module) -> None:
    """Make masks hold in every use of the weights of any module, in place: called as a whole, in parts, or not at all.

    Reading the attribute (`layer.weight`, `attention.in_proj_weight`) gives weight * mask from now on, which is no
    parameter: what is written to it is lost. The parameters keep their names and places (`named_parameters`,
    `state_dict`), and the state, read or loaded, has zeros where masks remove weights. `layer.reset_parameters()` draws
    the weights that are left anew. Layers stay instances of their classes; copies stay pruned.

    Args:
        network: a module with masks; more masks may be added and held later.

    >>> import torch
    >>> layer = nn.Linear(2, 1, bias=False)
    >>> layer.register_buffer("weight_mask", torch.tensor([[1.0, 0.0]]))
    >>> hold_masks(layer)
    >>> _ = nn.init.ones_(next(layer.parameters()))
    >>> layer(torch.tensor([[5.0, 7.0]])).item(), type(layer).__name__
    (5.0, 'Linear')
    """
    keys = defaultdict[Any, list[str]](list)
    for place in masked_weights(network):
        keys[place.owner].append(place.key)
    for owner, names in keys.items():
        if not isinstance(owner, _Held):
            owner.register_state_dict_pre_hook(before_state)
            owner.register_load_state_dict_post_hook(after_loading)
        owner.__class__ = _held(_plain_class(owner), tuple(names))
    enforce(network)


def release_masks(network: nn.Module) -> None:
    """Undo `hold_masks` in place: the masks stay, but only passes of a `Backbone` multiply by them."""
    layers: list[Any] = [module for module in network.modules() if isinstance(module, _Held)]
    for layer in layers:
        layer.__class__ = _plain_class(layer)
        for hooks in (layer._state_dict_pre_hooks, layer._load_state_dict_post_hooks):
            for number in [number for number, hook in hooks.items() if hook in (before_state, after_loading)]:
                del hooks[number]


class _Held:
    """What the classes of layers whose masks hold have in common."""

    _plain: type[Any]
    _keys: tuple[str, ...]

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Copy and pickle by the class that can be imported."""
        del protocol
        return _unpickled, (self._plain, self._keys), self.__getstate__()

    def __delattr__(self, name: str) -> None:
        """Refuse what would put something else in the place of a masked weight, before it has begun."""
        if name in self._keys:
            _refuse(self, "whose weight stays a parameter of its own, got one to be computed (weight_norm, ...)")
        super().__delattr__(name)

    def __prepare_scriptable__(self) -> NoReturn:
        """Refuse `torch.jit.script`, which calls this first."""
        _refuse(self, "that runs in Python, got one to be scripted")


@functools.cache
def _held(plain: Any, keys: tuple[str, ...]) -> Any:
    """Return the class of a layer whose masked weights are read as weight * mask: by name that of the layer itself."""
    names = {"__module__": plain.__module__, "__qualname__": plain.__qualname__, "__doc__": plain.__doc__}
    resets = {name: _reset(name) for name in _RESETS if hasattr(plain, name)}
    held = {"_plain": plain, "_keys": keys} | resets | {key: _read(key) for key in keys}
    return type(plain.__name__, (_Held, plain), names | held)


def _read(key: str) -> property:
    def product(layer: Any) -> Tensor:
        weight, mask = layer._parameters.get(key), layer._buffers.get(f"{key}_mask")
        if weight is None:
            _refuse(layer, f"with a parameter {key!r}, got none")
        if mask is None:
            return weight  # type: ignore[no-any-return]
        try:
            return weight * mask  # type: ignore[no-any-return]
        except RuntimeError:
            if hasattr(weight, "device_mesh"):  # a DTensor
                _refuse(layer, "whose weights are whole, got one that is sharded (fully_shard, ...)")
            raise

    def put(layer: Any, weight: Tensor) -> None:
        if not getattr(layer, "_is_replica", False):  # replicas of DataParallel have tensors in the place of parameters
            _refuse(layer, f"whose {key} stays a parameter, got a tensor in its place")
        layer._parameters[key] = weight

    return property(product, put)


def _reset(name: str) -> Callable[[Any], None]:
    def reset(layer: Any) -> None:
        held = type(layer)
        layer.__class__ = held._plain
        try:
            getattr(layer, name)()
        finally:
            layer.__class__ = held
            enforce(layer)

    return reset


def _refuse(layer: Any, what: str) -> NoReturn:
    raise CompressionError(
        f"expected a pruned {layer._plain.__name__} {what}; masks do not hold there: pass what sl.finalize returns"
    )


def _plain_class(module: nn.Module) -> Any:
    return module._plain if isinstance(module, _Held) else type(module)


def _unpickled(plain: Any, keys: tuple[str, ...]) -> Any:
    held = _held(plain, keys)
    return held.__new__(held)
