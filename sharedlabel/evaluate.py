"""`sharedlabel evaluate`: report the finished cells of a grid, without computing any other.

Useful while a long run goes on elsewhere, or to report an interrupted one. Takes the arguments of `sharedlabel.train`.
"""

from __future__ import annotations

import errno
import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path

from sharedlabel.config import parse
from sharedlabel.errors import StoreError, WriteError, guarded, home, printable
from sharedlabel.machine import memory
from sharedlabel.records import read
from sharedlabel.records.measurements import Failure

_READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}  # a place where others compute: its numbers can be shown


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 0, or 2 for what the user can fix."""
    return guarded(lambda: _main(arguments))


@memory.uncollected()
def _main(arguments: Sequence[str] | None) -> None:
    experiment, _ = parse(arguments, "evaluate")
    # As in train.py: torch and Lightning take seconds to import, and mistakes should not wait for them.
    from sharedlabel import store as stores
    from sharedlabel.grid import finished, opened
    from sharedlabel.report.html import publish
    from sharedlabel.report.terminal import open_console, print_report
    from sharedlabel.running.collect import collect

    started = time.perf_counter()
    store = stores.of(experiment, readonly=True)
    whole = opened(experiment)
    grid = finished(whole, store)
    if not grid.cells:
        raise StoreError(
            f"expected finished cells of {experiment.name!r} in {store.where}, got none; "
            "run `sharedlabel train` first, or ask for fewer seeds: a method counts once all of its are done"
        )
    console = open_console()
    folder = home(experiment.output) / experiment.name
    failures = _failures(folder, {cell.id for cell in whole.cells} - {cell.id for cell in grid.cells})
    results = collect(grid, store, time.perf_counter() - started, failures, len(whole.cells))
    print_report(results, console)
    said = f"{len(grid.cells)} of {len(whole.cells)} cells are finished; report: {folder / 'report.html'}"
    try:
        publish(results, folder, None)
    except WriteError as error:
        if getattr(error.__cause__, "errno", None) not in _READ_ONLY:
            raise
        said = f"{len(grid.cells)} of {len(whole.cells)} cells are finished; {folder} is not ours to write a report to"
    console.print(f"\n{printable(said)}", highlight=False, markup=False, soft_wrap=True)


def _failures(folder: Path, unfinished: Collection[str]) -> tuple[Failure, ...]:
    """Return what the last run has told of the cells that are not finished yet, which no store remembers."""
    try:
        failures = read(folder, ("failures",)).failures
    except StoreError:  # there was none, or it was of another version
        return ()
    return tuple(failure for failure in failures if failure.cell in unfinished)


if __name__ == "__main__":
    sys.exit(main())
