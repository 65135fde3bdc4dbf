"""`sharedlabel train`: run a grid, or what is missing of it, and report.

Without arguments it runs the embedded experiment on real handwritten digits.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sharedlabel.config import digest, parse
from sharedlabel.errors import FAILED, guarded, home, printable

if TYPE_CHECKING:
    from rich.console import Console

    from sharedlabel.grid import Grid
    from sharedlabel.results import Results
    from sharedlabel.store import Store
    from sharedlabel.tracking import Tracker


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 0, 3 if cells failed, or 2 for what the user can fix."""
    return guarded(lambda: _main(arguments))


def _main(arguments: Sequence[str] | None) -> int:
    experiment, switches = parse(arguments)
    # torch and Lightning take seconds to import: help and mistakes should not wait for them.
    from sharedlabel import inert
    from sharedlabel.grid import prepare
    from sharedlabel.progress import print_plan, search_budget
    from sharedlabel.report.terminal import open_console
    from sharedlabel.store import Store

    console = open_console()
    store = Store(home(experiment.output) / "store", readonly=switches.plan)
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
        return 0
    return FAILED if run(grid, store, console, switches.fail_fast).failures else 0


def _print_survey(grid: Grid, console: Console) -> None:
    """Say what the data are, and what one should know of them."""
    from rich.text import Text

    from sharedlabel import survey

    console.print(Text(survey.totals(grid)), soft_wrap=True)
    for remark in survey.remarks(grid):
        console.print(Text(f"warning: {printable(remark)}", style="yellow"), soft_wrap=True)


def run(grid: Grid, store: Store, console: Console, fail_fast: bool = False) -> Results:
    """Compute the missing cells, then write rows, plots and the report, print the tables, and publish.

    Args:
        grid: from `grid.prepare`.
        store: holds the artifacts.
        console: where to print.
        fail_fast: compute nothing more after the first failure.

    Raises:
        WriteError: the store, or the folder of the run, cannot be written.
        TrackingError: everything is stored and written, but W&B does not take it.
    """
    from sharedlabel.collect import collect
    from sharedlabel.executors.local import finish
    from sharedlabel.failures import failures
    from sharedlabel.grid import finished, missing
    from sharedlabel.progress import described, reporting
    from sharedlabel.report.html import publish
    from sharedlabel.report.terminal import print_report
    from sharedlabel.tracking import Tracker

    experiment = grid.experiment
    folder = home(experiment.output) / experiment.name
    folder.mkdir(parents=True, exist_ok=True)  # a place that cannot be written is found before the first call
    started = time.perf_counter()
    absent = missing(grid, store)
    with Tracker(experiment, folder / "wandb") as tracker:
        with reporting(console, grid, len(absent), folder) as progress:
            failed = finish(grid, store, progress, fail_fast)
        calls = {key: described(one.node, grid) for key, one in failed.items()}
        results = collect(
            finished(grid, store),
            store,
            seconds=time.perf_counter() - started,
            failures=tuple(failures(grid, failed, calls)),
            cells=len(grid.cells),
        )
        drawn = publish(results, folder, {one.file: one.details for one in failed.values()})
        print_report(results, console)
        nothing = "computed nothing" if failed else "computed nothing: every cell was done"
        computed = f"computed {progress.done} stage calls" if progress.done else nothing
        where = printable(f"{computed}; report: {folder / 'report.html'}, rows: {folder / 'rows.csv'}")
        console.print(f"\n{where}", highlight=False, markup=False, soft_wrap=True)
        if tracker.mode != "none":
            _track(tracker, grid, store, results, drawn)
    return results


def _track(tracker: Tracker, grid: Grid, store: Store, results: Results, drawn: Mapping[str, str]) -> None:
    """Publish last: what publishes goes on in the background, where it would slow what is timed, and it may fail."""
    from sharedlabel.collect import losses, rows

    failed = {failure.cell for failure in results.failures}
    for cell in grid.cells:
        if cell.id not in failed and all(store.has(node.stage, node.key) for node in cell.read()):
            tracker.cell(rows(cell, grid, store), losses(cell, store))
    for failure in results.failures:
        tracker.failed(failure)
    summarized = sorted(failed) if failed else []
    tracker.summary(results, drawn, digest([results.config, [cell.id for cell in grid.cells], *summarized])[:16])


if __name__ == "__main__":
    sys.exit(main())
