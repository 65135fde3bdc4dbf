"""W&B in a process of its own, which publishes finished cells while this one summarises them and draws."""

from __future__ import annotations

import contextlib
import functools
import os
import queue
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sharedlabel.config import Experiment
from sharedlabel.errors import SharedLabelError, TrackingError
from sharedlabel.machine import cores, forks
from sharedlabel.records import Results, Row
from sharedlabel.records.measurements import Failure
from sharedlabel.running.tracking import Tracker

_GRACE = 5.0  # seconds to finish the run under way in, when nobody waits for the rest


@dataclass(frozen=True)
class _Setup:
    """What the process begins with: its surroundings, and the arguments of `Tracker`."""

    surroundings: forks.Surroundings
    experiment: Experiment
    folder: Path


def tracker(experiment: Experiment, folder: Path) -> Tracker | Publisher:
    """Return what publishes the cells and the summary of an experiment: in a process of its own where there are cores.

    Args:
        experiment: the resolved experiment.
        folder: where offline runs lie; remembers which cells were published.
    """
    here = Tracker(experiment, folder)
    return here if here.mode == "none" or cores.processes(experiment.workers) == 1 else Publisher(here)


class Publisher:
    """Publishes as a `Tracker` does, in another process and in the order in which it is told.

    It never waits for W&B until the end of its block, where whatever that process warned of, or failed at, is told.

    Args:
        tracker: that of this process, which publishes nothing.
    """

    def __init__(self, tracker: Tracker) -> None:
        self._tracker, self._told = tracker, set[str]()
        self._left: queue.SimpleQueue[Callable[[], Any]] = queue.SimpleQueue()  # returns what to send, or None: the end
        self._process: _Process | None = None

    @property
    def mode(self) -> str:
        """`online` or `offline`, as a `Tracker` begins."""
        return self._tracker.mode

    @property
    def busy(self) -> bool:
        """Whether there was anything to publish, which may take a while still."""
        return self._process is not None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is None:
            return
        with contextlib.closing(self._process) as process:
            self._left.put(lambda: None)
            if kind is None:
                process.wait()
            else:
                process.stop()

    def has(self, identifier: str) -> bool:
        """Tell whether a cell, or the whole grid, was published before, or will be."""
        return identifier in self._told or self._tracker.has(identifier)

    def cell(self, rows: Sequence[Row], losses: Mapping[str, Sequence[float]]) -> None:
        """Publish a finished cell, as `Tracker.cell` does."""
        if not self.has(rows[0].cell):
            self._told.add(rows[0].cell)
            self._tell("cell", list(rows), losses)

    def failed(self, failure: Failure) -> None:
        """Publish a cell that failed, as `Tracker.failed` does."""
        self._tell("failed", failure)

    def summary(self, results: Results, figures: Callable[[], Mapping[str, str]], identifier: str) -> None:
        """Publish the summary, as `Tracker.summary` does; who sends it waits for the figures, not this thread."""
        if not self.has(identifier):
            self._told.add(identifier)
            self._tell("summary", results, identifier)
            self._left.put(lambda: dict(figures()))

    def _tell(self, name: str, *arguments: Any) -> None:
        if self._process is None:
            setup = _Setup(forks.Surroundings(), self._tracker.experiment, self._tracker.folder)
            self._process = _Process(setup, self._left)
        self._left.put(lambda: (name, arguments))


class _Process:
    """The other process, and the thread that sends it what there is to publish: a pipe takes no more than is read."""

    def __init__(self, setup: _Setup, left: queue.SimpleQueue[Any]) -> None:
        self._forks = forks.Forks(f"{__name__}:work", 0)
        self._connection = self._forks.fork()
        threading.Thread(target=self._send, args=(setup, left), daemon=True).start()

    def _send(self, setup: _Setup, left: queue.SimpleQueue[Any]) -> None:
        try:
            with contextlib.suppress(OSError, CancelledError):  # it has died, which is heard; there are no figures
                self._connection.send(setup)
                told = setup
                while told is not None:
                    told = left.get()()
                    self._connection.send(told)
        finally:
            self._say_end()

    def wait(self) -> None:
        """Wait until all is published.

        Raises:
            TrackingError: W&B does not take something, or the process has died.
        """
        while True:
            try:
                heard = self._connection.recv()
            except (EOFError, OSError) as error:
                raise TrackingError(
                    "expected the process that publishes to W&B to live, got its end; all results are stored and the "
                    "report is written: run the same command again, or choose --tracking none"
                ) from error
            if heard is None:
                return
            if isinstance(heard, SharedLabelError):
                raise heard
            heard.warn()

    def stop(self) -> None:
        """Let the process finish the run that it is at, for some seconds: files of half a run are not always there."""
        self._say_end()
        with contextlib.suppress(EOFError, OSError):
            while self._connection.poll(_GRACE) and self._connection.recv() is not None:
                pass

    def _say_end(self) -> None:
        """Let the process hear that nothing more comes, however that came about; it can still answer."""
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self._connection.fileno())) as there:
            there.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """End the process, whatever it is at."""
        self._connection.close()
        self._forks.close()


def work(connection: Connection) -> None:
    """Publish what comes, until there is no more, and tell whether all was taken.

    Raises:
        EOFError: nobody is there any more.
    """
    setup: _Setup = connection.recv()
    setup.surroundings.take_over()
    forks.tell_warnings(connection.send)
    end: SharedLabelError | None = None
    try:
        with Tracker(setup.experiment, setup.folder) as publishing:
            while (told := connection.recv()) is not None:
                name, arguments = told
                if name == "summary":
                    figures = functools.cache(connection.recv)
                    publishing.summary(arguments[0], figures, arguments[1])
                    figures()  # they come whether or not another process has published the summary meanwhile
                else:
                    getattr(publishing, name)(*arguments)
    except SharedLabelError as error:
        end = error
    connection.send(end)
