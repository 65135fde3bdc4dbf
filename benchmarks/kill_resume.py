"""Kill -9 at random moments, resume, and compare every number with an undisturbed run.

`python -m benchmarks.kill_resume --kills 10` prints what each kill hit and ends with code 1 on any difference.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks._measure import ROOT, Result, python
from sharedlabel.records import TABLES, Results, read

GRID = (
    "--backbones=[{name: mlp, label: mlp, widths: [64, 32]}]",
    "--pruners=[magnitude, unit]",
    "--ratios=[1, 2, 4, 8]",
    "--aggregators=[mean_vote, log_pool, attention, lstm, residual_lstm]",
    "--dense.epochs=6",
    "--retrain.epochs=3",
    "--fit.epochs=6",
    "--tracking=none",
)
CALLS = 99
PAUSE = 0.5
Place = tuple[str, int, str]  # table, record, column


@dataclass(frozen=True)
class Kill:
    """One kill.

    Attributes:
        lines: stage calls that this process had reported when it was chosen for death.
        seconds: how much longer it lived.
        last: the last call that it reported.
        kept: artifacts in the store afterwards.
        partial: artifacts that it left half-written, to be cleared away by the next process.
    """

    lines: int
    seconds: float
    last: str
    kept: int
    partial: int


def run(quick: bool) -> list[Result]:
    """Kill and resume a grid on handwritten digits; count the numbers that differ."""
    kills, differences, numbers = compare(2 if quick else 10, seed=0)
    note = f"{len(kills)} kills of one grid of {CALLS} stage calls; {numbers} numbers compared"
    count = float(len(differences))
    return [Result("kill_resume: numbers that differ after kills", count, "", count, count, bound=0.0, note=note)]


def compare(kills: int, seed: int) -> tuple[list[Kill], list[Place], int]:
    """Run a grid undisturbed and with kills.

    Args:
        kills: how many.
        seed: of their moments.

    Returns:
        The kills, the places of the numbers that differ, and how many were compared.
    """
    with tempfile.TemporaryDirectory() as folder:
        killed, whole = Path(folder) / "killed", Path(folder) / "whole"
        suffered = list(_kill_and_resume(killed, kills, random.Random(seed)))
        for output in (killed, whole):
            python(_arguments(output), Path(folder))
        resumed, expected = (_numbers(read(output / "digits")) for output in (killed, whole))
    differing = [place for place in resumed.keys() | expected.keys() if resumed.get(place) != expected.get(place)]
    return suffered, sorted(differing), len(expected)


def _arguments(output: Path) -> list[str]:
    return ["-m", "sharedlabel.train", *GRID, f"--output={output}", f"--data_root={output.parent / 'data'}"]


def _kill_and_resume(output: Path, kills: int, moments: random.Random) -> Iterator[Kill]:
    """Kill one process after the other, each after a random part of what it may finish."""
    most = 2 * CALLS // (3 * kills)  # so that enough is left for the last
    for _ in range(kills):
        lines, seconds = moments.randint(0, most), moments.uniform(0, PAUSE)
        last = _killed_after(output, lines, seconds)
        kept, partial = (len(list((output / "store").glob(pattern))) for pattern in ("artifacts/*/*", "partial/*"))
        yield Kill(lines, seconds, last, kept, partial)


def _killed_after(output: Path, lines: int, seconds: float) -> str:
    """Start the grid, kill it after so many lines and seconds, and return the last line.

    Raises:
        RuntimeError: it ended before.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, *_arguments(output)], stdout=subprocess.PIPE, text=True, env=environment, cwd=output.parent
    )
    last = "before the first call"
    with process:
        assert process.stdout is not None
        process.stdout.readline()  # the headline: everything is imported
        for _ in range(lines):
            last = process.stdout.readline().strip()
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
    if process.returncode != -signal.SIGKILL:
        raise RuntimeError(f"expected to kill the run after {lines} calls, but it ended with {process.returncode}")
    return last


def _numbers(results: Results) -> dict[Place, Any]:
    """Return every value of every table by its place, without what was measured with a clock."""
    numbers: dict[Place, Any] = {}
    for table in TABLES:
        for index, record in enumerate(getattr(results, table)):
            for name, value in asdict(record).items():
                if not name.startswith("measured_"):
                    numbers[table, index, name] = value
    return numbers


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 0, or 1 on any difference."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kill_resume", description=__doc__)
    parser.add_argument("--kills", type=int, default=10, help="how many times to kill the run")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments")
    options = parser.parse_args(arguments)
    kills, differences, numbers = compare(options.kills, options.seed)
    table = Table("kill", "after", "plus", "last call reported", "artifacts kept", "half-written")
    for index, kill in enumerate(kills, start=1):
        row = (index, f"{kill.lines} calls", f"{kill.seconds:.2f} s", kill.last, kill.kept, kill.partial)
        table.add_row(*(str(cell).replace("[", r"\[") for cell in row))
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table)
    console.print(f"{len(kills)} kills; {numbers} numbers compared, {len(differences)} differ", highlight=False)
    for place in differences[:20]:
        console.print(*place, markup=False, highlight=False)
    return int(bool(differences))


if __name__ == "__main__":
    sys.exit(main())
