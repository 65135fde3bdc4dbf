"""Training curves of the first seed, each once."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from sharedlabel.config.names import DENSE, FROZEN
from sharedlabel.grid import Cell, Grid, Node
from sharedlabel.records.training import TrainingCurve

_DENSE = ("dense", "early")
_NETWORK = (*_DENSE, "prune")


class Curves:
    """Collects the trainings that cells stand on.

    Args:
        grid: that they belong to.
        facts: returns the facts of a call by its stage and key.

    Attributes:
        records: the curves by the key of their call.
    """

    def __init__(self, grid: Grid, facts: Callable[[str, str], Mapping[str, Any]]) -> None:
        self.records: dict[str, TrainingCurve] = {}
        self._grid, self._facts = grid, facts

    def add(self, cell: Cell) -> None:
        """Add those of a cell of the first seed that are finite, without those of parts of the data."""
        if cell.seed != self._grid.experiment.seeds[0]:
            return
        for node in cell.evaluate.chain():
            if node.key not in self.records and node.data_key == cell.evaluate.data_key:
                losses = self._facts(node.stage, node.key).get("losses") or []
                if losses and all(map(math.isfinite, losses)):
                    self.records[node.key] = self._curve(cell, node, tuple(float(f"{loss:.5g}") for loss in losses))

    def _curve(self, cell: Cell, node: Node, losses: tuple[float, ...]) -> TrainingCurve:
        network, dense = node.stage in _NETWORK, node.stage in _DENSE
        return TrainingCurve(
            data=self._grid.data.dataset.name,
            backbone=cell.backbone,
            pruner=DENSE if dense else cell.pruner,
            ratio=1.0 if dense else getattr(node.config, "ratio", cell.ratio),  # pruning may have gone on from another
            training=FROZEN if network else cell.training,
            aggregator=None if network else cell.aggregator,
            protocol=None if network else cell.protocol,
            seed=cell.seed,
            stage=node.stage,
            losses=losses,
        )
