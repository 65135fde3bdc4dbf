"""Stage calls that fail: why, which cells that costs their numbers, and how to run one of them alone."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sharedlabel.config import Experiment, PluginSpec, resolve, trainings
from sharedlabel.grid import Cell, Grid, Node
from sharedlabel.records import AXES
from sharedlabel.records.measurements import Failure

FOLDER = "failures"  # of the tracebacks, in the folder of the run


@dataclass(frozen=True)
class Failed:
    """A stage call that failed.

    Attributes:
        node: the call.
        reason: what went wrong, in one line.
        details: the traceback.
    """

    node: Node
    reason: str
    details: str

    @property
    def file(self) -> str:
        """Where the traceback is written, in the folder of the run."""
        return f"{FOLDER}/{self.node.stage}-{self.node.key[:16]}.txt"


def failures(grid: Grid, failed: Mapping[str, Failed], describe: Mapping[str, str]) -> Iterator[Failure]:
    """Yield a record of every cell that needs a call that failed.

    Args:
        grid: the whole grid.
        failed: the calls by their keys.
        describe: the calls in words, by their keys.
    """
    for cell in grid.cells:
        met = first(cell, failed)
        if met is not None:
            yield Failure(
                cell=cell.id,
                data=grid.data.dataset.name,
                **{name: getattr(cell, name) for name in AXES},
                stage=met.node.stage,
                key=met.node.key[:16],
                call=describe[met.node.key],
                reason=met.reason,
                details=met.file,
                repeat=repeat(cell, grid.experiment),
            )


def first(cell: Cell, failed: Mapping[str, Failed]) -> Failed | None:
    """Return the first call that failed of those that a cell needs, in the order they would run; times come last."""
    needed = (node for call in (*cell.calls(), *cell.last()) for node in call.chain())
    return next((failed[node.key] for node in needed if node.key in failed), None)


def repeat(cell: Cell, experiment: Experiment) -> str:
    """Say how to run one cell alone, beside the run that it belongs to and with the same store."""
    kept: dict[str, Any] = {
        "seeds": [cell.seed],
        "ratios": [cell.ratio],
        "backbones": _entry("backbones", experiment.backbones, cell.backbone),
        "pruners": _entry("pruners", experiment.pruners, cell.pruner),
        "evaluation.protocols": [cell.protocol],
        "training": [
            spec
            for spec, entry in zip(experiment.training, trainings(experiment), strict=True)
            if entry.label == cell.training
        ],
        "aggregators": _entry("aggregators", experiment.aggregators, cell.aggregator),
    }
    if kept["aggregators"]:
        kept["comparison.reference"] = cell.aggregator
    options = {f"--{name}": value for name, value in kept.items() if value}
    words = [f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in options.items()]
    return f"the same command with {shlex.join([*words, f'--name={experiment.name}-again'])}"


def _entry(kind: str, specs: Iterable[PluginSpec], label: str) -> Sequence[PluginSpec]:
    """Return the entry of an axis that has a label; none for what every grid has, such as the dense network."""
    return [spec for spec in specs if resolve(kind, spec).label == label]
