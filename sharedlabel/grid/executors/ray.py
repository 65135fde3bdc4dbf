"""Compute calls as tasks of Ray, on as many machines as its cluster has at the moment.

Ray moves the job to every machine once and runs what it is given; which call comes next, what has failed and what is
done are none of its business, so a cluster may be lost at any time. What a worker is given is a task that is not
retried by Ray: a worker or a machine that dies is told to the driver, which gives its calls to another.

The machines have to reach the store (a shared folder, or a URL), and need the same packages installed; plugins that are
given as files are read at the same paths.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from sharedlabel.config import Experiment
from sharedlabel.config.sections import RayConfig
from sharedlabel.errors import ConfigError, TrainingError, first_line
from sharedlabel.grid.executors.base import Ended
from sharedlabel.grid.executors.messages import Setup
from sharedlabel.grid.jobs import Call, Job, Outcome
from sharedlabel.machine import forks, mapped
from sharedlabel.store import Store

_LOOK = 2.0  # seconds between two looks at which machines there are
_ANSWER = 10.0  # seconds in which the address of a cluster takes a connection
# What a cluster of our own does unless the environment says otherwise: nobody else may use it, or hears of it.
_USUAL = {"RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}
_begun: dict[str, tuple[Job, Store]] = {}  # in a worker of Ray, by run


@dataclass(frozen=True)
class _Slot:
    """Room for one call.

    Attributes:
        node: id of the machine.
        place: number of the machine.
    """

    node: str
    place: int


class Ray:
    """As many workers as the cluster has room for; machines may come and go.

    Args:
        job: what calls share.
        experiment: names the plugins, and says what a call needs.
        store: folder or URL of the store.
        needs: resources of a call, as Ray names them: `CPU`, `GPU`.
    """

    def __init__(self, job: Job, experiment: Experiment, store: str | Path, needs: Mapping[str, float]) -> None:
        self.job, self.experiment, self.store, self.needs = job, experiment, store, needs
        self._left = contextlib.ExitStack()
        self._slots: dict[int, _Slot] = {}  # those of machines that are gone stay known, for what they have made
        self._free: list[int] = []
        self._places: dict[str, int] = {}
        self._under_way: dict[Any, tuple[int, tuple[Call, ...]]] = {}  # by the reference of the task
        self._looked = 0.0

    def __enter__(self) -> Self:
        self.ray = _connected(self.experiment.ray)
        self._left.callback(self.ray.shutdown)
        content, arrays = mapped.packed(self.job)
        setup = Setup(forks.Surroundings({}), self.experiment, self.store, content)
        self._setup = self.ray.put((setup, arrays, self.experiment.threads))
        self._task = self.ray.remote(_compute)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for task in self._under_way:
            self.ray.cancel(task, force=True)
        self._left.close()

    def free(self) -> Sequence[int]:
        """Return the workers that have nothing to do, on the machines that there are now."""
        if time.monotonic() - self._looked > _LOOK:
            self._look()
        return tuple(self._free)  # of now, whoever gets a call meanwhile

    def place(self, worker: int) -> int:
        """Return the number of a worker's machine."""
        return self._slots[worker].place

    def start(self, worker: int, calls: tuple[Call, ...]) -> None:
        """Hand calls to a machine, or to any other should it have gone meanwhile."""
        near = self.ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(self._slots[worker].node, soft=True)
        room = {"num_cpus": self.needs.get("CPU", 0.0), "num_gpus": self.needs.get("GPU", 0.0)}
        task = self._task.options(max_retries=0, scheduling_strategy=near, **room).remote(
            self._setup, self._setup.hex(), pickle.dumps(calls, pickle.HIGHEST_PROTOCOL)
        )
        self._free.remove(worker)
        self._under_way[task] = worker, calls

    def ended(self, seconds: float | None) -> list[Ended]:
        """Wait until a call has ended, or machines may have come."""
        patience = _LOOK if seconds is None else min(seconds, _LOOK)
        if not self._under_way:
            time.sleep(patience)
            return []
        done, _ = self.ray.wait(list(self._under_way), timeout=patience)
        return [ended for task in done for ended in self._ended(task)]

    def _ended(self, task: Any) -> list[Ended]:
        worker, calls = self._under_way.pop(task)
        self._free.append(worker)
        try:
            outcomes, warned = self.ray.get(task)
        except self.ray.exceptions.RayTaskError as error:
            raise TrainingError(f"expected a worker of Ray that can begin, got: {first_line(error.cause)}") from error
        except self.ray.exceptions.RayError:  # the worker, its machine or what carries the result has died
            self._looked = 0.0
            return [Ended(worker, call, None) for call in calls]
        for one in warned:
            one.warn()
        return [Ended(worker, call, outcome) for call, outcome in zip(calls, outcomes, strict=True)]

    def _look(self) -> None:
        """See which machines there are, and how many calls fit on each."""
        self._looked = time.monotonic()
        busy = {worker for worker, _ in self._under_way.values()}
        by_node: dict[str, list[int]] = {}
        for worker, slot in self._slots.items():
            by_node.setdefault(slot.node, []).append(worker)
        self._free = []
        for node in self.ray.nodes():
            if not node["Alive"]:
                continue
            place = self._places.setdefault(node["NodeID"], len(self._places))
            room = min(int(node["Resources"].get(name, 0) / needed) for name, needed in self.needs.items() if needed)
            own = by_node.get(node["NodeID"], [])
            for _ in range(room - len(own)):
                own.append(len(self._slots))
                self._slots[own[-1]] = _Slot(node["NodeID"], place)
            self._free += [worker for worker in own[:room] if worker not in busy]


