"""Publishes finished runs while others are summarised and figures are drawn, or after all of that."""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import CancelledError
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self

from sharedlabel.config import Experiment
from sharedlabel.errors import SharedLabelError, TrackingError
from sharedlabel.machine import forks
from sharedlabel.tracking.places import Place
from sharedlabel.tracking.runs import Run
from sharedlabel.tracking.tracker import Tracker

_GRACE = 5.0  # seconds to finish the run under way in, when nobody waits for the rest


class Publisher:
    """Publishes runs in the order in which it is told of them; it never waits for W&B until the end of its block.

    Where there are cores for another process, that one publishes meanwhile; otherwise this one does at the end. What
    W&B warned of, or does not take, is told at the end either way.

    Args:
        place: where runs go.
        aside: publish in another process.

    Attributes:
        place: where runs went, once the block has ended: offline, where W&B took no more.
    """

    def __init__(self, place: Place, aside: bool) -> None:
        self.place, self.aside, self._told = place, aside, set[str]()
        self._here = Tracker(place)
        self._process: _Process | None = None
        self._left: queue.SimpleQueue[Callable[[], Run | None]] = queue.SimpleQueue()  # what makes None is the end

    @classmethod
    def of(cls, experiment: Experiment, place: Place, aside: bool) -> Self:
        """Return what publishes the runs of an experiment; warn where they go offline and are wanted online."""
        if experiment.tracking == "online" and place.mode == "offline":
            warnings.warn(
                f"tracking: expected an API key of W&B, got none; going on offline: nothing is lost, `wandb login` and "
                f"`wandb sync {place.folder / 'wandb'}` later",
                RuntimeWarning,
                stacklevel=2,
            )
        return cls(place, aside)

    @property
    def busy(self) -> bool:
        """Whether there was anything to publish, which may take a while still."""
        return bool(self._told)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left.put(lambda: None)
        if self._process is not None:
            with contextlib.closing(self._process) as process:
                if kind is None:
                    self.place = process.wait(self.place)
                else:
                    process.stop()
        elif kind is None and self.busy:
            with self._here as tracker:
                while (run := self._left.get()()) is not None:
                    tracker.publish(run)
            self.place = tracker.place

    def has(self, identifier: str) -> bool:
        """Tell whether a run was published before, or will be."""
        return identifier in self._told or self._here.has(identifier)

    def publish(self, identifier: str, make: Callable[[], Run]) -> None:
        """Publish a run, unless it was published before.

        Args:
            identifier: of the run.
            make: returns it; called by whoever publishes it, so that it may wait for what the run holds.
        """
        if self.place.mode == "none" or self.has(identifier):
            return
        self._told.add(identifier)
        if self.aside and self._process is None:
            self._process = _Process(_Setup(forks.Surroundings(), self.place), self._left)
        self._left.put(make)


@dataclass(frozen=True)
class _Setup:
    """What the process begins with: its surroundings, and where runs go."""

    surroundings: forks.Surroundings
    place: Place


class _Process:
    """The other process, and the thread that sends it what there is to publish: a pipe takes no more than is read."""

    def __init__(self, setup: _Setup, left: queue.SimpleQueue[Any]) -> None:
        self._forks = forks.Forks(f"{__name__}:work", 0)
        self._connection = self._forks.fork()
        self._failed: Exception | None = None  # what a run could not be made for
        threading.Thread(target=self._send, args=(setup, left), daemon=True).start()

    def _send(self, setup: _Setup, left: queue.SimpleQueue[Any]) -> None:
        told: Any = setup
        with contextlib.suppress(OSError):  # it has died, which is heard
            while told is not None:
                self._connection.send(told)
                told = self._made(left.get())
            self._connection.send(None)

    def _made(self, make: Callable[[], Run | None]) -> Run | None:
        """Return a run; None, the end, where it cannot be made, which is told when all before it is published."""
        try:
            return make()
        except CancelledError:  # there will be no figures
            return None
        except Exception as error:
            self._failed = error
            return None

    def wait(self, place: Place) -> Place:
        """Wait until all is published.

        Args:
            place: where runs are to go.

        Returns:
            Where the last of them went.

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
                break
            if isinstance(heard, SharedLabelError):
                raise heard
            if isinstance(heard, Place):
                place = heard
            else:
                heard.warn()
        if self._failed is not None:
            raise self._failed
        return place

    def stop(self) -> None:
        """Let the process finish the run that it is at, for some seconds: files of half a run are not always there."""
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self._connection.fileno())) as there:
            there.shutdown(socket.SHUT_WR)  # it hears the end of what is to be published, and can still answer
        with contextlib.suppress(EOFError, OSError):
            while self._connection.poll(_GRACE) and self._connection.recv() is not None:
                pass

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
        with Tracker(setup.place) as tracker:
            while (run := connection.recv()) is not None:
                tracker.publish(run)
        connection.send(tracker.place)
    except SharedLabelError as error:
        end = error
    connection.send(end)
