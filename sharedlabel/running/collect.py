"""Gather the stored numbers of a grid into rows and summaries."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeAlias

from sharedlabel.config import canonical, public
from sharedlabel.grid import Cell, Grid, Node, survey
from sharedlabel.machine import crew, forks, memory, provenance
from sharedlabel.metrics import cost
from sharedlabel.records import AXES, FORMAT, TABLES, AdaptivePoint, DatasetFacts, Results, Row
from sharedlabel.records.measurements import Failure
from sharedlabel.running.answers import answers
from sharedlabel.running.curves import Curves
from sharedlabel.scoring.data import SCORED_ROLES
from sharedlabel.stages import STAGES, Finished
from sharedlabel.store import Artifact, Store
from sharedlabel.summary import stored
from sharedlabel.training.devices import device
from sharedlabel.types import Role

_REMEMBERED = 256  # calls whose facts are kept: those of a few networks

Losses: TypeAlias = Mapping[str, Sequence[float]]  # mean training loss (nats) of every epoch, by stage


class _Facts:
    """Reads the facts of calls; those that neighbouring cells share are read once.

    Attributes:
        read: returns the facts of a call by its stage and key.
        seconds: that the calls took whose facts were read, by key.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.seconds: dict[str, float] = {}
        self.read = functools.lru_cache(maxsize=_REMEMBERED)(self._of)
        self._tuples: dict[tuple[str, str, Role], int] = {}

    def of(self, cell: Cell) -> dict[str, dict[str, Any]]:
        """Return the facts of a cell's calls by stage, without those that are not stored.

        Times come last, so cells of a grid that is not finished may have none.
        """
        ends = (node for node in cell.ends.values() if not STAGES[node.stage].last or self._has(node))
        return {node.stage: self.read(node.stage, node.key) for node in ends}

    def losses(self, cell: Cell) -> dict[str, list[float]]:
        """Return the training losses of a cell's stages by epoch."""
        calls = {node.stage: node for node in cell.evaluate.chain()}
        by_stage = {name: self.read(node.stage, node.key).get("losses") for name, node in calls.items()}
        return {name: losses for name, losses in by_stage.items() if losses}

    def tuples(self, cell: Cell, role: Role) -> int:
        """Count the tuples of one partition, which depend on the data and the protocol alone."""
        scored, drawn = cell.evaluate, (cell.evaluate.data_key, cell.protocol, role)
        if drawn not in self._tuples:
            tensors = self.store.load(scored.stage, scored.key).tensors()
            self._tuples |= {(*drawn[:2], one): tensors[f"{one}.correct"].shape[1] for one in SCORED_ROLES}
        return self._tuples[drawn]

    def _has(self, node: Node) -> bool:
        return self.store.has(node.stage, node.key)

    def _of(self, stage: str, key: str) -> dict[str, Any]:
        stored = self.store.load(stage, key)
        self.seconds[key] = float(stored.manifest["seconds"])
        return stored.meta


def rows(cell: Cell, grid: Grid, store: Store) -> list[Row]:
    """Return the rows of a finished cell: every n, validation and test."""
    facts = _Facts(store)
    return _rows(cell, grid, facts, facts.of(cell))


def _rows(cell: Cell, grid: Grid, facts: _Facts, by_stage: Mapping[str, dict[str, Any]]) -> list[Row]:
    shown = _columns(cell, grid)
    for stage in cell.ends:
        shown |= STAGES[stage].columns(by_stage.get(stage))
    scored, partitions = by_stage[cell.evaluate.stage], grid.experiment.evaluation.partitions
    macs = scored.get("macs", {})
    made = []
    for role in SCORED_ROLES:
        tuples = facts.tuples(cell, role) * partitions
        for metrics in scored[role]:
            spent = _spent(shown, metrics, int(macs.get(str(metrics["n"]), 0)))
            made.append(Row(**shown, split=role, tuples=tuples, partitions=partitions, **metrics, **spent))
    return made


class _Tables:
    """Records of every stage by table; those of a call that cells share are made once."""

    def __init__(self) -> None:
        self.records: dict[str, list[Any]] = {stage.table: [] for stage in STAGES.values() if stage.table}
        self._seen: set[str] = set()

    def add(self, cell: Cell, grid: Grid, by_stage: Mapping[str, dict[str, Any]]) -> None:
        """Add the records of a cell's calls."""
        first = cell.seed == grid.experiment.seeds[0]
        for node in (node for node in cell.ends.values() if node.stage in by_stage and node.key not in self._seen):
            self._seen.add(node.key)
            stage = STAGES[node.stage]
            if stage.table:
                columns = _columns(cell, grid)
                self.records[stage.table] += stage.records(Finished(columns, node.config, node.key, by_stage, first))


def _columns(cell: Cell, grid: Grid) -> dict[str, Any]:
    """Return the columns that name a cell."""
    return {"cell": cell.id, "data": grid.data.dataset.name, **{name: getattr(cell, name) for name in AXES}}


def losses(cell: Cell, store: Store) -> Losses:
    """Return the training losses of a cell's stages by epoch, for curves."""
    return _Facts(store).losses(cell)


