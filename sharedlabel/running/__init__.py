"""Run an experiment and write what it gives: what the command `train` and `sharedlabel.run` share.

torch and Lightning take seconds to import, so functions import them: help and mistakes do not wait for them.
"""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sharedlabel.config import Experiment
from sharedlabel.errors import home, printable
from sharedlabel.machine import cores, forks, memory

if TYPE_CHECKING:
    from rich.console import Console

    from sharedlabel.grid import Grid, Node
    from sharedlabel.grid.failures import Failed
    from sharedlabel.records import Results, Row
    from sharedlabel.running.rows import Losses
    from sharedlabel.store import Store
    from sharedlabel.tracking.places import Place


@dataclass(frozen=True)
class _Computed:
    """A grid after its run.

    Attributes:
        results: what it gives.
        tracebacks: those of the calls that failed, by the file that they belong into.
        calls: how many stage calls were computed.
        made_of: a digest of all that the files of the run follow from; empty where that is not known.
        written: a former run has written these files, and they are as it left them.
    """

    results: Results
    tracebacks: Mapping[str, str]
    calls: int
    made_of: str = ""
    written: bool = False


@memory.uncollected()
def open_grid(experiment: Experiment, readonly: bool = False) -> tuple[Grid, Store]:
    """Load the data of an experiment, lay out its cells and open the store of its artifacts.

    Args:
        experiment: the configuration.
        readonly: write nothing into the store.
    """
    if not readonly:
        _start_early(experiment)
    from sharedlabel import store as stores
    from sharedlabel.grid import opened

    try:
        store = stores.of(experiment, readonly)
        return opened(experiment), store
    except BaseException:
        forks.cool()
        raise


def _start_early(experiment: Experiment) -> None:
    """Let worker processes import what they need while this one does, where a run has something to compute."""
    new = not (home(experiment.output) / experiment.name).exists()
    here = experiment.executor == "local" and experiment.trainer.devices == 1
    if new and here and cores.workers(experiment.workers) != 1 and cores.available() > experiment.threads:
        forks.warm(forks.STAGE_CALLS, experiment.threads)


def announce(grid: Grid, console: Console) -> None:
    """Print what the data are, what one should know of them, and what a search will cost."""
    from rich.text import Text

    from sharedlabel.grid import survey
    from sharedlabel.grid.plan import search_budget
    from sharedlabel.records import shown

    experiment, dataset = grid.experiment, grid.data.dataset
    classes = ", ".join(map(shown.name, dataset.class_names[:5])) + (", ..." if dataset.num_classes > 5 else "")
    console.print(
        f"{shown.name(experiment.name)}: {len(dataset.labels)} images of {shown.name(dataset.name)}, "
        f"{dataset.num_classes} classes, ({classes}), {len(grid.cells)} cells",
        highlight=False,
        markup=False,
    )
    console.print(Text(survey.totals(grid)), soft_wrap=True)
    for remark in survey.remarks(grid):
        console.print(Text(f"warning: {printable(remark)}", style="yellow"), soft_wrap=True)
    if experiment.fit.trials:
        console.print(search_budget(grid), highlight=False)


def run(
    grid: Grid, store: Store, console: Console, fail_fast: bool = False, events: bool = False, whole: bool = True
) -> Results:
    """Compute the missing cells, then write rows, plots and the report, print the tables, and publish.

    Args:
        grid: from `open_grid`.
        store: holds the artifacts.
        console: where to print.
        fail_fast: compute nothing more after the first failure.
        events: print what happens as JSON, a line each, for other programs (`grid/progress.py`).
        whole: return every table; else, where a former run has written them, those alone that are printed or published.

    Raises:
        WriteError: the store, or the folder of the run, cannot be written.
        TrackingError: everything is stored and written, but W&B does not take it.
    """
    from sharedlabel.report.terminal import PRINTED, print_report
    from sharedlabel.running.published import Published
    from sharedlabel.tracking.places import Place
    from sharedlabel.tracking.publishing import Publisher

    experiment = grid.experiment
    folder = home(experiment.output) / experiment.name
    folder.mkdir(parents=True, exist_ok=True)  # a place that cannot be written is noticed before the first call
    publisher = Publisher.of(experiment, Place.of(experiment, folder), cores.processes(experiment.workers) > 1)
    with forks.cooled(), cores.using(experiment.threads), contextlib.ExitStack() as last, publisher:
        published = Published(publisher, grid, folder)
        tables = None if whole or publisher.place.mode != "none" else PRINTED
        computed = _compute(grid, store, None if events else console, fail_fast, folder, published.cell, tables)
        results, figures = computed.results, Future[Callable[[], Mapping[str, str]]]()
        last.callback(figures.cancel)  # whoever waits for them waits no longer, whatever goes wrong here
        published.rest(store, results, figures)
        figures.set_result(_publish(computed, folder))
        print_report(results, console)
        _say_where(computed, folder, console, events)
        if publisher.busy:
            _say_wait(console, events)
    if publisher.busy:
        _say_published(publisher.place, folder, console)
    return results


