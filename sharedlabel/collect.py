"""Gather the stored numbers of a grid into rows and summaries."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Literal

from sharedlabel import provenance, summarized, survey, timing
from sharedlabel.config import canonical
from sharedlabel.grid import CROSSFIT, Cell, Grid
from sharedlabel.inputs import SCORED_ROLES
from sharedlabel.metrics import cost
from sharedlabel.results import (
    AXES,
    FORMAT,
    TABLES,
    AdaptivePoint,
    DatasetFacts,
    Failure,
    Latency,
    Margin,
    ReliabilityBin,
    Results,
    Row,
    Search,
    Threshold,
)
from sharedlabel.store import Store
from sharedlabel.training import trainer

_USUAL_BATCH = 32


def rows(cell: Cell, grid: Grid, store: Store) -> list[Row]:
    """Return the rows of a finished cell: every n, validation and test."""
    scored = store.load(cell.evaluate.stage, cell.evaluate.key)
    pruned = store.load(cell.pruned.stage, cell.pruned.key).meta
    latency = store.load(cell.latency.stage, cell.latency.key).meta["latencies"] if _timed(cell, store) else []
    macs = scored.meta.get("macs", {})
    facts = {
        "cell": cell.id,
        "data": grid.data.dataset.name,
        **{name: getattr(cell, name) for name in AXES},
        **_compression(pruned, latency),
    }
    partitions = grid.experiment.evaluation.partitions
    found = []
    for role in SCORED_ROLES:
        tuples = scored.tensors()[f"{role}.correct"].shape[1]
        for metrics in scored.meta[role]:
            spent = _spent(facts, metrics, int(macs.get(str(metrics["n"]), 0)))
            found.append(
                Row(**facts, split=role, tuples=tuples * partitions, partitions=partitions, **metrics, **spent)
            )
    return found


def losses(cell: Cell, store: Store) -> dict[str, list[float]]:
    """Return the training losses of a cell's stages by epoch, for curves."""
    calls = {node.stage: node for node in cell.evaluate.chain()}
    found = {name: store.load(node.stage, node.key).meta.get("losses") for name, node in calls.items()}
    return {name: values for name, values in found.items() if values}


def collect(grid: Grid, store: Store, seconds: float, failures: tuple[Failure, ...] = (), cells: int = 0) -> Results:
    """Gather the whole grid.

    Args:
        grid: all of whose cells are stored; it may have none.
        store: where they are.
        seconds: wall-clock time of the run that asks, for the provenance; what it found stored took longer.
        failures: of other cells.
        cells: how many there are with those that are not stored; as many as are stored if left out.
    """
    by_cell = {cell.id: rows(cell, grid, store) for cell in grid.cells}
    summary, adaptive = summarized.over_seeds(grid, store, by_cell), summarized.adaptive(grid, store, by_cell)
    took = summarized.seconds(grid, store, (summary, adaptive))
    return Results(
        format=FORMAT,
        experiment=grid.experiment.name,
        config=_public_config(grid),
        provenance=_provenance(grid, took, seconds),
        dataset=_dataset(grid),
        rows=tuple(row for found in by_cell.values() for row in found),
        reliability=tuple(_reliability(grid, store)),
        latencies=tuple(_latencies(grid, store)),
        margins=tuple(_margins(grid, store)),
        adaptive=tuple(AdaptivePoint(**one) for one in (adaptive.meta["points"] if adaptive else ())),
        thresholds=tuple(_thresholds(grid, store)),
        searches=tuple(_searches(grid, store)),
        failures=failures,
        cells=cells or len(grid.cells),
        **{table: tuple(TABLES[table](**record) for record in records) for table, records in summary.meta.items()},
    )


