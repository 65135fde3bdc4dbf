"""`python -m benchmarks`: run the benchmarks, print one table, and fail if a bound is missed."""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks._measure import Result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 0, or 1 if a bound is missed."""
    options = _parser().parse_args(arguments)
    console, progress = Console(), Console(stderr=True)
    results: list[Result] = []
    for name in options.only or available():
        progress.print(f"running {name}", style="dim")
        results += importlib.import_module(f"benchmarks.{name}").run(options.quick)
        if options.json:
            _write(options.json, results, options.quick)
    facts = _provenance()
    console.print(_table(results, options.quick))
    console.print(
        f"{facts['date']}, commit {facts['commit'] or 'unknown'}, {facts['processor']}, {facts['cores']} cores, "
        f"{facts['threads']} threads, {facts['device']}, torch {facts['torch']}",
        highlight=False,
    )
    return int(not options.quick and any(result.verdict == "missed" for result in results))


def available() -> tuple[str, ...]:
    """List the benchmarks: every module of this package whose name does not start with an underscore."""
    names = (module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]))
    return tuple(sorted(name for name in names if not name.startswith("_")))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--only",
        action="append",
        choices=available(),
        metavar="NAME",
        help=f"one of {', '.join(available())}; repeatable",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write results and provenance here")
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes, to try the benchmarks themselves; gives no verdict"
    )
    return parser


def _provenance() -> dict[str, str | int]:
    # These import torch and Lightning, which take seconds: help should not wait for them.
    from sharedlabel.config import TrainerConfig  # noqa: PLC0415
    from sharedlabel.modules import device  # noqa: PLC0415
    from sharedlabel.provenance import collect  # noqa: PLC0415

    return {"date": datetime.now(UTC).isoformat(timespec="seconds"), **collect(device(TrainerConfig()).type)}


def _write(path: Path, results: list[Result], quick: bool) -> None:
    content = {**_provenance(), "quick": quick, "results": [result.record() for result in results]}
    path.write_text(json.dumps(content, indent=1) + "\n")


def _table(results: list[Result], quick: bool) -> Table:
    table = Table("what", title="benchmarks (quick: sizes too small for a verdict)" if quick else "benchmarks")
    table.add_column("measured (min to max)", justify="right")
    table.add_column("bound", justify="right")
    table.add_column("verdict")
    for result in results:
        unit = f" {result.unit}" if result.unit else ""
        bound = "" if result.bound is None else f"{result.better} {_number(result.bound)}{unit}"
        measured = f"{_number(result.measured)}{unit}\n[dim]{_number(result.low)} to {_number(result.high)}[/dim]"
        table.add_row(f"{result.what}\n[dim]{result.note}[/dim]", measured, bound, _verdict(result, quick))
    return table


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _verdict(result: Result, quick: bool) -> str:
    if quick:
        return "not judged"
    return {"met": "[green]met[/green]", "missed": "[bold red]MISSED[/bold red]", "none": "no bound"}[result.verdict]


if __name__ == "__main__":
    sys.exit(main())
