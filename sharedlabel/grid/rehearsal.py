"""How long a grid will take: its own stages, run on a little made-up data, scaled up.

Images of the same shape and classes are drawn at random, in two sizes; a line through the two times of a stage says
what a call costs for all images, epochs and partitions. Early stopping is not foreseen, so training of aggregators
takes at most what is estimated.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sharedlabel import rng
from sharedlabel.config import Experiment
from sharedlabel.config.names import CROSSFIT, IID
from sharedlabel.data import tuples
from sharedlabel.grid import Grid, Node, lay_out
from sharedlabel.grid.calls import job, ordered
from sharedlabel.grid.driver import Run
from sharedlabel.grid.executors.here import Here
from sharedlabel.grid.failures import Failed
from sharedlabel.grid.remaining import Kind, kind
from sharedlabel.measurements import counts
from sharedlabel.scoring.data import FEATURE_ROLES, Data, crossfitted
from sharedlabel.stages import STAGES
from sharedlabel.store import Store
from sharedlabel.training import callbacks
from sharedlabel.types import Dataset, Role

_MACS = 1e10  # of the smaller rehearsal's forward passes, for each part: a second or two on one core
_CLASSES, _INSTANCES = 10, 4  # made up at most; instances per tuple
_INPUTS = 8  # images of the first rehearsal on which margins are observed, over and over
_BYTES = 2**28  # of made-up images, while they are drawn
_SIZES = ((4, 3), (3, 2), (2, 1))  # times as many images in the second rehearsal, and epochs; the first has one
_SECONDS = 30.0  # that the second rehearsal may take, by what the first took
_COMPILATION = 60.0  # seconds for each new shape, where latency is measured compiled


@dataclass(frozen=True)
class Line:
    """Seconds of a call by the work that it does.

    Attributes:
        fixed: seconds whatever the work.
        slope: seconds for each unit of work.
    """

    fixed: float
    slope: float

    def at(self, work: float) -> float:
        """Return the seconds for so much work."""
        return self.fixed + self.slope * work


def line(small: tuple[float, float], large: tuple[float, float]) -> Line:
    """Return the line through two measurements, each work and seconds; through the larger alone where noise bent it.

    >>> line((1.0, 2.0), (3.0, 4.0))
    Line(fixed=1.0, slope=1.0)
    """
    (work, seconds), (more_work, more_seconds) = small, large
    if more_work == work:
        return Line(min(seconds, more_seconds), 0.0)
    slope = (more_seconds - seconds) / (more_work - work)
    fixed = seconds - slope * work
    return Line(fixed, slope) if slope > 0 and fixed >= 0 else Line(0.0, more_seconds / more_work)


class Rehearsal:
    """What the calls of a grid take, measured in a few seconds.

    Args:
        grid: from `grid.prepare`.

    Attributes:
        failed: stages of which a call failed, and why; of these nothing may be known.
    """

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        _measured(grid, 1, 1, warming=True)  # what is loaded once takes longer than what is measured
        began = time.perf_counter()
        small = _measured(grid, 1, 1)
        taken = time.perf_counter() - began
        sizes = (size for size in _SIZES if math.prod(size) * taken <= _SECONDS)
        large = _measured(grid, *next(sizes, _SIZES[-1]))
        self.failed = small.reasons | large.reasons
        both = small.measured.keys() & large.measured.keys()
        self._lines = {like: line(small.measured[like], large.measured[like]) for like in both}

    def seconds(self, node: Node) -> float | None:
        """Estimate the seconds of one call; None where its like could not be rehearsed."""
        if node.stage == "latency":
            return self._latency(kind(node)[1])
        line = self._lines.get(kind(node))
        if line is None:  # another pruner or aggregator of the same stage will take about as long
            alike = [other for like, other in self._lines.items() if like[:2] == kind(node)[:2]]
            line = max(alike, key=lambda one: one.slope, default=None)
        return None if line is None else line.at(_work(node, self._grid.data_by_key[node.data_key]))

    def _latency(self, backbone: str) -> float | None:
        """Return what a measurement takes: so many passes, or so much time, in turns with the dense network."""
        embedding = next((one for like, one in self._lines.items() if like[:2] == ("features", backbone)), None)
        if embedding is None:
            return None
        asked = self._grid.experiment.latency
        passes = (min(float(asked.seconds), asked.repeats * embedding.slope * batch) for batch in asked.batches)
        compiled = 2 * _COMPILATION * len(asked.batches) * ("compiled" in asked.modes)
        return len(asked.devices) * (2 * sum(passes) * len(asked.modes) + compiled) + embedding.fixed


class _Watch:
    """Notes the work and the seconds of every kind of call, and why stages failed, as they may on made-up data."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self.measured: dict[Kind, tuple[float, float]] = {}
        self.reasons: dict[str, str] = {}

    def __call__(self, node: Node, seconds: float | None, worker: int = 0) -> None:
        """Note what a call took; of those alike the quickest."""
        del worker
        if seconds is not None:
            like, work = kind(node), _work(node, self.grid.data_by_key[node.data_key])
            self.measured[like] = min(self.measured.get(like, (work, seconds)), (work, seconds))

    def failed(self, failed: Failed, worker: int = 0) -> None:
        """Note the first reason of a stage."""
        del worker
        self.reasons.setdefault(failed.node.stage, failed.reason)

    def lost(self, node: Node) -> None:
        """What needs a call that failed has no reason of its own."""

    def elsewhere(self, node: Node) -> None:
        """Nobody else works in a store of our own."""

    def waiting(self, reason: str) -> None:
        """Nobody else works in a store of our own."""