def _thresholds(grid: Grid, store: Store) -> Iterator[Threshold]:
    """Yield the threshold of every cell, rule and nominal error."""
    for cell in grid.cells:
        if cell.adaptive is None:
            continue
        config = cell.adaptive.config
        stored = store.load(cell.adaptive.stage, cell.adaptive.key).meta["thresholds"]
        fitted = {(one["rule"], one["value"]): one for one in stored if one["aim"] == "error"}
        for rule, error in itertools.product(config.rules, config.errors):
            one = fitted.get((rule, error), {})
            yield Threshold(
                cell=cell.id,
                artifact=cell.adaptive.key[:16],
                data=grid.data.dataset.name,
                **{name: getattr(cell, name) for name in AXES},
                n_max=config.n_max,
                rule=rule,
                nominal_error=error,
                threshold=one.get("threshold"),
                validation_error=one.get("error"),
                validation_instances=one.get("instances"),
                validation_truncated=one.get("truncated"),
            )


def _searches(grid: Grid, store: Store) -> Iterator[Search]:
    """Yield what was searched, once per aggregator and network."""
    nodes = {cell.aggregate.key: (cell.aggregate, cell) for cell in grid.cells if cell.aggregate is not None}
    for node, cell in nodes.values():
        found = store.load(node.stage, node.key).meta.get("search")
        if found is None:
            continue
        trials, chosen = found["trials"], found["trials"][found["chosen"]]
        yield Search(
            data=grid.data.dataset.name,
            **{name: getattr(cell, name) for name in AXES if name != "training"},
            trials=len(trials),
            diverged=sum(trial["loss"] is None for trial in trials),
            chosen_trial=found["chosen"] + 1,
            loss_given=trials[0]["loss"],
            loss=chosen["loss"],
            options=canonical(chosen["options"]),
            measured_seconds=round(sum(trial["seconds"] for trial in trials), 3),
        )


def _timed(cell: Cell, store: Store) -> bool:
    """Tell whether a cell's network was measured: times come last, so an unfinished grid may have none."""
    return store.has(cell.latency.stage, cell.latency.key)


def _compression(pruned: dict[str, Any], measured: list[dict[str, Any]]) -> dict[str, Any]:
    costs, usual = pruned["costs"], _usual(measured) if measured else {}
    return {
        **costs,
        "collapsed_layers": ",".join(costs["collapsed_layers"]),
        "measured_latency_ms": usual.get("median_ms"),
        "measured_latency_batch": usual.get("batch"),
        "measured_threads": usual.get("threads"),
        "measured_device": usual.get("device"),
        "measured_contended": timing.contended(usual["contention"]) if usual else None,
        "validation_accuracy_before_retrain": pruned["validation_accuracy_before_retrain"],
        "validation_accuracy": pruned["validation_accuracy"],
        "training_epochs": pruned["training_epochs"],
    }


def _usual(measured: list[dict[str, Any]]) -> dict[str, Any]:
    """Pick the measurement that rows show: the first device, eager, 32 images, else the largest batch."""
    return min(
        (found for found in measured if found["device"] == measured[0]["device"]),
        key=lambda found: (found["mode"] != "eager", found["batch"] != _USUAL_BATCH, -found["batch"]),
    )


def _latencies(grid: Grid, store: Store) -> Iterator[Latency]:
    """Yield what was measured of every compressed network that was."""
    networks = {cell.latency.key: cell for cell in grid.cells if _timed(cell, store)}
    for cell in networks.values():
        found = store.load(cell.latency.stage, cell.latency.key).meta
        pruned = store.load(cell.pruned.stage, cell.pruned.key).meta
        yield from latencies(cell, grid.data.dataset.name, found, pruned)


