"""What of a grid is published, and when: cells as soon as nothing is left to compute, the rest with the results."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path

from sharedlabel.grid import Grid
from sharedlabel.records import NAME, TABLES, Results, Row
from sharedlabel.running.about import about
from sharedlabel.running.rows import Losses, losses, rows
from sharedlabel.store import Store
from sharedlabel.tracking import methods, runs
from sharedlabel.tracking.about import About, options
from sharedlabel.tracking.publishing import Publisher


class Published:
    """Tells a publisher of the cells, the methods and the results of a grid.

    Args:
        publisher: publishes each run once.
        grid: whose runs they are.
        folder: of the run, where its files are written.
    """

    def __init__(self, publisher: Publisher, grid: Grid, folder: Path) -> None:
        self.publisher, self.grid, self.folder = publisher, grid, folder

    @functools.cached_property
    def about(self) -> About:
        """What all runs say of the experiment."""
        facts = about(self.grid)
        return About(facts["experiment"], facts["config"], facts["provenance"], options(self.grid.experiment))

    def cell(self, rows: Sequence[Row], losses: Losses) -> None:
        """Publish a finished cell."""
        if self.publisher.place.mode != "none":
            self.publisher.publish(rows[0].cell, functools.partial(runs.of_cell, rows, losses, self.about))

    def rest(self, store: Store, results: Results, figures: Future[Callable[[], Mapping[str, str]]]) -> None:
        """Publish what is not published yet.

        Args:
            store: holds what cells are made of.
            results: of the grid.
            figures: will return SVG texts by name, once the files of the run are written.
        """
        if self.publisher.place.mode == "none":
            return
        failed = {failure.cell for failure in results.failures}
        self._cells(store, results, failed)
        for failure in results.failures:
            self.publisher.publish(runs.failure_id(failure), functools.partial(runs.of_failure, failure, self.about))
        sweep = self.publisher.place.sweep
        whole = methods.extent(results, "" if sweep is None else sweep.run_id)
        if self.publisher.has(whole):
            return
        for run in methods.of_methods(results, self.about, whole):
            self.publisher.publish(run.identifier, functools.partial(_same, run))
        self.publisher.publish(whole, functools.partial(self._summary, results, figures, whole))

    def _cells(self, store: Store, results: Results, failed: set[str]) -> None:
        by_cell: dict[str, list[Row]] = {}
        for row in results.rows:
            by_cell.setdefault(row.cell, []).append(row)
        for cell in self.grid.cells:
            known = cell.id in failed or self.publisher.has(cell.id)
            if not known and all(store.has(node.stage, node.key) for node in cell.read()):
                self.cell(by_cell.get(cell.id) or rows(cell, self.grid, store), losses(cell, store))

    def _summary(self, results: Results, figures: Future[Callable[[], Mapping[str, str]]], whole: str) -> runs.Run:
        plots = figures.result()()  # which waits until the files are there
        listed = {name: self.folder / name for name in ("report.html", NAME, *(f"{table}.csv" for table in TABLES))}
        paths = {name: path for name, path in listed.items() if path.exists()}
        kept = runs.Files(f"{results.experiment}-results", "results", paths, ("latest", whole))
        return methods.of_grid(results, plots, kept, self.about, whole)


def _same(run: runs.Run) -> runs.Run:
    """Return a run that is made already."""
    return run