def _measured(grid: Grid, scale: int, epochs: int, warming: bool = False) -> _Watch:
    """Run the stages on so much data, for so many epochs; for warming only those of one cell."""
    small = _small(grid, scale, epochs)
    watch = _Watch(small)
    with tempfile.TemporaryDirectory() as folder, callbacks.unwatched():
        store = Store(Path(folder))
        with Run(store, Here(job(small), store, small.experiment.threads), watch) as run:
            run.compute(ordered(small.cells[0].calls() if warming else _calls(small)))
    return watch


def _calls(grid: Grid) -> Iterator[Node]:
    """Yield what is computed for every aggregator on the dense network, and every other network."""
    for cell in grid.cells:
        if cell.ratio == 1:
            yield from cell.calls()
        else:
            yield cell.pruned


def _work(node: Node, data: Data) -> float:
    """Return how much a call has to do, as its stage says."""
    return STAGES[node.stage].work(node.config, data)


def _small(grid: Grid, scale: int, epochs: int) -> Grid:
    """Return a grid of the same plugins on made-up data, so many epochs and one ratio of everything."""
    experiment = _shortened(grid.experiment, epochs, scale * _INPUTS)
    forward = max(counts.macs(network, grid.data.dataset.image_shape).executed for network in grid.backbones.values())
    images = max(int(_MACS / max(forward, 1)), 1)
    classes = max(2, min(grid.data.dataset.num_classes, _CLASSES, images // (6 * _INSTANCES)))
    each = scale * max(2 * _INSTANCES, min(images // (3 * classes), 16 * _INSTANCES))
    held = math.prod(grid.data.dataset.image_shape) * 8 * classes * scale  # bytes of one image of each class
    room = max(1, _BYTES // held)
    learnt = min(images, 2 * experiment.dense.batch_size, len(grid.data.splits["backbone"]))
    each, trained = min(each, scale * room), scale * max(1, min(learnt // classes, room))
    data = _data(grid.data.dataset, classes, {"backbone": trained, **dict.fromkeys(FEATURE_ROLES, each)})
    kinds = {str(entry if isinstance(entry, str) else entry["name"]) for entry in experiment.training}
    crossfit = crossfitted(data, experiment.split, 2, {}) if CROSSFIT in kinds else None
    parts = (data,) if crossfit is None else (data, crossfit.whole, *crossfit.folds)
    cells = lay_out(experiment, data, crossfit)
    return Grid(experiment, data, cells, grid.backbones, {part.key: part for part in parts})


def _shortened(experiment: Experiment, epochs: int, inputs: int) -> Experiment:
    ratios = (1.0, *sorted(one for one in experiment.ratios if one > 1)[:1])
    largest = min(max(experiment.evaluation.n), _INSTANCES)
    return dataclasses.replace(
        experiment,
        ratios=ratios,
        seeds=experiment.seeds[:1],
        dense=dataclasses.replace(experiment.dense, epochs=epochs),
        retrain=dataclasses.replace(experiment.retrain, epochs=min(epochs, experiment.retrain.epochs)),
        fit=dataclasses.replace(experiment.fit, epochs=epochs, patience=epochs, steps=0, trials=0),
        joint=dataclasses.replace(experiment.joint, epochs=epochs),
        margin=dataclasses.replace(experiment.margin, inputs=min(experiment.margin.inputs, inputs)),
        training=tuple(
            entry if isinstance(entry, str) else {**entry, "epochs": epochs} for entry in experiment.training
        ),
        evaluation=dataclasses.replace(experiment.evaluation, n=(largest,), protocols=(IID,), partitions=2),
        crossfit=dataclasses.replace(experiment.crossfit, folds=2),
        trainer=dataclasses.replace(experiment.trainer, logger="none", callbacks=(), checkpoint_seconds=None),
    )


def _data(like: Dataset, classes: int, each: Mapping[Role, int]) -> Data:
    """Make up images, so many of each class and role."""
    generator = rng.generator(0, "rehearsal")
    total = classes * sum(each.values())
    shape = (total, *like.image_shape)
    if like.images.dtype.is_floating_point:
        images: Tensor = torch.randn(shape, generator=generator, dtype=like.images.dtype)
    else:
        images = torch.randint(256, shape, generator=generator, dtype=like.images.dtype)
    labels = torch.arange(total) % classes
    names = tuple(map(str, range(classes)))
    dataset = Dataset(like.name, images, labels, names, None, None, "rehearsal")
    ends = list(itertools.accumulate(classes * count for count in each.values()))
    starts = [0, *ends[:-1]]
    splits = {role: torch.arange(start, end) for role, start, end in zip(each, starts, ends, strict=True)}
    return Data(dataset, splits, tuples.prior(labels, "uniform", classes), f"rehearsal {total}")
