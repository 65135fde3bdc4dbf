"""How far long work has come: a bar on a terminal, elsewhere a line now and then, nothing for a second of work.

It is written to stderr: what a program prints for other programs stays as it is.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

QUIET = 1.0  # seconds of work that nothing is shown of
EVERY = 30.0  # seconds between lines


@contextlib.contextmanager
def shown(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show how far the work in the block has come.

    Args:
        what: is done.
        total: how many there are.

    Yields:
        A function to call with the number of those that are done, as often as one likes.
    """
    teller = _Bar(what, total) if sys.stderr.isatty() else _Lines(what, total)
    try:
        yield teller.tell
    finally:
        teller.close()


class _Lines:
    """A line every so often."""

    def __init__(self, what: str, total: int) -> None:
        self.what, self.total = what, total
        self._told = time.monotonic()

    def tell(self, done: int) -> None:
        """Say how many are done, unless that was said just now."""
        if time.monotonic() - self._told >= EVERY:
            self._told = time.monotonic()
            print(f"{self.what}: {done:,} of {self.total:,}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """End without a word."""


class _Bar:
    """A bar with the time that is left, which goes away at the end."""

    def __init__(self, what: str, total: int) -> None:
        from rich.console import Console  # noqa: PLC0415 -- only where there is a terminal
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._bar.add_task(what, total=total)
        self._begin: float | None = time.monotonic() + QUIET

    def tell(self, done: int) -> None:
        """Move the bar, which is there after a second."""
        if self._begin is not None and time.monotonic() >= self._begin:
            self._begin = None
            self._bar.start()
        self._bar.update(self._task, completed=done)

    def close(self) -> None:
        """Take the bar away."""
        self._bar.stop()
