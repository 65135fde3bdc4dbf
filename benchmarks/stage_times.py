"""`python -m benchmarks.stage_times --before FOLDER`: seconds of every stage, beside those of another checkout.

Both checkouts run the same grid in turns, in the environment that this one runs in, one process at a time and on one
thread; times are those that manifests of the store hold. The ratio of a stage is that of its seconds over all its
calls, the median of the rounds. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from benchmarks._measure import ROOT
from sharedlabel.errors import guarded
from sharedlabel.measurements import timing

# A grid in which every stage but `exact` is called often enough to be timed; latencies take the time they are given.
GRID = (
    "--training=[frozen, {name: joint, label: joint, epochs: 1}, crossfit]",
    "--crossfit.folds=2",
    "--pruners=[magnitude, {name: magnitude, label: rewound, schedule: {when: iterative, growth: 4, rewind: 0.5}}]",
    "--ratios=[1, 4, 16]",
    "--aggregators=[log_pool, tempered_log_pool, attention, lstm]",
    "--tracking=none",
    "--sweet_spot.replicates=50",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stage_times", description=__doc__)
    parser.add_argument("--before", type=Path, required=True, help="root of the other checkout")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each checkout (default: %(default)s)")
    options = parser.parse_args(arguments)
    return guarded(lambda: print(compared(options.before, options.rounds)))


def compared(before: Path, rounds: int) -> str:
    """Return the seconds of every stage in both checkouts, and their ratio, as a table."""
    taken: dict[str, dict[Path, list[float]]] = defaultdict(lambda: defaultdict(list))
    for number in range(rounds):
        for root in (before, ROOT) if number % 2 == 0 else (ROOT, before):
            for stage, seconds in _seconds(root).items():
                taken[stage][root].append(seconds)
    lines = ["| stage | before, s | now, s | ratio |", "| --- | --- | --- | --- |"]
    for stage, by_root in sorted(taken.items()):
        if len(by_root) == 2:
            old, new = by_root[before], by_root[ROOT]
            ratio = statistics.median(after / earlier for earlier, after in zip(old, new, strict=True))
            lines.append(f"| {stage} | {statistics.median(old):.2f} | {statistics.median(new):.2f} | {ratio:.2f} |")
    return "\n".join([*lines, f"load {timing.load()}, {rounds} rounds"])


def _seconds(root: Path) -> dict[str, float]:
    """Run the grid of a checkout; return the seconds of each stage over all its calls."""
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "sharedlabel.train", *GRID, f"--output={folder}"]
        subprocess.run(command, cwd=root, env=environment, check=True, stdout=subprocess.DEVNULL)
        totals: dict[str, float] = defaultdict(float)
        for manifest in (Path(folder) / "store" / "artifacts").glob("*/*/manifest.json"):
            totals[manifest.parent.parent.name] += json.loads(manifest.read_text())["seconds"]
    return totals


if __name__ == "__main__":
    sys.exit(main())