def _say_where(computed: _Computed, folder: Path, console: Console, events: bool) -> None:
    """Print how much was computed, and where the report and the rows are."""
    from sharedlabel.grid.progress import tell

    nothing = "computed nothing" if computed.tracebacks else "computed nothing: every cell was done"
    done = f"computed {computed.calls} stage calls" if computed.calls else nothing
    where = printable(f"{done}; report: {folder / 'report.html'}, rows: {folder / 'rows.csv'}")
    console.print(f"\n{where}", highlight=False, markup=False, soft_wrap=True)
    if events:
        written = {"report": str(folder / "report.html"), "rows": str(folder / "rows.csv")}
        tell("report", computed=computed.calls, failed=len(computed.tracebacks), **written)


def _say_wait(console: Console, events: bool) -> None:
    """Say that only W&B is left to wait for."""
    from sharedlabel.grid.progress import tell

    reason = "until W&B has taken all runs"
    console.print(f"waiting {reason}", highlight=False, markup=False)
    if events:
        tell("waiting", reason=reason)


def _say_published(place: Place, folder: Path, console: Console) -> None:
    """Say where W&B's runs are, and how to see them."""
    if place.mode == "online":
        owner = f"{place.entity}/" if place.entity else ""
        where = f"project {owner}{place.project}, group {place.experiment}"
        look = f"compare them: sharedlabel dashboards {shlex.quote(str(folder))}"
    else:
        where = str(place.folder / "wandb")
        look = f"upload them: wandb sync {shlex.quote(where)}"
    console.print(printable(f"W&B's runs: {where}; {look}"), highlight=False, markup=False, soft_wrap=True)


def _publish(computed: _Computed, folder: Path) -> Callable[[], Mapping[str, str]]:
    """Write all that a run leaves beside its store, unless it is there; return what gives the figures."""
    if computed.written:
        from sharedlabel.running import unchanged

        return lambda: unchanged.figures(folder)
    # A run with nothing to write does not wait for what draws.
    from sharedlabel.report.html import publish

    drawn = publish(computed.results, folder, computed.tracebacks, computed.made_of)
    return lambda: drawn


def compute(grid: Grid, store: Store, console: Console, fail_fast: bool = False) -> Results:
    """Compute the missing cells and return the results; nothing is written but artifacts in the store.

    Args:
        grid: from `open_grid`.
        store: holds the artifacts.
        console: where to print progress.
        fail_fast: compute nothing more after the first failure.

    Raises:
        WriteError: the store cannot be written.
    """
    with forks.cooled(), cores.using(grid.experiment.threads):
        return _compute(grid, store, console, fail_fast).results


def _compute(
    grid: Grid,
    store: Store,
    console: Console | None,
    fail_fast: bool,
    folder: Path | None = None,
    tell: Callable[[Sequence[Row], Losses], None] | None = None,
    tables: Collection[str] | None = None,
) -> _Computed:
    """Compute what is missing and collect everything; tracebacks are kept in the folder at once, if there is one.

    Whoever wants to be told is told of every cell as soon as there is nothing left to compute. Where a former run has
    written everything, these tables alone may be read.
    """
    from sharedlabel.grid import finished, missing
    from sharedlabel.grid.failures import failures
    from sharedlabel.grid.words import described
    from sharedlabel.running import unchanged
    from sharedlabel.running.collect import collect

    started, done = time.perf_counter(), 0
    failed: dict[str, Failed] = {}
    absent = missing(grid, store)
    if absent:
        failed, done = _made(grid, store, console, fail_fast, folder, absent)
    elif folder is not None:
        made_of = unchanged.made_of(grid, store)
        written = unchanged.results(folder, made_of, tables)
        if written is not None:
            return _Computed(written, {}, 0, made_of, written=True)
    texts = {key: described(one.node, grid) for key, one in failed.items()}
    results = collect(
        finished(grid, store),
        store,
        seconds=time.perf_counter() - started,
        failures=tuple(failures(grid, failed, texts)),
        cells=len(grid.cells),
        tell=tell,
    )
    forks.cool()
    made_of = unchanged.made_of(grid, store) if folder is not None and not failed else ""
    return _Computed(results, {one.file: one.details for one in failed.values()}, done, made_of)


def _made(
    grid: Grid, store: Store, console: Console | None, fail_fast: bool, folder: Path | None, absent: Sequence[Node]
) -> tuple[dict[str, Failed], int]:
    """Compute what is missing; return the calls that failed, by their keys, and how many were computed."""
    from sharedlabel.grid import check_networks
    from sharedlabel.grid.calls import calls
    from sharedlabel.grid.driver import finish
    from sharedlabel.grid.executors.choose import executor, workers
    from sharedlabel.grid.progress import reporter

    check_networks(grid)
    stored = sum(map(len, calls(grid))) - len(absent)
    progress = reporter(console, grid, absent, stored, workers(grid.experiment), folder)
    with progress.showing():
        failed = finish(grid, store, executor(grid, store, len(absent)), progress, fail_fast)
    return failed, progress.done
