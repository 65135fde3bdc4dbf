"""What a driver and its workers tell each other, besides calls and outcomes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sharedlabel.config import Experiment
from sharedlabel.grid.jobs import Outcome


@dataclass(frozen=True)
class Warned:
    """A warning, for whoever shows them; the arguments of `warnings.warn_explicit`."""

    message: str
    category: type[Warning]
    filename: str
    lineno: int


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
        folder: where relative paths start.
        path: where modules are looked for.
        experiment: names the plugins from outside.
        store: folder or URL of the store.
        environment: variables to set, such as the GPU to see.
        job: pickled; its plugins are known once the experiment's are.
    """

    folder: str
    path: list[str]
    experiment: Experiment
    store: str | Path
    environment: Mapping[str, str]
    job: bytes
