"""Compute calls in processes of this machine that live as long as the run."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType
from typing import Self, cast

from sharedlabel.config import Experiment
from sharedlabel.errors import TrainingError
from sharedlabel.files import leases
from sharedlabel.grid.executors.base import Ended
from sharedlabel.grid.executors.messages import Begun, Setup, Unable
from sharedlabel.grid.jobs import Call, Job
from sharedlabel.machine import forks, mapped

_DEATHS = 4  # of workers in a row that never began, after which one more ends the run


@dataclass
class _Worker:
    """A process and what it is at."""

    number: int
    connection: Connection
    deaths: int  # of those before it that never began
    calls: tuple[Call, ...] = ()
    pid: int = 0  # as soon as it has told
    begun: bool = False


class Local:
    """Worker processes; one that dies is replaced.

    Args:
        job: what calls share.
        experiment: names the plugins.
        store: folder or URL of the store.
        environments: variables for each worker, such as the GPU to see; as many as there are workers.
        threads: that each computes with.
    """

    def __init__(
        self,
        job: Job,
        experiment: Experiment,
        store: str | Path,
        environments: Sequence[Mapping[str, str]],
        threads: int,
    ) -> None:
        self.job, self.experiment, self.store = job, experiment, store
        self.environments, self.threads = environments, threads
        self._workers: dict[int, _Worker] = {}
        self._left = contextlib.ExitStack()

    def __enter__(self) -> Self:
        place = Path(tempfile.gettempdir())
        leases.sweep(place, leases.MARK)
        folder = self._left.enter_context(leases.claimed(place, leases.MARK))
        self._forks = forks.taken(forks.STAGE_CALLS, self.threads)
        self._left.callback(self._close)
        self._job = mapped.dumps(self.job, folder)
        self._workers = {number: self._started(number) for number in range(len(self.environments))}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for worker in self._workers.values():
            worker.connection.close()  # which ends it
            if worker.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(worker.pid, signal.SIGKILL)
        self._workers = {}
        self._left.close()

    def _close(self) -> None:
        forks.keep(self._forks)  # the last of them

    def free(self) -> list[int]:
        """Return the workers that have nothing to do."""
        return [worker.number for worker in self._workers.values() if not worker.calls]

    def place(self, worker: int) -> int:
        """Return the worker itself: what it has made last it may still have in its memory."""
        return worker

    def start(self, worker: int, calls: tuple[Call, ...]) -> None:
        """Send calls to a worker; one that has died is noticed when its end is asked for."""
        self._workers[worker].calls = calls
        with contextlib.suppress(BrokenPipeError):
            self._workers[worker].connection.send_bytes(pickle.dumps(calls, pickle.HIGHEST_PROTOCOL))

    def ended(self, seconds: float | None) -> list[Ended]:
        """Wait until a call has ended; a worker that died is replaced by a new one.

        Raises:
            TrainingError: a worker cannot begin, or has died again and again before it had begun.
        """
        ended: list[Ended] = []
        while not ended:
            workers = {worker.connection: worker for worker in self._workers.values()}
            heard = wait(workers, seconds)
            for connection in heard:
                ended.extend(self._heard(workers[cast("Connection", connection)]))
            if not heard:
                break
        return ended

    def _heard(self, worker: _Worker) -> list[Ended]:
        try:
            told = worker.connection.recv()
        except (EOFError, ConnectionResetError):
            return self._replaced(worker)
        if isinstance(told, int):
            worker.pid = told
        elif isinstance(told, forks.Warned):
            told.warn()
        elif isinstance(told, Unable):
            raise TrainingError(f"expected a worker process that can begin, got: {told.outcome.reason}")
        elif isinstance(told, Begun):
            worker.begun = True
        elif isinstance(told, tuple):
            calls, worker.calls = worker.calls, ()
            return [Ended(worker.number, call, outcome) for call, outcome in zip(calls, told, strict=True)]
        return []

    def _replaced(self, worker: _Worker) -> list[Ended]:
        """Start another worker in the place of one that has died; it gets the calls, unless they may be the reason."""
        worker.connection.close()
        if worker.begun:
            self._workers[worker.number] = self._started(worker.number)
            return [Ended(worker.number, call, None) for call in worker.calls]
        if worker.deaths == _DEATHS:
            raise TrainingError(
                f"expected worker processes that stay alive, got {_DEATHS + 1} in a row that died before they had "
                "begun; see what they have printed, or set workers to 1 to compute in this process"
            )
        self._workers[worker.number] = self._started(worker.number, worker.deaths + 1)
        if worker.calls:
            self.start(worker.number, worker.calls)
        return []

    def _started(self, number: int, deaths: int = 0) -> _Worker:
        try:
            connection = self._forks.fork()
        except OSError:  # what forks has died itself, as where memory is short
            self._forks.close()
            self._forks = forks.Forks(forks.STAGE_CALLS, self.threads)
            connection = self._forks.fork()
        with contextlib.suppress(BrokenPipeError):  # it has died at once, which is noticed when it is asked
            surroundings = forks.Surroundings(self.environments[number])
            connection.send(Setup(surroundings, self.experiment, self.store, self._job))
        return _Worker(number, connection, deaths)
