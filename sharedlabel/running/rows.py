"""The rows of a cell, and the records of its calls, from what is stored of them."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from sharedlabel.grid import Cell, Grid, Node
from sharedlabel.metrics import cost
from sharedlabel.records import AXES, Row
from sharedlabel.scoring.data import SCORED_ROLES
from sharedlabel.stages import STAGES, Finished
from sharedlabel.store import Store

_REMEMBERED = 256  # calls whose facts are kept: those of a few networks

Losses: TypeAlias = Mapping[str, Sequence[float]]  # mean training loss (nats) of every epoch, by stage


class Facts:
    """Reads the facts of calls; those that neighbouring cells share are read once.

    Attributes:
        read: returns the facts of a call by its stage and key.
        seconds: that the calls took whose facts were read, by key.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.seconds: dict[str, float] = {}
        self.read = functools.lru_cache(maxsize=_REMEMBERED)(self._of)
        self._partitions: dict[str, int] = {}

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

    def partitions(self, cell: Cell) -> int:
        """Count the partitions that were scored, which depend on the protocol alone."""
        scored, protocol = cell.evaluate, cell.protocol
        if protocol not in self._partitions:
            self._partitions[protocol] = self.store.load(scored.stage, scored.key).tensors()["test.correct"].shape[0]
        return self._partitions[protocol]

    def _has(self, node: Node) -> bool:
        return self.store.has(node.stage, node.key)

    def _of(self, stage: str, key: str) -> dict[str, Any]:
        stored = self.store.load(stage, key)
        self.seconds[key] = float(stored.manifest["seconds"])
        return stored.meta


def rows(cell: Cell, grid: Grid, store: Store) -> list[Row]:
    """Return the rows of a finished cell: every n, validation and test."""
    facts = Facts(store)
    return of_cell(cell, grid, facts, facts.of(cell))


def of_cell(cell: Cell, grid: Grid, facts: Facts, by_stage: Mapping[str, dict[str, Any]]) -> list[Row]:
    """Return the rows of a finished cell whose facts have been read, by stage."""
    shown = _columns(cell, grid)
    for stage in cell.ends:
        shown |= STAGES[stage].columns(by_stage.get(stage))
    scored, partitions = by_stage[cell.evaluate.stage], facts.partitions(cell)
    macs = scored.get("macs", {})
    made = []
    for role in SCORED_ROLES:
        for metrics, tuples in zip(scored[role], scored["tuples"][role], strict=True):
            spent = _spent(shown, metrics, int(macs.get(str(metrics["n"]), 0)))
            counts = {"tuples": tuples * partitions, "partitions": partitions}
            made.append(Row(**shown, split=role, **counts, **metrics, **spent))
    return made


class Tables:
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
    return Facts(store).losses(cell)


def _spent(facts: dict[str, Any], metrics: dict[str, Any], aggregator_macs: int) -> dict[str, Any]:
    spent = float(cost.cost(metrics["n"], facts["macs_effective"], aggregator_macs))
    passes = float(cost.dense_passes(spent, facts["macs_dense"]))
    return {
        "aggregator_macs": aggregator_macs,
        "cost_macs": spent,
        "cost_dense_passes": passes,
        "efficiency": float(cost.efficiency(metrics["information_gain"], passes)),
    }
