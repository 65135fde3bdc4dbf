"""What a run holds, as plain data: a cell of a grid, one that failed, an exported model.

>>> run = Run("0123", "digits-mlp", "cell", {}, (), summary={"test/ri@8": 0.9})
>>> sorted(run.keys())
['test/ri@8']
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from sharedlabel.config import digest
from sharedlabel.records import MeasuredTime, NetworkCosts, NetworkTraining, Row
from sharedlabel.records.measurements import Failure
from sharedlabel.tracking.about import About

Scalar: TypeAlias = float | int | str | bool | None
Best: TypeAlias = Literal["max", "min", "last", "none"]
Kind: TypeAlias = Literal["cell", "failed cell", "method", "summary", "training", "export"]
# Metrics with a curve against n, and which end of the curve is the best.
STEP = "trainer/global_step"  # what Lightning counts, the x-axis of trainings
CURVES: Mapping[str, Best] = {
    "n_accuracy": "max",
    "ri": "max",
    "ri_raw": "max",
    "negative_log_likelihood": "min",
    "calibration_error": "min",
    "cost_dense_passes": "last",
    "efficiency": "max",
    "ri_per_pass": "max",
}
# What stands beside them in the summary for every n.
_FOR_EVERY_N = (*CURVES, "n_accuracy_low", "n_accuracy_high", "ri_low", "ri_high")
_OF_NETWORK = (NetworkCosts, NetworkTraining, MeasuredTime)


@dataclass(frozen=True)
class Curve:
    """A metric that is logged point by point.

    Attributes:
        name: of the metric; `*` at its end stands for any rest.
        step: the metric on its x-axis.
        best: which of its values is the summary of the run; `last`, or none of them.
    """

    name: str
    step: str
    best: Best = "last"


@dataclass(frozen=True)
class Files:
    """Files that are published together, as an artifact of W&B.

    Attributes:
        name: of the artifact.
        kind: `results` or `model`.
        paths: where each file lies, by its name in the artifact.
        aliases: by which this version of the artifact is found.
        facts: what the artifact says of itself.
    """

    name: str
    kind: Literal["results", "model"]
    paths: Mapping[str, Path]
    aliases: tuple[str, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """A run of W&B.

    Attributes:
        identifier: what its id is made of, beside the experiment.
        name: as it is shown.
        kind: its job type.
        config: to filter and group by.
        tags: likewise.
        curves: the metrics of its history.
        history: points, each with the metric on the x-axis.
        summary: single values.
        tables: records by the name of the table.
        plots: SVG texts by name.
        files: what is published with it.
        failed: whether it is shown as a failure.
    """

    identifier: str
    name: str
    kind: Kind
    config: Mapping[str, Any]
    tags: tuple[str, ...]
    curves: tuple[Curve, ...] = ()
    history: tuple[Mapping[str, Scalar], ...] = ()
    summary: Mapping[str, Scalar] = field(default_factory=dict)
    tables: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    plots: Mapping[str, str] = field(default_factory=dict)
    files: Files | None = None
    failed: bool = False

    def keys(self) -> set[str]:
        """Return the names of all metrics that a plot of runs may ask for."""
        return {*self.summary, *itertools.chain.from_iterable(self.history)}


def of_cell(rows: Sequence[Row], losses: Mapping[str, Sequence[float]], about: About) -> Run:
    """Return the run of a finished cell.

    Its history holds the metrics of both splits against n (`test/ri`), and the losses of its trainings against the
    epoch; its summary each metric for every n (`test/ri@8`) and what the network costs.

    Args:
        rows: the cell's rows of both splits.
        losses: mean training loss (nats) per epoch, by stage.
        about: the experiment.
    """
    first = rows[0]
    splits = dict.fromkeys(row.split for row in rows)
    curves = [Curve(f"{split}/{metric}", "n", best) for split in splits for metric, best in CURVES.items()]
    return Run(
        first.cell,
        about.name(first),
        "cell",
        about.settings(first) | {"method": about.method(first), "cell": first.cell},
        about.tags(first),
        (*curves, *(Curve(f"loss/{stage}", "epoch", "min") for stage in losses)),
        (*_against_epochs(losses), *_against_n(rows)),
        _of_network(first) | _for_every_n(rows),
        {"rows": rows},
    )


def _against_epochs(losses: Mapping[str, Sequence[float]]) -> Iterator[dict[str, Scalar]]:
    for epoch in range(max(map(len, losses.values()), default=0)):
        reached = {f"loss/{stage}": values[epoch] for stage, values in losses.items() if epoch < len(values)}
        yield {"epoch": epoch + 1, **reached}


def _against_n(rows: Sequence[Row]) -> Iterator[dict[str, Scalar]]:
    for n in sorted({row.n for row in rows}):
        yield {"n": n} | {f"{row.split}/{name}": _value(row, name) for row in rows if row.n == n for name in CURVES}


def _for_every_n(rows: Sequence[Row]) -> dict[str, Scalar]:
    values = {f"{row.split}/{name}@{row.n}": _value(row, name) for row in rows for name in _FOR_EVERY_N}
    tests = [row for row in rows if row.split == "test"]
    networks = {f"cost/network_passes@{row.n}": row.n * row.macs_effective / row.macs_dense for row in tests}
    aggregators = {f"cost/aggregator_passes@{row.n}": row.aggregator_macs / row.macs_dense for row in tests}
    return {**values, **networks, **aggregators}


def _of_network(row: Row) -> dict[str, Scalar]:
    """Return what all rows of a cell say alike: counts, times and training of the network."""
    return {
        f"network/{entry.name}": getattr(row, entry.name) for kind in _OF_NETWORK for entry in dataclasses.fields(kind)
    }


def _value(row: Row, name: str) -> Scalar:
    if name == "ri_per_pass":
        return row.ri / row.cost_dense_passes if row.cost_dense_passes else None
    value: Scalar = getattr(row, name)
    return value


def of_failure(failure: Failure, about: About) -> Run:
    """Return the run of a cell that failed; the cell may be finished later, and has a run of its own then."""
    told = dataclasses.asdict(failure)
    return Run(
        failure_id(failure),
        about.name(failure, "failed"),
        "failed cell",
        about.settings(failure) | {"method": about.method(failure), "cell": failure.cell},
        about.tags(failure),
        summary={"failed": failure.reason} | {name: told[name] for name in ("stage", "call", "details", "repeat")},
        failed=True,
    )


def failure_id(failure: Failure) -> str:
    """Return the identifier of a failure's run: each reason has one."""
    return digest([failure.cell, failure.reason])[:16]
