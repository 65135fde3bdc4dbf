"""Trainings that go on where a killed run left them, with the same numbers bit for bit.

A stage call trains once, or several times one after the other: dense, then again after pruning; the trials of a search.
Since a stage computes the same whenever it is called, a training is known by its number within the call. What is kept
of it: at the end of an epoch all that the next epoch needs (weights, optimiser, schedule, streams of random numbers,
the loader's epoch, the best weights so far, masks), and at its end what the rest of the stage needs.

Numbers do not depend on when a state is written. It is written at an epoch's end once `trainer.checkpoint_seconds` have
passed since the last one, so trainings of seconds write none. Trainings on several devices are begun anew.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import io
import time
import warnings
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

import torch

from sharedlabel.code import digests
from sharedlabel.errors import first_line
from sharedlabel.files.patience import passes
from sharedlabel.files.unfinished import Unfinished

if TYPE_CHECKING:
    from sharedlabel.training.base import TrainedModule

OURS = "sharedlabel"  # our entry in a state, such as a checkpoint of Lightning
LOOP = "loop"  # what the state of a training in a plain loop (`loop.py`) has in the place of Lightning's "loops"
_SHARE = 50  # writing takes at most one part in so many of the time, unless every epoch is to be written
# What has made a state. This file is in no key, so a state that other code of it has left is not gone on from.
VERSIONS = {
    "torch": str(torch.__version__),
    "lightning": importlib.metadata.version("pytorch-lightning"),
    "code": digests.digest(__name__)[:12] + digests.digest(f"{__package__}.keeping")[:12],
}
State: TypeAlias = dict[str, Any]


@runtime_checkable
class Epochs(Protocol):
    """A loader whose batches depend on the number of the epoch."""

    epoch: int

    def __iter__(self) -> Iterator[Any]:
        """Begin the epoch, and count it."""

    def __len__(self) -> int:
        """Return the number of batches."""


class Workplace:
    """What surrounds the trainings of one stage call: where they keep their states, and where they log.

    Args:
        states: where states are kept.
        seconds: that pass between two writes at least; 0 writes at the end of every epoch, None never.
        logs: folder of the logs.
    """

    def __init__(self, states: Unfinished, seconds: float | None, logs: Path) -> None:
        self.logs = logs
        self.started = time.perf_counter()  # less what killed runs have spent
        self._states, self._seconds = states, seconds
        self._begun, self._written, self._cost = 0, time.monotonic(), 0.0
        self._finished: dict[int, State] = {}

    def begin(self) -> int:
        """Return the number of the training that begins."""
        self._begun += 1
        return self._begun

    def left(self, number: int) -> State | None:
        """Return what a killed run has left of a training, or None.

        The file is read once: others that compute the same call may replace it or remove it at any time.
        """
        path = self._states.path(number)
        if self._seconds is None:
            return None
        try:
            state: State = torch.load(path, map_location="cpu", weights_only=True)
            ours = state[OURS]
            if ours["versions"] != VERSIONS:
                raise ValueError(f"it was made by {ours['versions']}, this is {VERSIONS}")
            self.started = min(self.started, time.perf_counter() - ours["seconds"])
        except (FileNotFoundError, NotADirectoryError):
            return None
        except Exception as error:
            warnings.warn(
                f"expected the state of a training at {path}, got {first_line(error)}; it is trained from its start",
                RuntimeWarning,
                stacklevel=2,
            )
            return None
        return state

    def due(self) -> bool:
        """Tell whether it is time to write."""
        if self._seconds is None:
            return False
        waiting = max(self._seconds, _SHARE * self._cost) if self._seconds else 0.0
        return time.monotonic() - self._written >= waiting

    def write(self, number: int, save: Callable[[Path], Any]) -> None:
        """Write the state of a training, after those of the finished ones before it."""
        began = time.monotonic()
        try:
            for earlier in list(self._finished):
                self._states.write(earlier, functools.partial(_save, self._finished[earlier]))
                del self._finished[earlier]
            self._states.write(number, save)
        except OSError as error:
            if not passes(error):  # else it is tried again when it is time
                self._seconds = None
            warnings.warn(
                f"could not write the state of a training: {error.strerror or error}; training goes on, but starts "
                "from the last state written if it is killed; free some space or fix the permissions of the store",
                RuntimeWarning,
                stacklevel=2,
            )
        self._written = time.monotonic()
        self._cost = self._written - began

    def keep(self, number: int, loader: Epochs, state: Callable[[], State]) -> None:
        """Write the state of a training at the end of an epoch if it is time, with what the training does not know."""
        if self.due():
            self.write(number, lambda path: torch.save({**state(), OURS: streams(self, loader)}, path))

    def finish(self, number: int, state: State) -> None:
        """Keep the end of a training for the next write, which is now if it is time."""
        if self._seconds is None:
            return
        if self.due():
            self.write(number, functools.partial(_save, state))
        else:
            self._finished[number] = state


def _save(state: State, path: Path) -> None:
    """Write a state; torch itself hides why a file cannot be written."""
    content = io.BytesIO()
    torch.save(state, content)
    path.write_bytes(content.getbuffer())


_workplace: ContextVar[Workplace | None] = ContextVar("workplace", default=None)


@contextlib.contextmanager
def at(workplace: Workplace) -> Iterator[Workplace]:
    """Surround what is trained in the block."""
    token = _workplace.set(workplace)
    try:
        yield workplace
    finally:
        _workplace.reset(token)


def current() -> Workplace | None:
    """Return what surrounds the training that is about to begin; None outside of a stage call."""
    return _workplace.get()


def finished(state: State) -> bool:
    """Tell whether a state is that of the end of a training."""
    return "loops" not in state and LOOP not in state


def end(workplace: Workplace, module: TrainedModule, loader: Epochs) -> State:
    """Return what the rest of a stage needs of a training that has ended, copied."""
    state: State = {"state_dict": {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}}
    module.on_save_checkpoint(state)
    return {**state, OURS: streams(workplace, loader)}


def restore_end(state: State, module: TrainedModule, loader: Epochs) -> None:
    """Bring a module, its loader and the random numbers to the end of a training that a killed run has finished."""
    module.on_load_checkpoint(state)
    module.load_state_dict(state["state_dict"])
    restore_streams(state, loader)


def streams(workplace: Workplace, loader: Epochs) -> State:
    """Return what a state holds that no training knows: random numbers, the loader's epoch, seconds, versions."""
    return {
        "versions": VERSIONS,
        "seconds": time.perf_counter() - workplace.started,
        "epoch": loader.epoch,
        "cpu": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
    }


def restore_streams(state: State, loader: Epochs) -> None:
    """Go on with the random numbers and the batches of a state."""
    ours = state[OURS]
    loader.epoch = ours["epoch"]
    torch.set_rng_state(ours["cpu"])
    if ours["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(ours["cuda"])
