"""The points that one can choose from: a method on a network at one n, what it costs and what it gives."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from sharedlabel.config.names import CROSSFIT, DENSE, EXACT, IID
from sharedlabel.errors import ConfigError, DataError, nearest
from sharedlabel.records import Identity, Results, Row, Summary
from sharedlabel.records.measurements import Latency, quietest

_FILTERS = ("protocol", "backbone", "pruner", "aggregator")
_SCORES = ("n_accuracy", "n_accuracy_low", "n_accuracy_high", "ri", "ri_low", "ri_high")
Place: TypeAlias = tuple[Identity, int]  # what tells options apart: a method and its n


@dataclass(frozen=True)
class Request:
    """What is asked for; without a budget, a target and a latency, the budget is one dense pass.

    Args:
        budget: largest cost of a tuple in dense passes; None for any.
        target_accuracy: n-accuracy on validation to reach at the lowest cost; None for the highest RI instead.
        n: instances per tuple; None for any.
        latency_ms: largest measured milliseconds of the n images of a tuple; None for any.
        protocol: `iid` or `grouped`; None for the first in the results.
        backbone: label; None for any.
        pruner: label; None for any. The dense network is a candidate of every pruner.
        aggregator: label; None for any.
        device: where latency is measured; None for the first device in the results.
        batch: images per batch of that measurement.
    """

    budget: int | float | None = None
    target_accuracy: int | float | None = None
    n: int | None = None
    latency_ms: int | float | None = None
    protocol: str | None = None
    backbone: str | None = None
    pruner: str | None = None
    aggregator: str | None = None
    device: str | None = None
    batch: int = 1

    def __post_init__(self) -> None:
        for option in ("budget", "latency_ms", "n", "batch"):
            value = getattr(self, option)
            if value is not None and not 0 < value < float("inf"):
                raise ConfigError(f"--{option.replace('_', '-')}: expected a positive number, got {value:g}")
        if self.budget is self.target_accuracy is self.latency_ms is None:
            object.__setattr__(self, "budget", 1.0)
        if self.target_accuracy is not None and not 0 < self.target_accuracy <= 1:
            raise ConfigError(f"--target-accuracy: expected a share in (0, 1], got {self.target_accuracy:g}")


@dataclass(frozen=True)
class Timing:
    """Measured time of a tuple's images, the aggregator apart.

    Attributes:
        device: name of the device.
        batch: images per batch; eager.
        threads: CPU threads.
        ms_per_image: median of a batch / batch, median over the seeds that were measured on a quiet machine, else over
            all.
        ms_per_tuple: n * ms_per_image.
        contention: time on the wall / processor time, the largest of these seeds; None where it is unknown.
        contended: the machine was busy in all seeds, so the time says nothing of a quiet one.
    """

    device: str
    batch: int
    threads: int
    ms_per_image: float
    ms_per_tuple: float
    contention: float | None
    contended: bool


@dataclass(frozen=True)
class Option:
    """A method on a network at one n: means over seeds, on test where nothing else is said.

    Attributes:
        cost_dense_passes: cost in passes of the dense network of `backbone`.
        cost_macs: the same in MACs.
        aggregator_macs: the aggregator's part of it.
        cost_units: cost in passes of the dense network that budgets refer to (see `Recommendation.unit`).
        timing: None where that device and batch were not measured.
        parameters: left in the network.
        parameters_dense: of the dense network.
        file_bytes_dense: size of the stored network with zeros; None if not measured.
        file_bytes_sparse: with a bit mask and the values left; None if not measured.
        seeds: training seeds.
        guessing: the interval of RI on validation or on test holds 0: it is no better than guessing.
    """

    backbone: str
    pruner: str
    ratio: float
    aggregator: str
    training: str
    protocol: str
    n: int
    cost_dense_passes: float
    cost_macs: float
    aggregator_macs: float
    cost_units: float
    timing: Timing | None
    parameters: float
    parameters_dense: float
    file_bytes_dense: float | None
    file_bytes_sparse: float | None
    n_accuracy: float
    n_accuracy_low: float
    n_accuracy_high: float
    ri: float
    ri_low: float
    ri_high: float
    validation_n_accuracy: float
    validation_n_accuracy_low: float
    validation_n_accuracy_high: float
    validation_ri: float
    validation_ri_low: float
    validation_ri_high: float
    seeds: int
    guessing: bool

    @property
    def place(self) -> Place:
        """What tells it apart."""
        return Identity.of(self), self.n


@dataclass(frozen=True)
class Unit:
    """The dense network whose pass budgets are counted in.

    Attributes:
        backbone: its label; the one with the most MACs where there are several.
        macs: of one image.
    """

    backbone: str
    macs: int


def filtered(results: Results, request: Request) -> tuple[list[Row], str]:
    """Return the rows that the labels of a request leave, of both splits, and the protocol.

    Raises:
        ConfigError: a label that the results do not have.
        DataError: no cell has finished.
    """
    rows = [row for row in results.rows if row.aggregator != EXACT]
    if not rows:
        raise DataError(f"expected finished cells in {results.experiment!r}, got none; run the grid first")
    protocol = request.protocol or min((row.protocol for row in rows), key=lambda name: name != IID)
    wanted = {name: getattr(request, name) for name in _FILTERS} | {"protocol": protocol}
    for name, value in wanted.items():
        known = {str(getattr(row, name)) for row in rows}
        if value is not None and value not in known:
            raise ConfigError(f"unknown {name} {value!r} in {results.experiment!r}; {nearest(value, known)}")
        rows = [
            row
            for row in rows
            if value is None or getattr(row, name) == value or (name, row.pruner) == ("pruner", DENSE)
        ]
    return rows, protocol


def options(results: Results, request: Request) -> tuple[list[Option], Unit, str, int]:
    """Return all points that the labels of a request leave, the unit of their costs, the protocol and the seeds.

    Raises:
        ConfigError: a label, an n or a latency setting that the results do not have.
        DataError: no cell has finished.
    """
    rows, protocol = filtered(results, request)
    sizes = sorted({row.n for row in rows})
    if request.n is not None and request.n not in sizes:
        raise ConfigError(f"--n: expected a number of instances in the results, got {request.n}; available: {sizes}")
    unit = Unit(*max(((row.backbone, row.macs_dense) for row in rows), key=lambda pair: (pair[1], pair[0])))
    by_place: dict[Place, list[Row]] = {}
    for row in rows:
        if row.split == "test":
            by_place.setdefault((Identity.of(row), row.n), []).append(row)
    summaries: dict[tuple[str, Place], Summary] = {(s.split, (Identity.of(s), s.n)): s for s in results.summaries}
    timings = _timings(results.latencies, request)
    files = _medians(results.latencies, ("file_bytes_dense", "file_bytes_sparse"))
    return (
        [
            _option((method, n), own, summaries, unit, timings.get(network_of(method)), files.get(network_of(method)))
            for (method, n), own in by_place.items()
        ],
        unit,
        protocol,
        len({row.seed for row in rows}),
    )


def network_of(record: Identity | Latency | Option) -> tuple[Any, ...]:
    """Tell compressed networks apart: those of cross-fitting are others than those of the configured splits.

    Args:
        record: of one.
    """
    return record.backbone, record.pruner, record.ratio, record.training == CROSSFIT


def _option(
    place: Place,
    rows: Sequence[Row],
    summaries: Mapping[tuple[str, Place], Summary],
    unit: Unit,
    timing: Timing | None,
    files: Mapping[str, float] | None,
) -> Option:
    test, validation, (method, n) = summaries["test", place], summaries["validation", place], place
    macs = statistics.fmean(row.cost_macs for row in rows)
    return Option(
        **method._asdict(),
        n=n,
        cost_dense_passes=test.cost_dense_passes,
        cost_macs=macs,
        aggregator_macs=statistics.fmean(row.aggregator_macs for row in rows),
        cost_units=test.cost_dense_passes if method.backbone == unit.backbone else macs / unit.macs,
        timing=timing and dataclasses.replace(timing, ms_per_tuple=n * timing.ms_per_image),
        parameters=statistics.fmean(row.parameters for row in rows),
        parameters_dense=statistics.fmean(row.parameters_dense for row in rows),
        file_bytes_dense=files["file_bytes_dense"] if files else None,
        file_bytes_sparse=files["file_bytes_sparse"] if files else None,
        **{name: getattr(test, name) for name in _SCORES},
        **{f"validation_{name}": getattr(validation, name) for name in _SCORES},
        seeds=test.seeds,
        guessing=min(validation.ri_low, test.ri_low) <= 0,
    )


def _timings(latencies: Iterable[Latency], request: Request) -> dict[tuple[Any, ...], Timing]:
    """Return the time of one image through every network.

    Raises:
        ConfigError: a latency is bounded, or a device named, and there is no such measurement.
    """
    eager = [record for record in latencies if record.mode == "eager"]
    device = request.device or (eager[0].device if eager else None)
    measured = [record for record in eager if (record.device, record.batch) == (device, request.batch)]
    if not measured and (request.latency_ms is not None or request.device is not None):
        known = sorted({f"batch {record.batch} on {record.device}" for record in eager})
        raise ConfigError(
            f"expected an eager measurement of batch {request.batch} on {device or 'any device'}, got none; choose "
            f"--batch and --device from: {', '.join(known) or 'nothing, since no latency was measured'}"
        )
    groups: dict[tuple[Any, ...], list[Latency]] = {}
    for record in quietest(measured):
        groups.setdefault(network_of(record), []).append(record)
    return {network: _timing(own) for network, own in groups.items()}


def _timing(records: Sequence[Latency]) -> Timing:
    some = records[0]
    known = [r.measured_contention for r in records if r.measured_contention is not None]
    return Timing(
        device=some.device,
        batch=some.batch,
        threads=some.threads,
        ms_per_image=statistics.median(r.measured_median_ms / r.batch for r in records),
        ms_per_tuple=0.0,
        contention=max(known, default=None),
        contended=some.measured_contended,
    )


def _medians(latencies: Iterable[Latency], columns: Sequence[str]) -> dict[tuple[Any, ...], dict[str, float]]:
    groups: dict[tuple[Any, ...], list[Latency]] = {}
    for record in latencies:
        groups.setdefault(network_of(record), []).append(record)
    return {
        network: {column: float(statistics.median(getattr(r, column) for r in own)) for column in columns}
        for network, own in groups.items()
    }
