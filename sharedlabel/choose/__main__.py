"""`sharedlabel choose RESULTS`: which ratio, n and aggregator to deploy, at what cost and loss."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from sharedlabel import records
from sharedlabel.choose.candidates import Request
from sharedlabel.choose.exporting import command
from sharedlabel.choose.recommendation import recommend
from sharedlabel.choose.text import render
from sharedlabel.config.arguments import Parser, number, whole
from sharedlabel.errors import guarded, printable

_TABLES = ("rows", "summaries", "comparisons", "sweet_spots", "latencies")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 0, or 2 for what the user can fix or when nothing qualifies."""
    return guarded(lambda: _main(arguments))


def parser() -> Parser:
    """Return the parser of the command line."""
    built = Parser(
        "sharedlabel choose",
        "Recommend a network, a ratio, n and an aggregator: chosen on validation, reported on test. Limits "
        "combine; without a budget, a target and a latency, the budget is one dense pass.",
    )
    built.add_argument("results", type=Path, help="folder of a run, or its results.json")
    built.add_argument("--budget", type=number, help="largest cost of a tuple, in passes of the dense network")
    built.add_argument("--target-accuracy", type=number, help="n-accuracy on validation to reach at the lowest cost")
    built.add_argument("--n", type=whole, help="instances per tuple")
    built.add_argument("--latency-ms", type=number, help="largest n * measured milliseconds per image")
    built.add_argument("--batch", type=whole, default=1, help="batch of that measurement (eager; default: 1)")
    built.add_argument("--device", help="device of that measurement (default: the first one measured)")
    built.add_argument("--protocol", help="iid or grouped (default: iid, if it was run)")
    for label in ("backbone", "pruner", "aggregator"):
        built.add_argument(f"--{label}", help=f"choose among options of this {label} alone")
    built.add_argument("--json", action="store_true", help="print one JSON object")
    return built


def _main(arguments: Sequence[str] | None) -> None:
    given = vars(parser().parse_args(arguments))
    path, as_json = given.pop("results"), given.pop("json")
    results = records.read(path, _TABLES)
    recommendation = recommend(results, Request(**given))
    export = command(results, recommendation.recommended, str(path if path.is_dir() else path.parent))
    if as_json:
        print(json.dumps({**dataclasses.asdict(recommendation), "export": export}, allow_nan=False))
    else:
        several = f"  # seed {results.rows[0].seed}, one of {recommendation.seeds}" if recommendation.seeds > 1 else ""
        print(f"{render(recommendation)}\n\n{printable(f'{export}{several}')}")


if __name__ == "__main__":
    sys.exit(main())
