"""What a run says while it works: a live view on a terminal, some lines elsewhere, or JSON for other programs."""

from __future__ import annotations

import abc
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from sharedlabel.grid import Grid, Node
from sharedlabel.grid.failures import Failed
from sharedlabel.grid.remaining import Remaining
from sharedlabel.grid.words import described

_LINES = 100  # of calls that end, at most, off a terminal
_LONG = 10.0  # seconds of a call that is told anyway


class Reporter(abc.ABC):
    """Follows the calls of a run.

    Args:
        grid: what the calls belong to.
        absent: the calls to compute.
        stored: number of calls that are stored already.
        workers: how many compute at the same time; 0 if that is not known before they do.
        folder: where the tracebacks of calls that fail are kept; they are not where it is left out.

    Attributes:
        done: number of calls computed so far.
        stored_since: number of calls that other runs have computed meanwhile.
        total: number of calls that are to be stored; those that fail are none of them any more, nor is what needs them.
    """

    def __init__(
        self, grid: Grid, absent: Sequence[Node], stored: int = 0, workers: int = 1, folder: Path | None = None
    ) -> None:
        self.grid, self.total, self.stored, self.workers, self.folder = grid, len(absent), stored, workers, folder
        self.done = self.stored_since = 0
        self._seen: set[int] = set()  # workers that have got a call
        self.remaining = Remaining(absent)

    def __call__(self, node: Node, seconds: float | None, worker: int = 0) -> None:
        """Tell that a worker starts a call (None), or that a call took so many seconds."""
        if seconds is None:
            self._seen.add(worker)
            self.tell_start(node, worker)
            return
        self.done += 1
        self.remaining.took(node, seconds)
        self.tell_end(node, seconds, worker)

    def failed(self, failed: Failed, worker: int = 0) -> None:
        """Tell that a call failed, and keep its traceback at once: the run may be killed before it ends."""
        self.lost(failed.node)
        self.tell_failure(failed, worker)
        if self.folder is None:
            return
        file = self.folder / failed.file
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(failed.details, encoding="utf-8", errors="backslashreplace")

    def lost(self, node: Node) -> None:
        """Note that a call is not computed any more."""
        self.remaining.lose(node)
        self.total -= 1

    def elsewhere(self, node: Node) -> None:
        """Note that another run has computed a call."""
        self.remaining.lose(node)
        self.stored_since += 1

    @property
    def settled(self) -> int:
        """Number of calls that have been stored since the run began, by whichever run."""
        return self.done + self.stored_since

    def left(self) -> float | None:
        """Estimate the seconds that are left; None while nothing is known."""
        seconds = self.remaining.seconds()
        return None if seconds is None else seconds / max(self.workers, len(self._seen), 1)

    def showing(self) -> Any:
        """Return a context in which a run is shown."""
        return self._shown()

    @contextmanager
    def _shown(self) -> Iterator[None]:
        yield

    @abc.abstractmethod
    def waiting(self, reason: str) -> None:
        """Tell that the run waits, and until when."""

    @abc.abstractmethod
    def tell_start(self, node: Node, worker: int) -> None:
        """Tell that a call starts."""

    @abc.abstractmethod
    def tell_end(self, node: Node, seconds: float, worker: int) -> None:
        """Tell that a call has ended."""

    @abc.abstractmethod
    def tell_failure(self, failed: Failed, worker: int) -> None:
        """Tell that a call has failed."""


class Lines(Reporter):
    """A line for each call that has ended, or for each hundredth of them in a run of more.

    Calls that took long and those that failed are all told.

    Args:
        console: where to write; all other arguments are those of `Reporter`.
    """

    def __init__(self, console: Console, *others: Any, **named: Any) -> None:
        super().__init__(*others, **named)
        self.console = console
        self._told = 0  # hundredths

    def tell_start(self, node: Node, worker: int) -> None:
        """Say nothing."""

    def tell_end(self, node: Node, seconds: float, worker: int) -> None:
        """Say what a call took, and how long the others will."""
        del worker
        hundredths = self.settled * _LINES // self.total
        if hundredths == self._told and self.total > _LINES and seconds < _LONG:
            return
        self._told, left = hundredths, self.left()
        rest = f", about {_clock(left)} left" if left is not None and self.settled < self.total else ""
        self._print(f"[{self.settled}/{self.total}] {described(node, self.grid)}: {seconds:.1f} s{rest}")

    def tell_failure(self, failed: Failed, worker: int) -> None:
        """Say why a call failed."""
        del worker
        self._print(f"failed: {described(failed.node, self.grid)}: {failed.reason}")

    def waiting(self, reason: str) -> None:
        """Say that the run waits."""
        self._print(f"waiting {reason}")

    def _print(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)