def _connected(config: RayConfig) -> Any:
    """Return the module, connected to a cluster, or to one of this machine that lives as long as the run.

    Raises:
        ConfigError: Ray is not installed, or there is no such cluster.
    """
    if "ray" not in sys.modules:  # which reads them when it is imported
        for name, value in _USUAL.items():
            os.environ.setdefault(name, value)
    try:
        import ray  # noqa: PLC0415
        import ray.util.scheduling_strategies  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(
            'executor: ray is not installed; pip install "sharedlabel[ray]", or set executor to local'
        ) from error
    own: dict[str, Any] = {} if config.address else {"include_dashboard": False, "dashboard_host": "127.0.0.1"}
    try:
        _ask(config.address or "")
        with _stoppable():
            ray.init(address=config.address or "local", log_to_driver=False, logging_level=logging.ERROR, **own)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise ConfigError(
            f"ray.address: expected a cluster of Ray that answers at {config.address!r}, got: {first_line(error)}; "
            "check the address, and that RAY_AUTH_MODE and RAY_AUTH_TOKEN are those of the cluster"
        ) from error
    return ray


def _ask(address: str) -> None:
    """Connect to an address once: Ray would ask one that does not answer for minutes, and not be stopped meanwhile.

    Raises:
        OSError: nobody answers.
    """
    host, _, port = address.rpartition(":")
    if host and port.isdecimal() and "://" not in address:
        socket.create_connection((host.strip("[]"), int(port)), _ANSWER).close()


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """Keep what SIGTERM does here, in the place of which Ray sets an end of its own."""
    former = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, former)


def _compute(
    shared: tuple[Setup, list[Any], int], run: str, calls: bytes
) -> tuple[tuple[Outcome, ...], list[forks.Warned]]:
    """Compute calls in a worker of Ray, which keeps what calls share, and so knows the plugins of the calls."""
    warned: list[forks.Warned] = []
    forks.tell_warnings(warned.append)
    if run not in _begun:
        _begun.clear()  # a run before it is over
        setup, arrays, threads = shared
        torch.set_num_threads(threads)
        _begun[run] = setup.begun(arrays)
    job, store = _begun[run]
    return job.attempt(pickle.loads(calls), store), warned  # noqa: S301
