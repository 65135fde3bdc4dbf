"""Seconds of the default experiment, and of a second run that computes nothing."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from benchmarks._measure import Result, python, summarize

BOUND = 60.0
QUICK = (
    "--aggregators=[log_pool]",
    "--pruners=[magnitude]",
    "--ratios=[1,4]",
    "--dense.epochs=1",
    "--retrain.epochs=1",
)


def run(quick: bool) -> list[Result]:
    """Time the default experiment in a fresh process and an empty folder, then once more."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["-m", "sharedlabel.train", "--output", f"{folder}/runs", "--tracking", "offline"]
        arguments += QUICK if quick else ()
        first, output = python(arguments, Path(folder))
        second, again = python(arguments, Path(folder))
    if "computed nothing" not in again:
        raise RuntimeError(f"expected the second run to compute nothing, got:\n{again[-2000:]}")
    match = re.search(r"(\d+) cells", output)
    cells = match.group(1) if match else "unknown"
    return [
        summarize("demo: the default experiment", "s", [first], bound=BOUND, note=f"one run, {cells} cells"),
        summarize("demo: second run", "s", [second], note="computes nothing: reads the store, reports"),
    ]
