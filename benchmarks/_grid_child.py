"""A small grid on two workers, and its offline runs of W&B; prints what memory and time they took as JSON."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from benchmarks._memory import private
from benchmarks._silent import Silent
from sharedlabel import grid
from sharedlabel.config import parse
from sharedlabel.grid import Grid
from sharedlabel.grid.calls import job
from sharedlabel.grid.driver import finish
from sharedlabel.grid.executors.local import Local
from sharedlabel.running.about import about as facts_of
from sharedlabel.running.rows import losses, rows
from sharedlabel.store import Store
from sharedlabel.tracking.about import About, options
from sharedlabel.tracking.places import Place
from sharedlabel.tracking.runs import of_cell
from sharedlabel.tracking.tracker import Tracker


class Watched(Silent):
    """Notes the private memory of a worker, and of this process, whenever a call has ended.

    Args:
        executor: has the workers.
    """

    def __init__(self, executor: Local) -> None:
        self.executor = executor
        self.workers: defaultdict[int, list[float]] = defaultdict(list)
        self.driver: list[float] = []

    def __call__(self, node: Any, seconds: float | None, worker: int = 0) -> None:
        """Note both, in MiB."""
        del node
        if seconds is not None:
            self.workers[worker].append(private(self.executor._workers[worker].pid))
            self.driver.append(private())


def main(folder: str, seeds: int, *options: str) -> None:
    """Compute the grid of so many seeds, then publish its cells."""
    given = [*options, f"--seeds={list(range(seeds))}", f"--output={folder}", f"--data_root={folder}"]
    prepared = grid.prepare(parse(given)[0])
    store = Store(Path(folder) / "store")
    executor = Local(job(prepared), prepared.experiment, store.root, [{}, {}], 1)
    watched = Watched(executor)
    finish(prepared, store, executor, watched)
    facts = {"workers": list(watched.workers.values()), "driver": watched.driver}
    print(json.dumps({**facts, "cells": len(prepared.cells), "publishing": _publishing(prepared, store)}))


def _publishing(prepared: Grid, store: Store) -> float:
    """Return the seconds of a cell's offline run of W&B, the first one, which starts what writes them, left out."""
    taken = []
    facts = facts_of(prepared)
    about = About(facts["experiment"], facts["config"], facts["provenance"], options(prepared.experiment))
    with Tracker(Place("scaling", "sharedlabel", "", "offline", store.root / "wandb")) as tracker:
        for cell in prepared.cells:
            began = time.perf_counter()
            tracker.publish(of_cell(rows(cell, prepared, store), losses(cell, store), about))
            taken.append(time.perf_counter() - began)
    return statistics.median(taken[1:])


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
