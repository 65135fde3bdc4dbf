"""What an executor is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

from sharedlabel.grid.jobs import Call, Outcome


@dataclass(frozen=True)
class Ended:
    """A call that a worker is done with.

    Attributes:
        worker: which.
        call: what it was given.
        outcome: how the call ended; None if the worker has died and nothing is known.
    """

    worker: int
    call: Call
    outcome: Outcome | None


@runtime_checkable
class Executor(Protocol):
    """Workers that compute calls, one each at a time or several together; what they compute lies in the store alone.

    It is a context: its workers live in the block, and calls that are under way at the end are abandoned.
    """

    def __enter__(self) -> Self:
        """Start workers."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End them at once."""

    def free(self) -> Sequence[int]:
        """Return the workers that have nothing to do."""

    def place(self, worker: int) -> int:
        """Return where a worker keeps what it makes: a number that those have in common who reach it quickly.

        `schedule.NOBODY` where all reach everything alike.
        """

    def start(self, worker: int, calls: tuple[Call, ...]) -> None:
        """Give a call, whose inputs are stored, or several that can be computed together, to a worker that is free."""

    def ended(self, seconds: float | None) -> Sequence[Ended]:
        """Wait until a worker is done, and return all calls that have ended, each once.

        Args:
            seconds: to wait at most; None waits as long as it takes.
        """
