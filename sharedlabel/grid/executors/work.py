"""What a worker does: it gets a job, then one call after the other, and tells how each ended."""

from __future__ import annotations

import os
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from sharedlabel.config import Experiment, resolve
from sharedlabel.grid.jobs import Call, Outcome
from sharedlabel.store import Store

AXES = ("backbones", "pruners", "aggregators")


@dataclass(frozen=True)
class Warned:
    """A warning, for whoever shows them; the arguments of `warnings.warn_explicit`."""

    message: str
    category: type[Warning]
    filename: str
    lineno: int


@dataclass(frozen=True)
class Setup:
    """What a worker begins with.

    Attributes:
        experiment: names the plugins from outside.
        store: root of the store.
        environment: variables to set, such as the GPU to see.
        job: pickled; its plugins are known once the experiment's are.
    """

    experiment: Experiment
    store: Path
    environment: Mapping[str, str]
    job: bytes


def work(connection: Connection) -> None:
    """Compute what comes, until the connection is closed.

    Raises:
        EOFError: nobody is there any more.
    """
    connection.send(os.getpid())
    setup: Setup = connection.recv()
    os.environ.update(setup.environment)

    def tell(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any, **__: Any) -> None:
        connection.send(Warned(str(message), category, filename, lineno))

    warnings.showwarning = tell
    for kind in AXES:
        for spec in getattr(setup.experiment, kind):
            resolve(kind, spec)
    job, store = pickle.loads(setup.job), Store(setup.store, sweep=False)  # noqa: S301
    while True:
        call: Call = pickle.loads(connection.recv_bytes())  # noqa: S301
        outcome: Outcome = job.attempt(call, store)
        connection.send(outcome)
