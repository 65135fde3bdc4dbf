"""Ranks of a training on several devices that are ready at once: forks of a process that has imported everything.

Lightning's `ddp_spawn` starts every rank of every training anew, which takes each of them the seconds that it takes to
import torch and Lightning, and a script with a guarded main module. All else is as there.
"""

from __future__ import annotations

import atexit
import os
import pickle
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, cast

from lightning_fabric.plugins.environments.lightning import find_free_network_port
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.strategies.launchers.multiprocessing import _GlobalStateSnapshot, _MultiProcessingLauncher

from sharedlabel.errors import TrainingError
from sharedlabel.machine import forks, mapped
from sharedlabel.training import callbacks

_ranks: list[forks.Forks] = []  # the process that forks them, for all trainings of this one


@dataclass(frozen=True)
class _Setup:
    """What a rank begins with.

    Attributes:
        number: of the rank.
        surroundings: of the process that launches, all its variables among them.
        work: pickled: who launches, and what.
    """

    number: int
    surroundings: forks.Surroundings
    work: bytes


@dataclass
class _Ended:
    """How the work of a rank ended.

    Attributes:
        output: of rank 0.
        error: the traceback of what it raised.
    """

    output: Any = None
    error: str = ""

    def put(self, output: Any) -> None:
        """Take what Lightning would put into a queue."""
        self.output = output


class Ranks(DDPStrategy):
    """DDP on the devices of this machine, in ranks that are forked."""

    def __init__(self) -> None:
        super().__init__(start_method="spawn")

    def _configure_launcher(self) -> None:
        self._launcher = _Launcher(self)


class _Launcher(_MultiProcessingLauncher):
    @property
    def is_interactive_compatible(self) -> bool:
        """Tell that notebooks have ranks, too."""
        return True

    def launch(self, function: Callable[..., Any], *args: Any, trainer: Any = None, **kwargs: Any) -> Any:
        """Run a function in every rank, and return what it returns in rank 0.

        Raises:
            TrainingError: a rank has failed; the others are ended.
        """
        # Another port for each training: that of one that has just ended may not be free yet.
        surroundings = forks.Surroundings({**os.environ, "MASTER_PORT": str(find_free_network_port())})
        work = mapped.dumps((self, trainer, function, args, kwargs, _GlobalStateSnapshot.capture()), None)
        connections = [_forked() for _ in range(cast("Ranks", self._strategy).num_processes)]
        try:
            for number, connection in enumerate(connections):
                connection.send(_Setup(number, surroundings, work))
            output = _output(connections)
        finally:
            for connection in connections:
                connection.close()  # which ends the rank
        if trainer is None:
            return output
        self._recover_results_in_main_process(output, trainer)
        return output.trainer_results


def _forked() -> Connection:
    if not _ranks:
        _ranks.append(forks.Forks(f"{__name__}:work", 1))
        atexit.register(_ranks[0].close)
    try:
        return _ranks[0].fork()
    except OSError:  # what forks has died
        _ranks.pop().close()
        return _forked()


def _output(connections: list[Connection]) -> Any:
    """Wait for all ranks, and return the output of the first.

    Raises:
        TrainingError: some have failed; what the others meet then is told, too, if it is known by then.
    """
    ended: dict[Connection, _Ended] = {}
    while len(ended) < len(connections):
        heard = cast("list[Connection]", wait([one for one in connections if one not in ended]))
        ended |= {connection: _heard(connection) for connection in heard}
        errors = {number: ended[one].error for number, one in enumerate(connections) if one in ended}
        failed = [f"rank {number}: {error}" for number, error in errors.items() if error]
        if failed:
            raise TrainingError("\n".join(["expected ranks that train to the end, got", *failed]))
    return ended[connections[0]].output


def _heard(connection: Connection) -> _Ended:
    try:
        ended: _Ended = connection.recv()
    except (EOFError, OSError):
        return _Ended(error="its process has died")
    return ended


def work(connection: Connection) -> None:
    """Do the work of a rank."""
    setup: _Setup = connection.recv()
    os.environ.clear()  # the process that forks ranks may be older than what has changed here
    setup.surroundings.take_over()
    ended = _Ended()
    try:
        launcher, trainer, function, args, kwargs, state = pickle.loads(setup.work)  # noqa: S301
        with callbacks.without_noise():
            launcher._wrapping_function(setup.number, trainer, function, args, kwargs, ended, state)
    except Exception:
        ended = _Ended(error=traceback.format_exc())
    connection.send(ended)
