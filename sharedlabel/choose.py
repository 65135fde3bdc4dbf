"""`python -m sharedlabel.choose RESULTS`: which ratio, n and aggregator to deploy, at what cost and loss."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from sharedlabel import records
from sharedlabel.choosing.candidates import Request
from sharedlabel.choosing.recommendation import recommend
from sharedlabel.choosing.text import render
from sharedlabel.errors import guarded

_TABLES = ("rows", "summaries", "comparisons", "sweet_spots", "latencies")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 0, or 2 for what the user can fix or when nothing qualifies."""
    return guarded(lambda: _main(arguments))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sharedlabel.choose",
        description="Recommend a network, a ratio, n and an aggregator: chosen on validation, reported on test. Limits "
        "combine; without a budget, a target and a latency, the budget is one dense pass.",
        allow_abbrev=False,
    )
    parser.add_argument("results", type=Path, help="folder of a run, or its results.json")
    parser.add_argument("--budget", type=float, help="largest cost of a tuple, in passes of the dense network")
    parser.add_argument("--target-accuracy", type=float, help="n-accuracy on validation to reach at the lowest cost")
    parser.add_argument("--n", type=int, help="instances per tuple")
    parser.add_argument("--latency-ms", type=float, help="largest n * measured milliseconds per image")
    parser.add_argument("--batch", type=int, default=1, help="batch of that measurement (eager; default: 1)")
    parser.add_argument("--device", help="device of that measurement (default: the first one measured)")
    parser.add_argument("--protocol", help="iid or grouped (default: iid, if it was run)")
    for label in ("backbone", "pruner", "aggregator"):
        parser.add_argument(f"--{label}", help=f"choose among options of this {label} alone")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _main(arguments: Sequence[str] | None) -> None:
    given = vars(_parser().parse_args(arguments))
    path, as_json = given.pop("results"), given.pop("json")
    found = recommend(records.read(path, _TABLES), Request(**given))
    if as_json:
        print(json.dumps(dataclasses.asdict(found), allow_nan=False))
    else:
        print(render(found))


if __name__ == "__main__":
    sys.exit(main())