@memory.uncollected()
def collect(
    grid: Grid,
    store: Store,
    seconds: float,
    failures: tuple[Failure, ...] = (),
    cells: int = 0,
    tell: Callable[[Sequence[Row], Losses], None] | None = None,
) -> Results:
    """Gather the whole grid.

    Args:
        grid: all of whose cells are stored; it may have none.
        store: where they are.
        seconds: wall-clock time of the run that asks, for the provenance; what it found stored took longer.
        failures: of other cells.
        cells: how many there are with those that are not stored; as many as are stored if left out.
        tell: told the rows and losses of each cell, before anything is summarised.
    """
    facts, tables, by_cell = _Facts(store), _Tables(), dict[str, list[Row]]()
    curves = Curves(grid, facts.read)
    for cell in grid.cells:
        by_stage = facts.of(cell)
        by_cell[cell.id] = _rows(cell, grid, facts, by_stage)
        tables.add(cell, grid, by_stage)
        curves.add(cell)
        if tell is not None:
            tell(by_cell[cell.id], facts.losses(cell))
    summary, adaptive = _summaries(grid, store, by_cell)
    took = stored.seconds(grid, store, (summary, adaptive), facts.seconds)
    results = Results(
        format=FORMAT,
        experiment=grid.experiment.name,
        config=_public_config(grid),
        provenance=_provenance(grid, took, seconds),
        dataset=_dataset(grid),
        rows=tuple(row for own in by_cell.values() for row in own),
        adaptive=tuple(AdaptivePoint(**one) for one in (adaptive.meta["points"] if adaptive else ())),
        failures=failures,
        cells=cells or len(grid.cells),
        curves=tuple(curves.records.values()),
        **{table: tuple(records) for table, records in tables.records.items()},
        **{table: tuple(TABLES[table](**record) for record in records) for table, records in summary.meta.items()},
    )
    if not grid.cells:
        return results
    confusions, mistakes = answers(grid, store, results)
    return dataclasses.replace(results, confusions=confusions, mistakes=mistakes)


def _summaries(grid: Grid, store: Store, by_cell: Mapping[str, Sequence[Row]]) -> tuple[Artifact, Artifact | None]:
    """Return both summaries; that of adaptive n comes from a process beside this one, where there is one to fork it."""
    adaptive, threads = stored.Adaptive.of(grid, by_cell), grid.experiment.threads
    ahead: crew.Ahead | None = None
    if adaptive is not None and not store.readonly and forks.is_warm(forks.STAGE_CALLS, threads):
        process = forks.taken(forks.STAGE_CALLS, threads)
        with contextlib.suppress(OSError):  # it has died
            ahead = crew.Ahead(process, stored.ahead, (forks.Surroundings(), store.where, adaptive))
        forks.keep(process)
    summary = stored.over_seeds(grid, store, by_cell)
    if ahead is not None:
        ahead.wait()
    return summary, None if adaptive is None else adaptive.summary(store)


def about(grid: Grid) -> dict[str, Any]:
    """Return what results say of a grid whatever it computes: its configuration and data, commit and machine."""
    return {
        "experiment": grid.experiment.name,
        "config": _public_config(grid),
        "dataset": dataclasses.asdict(_dataset(grid)),
        "provenance": {**_machine(grid), "data_sha256": grid.data.dataset.fingerprint},
    }


def _spent(facts: dict[str, Any], metrics: dict[str, Any], aggregator_macs: int) -> dict[str, Any]:
    spent = float(cost.cost(metrics["n"], facts["macs_effective"], aggregator_macs))
    passes = float(cost.dense_passes(spent, facts["macs_dense"]))
    return {
        "aggregator_macs": aggregator_macs,
        "cost_macs": spent,
        "cost_dense_passes": passes,
        "efficiency": float(cost.efficiency(metrics["information_gain"], passes)),
    }


def _public_config(grid: Grid) -> dict[str, Any]:
    """Return the configuration without the folders of this machine, and whatever else says where it was computed."""
    config: dict[str, Any] = json.loads(canonical(grid.experiment))
    for private in ("output", "store", "data_root", "executor", "ray", "workers"):
        config.pop(private)
    if isinstance(config["data"], dict) and "path" in config["data"]:
        config["data"]["path"] = str(config["data"]["path"]).rpartition("/")[2]
    config["data"] = public("data", config["data"])
    for axis in ("backbones", "pruners", "aggregators"):
        config[axis] = [public(axis, spec) for spec in config[axis]]
    return config


def _dataset(grid: Grid) -> DatasetFacts:
    dataset = grid.data.dataset
    return DatasetFacts(
        class_names=dataset.class_names,
        image_shape=dataset.image_shape,
        dtype=str(dataset.images.dtype).removeprefix("torch."),
        size=dataset.decoding.size,
        channels=dataset.decoding.channels,
        prior=tuple(grid.data.prior.tolist()),
        images={role: len(grid.data.splits[role]) for role in SCORED_ROLES},
        groups={}
        if dataset.groups is None
        else {role: len(dataset.groups[grid.data.splits[role]].unique()) for role in SCORED_ROLES},
        background=dataset.decoding.background,
        counts=survey.counts(grid),
        remarks=survey.remarks(grid),
        skipped=dataset.skipped,
        dropped=survey.dropped(grid),
    )


def _provenance(grid: Grid, took: float | None, run: float) -> dict[str, Any]:
    facts = _machine(grid)
    facts["date"] = datetime.now(UTC).strftime("%Y-%m-%d")
    facts["seconds"] = None if took is None else round(took, 1)
    facts["last_run_seconds"] = round(run, 1)
    facts["data_sha256"] = grid.data.dataset.fingerprint
    return facts


def _machine(grid: Grid) -> dict[str, Any]:
    return dict(provenance.collect(str(device(grid.experiment.trainer))))
