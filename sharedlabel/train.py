"""`sharedlabel train`: run a grid, or what is missing of it, and report.

Without arguments it runs the embedded experiment on real handwritten digits.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from sharedlabel.config import parse
from sharedlabel.errors import FAILED, guarded
from sharedlabel.running import announce, open_grid, run

__all__ = ["main", "run"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 0, 3 if cells failed, or 2 for what the user can fix."""
    return guarded(lambda: _main(arguments))


def _main(arguments: Sequence[str] | None) -> int:
    experiment, switches = parse(arguments)
    # torch and Lightning take seconds to import: help and mistakes do not wait for them, nor do workers to be started.
    from sharedlabel.report.terminal import open_console

    console = open_console(quiet=switches.json)
    grid, store = open_grid(experiment, readonly=switches.plan)
    announce(grid, console)
    if switches.plan:
        from sharedlabel.grid.plan import print_plan

        print_plan(grid, store, console)
        return 0
    return FAILED if run(grid, store, console, switches.fail_fast, switches.json, whole=False).failures else 0


if __name__ == "__main__":
    sys.exit(main())
