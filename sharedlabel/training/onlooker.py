"""Callbacks of users, held to looking: what they draw at random moves no training."""

from __future__ import annotations

import functools
from typing import Any

import pytorch_lightning as pl

from sharedlabel import rng


class Onlooker:
    """A callback of somebody else as a Trainer sees it: after each of its hooks all random numbers go on as before.

    It passes for the callback (`isinstance`), and whatever is read from it or written to it is the callback's own.

    Args:
        callback: what looks on.

    >>> import torch
    >>> class Drawing(pl.Callback):
    ...     def on_fit_start(self, trainer, pl_module):
    ...         self.drawn = torch.rand(1)
    >>> callback = Drawing()
    >>> onlooker, before = Onlooker(callback), torch.get_rng_state()
    >>> onlooker.on_fit_start(None, None)
    >>> isinstance(onlooker, Drawing), torch.equal(before, torch.get_rng_state()), callback.drawn.shape
    (True, True, torch.Size([1]))
    """

    def __init__(self, callback: pl.Callback) -> None:
        object.__setattr__(self, "_callback", callback)

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return type(self._callback)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._callback, name)
        idle = getattr(value, "__func__", None) is getattr(pl.Callback, name, None)  # a hook that does nothing
        return value if idle or not callable(value) else _held(value)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._callback, name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        return Onlooker, (self._callback,)


def _held(hook: Any) -> Any:
    @functools.wraps(hook)  # Lightning looks behind the wrapping to see which hooks a callback has
    def held(*arguments: Any, **options: Any) -> Any:
        with rng.untouched():
            return hook(*arguments, **options)

    return held
