"""A grid against a plain script that does the same, on one worker and on two."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks import _plain
from benchmarks._measure import Result, interleaved, ratios, summarize
from benchmarks._silent import Silent
from sharedlabel import grid
from sharedlabel.config import parse
from sharedlabel.grid import Grid
from sharedlabel.grid.calls import job
from sharedlabel.grid.driver import Run
from sharedlabel.grid.executors.here import Here
from sharedlabel.grid.executors.local import Local
from sharedlabel.store import Store

ONE, TWO, SAME = 1.1, 0.75, 1e-6  # the last: sums of 32 bits in another order
EXPERIMENT = (
    "--pruners=[magnitude]",
    "--ratios=[1, 8]",
    "--aggregators=[mean_vote, log_pool, lstm]",
    "--comparison.reference=log_pool",
    "--tracking=none",
)
STAGES = ("dense", "prune", "features", "calibrate", "aggregate", "evaluate")


def run(quick: bool) -> list[Result]:
    """Compute two networks with three aggregators each, from the dense training to the scores, both ways."""
    torch.set_num_threads(1)
    rounds = 1 if quick else 5
    with tempfile.TemporaryDirectory() as folder:
        given = ["--fit.epochs=2", "--dense.epochs=2", "--retrain.epochs=1"] if quick else []
        prepared = grid.prepare(parse([*EXPERIMENT, *given, f"--output={folder}", f"--data_root={folder}"])[0])
        numbers: dict[str, Any] = {}

        def plain() -> None:
            numbers["plain"] = _plain.run(prepared.experiment, prepared.data)

        def here() -> None:
            store = _store(folder)
            with Run(store, Here(job(prepared), store, 1), Silent()) as made:
                made.compute(_calls(prepared, store))
            numbers["grid"] = _numbers(prepared, store)

        first, second = interleaved(here, plain, rounds)
        apart = max(
            abs(ours - theirs)
            for at, pair in numbers["plain"].items()
            for ours, theirs in zip(numbers["grid"][at], pair, strict=True)
        )
        two, alone = _two(prepared, folder, rounds, plain)
    sizes = "digits, two networks with three aggregators each, dense to evaluate"
    return [
        summarize(
            "grid / plain script, one worker",
            "x",
            ratios(first, second),
            bound=ONE,
            note=f"{sizes}: {min(first):.2f} against {min(second):.2f} s of processor time (best of {rounds})",
        ),
        summarize(
            "grid / plain script, two workers",
            "x",
            [ours / theirs for ours, theirs in zip(two, alone, strict=True)],
            bound=TWO,
            note=f"{sizes}: {min(two):.2f} against {min(alone):.2f} s on the wall (best of {rounds}), workers ready",
        ),
        summarize("grid / plain script: largest difference of n-accuracy and RI", "", [apart], bound=SAME),
    ]


def _store(folder: str) -> Store:
    return Store(Path(tempfile.mkdtemp(dir=folder)))


def _calls(prepared: Grid, store: Store) -> list[Any]:
    return [node for node in grid.missing(prepared, store) if node.stage in STAGES]


def _seconds(call: Any) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _two(prepared: Grid, folder: str, rounds: int, plain: Callable[[], None]) -> tuple[list[float], list[float]]:
    """Return the seconds of the calls on two workers, which have computed the same of another seed, and of the script.

    They take turns.
    """
    taken, alone = [], []
    other = grid.prepare(dataclasses.replace(prepared.experiment, seeds=(99,)))
    for _ in range(rounds):
        store = _store(folder)
        executor = Local(job(prepared), prepared.experiment, store.root, [{}, {}], 1)
        with Run(store, executor, Silent()) as made:
            made.compute(_calls(other, store))
            calls = _calls(prepared, store)
            began = time.perf_counter()
            made.compute(calls)
            taken.append(time.perf_counter() - began)
        alone.append(_seconds(plain))
    return taken, alone


def _numbers(prepared: Grid, store: Store) -> dict[Any, tuple[float, float]]:
    """Return n-accuracy and RI of every cell."""
    numbers = {}
    for cell in prepared.cells:
        scored = store.load(cell.evaluate.stage, cell.evaluate.key).meta
        for role in ("validation", "test"):
            for row in scored[role]:
                numbers[cell.ratio, cell.aggregator, role, row["n"]] = (row["n_accuracy"], row["ri"])
    return numbers