class View(Lines):
    """A bar for all calls, and a line for each worker, as long as the run lasts; the arguments are those of `Lines`."""

    def __init__(self, *others: Any, **named: Any) -> None:
        super().__init__(*others, **named)
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}", markup=False),
            console=self.console,
        )
        reused = f", {self.stored} reused" if self.stored else ""
        self._all = self._bar.add_task(f"calls{reused}", total=self.total, left="")
        self._workers = Progress(
            TextColumn("  {task.description}", markup=False), TimeElapsedColumn(), console=self.console
        )
        self._tasks: dict[int, TaskID] = {}

    @contextmanager
    def _shown(self) -> Iterator[None]:
        with Live(Group(self._bar, self._workers), console=self.console, transient=True, refresh_per_second=4):
            yield

    def tell_start(self, node: Node, worker: int) -> None:
        """Show what a worker is at."""
        self._end(worker)
        self._tasks[worker] = self._workers.add_task(described(node, self.grid), total=None)

    def tell_end(self, node: Node, seconds: float, worker: int) -> None:
        """Advance the bar."""
        del node, seconds
        self._end(worker)
        left = self.left()
        self._count("" if left is None else f"about {_clock(left)} left")

    def tell_failure(self, failed: Failed, worker: int) -> None:
        """Say why a call failed, above the bar."""
        self._end(worker)
        super().tell_failure(failed, worker)

    def waiting(self, reason: str) -> None:
        """Show that the run waits."""
        self._count(f"waiting {reason}")

    def _count(self, left: str) -> None:
        self._bar.update(self._all, completed=self.settled, total=self.total, left=left)

    def _end(self, worker: int) -> None:
        if worker in self._tasks:
            self._workers.remove_task(self._tasks.pop(worker))


class Json(Reporter):
    """A JSON object in a line for everything that happens; the arguments are those of `Reporter`.

    Every line has `event` and `time`, seconds since 1970. Events and what else they have: `plan` (calls, stored, and
    workers, null where that is not known before), `start` (call, stage, key, worker), `end` (the same, and seconds,
    done, calls, left_seconds: `done` counts what other runs have computed meanwhile, `calls` not what has failed, nor
    what needs it), `failed` (as `start`, and reason), `waiting` (reason), and last `report` (computed, failed, and
    where files were written).
    """

    def __init__(self, *others: Any, **named: Any) -> None:
        super().__init__(*others, **named)
        tell("plan", calls=self.total, stored=self.stored, workers=self.workers or None)

    def tell_start(self, node: Node, worker: int) -> None:
        """Tell that a call starts."""
        tell("start", **self._call(node, worker))

    def tell_end(self, node: Node, seconds: float, worker: int) -> None:
        """Tell what a call took, and what is left."""
        left = self.left()
        progress = {"done": self.settled, "calls": self.total, "left_seconds": None if left is None else round(left, 1)}
        tell("end", **self._call(node, worker), seconds=round(seconds, 3), **progress)

    def tell_failure(self, failed: Failed, worker: int) -> None:
        """Tell why a call failed."""
        tell("failed", **self._call(failed.node, worker), reason=failed.reason)

    def waiting(self, reason: str) -> None:
        """Tell that the run waits."""
        tell("waiting", reason=reason)

    def _call(self, node: Node, worker: int) -> dict[str, Any]:
        return {"call": described(node, self.grid), "stage": node.stage, "key": node.key, "worker": worker}


def tell(event: str, **facts: Any) -> None:
    """Print an event as JSON in a line."""
    print(json.dumps({"event": event, "time": round(time.time(), 3), **facts}), flush=True)


def reporter(console: Console | None, grid: Grid, absent: Sequence[Node], *others: Any, **named: Any) -> Reporter:
    """Return what follows a run: on a terminal, elsewhere, or without a console as JSON; see `Reporter`."""
    if console is None:
        return Json(grid, absent, *others, **named)
    return (View if console.is_terminal else Lines)(console, grid, absent, *others, **named)


def _clock(seconds: float) -> str:
    """Write a number of seconds as a clock does.

    >>> _clock(3725)
    '1:02:05'
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
