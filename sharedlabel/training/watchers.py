"""Who watches the trainings of this process; `callbacks.py` says what watching is, and takes seconds to import."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from sharedlabel.config.sections import TrainerConfig

WATCHERS: ContextVar[tuple[Any, ...]] = ContextVar("watchers", default=())  # callbacks of Lightning


def anybody(config: TrainerConfig) -> bool:
    """Tell whether a logger or a callback watches the trainings of a grid."""
    return bool(config.callbacks or WATCHERS.get()) or config.logger != "none"