def latencies(cell: Cell, data: str, found: dict[str, Any], pruned: dict[str, Any]) -> Iterator[Latency]:
    """Yield what was measured of one compressed network.

    Args:
        cell: one of those with this network.
        data: name of the data set.
        found: facts from the stage `latency`.
        pruned: facts from the stage `prune`.
    """
    for measured in found["latencies"]:
        median, dense = measured["median_ms"], measured["reference_ms"]
        yield Latency(
            data=data,
            backbone=cell.backbone,
            pruner=cell.pruner,
            ratio=cell.ratio,
            seed=cell.seed,
            **{name: measured[name] for name in ("device", "mode", "batch", "threads", "peak_memory_bytes")},
            **{name: pruned["costs"][name] for name in ("parameters", "macs_effective", "theoretical_speedup")},
            file_bytes_dense=found["file_bytes"]["dense"],
            file_bytes_sparse=found["file_bytes"]["sparse"],
            measured_median_ms=median,
            measured_low_ms=measured["low_ms"],
            measured_high_ms=measured["high_ms"],
            measured_images_per_second=1000 * measured["batch"] / median,
            measured_dense_ms=dense,
            measured_speedup=dense / median,
            measured_clock=measured["clock"],
            measured_wall_ms=measured["wall_ms"],
            measured_contention=measured["contention"],
            measured_contended=timing.contended(measured["contention"]),
            measured_load=measured["load"],
            training=_network(cell),
        )


def _margins(grid: Grid, store: Store) -> Iterator[Margin]:
    """Yield the error margins of every dense network."""
    networks = {cell.margin.key: (cell.margin, cell) for cell in grid.cells if cell.margin is not None}
    for node, cell in networks.values():
        for layer in store.load(node.stage, node.key).meta["margins"]:
            yield Margin(
                data=grid.data.dataset.name,
                backbone=cell.backbone,
                seed=cell.seed,
                training=_network(cell),
                **layer,
            )


def _network(cell: Cell) -> Literal["frozen", "crossfit"]:
    """Say how a cell's compressed network was trained; joint training starts from that of `frozen`."""
    return "crossfit" if cell.training == CROSSFIT else "frozen"


def _spent(facts: dict[str, Any], metrics: dict[str, Any], aggregator_macs: int) -> dict[str, Any]:
    spent = float(cost.cost(metrics["n"], facts["macs_effective"], aggregator_macs))
    passes = float(cost.dense_passes(spent, facts["macs_dense"]))
    return {
        "aggregator_macs": aggregator_macs,
        "cost_macs": spent,
        "cost_dense_passes": passes,
        "efficiency": float(cost.efficiency(metrics["information_gain"], passes)),
    }


def _reliability(grid: Grid, store: Store) -> list[ReliabilityBin]:
    """Return the filled bins of the first seed's cells."""
    first = grid.experiment.seeds[0]
    found = []
    for cell in grid.cells:
        if cell.seed != first:
            continue
        identity = {name: getattr(cell, name) for name in AXES if name != "seed"} | {"data": grid.data.dataset.name}
        for diagram in store.load(cell.evaluate.stage, cell.evaluate.key).meta["reliability"]:
            bins = zip(diagram["confidence"], diagram["accuracy"], diagram["mass"], strict=True)
            facts = {**identity, "n": diagram["n"], "calibrated": diagram["calibrated"]}
            found += [ReliabilityBin(**facts, confidence=c, accuracy=a, mass=m) for c, a, m in bins if m > 0]
    return found


def _public_config(grid: Grid) -> dict[str, Any]:
    """Return the configuration without the folders of this machine."""
    config: dict[str, Any] = json.loads(canonical(grid.experiment))
    for private in ("output", "data_root"):
        config.pop(private)
    if isinstance(config["data"], dict) and "path" in config["data"]:
        config["data"]["path"] = str(config["data"]["path"]).rpartition("/")[2]
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
    facts: dict[str, Any] = dict(provenance.collect(str(trainer.device(grid.experiment.trainer))))
    facts["date"] = datetime.now(UTC).strftime("%Y-%m-%d")
    facts["seconds"] = None if took is None else round(took, 1)
    facts["last_run_seconds"] = round(run, 1)
    facts["data_sha256"] = grid.data.dataset.fingerprint
    return facts
