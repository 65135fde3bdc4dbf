"""`sharedlabel report FOLDER`: make the report again from stored results and print its tables."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from sharedlabel import records
from sharedlabel.config.arguments import Parser
from sharedlabel.errors import guarded, printable


def main(arguments: Sequence[str] | None = None) -> int:
    """Render a report.

    Args:
        arguments: command line, without the program's name; `sys.argv` if None.

    Returns:
        Exit code: 0, or 2 when the user has something to fix.
    """
    return guarded(lambda: _main(arguments), "the report is as it was; run the same command again")


def parser() -> Parser:
    """Return the parser of the command line."""
    built = Parser("sharedlabel report", "Make the report of a run again from its stored results and print its tables.")
    built.add_argument("results", type=Path, help="folder that holds results.json, or that file")
    built.add_argument("--output", type=Path, help="HTML file to write (default: report.html beside results.json)")
    return built


def _main(arguments: Sequence[str] | None) -> None:
    options = parser().parse_args(arguments)
    stored = records.read(options.results)
    # Help and mistakes should not wait for what draws.
    from sharedlabel.report import html, terminal

    home = options.results if options.results.is_dir() else options.results.parent
    output = options.output or home / html.NAME
    beside = Path(os.path.relpath(home, output.parent)).as_posix()
    written = html.write_report(stored, output.parent, output.name, csv_folder=beside)
    terminal.print_report(stored, terminal.open_console())
    print(printable(f"report: {written}"))


if __name__ == "__main__":
    raise SystemExit(main())
