"""Who watches the trainings of this process, and what they are told of; `callbacks.py` says what watching is.

Lightning, which watches, takes seconds to import; this file does not import it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from sharedlabel.config.sections import TrainerConfig
from sharedlabel.tracking.places import Place

WATCHERS: ContextVar[tuple[Any, ...]] = ContextVar("watchers", default=())  # callbacks of Lightning


@dataclass(frozen=True)
class Watched:
    """What watchers are told of the trainings of a stage call.

    Attributes:
        identifier: what tells the call apart from all others.
        name: of the call in words, for a run of W&B.
        config: its configuration, to filter by.
        tags: likewise.
        network: it trains a network, and not an aggregator alone.
        held_out: returns batches of validation, as the module takes them; the same ones every time.
        place: where runs go.
    """

    identifier: str
    name: str
    config: Mapping[str, Any] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    network: bool = True
    held_out: Callable[[], Iterator[Sequence[Tensor]]] | None = None
    place: Place | None = None


_watched: ContextVar[Watched | None] = ContextVar("watched", default=None)


@contextlib.contextmanager
def telling(watched: Watched | None) -> Iterator[None]:
    """Tell watchers of what is trained in the block."""
    token = _watched.set(watched)
    try:
        yield
    finally:
        _watched.reset(token)


def told() -> Watched | None:
    """Return what watchers are told of the training that is about to begin; None outside of a stage call."""
    return _watched.get()


def anybody(config: TrainerConfig) -> bool:
    """Tell whether a logger or a callback watches the training that is about to begin, or any where none is."""
    return bool(config.callbacks or WATCHERS.get()) or logs(config)


def logs(config: TrainerConfig) -> bool:
    """Tell whether a logger is told of the training; W&B has a run for each network, but none for an aggregator."""
    watched = told()
    return config.logger != "none" and (config.logger != "wandb" or watched is None or watched.network)
