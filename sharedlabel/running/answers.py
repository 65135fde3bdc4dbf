"""What the recommended method of a run answers on test: which labels it confuses, and tuples that it gets wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from sharedlabel.config.names import DENSE, EXACT
from sharedlabel.grid import Cell, Grid
from sharedlabel.records import Identity, Results
from sharedlabel.records.answers import Confusion, Mistake
from sharedlabel.report import views
from sharedlabel.running.pictures import pictures
from sharedlabel.store import Store


def answers(grid: Grid, store: Store, results: Results) -> dict[str, tuple[Any, ...]]:
    """Return the tables `confusions` and `mistakes`, of one method per backbone and protocol.

    Args:
        grid: all of whose cells are stored.
        store: where they are.
        results: of the grid, which say what is recommended.
    """
    confusions: list[Confusion] = []
    mistakes: list[Mistake] = []
    for view in views.split(results):
        chosen = _chosen(view)
        cells = [] if chosen is None else [cell for cell in grid.cells if Identity.of(cell) == chosen[0]]
        if chosen is None or not cells:
            continue
        named = {"data": view.data, **chosen[0]._asdict(), "n": chosen[1]}
        confusions += _confusions(cells, grid, store, named)
        mistakes += _mistakes(cells[0], grid, store, named)
    return {"confusions": tuple(confusions), "mistakes": tuple(mistakes)}


def _chosen(view: views.View) -> tuple[Identity, int] | None:
    """Return the method and n of the headline; where it has none, those with the highest RI on validation."""
    spot = views.headline(view)
    if spot is not None and spot.ratio is not None and spot.n is not None:
        pruner = DENSE if spot.ratio == 1 else spot.pruner
        return Identity(spot.backbone, pruner, spot.ratio, spot.aggregator, spot.training, spot.protocol), spot.n
    known = [s for s in view.summaries if s.split == "validation" and s.aggregator != EXACT]
    best = max(known, key=lambda s: s.ri, default=None)
    return None if best is None else (Identity.of(best), best.n)


class _Answers:
    """What a cell answers on the tuples of test.

    Args:
        cell: whose answers.
        grid: that it belongs to.
        store: where they are.
        n: instances per tuple.
    """

    def __init__(self, cell: Cell, grid: Grid, store: Store, n: int) -> None:
        config, stored = cell.evaluate.config, store.load(cell.evaluate.stage, cell.evaluate.key).tensors()
        at = config.n.index(n)
        self.drawn = grid.data.tuples("test", cell.protocol, max(config.n), config.partitions, config.seed)
        self.predicted = stored["test.predicted"][:, :, at].long()  # [p t]
        self.information = stored["test.information"][:, :, at]  # [p t], bits


def _confusions(cells: Sequence[Cell], grid: Grid, store: Store, named: dict[str, Any]) -> Iterator[Confusion]:
    names = grid.data.dataset.class_names
    counts = torch.zeros(len(names) ** 2, dtype=torch.long)
    for cell in cells:
        own = _Answers(cell, grid, store, named["n"])
        pairs = own.drawn.labels * len(names) + own.predicted
        counts += torch.bincount(pairs.flatten(), minlength=len(counts))
    for at in counts.nonzero().flatten().tolist():
        label, predicted = divmod(at, len(names))
        yield Confusion(**named, label=names[label], predicted=names[predicted], tuples=int(counts[at]))


def _mistakes(cell: Cell, grid: Grid, store: Store, named: dict[str, Any]) -> Iterator[Mistake]:
    """Yield the tuples of the first partition that cost the most information, each image at most once."""
    own, names = _Answers(cell, grid, store, named["n"]), grid.data.dataset.class_names
    labels, predicted, information = own.drawn.labels[0], own.predicted[0], own.information[0]
    wrong = (predicted != labels).nonzero().flatten()
    for at in _first(wrong, information, grid.experiment.report.examples):
        instances = grid.data.splits["test"][own.drawn.indices[0, at, : named["n"]]]
        yield Mistake(
            **named,
            seed=cell.seed,
            label=names[int(labels[at])],
            predicted=names[int(predicted[at])],
            probability=2.0 ** float(information[at]),
            instances=tuple(instances.tolist()),
            pictures=tuple(pictures(grid.data.dataset.images, instances)),
        )


def _first(wrong: Tensor, information: Tensor, count: int) -> list[int]:
    """Return the positions of the least information, the earlier first among equals."""
    order = information[wrong].argsort(stable=True)[:count]
    chosen: list[int] = wrong[order].tolist()
    return chosen
