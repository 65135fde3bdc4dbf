"""Compute calls in this process, one after the other: for a debugger, and for grids of a few seconds."""

from __future__ import annotations

import contextlib
import time
from types import TracebackType
from typing import Self

from sharedlabel.grid.executors.base import Ended
from sharedlabel.grid.jobs import Call, Job
from sharedlabel.grid.schedule import NOBODY
from sharedlabel.machine import cores
from sharedlabel.store import Store


class Here:
    """The one worker that is this process; `start` returns when the calls have ended.

    Args:
        job: what calls share.
        store: where they are stored.
        threads: that a call uses, as everywhere, so that numbers do not depend on the executor.
    """

    def __init__(self, job: Job, store: Store, threads: int) -> None:
        self.job, self.store, self.threads = job, store, threads
        self._left = contextlib.ExitStack()
        self._ended: list[Ended] = []

    def __enter__(self) -> Self:
        self._left.enter_context(cores.using(self.threads))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._left.close()

    def free(self) -> list[int]:
        """Return the one worker, unless what it has done is still to be noted."""
        return [] if self._ended else [0]

    def place(self, worker: int) -> int:
        """Return the same for all: they share a machine."""
        del worker
        return NOBODY

    def start(self, worker: int, calls: tuple[Call, ...]) -> None:
        """Compute calls."""
        outcomes = self.job.attempt(calls, self.store)
        self._ended += [Ended(worker, call, outcome) for call, outcome in zip(calls, outcomes, strict=True)]

    def ended(self, seconds: float | None) -> list[Ended]:
        """Return what has been computed; wait if that is nothing."""
        if not self._ended:
            time.sleep(seconds or 0)
        ended, self._ended = self._ended, []
        return ended
