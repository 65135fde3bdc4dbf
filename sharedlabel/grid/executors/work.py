"""What a worker does: it gets a job, then calls, one or several at a time, and tells how each ended."""

from __future__ import annotations

import os
import pickle
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

import torch._dynamo
from numpy.typing import NDArray
from scipy import special

from sharedlabel.config import resolve
from sharedlabel.grid.executors.messages import Begun, Setup, Unable
from sharedlabel.grid.jobs import Call, Job, Outcome
from sharedlabel.machine import forks, mapped
from sharedlabel.store import Store, opened
from sharedlabel.training import aggregator, backbone, fit, joint, search

# Imported once, before workers are forked: torch's optimisers import its compiler when they take their first step.
PRELOADED = aggregator, backbone, fit, joint, search, torch._dynamo, special
AXES = ("backbones", "pruners", "aggregators")


def work(connection: Connection) -> None:
    """Compute what comes, until the connection is closed.

    Raises:
        EOFError: nobody is there any more.
    """
    connection.send(os.getpid())
    setup: Setup = connection.recv()
    forks.tell_warnings(connection.send)
    try:
        job, store = begun(setup)
    except Exception as error:
        connection.send(Unable(Outcome.of(error)))
        return
    connection.send(Begun())
    while True:
        calls: tuple[Call, ...] = pickle.loads(connection.recv_bytes())  # noqa: S301
        connection.send(job.attempt(calls, store))


def begun(setup: Setup, arrays: Sequence[NDArray[Any]] | None = None) -> tuple[Job, Store]:
    """Make ready in this process, and return the job and the store.

    Args:
        setup: what to begin with.
        arrays: large tensors that were taken out of the job; None if it was pickled with all.
    """
    setup.surroundings.take_over()
    for kind in AXES:
        for spec in getattr(setup.experiment, kind):
            resolve(kind, spec)
    job: Job = pickle.loads(setup.job) if arrays is None else mapped.unpacked(setup.job, arrays)  # noqa: S301
    return job, opened(setup.store, sweep=False)
