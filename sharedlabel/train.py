"""`python -m sharedlabel.train`: run a grid, or what is missing of it, and report.

Without arguments it runs the embedded experiment on real handwritten digits.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sharedlabel.config import digest, parse
from sharedlabel.errors import guarded, printable

if TYPE_CHECKING:
    from rich.console import Console

    from sharedlabel.grid import Grid
    from sharedlabel.results import Results
    from sharedlabel.store import Store


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 0, or 2 for what the user can fix."""
    return guarded(lambda: _main(arguments))


def _main(arguments: Sequence[str] | None) -> None:
    experiment, switches = parse(arguments)
    # torch and Lightning take seconds to import: help and mistakes should not wait for them.
    from sharedlabel import inert
    from sharedlabel.grid import prepare
    from sharedlabel.progress import print_plan, search_budget
    from sharedlabel.report.terminal import open_console
    from sharedlabel.store import Store

    console = open_console()
    store = Store(Path(experiment.output).expanduser() / "store")
    grid = prepare(experiment)
    dataset = grid.data.dataset
    classes = ", ".join(map(inert.name, dataset.class_names[:5])) + (", ..." if dataset.num_classes > 5 else "")
    console.print(
        f"{inert.name(experiment.name)}: {len(dataset.labels)} images of {inert.name(dataset.name)}, "
        f"{dataset.num_classes} classes, ({classes}), {len(grid.cells)} cells",
        highlight=False,
        markup=False,
    )
    _print_survey(grid, console)
    if experiment.fit.trials:
        console.print(search_budget(grid), highlight=False)
    if switches.plan:
        print_plan(grid, store, console)
        return
    run(grid, store, console)


def _print_survey(grid: Grid, console: Console) -> None:
    """Say what the data are, and what one should know of them."""
    from rich.text import Text

    from sharedlabel import survey

    console.print(Text(survey.totals(grid)), soft_wrap=True)
    for remark in survey.remarks(grid):
        console.print(Text(f"warning: {printable(remark)}", style="yellow"), soft_wrap=True)


def run(grid: Grid, store: Store, console: Console) -> Results:
    """Compute the missing cells, then write rows, plots and the report, and print the tables.

    Args:
        grid: from `grid.prepare`.
        store: holds the artifacts.
        console: where to print.
    """
    from sharedlabel.collect import collect, losses, rows
    from sharedlabel.executors.local import finish
    from sharedlabel.grid import missing
    from sharedlabel.progress import reporting
    from sharedlabel.report.html import write_report
    from sharedlabel.report.plots import figures
    from sharedlabel.report.terminal import print_report
    from sharedlabel.results import write
    from sharedlabel.tracking import Tracker

    experiment = grid.experiment
    folder = Path(experiment.output).expanduser() / experiment.name
    started = time.perf_counter()
    absent = missing(grid, store)
    with Tracker(experiment, folder / "wandb") as tracker:
        with reporting(console, grid, len(absent)) as progress:
            finish(grid, store, progress)
        for cell in grid.cells:  # not before: what publishes goes on in the background, and would slow networks
            tracker.cell(rows(cell, grid, store), losses(cell, store))
        results = collect(grid, store, seconds=time.perf_counter() - started)
        write(results, folder)
        drawn = figures(results)
        write_report(results, folder, figures=drawn)
        print_report(results, console)
        tracker.summary(results, drawn, digest([results.config, [cell.id for cell in grid.cells]])[:16])
    computed = f"computed {progress.done} stage calls" if progress.done else "computed nothing: every cell was done"
    where = printable(f"{computed}; report: {folder / 'report.html'}, rows: {folder / 'rows.csv'}")
    console.print(f"\n{where}", highlight=False, markup=False, soft_wrap=True)
    return results


if __name__ == "__main__":
    sys.exit(main())
