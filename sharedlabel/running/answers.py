"""What the recommended method of a run answers on test: which labels it confuses, and tuples that it gets wrong."""

from __future__ import annotations

import itertools
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
from sharedlabel.types import Tuples


def answers(grid: Grid, store: Store, results: Results) -> tuple[tuple[Confusion, ...], tuple[Mistake, ...]]:
    """Return the tables of confusions and of mistakes, of one method per backbone and protocol.

    They are of the n that is recommended or, where nothing is wrong there, of the largest below it with a mistake.

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
        told = _told(cells, grid, store, chosen[1])
        named = {"data": view.data, **chosen[0]._asdict(), "n": told[0].n}
        confusions += _confusions(told, grid, named)
        mistakes += _mistakes(told[0], grid, named | {"seed": cells[0].seed})
    return tuple(confusions), tuple(mistakes)


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
        self.n = n
        self.drawn: Tuples = config.drawn(grid.data, "test").reaching(n)
        own = slice(self.drawn.labels.shape[1])
        self.predicted = stored["test.predicted"][:, own, at].long()  # [p t]
        self.information = stored["test.information"][:, own, at]  # [p t], bits

    @property
    def wrong(self) -> Tensor:
        """Which tuples it gets wrong, `[p t]`."""
        return self.predicted != self.drawn.labels


def _told(cells: Sequence[Cell], grid: Grid, store: Store, most: int) -> list[_Answers]:
    """Return the answers of each cell at the largest n with a mistake, or at the largest."""
    sizes = sorted((n for n in cells[0].evaluate.config.n if n <= most), reverse=True)
    every = ([_Answers(cell, grid, store, n) for cell in cells] for n in sizes)
    first = next(every)
    return next((told for told in (first, *every) if any(one.wrong.any() for one in told)), first)


def _confusions(told: Sequence[_Answers], grid: Grid, named: dict[str, Any]) -> Iterator[Confusion]:
    names = grid.data.dataset.class_names
    counts = torch.zeros(len(names) ** 2, dtype=torch.long)
    for own in told:
        pairs = own.drawn.labels * len(names) + own.predicted
        counts += torch.bincount(pairs.flatten(), minlength=len(counts))
    for at in counts.nonzero().flatten().tolist():
        label, predicted = divmod(at, len(names))
        yield Confusion(**named, label=names[label], predicted=names[predicted], tuples=int(counts[at]))


def _mistakes(own: _Answers, grid: Grid, named: dict[str, Any]) -> Iterator[Mistake]:
    """Yield the tuples that cost the most information, each image at most once."""
    names, asked = grid.data.dataset.class_names, grid.experiment.report.examples
    for partition, at in itertools.islice(_dearest(own), asked):
        instances = grid.data.splits["test"][own.drawn.indices[partition, at, : own.n]]
        yield Mistake(
            **named,
            label=names[int(own.drawn.labels[partition, at])],
            predicted=names[int(own.predicted[partition, at])],
            probability=2.0 ** float(own.information[partition, at]),
            instances=tuple(instances.tolist()),
            pictures=tuple(pictures(grid.data.dataset.images, instances)),
        )


def _dearest(own: _Answers) -> Iterator[tuple[int, int]]:
    """Yield partition and position of wrong tuples without an image of one before, those of least information first."""
    wrong, seen = own.wrong.nonzero(), set[int]()
    for place in own.information[own.wrong].argsort(stable=True).tolist():
        partition, at = wrong[place].tolist()
        images = own.drawn.indices[partition, at, : own.n].tolist()
        if seen.isdisjoint(images):
            seen.update(images)
            yield partition, at
