"""Gather the stored numbers of a grid into rows and summaries."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence

from sharedlabel.grid import Grid
from sharedlabel.machine import crew, forks, memory
from sharedlabel.records import FORMAT, TABLES, AdaptivePoint, Results, Row
from sharedlabel.records.measurements import Failure
from sharedlabel.running import about
from sharedlabel.running.answers import answers
from sharedlabel.running.curves import Curves
from sharedlabel.running.rows import Facts, Losses, Tables, of_cell
from sharedlabel.store import Artifact, Store
from sharedlabel.summary import stored


@memory.uncollected()
def collect(
    grid: Grid,
    store: Store,
    seconds: float,
    failures: tuple[Failure, ...] = (),
    cells: int = 0,
    tell: Callable[[Sequence[Row], Losses], None] | None = None,
) -> Results:
    """Gather the whole grid.

    Args:
        grid: all of whose cells are stored; it may have none.
        store: where they are.
        seconds: wall-clock time of the run that asks, for the provenance; what it found stored took longer.
        failures: of other cells.
        cells: how many there are with those that are not stored; as many as are stored if left out.
        tell: told the rows and losses of each cell, before anything is summarised.
    """
    facts, tables, by_cell = Facts(store), Tables(), dict[str, list[Row]]()
    curves = Curves(grid, facts.read)
    for cell in grid.cells:
        by_stage = facts.of(cell)
        by_cell[cell.id] = of_cell(cell, grid, facts, by_stage)
        tables.add(cell, grid, by_stage)
        curves.add(cell)
        if tell is not None:
            tell(by_cell[cell.id], facts.losses(cell))
    summary, adaptive = _summaries(grid, store, by_cell)
    took = stored.seconds(grid, store, (summary, adaptive), facts.seconds)
    results = Results(
        format=FORMAT,
        experiment=grid.experiment.name,
        config=about.config(grid),
        provenance=about.provenance(grid, took, seconds),
        dataset=about.dataset(grid),
        rows=tuple(row for own in by_cell.values() for row in own),
        adaptive=tuple(AdaptivePoint(**one) for one in (adaptive.meta["points"] if adaptive else ())),
        failures=failures,
        cells=cells or len(grid.cells),
        order_free=about.order_free(grid),
        curves=tuple(curves.records.values()),
        **{table: tuple(records) for table, records in tables.records.items()},
        **{table: tuple(TABLES[table](**record) for record in records) for table, records in summary.meta.items()},
    )
    if not grid.cells:
        return results
    confusions, mistakes = answers(grid, store, results)
    return dataclasses.replace(results, confusions=confusions, mistakes=mistakes)


def _summaries(grid: Grid, store: Store, by_cell: Mapping[str, Sequence[Row]]) -> tuple[Artifact, Artifact | None]:
    """Return both summaries; that of adaptive n comes from a process beside this one, where there is one to fork it."""
    adaptive, threads = stored.Adaptive.of(grid, by_cell), grid.experiment.threads
    ahead: crew.Ahead | None = None
    if adaptive is not None and not store.readonly and forks.is_warm(forks.STAGE_CALLS, threads):
        process = forks.taken(forks.STAGE_CALLS, threads)
        with contextlib.suppress(OSError):  # it has died
            ahead = crew.Ahead(process, stored.ahead, (forks.Surroundings(), store.where, adaptive))
        forks.keep(process)
    summary = stored.over_seeds(grid, store, by_cell)
    if ahead is not None:
        ahead.wait()
    return summary, None if adaptive is None else adaptive.summary(store)
