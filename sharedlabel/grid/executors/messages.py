"""What a driver and its workers tell each other, besides calls and outcomes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sharedlabel.config import Experiment
from sharedlabel.grid.jobs import Outcome
from sharedlabel.machine.forks import Surroundings


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
