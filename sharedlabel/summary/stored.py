"""Summaries of a grid's cells, stored like the outputs of stages, so that a second run computes nothing.

Their keys hold the rows that they are made from, whatever computed these, and a digest of the code that summarises.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from sharedlabel.code import digests
from sharedlabel.config import canonical
from sharedlabel.config.sections import EvaluationConfig
from sharedlabel.grid import Cell, Grid
from sharedlabel.grid.calls import ordered
from sharedlabel.machine.forks import Surroundings
from sharedlabel.records import Row
from sharedlabel.scoring.data import Data
from sharedlabel.store import Artifact, Output, Store, artifact_key, opened
from sharedlabel.summary import adaptive_n, tables
from sharedlabel.summary.adaptive_n import Stopped
from sharedlabel.summary.seeds import ScoredCell


def over_seeds(grid: Grid, store: Store, by_cell: Mapping[str, Sequence[Row]]) -> Artifact:
    """Return means, comparisons, ranks and sweet spots of exactly these cells.

    Args:
        grid: all of whose cells are stored.
        store: where they are.
        by_cell: the rows of every cell.
    """
    scoring, rules, asked = grid.experiment.evaluation, grid.experiment.sweet_spot, grid.experiment.comparison
    rows = _content(itertools.chain(*by_cell.values()))
    config = {"evaluation": scoring, "sweet_spot": rules, "comparison": asked, "rows": rows}
    inputs = {cell.id: cell.evaluate.key for cell in grid.cells} | {"data": grid.data.key}

    def compute() -> dict[str, Any]:
        cells = [ScoredCell(tuple(by_cell[cell.id]), _tensors(cell, store)) for cell in grid.cells]
        made = vars(tables.summarize(cells, grid.data, scoring, rules, asked))
        return {table: [vars(record) for record in records] for table, records in made.items()}

    return _stored(store, "summarize", tables, config, inputs, compute)


@dataclass(frozen=True)
class Adaptive:
    """What adaptive n is summarised from, without the images.

    Attributes:
        cells: a row of every cell with adaptive n, and the key of its output.
        evaluation: of the sizes to report, the largest alone is read.
        data: the splits that the tuples index.
    """

    cells: Sequence[tuple[Row, str]]
    evaluation: EvaluationConfig
    data: Data

    @staticmethod
    def of(grid: Grid, by_cell: Mapping[str, Sequence[Row]]) -> Adaptive | None:
        """Return what there is to summarise; None if nothing is."""
        cells = [(by_cell[cell.id][0], cell.adaptive.key) for cell in grid.cells if cell.adaptive is not None]
        scoring, data = grid.experiment.evaluation, grid.data
        black = torch.zeros(1, dtype=torch.uint8).expand(len(data.dataset.labels), *data.dataset.image_shape)
        labels = dataclasses.replace(data, dataset=dataclasses.replace(data.dataset, images=black))  # a byte in all
        return Adaptive(cells, dataclasses.replace(scoring, n=(max(scoring.n),)), labels) if cells else None

    def summary(self, store: Store) -> Artifact:
        """Return the summary."""
        config = {"evaluation": self.evaluation, "rows": _content((row for row, _ in self.cells), repeatable=True)}
        inputs = {str(number): key for number, (_, key) in enumerate(self.cells)} | {"data": self.data.key}

        def compute() -> dict[str, Any]:
            outputs = ((row, store.load("adaptive", key)) for row, key in self.cells)
            stopped = (Stopped(row, artifact.tensors(), artifact.meta) for row, artifact in outputs)
            points = adaptive_n.summarize(stopped, self.data, self.evaluation)
            return {"points": [vars(point) for point in points]}

        return _stored(store, "summarize_adaptive", adaptive_n, config, inputs, compute)


def ahead(task: tuple[Surroundings, str | Path, Adaptive]) -> None:
    """Store the summary of adaptive n, in a process that opens the store itself."""
    surroundings, place, adaptive = task
    surroundings.take_over()
    adaptive.summary(opened(place, sweep=False))


def seconds(grid: Grid, store: Store, summaries: Iterable[Artifact | None], known: Mapping[str, float]) -> float | None:
    """Return how long the stored calls took that the cells and summaries depend on; None if one is not stored.

    Args:
        grid: all of whose cells are stored.
        store: where they are.
        summaries: of them.
        known: seconds of calls that were read already, by key.
    """
    calls = ordered(call for cell in grid.cells for call in (*cell.calls(), *cell.last()))
    unread = [call for call in calls if call.key not in known]
    if not all(store.has(call.stage, call.key) for call in unread):
        return None
    took = {**known, **{call.key: float(store.load(call.stage, call.key).manifest["seconds"]) for call in unread}}
    return sum(took[call.key] for call in calls) + sum(float(one.manifest["seconds"]) for one in summaries if one)


def _tensors(cell: Cell, store: Store) -> dict[str, Tensor]:
    return store.load(cell.evaluate.stage, cell.evaluate.key).tensors()


def _content(rows: Iterable[Row], repeatable: bool = False) -> str:
    """Return the sha256 of rows; only of what every run gives alike, and without the cell's id, if asked."""
    hashed = hashlib.sha256()
    for row in rows:
        kept = {
            name: value
            for name, value in vars(row).items()
            if not (repeatable and (name == "cell" or name.startswith("measured_")))
        }
        hashed.update(repr(kept).encode())
    return hashed.hexdigest()


def _stored(
    store: Store,
    stage: str,
    module: ModuleType,
    config: Mapping[str, Any],
    inputs: Mapping[str, str],
    compute: Callable[[], dict[str, Any]],
) -> Artifact:
    """Return a summary, made by a module's function `summarize` unless the store has it; kept if it may be written."""
    version, code = module.VERSION, {"stage": digests.digest(module.__name__, "summarize")}
    key = artifact_key(stage, version, config, inputs, code)
    if store.has(stage, key):
        return store.load(stage, key)
    started = time.perf_counter()
    record = {"version": version, "config": json.loads(canonical(config)), "inputs": inputs, "code": code}
    if store.readonly:
        meta = json.loads(canonical(compute()))
        return Artifact(key, {**record, "seconds": time.perf_counter() - started, "meta": meta}, store.root)
    return store.save(stage, key, Output({}, compute()), record, started)
