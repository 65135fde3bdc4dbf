"""Run the stage calls of a grid: what is missing, what is done, one call."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Hashable, Iterable

from sharedlabel.config.sections import TrainerConfig
from sharedlabel.errors import home
from sharedlabel.grid.jobs import Job
from sharedlabel.grid.nodes import Grid, Node
from sharedlabel.grid.schedule import NOBODY
from sharedlabel.machine import memory
from sharedlabel.measurements import counts
from sharedlabel.records import Identity
from sharedlabel.stages import STAGES
from sharedlabel.store import Artifact, Store
from sharedlabel.tracking.places import Place


def run_node(node: Node, grid: Grid, store: Store, progress: Callable[[Node, float | None], None]) -> Artifact:
    """Return a call's artifact, computing it and what it needs, in this process, where the store has none.

    Args:
        node: the call.
        grid: holds the data that stages read, and says on which devices to run.
        store: where artifacts lie.
        progress: told of each call before it is computed (None) and after it (seconds).
    """
    if store.has(node.stage, node.key):
        return store.load(node.stage, node.key)
    for _, needed in node.inputs:
        run_node(needed, grid, store, progress)
    progress(node, None)
    started = time.perf_counter()
    artifact = job(grid).compute(node.call, store)
    progress(node, time.perf_counter() - started)
    return artifact


def job(grid: Grid) -> Job:
    """Return what all calls of a grid share."""
    experiment = grid.experiment
    folder = home(experiment.output) / experiment.name
    place = Place.of(experiment, folder) if experiment.trainer.logger == "wandb" else None
    return Job(grid.data_by_key, experiment.trainer, folder / "logs", place)


def ordered(nodes: Iterable[Node]) -> list[Node]:
    """List calls and all that they need, each once and after what it needs."""
    seen: dict[str, Node] = {}
    for node in nodes:
        _add(node, seen)
    return list(seen.values())


def _add(node: Node, seen: dict[str, Node]) -> None:
    if node.key not in seen:
        for _, needed in node.inputs:
            _add(needed, seen)
        seen[node.key] = node


def calls(grid: Grid) -> tuple[list[Node], list[Node]]:
    """List the calls of a grid, each after what it needs, and those that measure times and need some of them."""
    every = ordered(call for cell in grid.cells for call in cell.calls())
    timed = {call.key: call for cell in grid.cells for call in cell.last()}
    return every, list(timed.values())


def grouped(nodes: Iterable[Node], runtime: TrainerConfig) -> list[int]:
    """Return for each call the number of those that can be computed together with it, `NOBODY` where it has none."""
    numbers: dict[Hashable, int] = {}
    groups = []
    for node in nodes:
        together = STAGES[node.stage].together
        common = None if together is None else together(node.config, runtime)
        known = (node.stage, node.data_key, common)
        groups.append(NOBODY if common is None else numbers.setdefault(known, len(numbers)))
    return groups


@memory.uncollected()
def missing(grid: Grid, store: Store) -> list[Node]:
    """List the stage calls that are not stored yet, in the order they would run."""
    every, timed = calls(grid)
    nodes = ordered((*every, *timed))
    stored = store.among((node.stage, node.key) for node in nodes)
    return [node for node in nodes if (node.stage, node.key) not in stored]


def finished(grid: Grid, store: Store) -> Grid:
    """Return the part of a grid whose numbers are stored: whole methods with all seeds and their dense network.

    A method counts once every seed of it is done, so that summaries never mix different numbers of seeds.
    """
    absent = {node.key for node in missing(grid, store)}

    unfinished = {Identity.of(cell) for cell in grid.cells if any(node.key in absent for node in cell.read())}
    done = {Identity.of(cell) for cell in grid.cells} - unfinished
    kept = {method for method in done if method.dense in done}
    return dataclasses.replace(grid, cells=tuple(cell for cell in grid.cells if Identity.of(cell) in kept))


def training_macs(node: Node, grid: Grid) -> float:
    """Estimate the MACs of training a backbone: three forward passes per image and epoch; 0 for other calls.

    Masked weights are counted, since training executes them.
    """
    epochs = float(getattr(node.config, "epochs", 0.0))
    if not epochs:
        return 0.0
    forward = counts.macs(grid.backbones[node.config.backbone.label], grid.data.dataset.image_shape).executed
    return 3.0 * forward * len(grid.data_by_key[node.data_key].splits["backbone"]) * epochs
