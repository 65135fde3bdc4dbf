"""`python -m sharedlabel.evaluate`: report the finished cells of a grid, without computing any other.

Useful while a long run goes on elsewhere, or to report an interrupted one. Takes the arguments of `sharedlabel.train`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from sharedlabel.config import parse
from sharedlabel.errors import StoreError, guarded, printable


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 0, or 2 for what the user can fix."""
    return guarded(lambda: _main(arguments))


def _main(arguments: Sequence[str] | None) -> None:
    experiment, _ = parse(arguments, "evaluate")
    # As in train.py: torch and Lightning take seconds to import, and mistakes should not wait for them.
    from sharedlabel.collect import collect
    from sharedlabel.grid import finished, prepare
    from sharedlabel.report.html import write_report
    from sharedlabel.report.terminal import open_console, print_report
    from sharedlabel.results import write
    from sharedlabel.store import Store

    started = time.perf_counter()
    store = Store(Path(experiment.output).expanduser() / "store")
    whole = prepare(experiment)
    grid = finished(whole, store)
    if not grid.cells:
        raise StoreError(
            f"expected finished cells of {experiment.name!r} in {store.root}, got none; "
            "run `python -m sharedlabel.train` first, or ask for fewer seeds: a method counts once all of its are done"
        )
    console = open_console()
    results = collect(grid, store, seconds=time.perf_counter() - started)
    folder = Path(experiment.output).expanduser() / experiment.name
    write(results, folder)
    write_report(results, folder)
    print_report(results, console)
    text = printable(f"{len(grid.cells)} of {len(whole.cells)} cells are finished; report: {folder / 'report.html'}")
    console.print(f"\n{text}", highlight=False, markup=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
