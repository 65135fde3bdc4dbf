"""`python -m benchmarks`: run the benchmarks, print one table, and fail if a bound is missed."""

from __future__ import annotations

import argparse
import json
import pkgutil
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks._measure import Result, results

COMMANDS = (
    "conformance",
    "effective",
    "error_rates",
    "evidence",
    "gpu",
    "latencies",
    "stage_times",
    "watching",
)  # run by themselves
_ALONE = f"run by themselves, python -m benchmarks.NAME: {', '.join(COMMANDS)}; gpu is not yet run on a GPU"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 0, or 1 if a bound is missed or a benchmark fails."""
    options = _parser().parse_args(arguments)
    console, progress = Console(), Console(stderr=True)
    found: list[Result] = []
    failed: list[str] = []
    facts = _provenance()
    names = options.only or available()
    for at, name in enumerate(names, start=1):
        progress.print(f"running {name}", style="dim")
        try:
            found += _alone(name, options.quick)
        except Exception:  # whatever it is, it is shown, and the other benchmarks still run
            progress.print_exception()
            failed.append(name)
        if options.json:  # after each: they take half an hour together
            content = {**facts, "quick": options.quick, "failed": failed, "pending": names[at:]}
            content["results"] = [result.record() for result in found]
            options.json.write_text(json.dumps(content, indent=1) + "\n")
    console.print(_table(found, failed, options.quick))
    console.print(
        f"{facts['date']}, commit {facts['commit'] or 'unknown'}, {facts['processor']}, {facts['cores']} cores, "
        f"{facts['threads']} threads, {facts['device']}, torch {facts['torch']}",
        highlight=False,
    )
    console.print(_ALONE, style="dim", highlight=False)
    missed = not options.quick and any(result.verdict == "missed" for result in found)
    return int(missed or bool(failed))


def _alone(name: str, quick: bool) -> list[Result]:
    """Run a benchmark in a fresh process: what another one has left in memory would slow it down."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(results, name, quick).result()


def available() -> tuple[str, ...]:
    """List the benchmarks: every module of this package but commands and those that start with an underscore."""
    names = (module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]))
    return tuple(sorted(name for name in names if not name.startswith("_") and name not in COMMANDS))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure speed and memory; print a table.", epilog=_ALONE
    )
    names = available()
    parser.add_argument(
        "--only", action="append", choices=names, metavar="NAME", help=f"one of {', '.join(names)}; repeatable"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write results and provenance here")
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes, to try the benchmarks themselves; gives no verdict"
    )
    return parser


def _provenance() -> dict[str, str | int]:
    # These import torch and Lightning, which take seconds: help should not wait for them.
    from sharedlabel.config.sections import TrainerConfig  # noqa: PLC0415
    from sharedlabel.machine.provenance import collect  # noqa: PLC0415
    from sharedlabel.training.devices import device  # noqa: PLC0415

    return {"date": datetime.now(UTC).isoformat(timespec="seconds"), **collect(device(TrainerConfig()).type)}


def _table(results: Sequence[Result], failed: Sequence[str], quick: bool) -> Table:
    table = Table(
        "what", title="benchmarks (quick: too small to be judged)" if quick else "benchmarks", show_lines=True
    )
    table.add_column("measured", justify="right", no_wrap=True)
    table.add_column("bound", justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for result in results:
        unit = f" {result.unit}" if result.unit else ""
        measured = f"{_number(result.measured)}{unit}"
        if result.low < result.high:
            measured += f"\n[dim]{_number(result.low)} to {_number(result.high)}[/dim]"
        bound = "" if result.bound is None else f"{result.better}\n{_number(result.bound)}{unit}"
        details = f"{result.note}\n{result.conditions}" if result.note else result.conditions
        table.add_row(f"{result.what}\n[dim]{details}[/dim]", measured, bound, _verdict(result, quick))
    for name in failed:
        table.add_row(f"{name}\n[dim]stopped with the error above[/dim]", "", "", "[bold red]FAILED[/bold red]")
    return table


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _verdict(result: Result, quick: bool) -> str:
    if result.verdict == "none":
        return "no bound"
    if quick:
        return "not judged"
    return {"met": "[green]met[/green]", "missed": "[bold red]MISSED[/bold red]"}[result.verdict]


if __name__ == "__main__":
    sys.exit(main())
