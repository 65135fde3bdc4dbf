"""Who watches the trainings of this process; `callbacks.py` says what watching is, and takes seconds to import."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

WATCHERS: ContextVar[tuple[Any, ...]] = ContextVar("watchers", default=())  # callbacks of Lightning
