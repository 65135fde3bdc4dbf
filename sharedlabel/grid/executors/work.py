"""What a worker does: it gets a job, then calls, one or several at a time, and tells how each ended."""

from __future__ import annotations

import os
import pickle
from multiprocessing.connection import Connection

import torch._dynamo
from scipy import special

from sharedlabel.grid.executors.messages import Begun, Setup, Unable
from sharedlabel.grid.jobs import Call, Outcome
from sharedlabel.machine import forks
from sharedlabel.training import aggregator, backbone, fit, joint, search

# Imported once, before workers are forked: torch's optimisers import its compiler when they take their first step.
PRELOADED = aggregator, backbone, fit, joint, search, torch._dynamo, special


def work(connection: Connection) -> None:
    """Compute what comes, until the connection is closed.

    Raises:
        EOFError: nobody is there any more.
    """
    connection.send(os.getpid())
    setup: Setup = connection.recv()
    forks.tell_warnings(connection.send)
    try:
        job, store = setup.begun()
    except Exception as error:
        connection.send(Unable(Outcome.of(error)))
        return
    connection.send(Begun())
    while True:
        calls: tuple[Call, ...] = pickle.loads(connection.recv_bytes())  # noqa: S301
        connection.send(job.attempt(calls, store))
