"""`python -m sharedlabel.report FOLDER`: make the report again from stored results and print its tables."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from sharedlabel import records
from sharedlabel.errors import guarded, printable
from sharedlabel.report import html, terminal


def main(arguments: Sequence[str] | None = None) -> int:
    """Render a report.

    Args:
        arguments: command line, without the program's name; `sys.argv` if None.

    Returns:
        Exit code: 0, or 2 when the user has something to fix.
    """
    return guarded(lambda: _main(arguments), "the report is as it was; run the same command again")


def _main(arguments: Sequence[str] | None) -> None:
    parser = argparse.ArgumentParser(prog="python -m sharedlabel.report", description=__doc__)
    parser.add_argument("results", type=Path, help="folder that holds results.json, or that file")
    parser.add_argument("--output", type=Path, help="HTML file to write (default: report.html beside results.json)")
    options = parser.parse_args(arguments)
    results = records.read(options.results)
    home = options.results if options.results.is_dir() else options.results.parent
    output = options.output or home / html.NAME
    beside = Path(os.path.relpath(home, output.parent)).as_posix()
    written = html.write_report(results, output.parent, output.name, csv_folder=beside)
    terminal.print_report(results, terminal.open_console())
    print(printable(f"report: {written}"))


if __name__ == "__main__":
    raise SystemExit(main())
