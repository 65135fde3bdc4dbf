"""What a driver and its workers tell each other, besides calls and outcomes."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from sharedlabel.config import Experiment, resolve
from sharedlabel.grid.jobs import Job, Outcome
from sharedlabel.machine import mapped
from sharedlabel.machine.forks import Surroundings
from sharedlabel.store import Store, opened

AXES = ("backbones", "pruners", "aggregators")


class Begun:
    """A worker is ready for calls."""


@dataclass(frozen=True)
class Unable:
    """A worker cannot begin; the attributes are those of an outcome."""

    outcome: Outcome


@dataclass(frozen=True)
class Setup:
    """What a worker begins with.

    Attributes:
        surroundings: of the driver, with variables of the worker's own, such as the GPU to see.
        experiment: names the plugins from outside.
        store: folder or URL of the store.
        job: pickled; its plugins are known once the experiment's are.
    """

    surroundings: Surroundings
    experiment: Experiment
    store: str | Path
    job: bytes

    def begun(self, arrays: Sequence[NDArray[Any]] | None = None) -> tuple[Job, Store]:
        """Make ready in this process, and return the job and the store.

        Args:
            arrays: large tensors that were taken out of the job; None if it was pickled with all.
        """
        self.surroundings.take_over()
        for kind in AXES:
            for spec in getattr(self.experiment, kind):
                resolve(kind, spec)
        job: Job = pickle.loads(self.job) if arrays is None else mapped.unpacked(self.job, arrays)  # noqa: S301
        return job, opened(self.store, sweep=False)
