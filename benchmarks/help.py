"""Seconds until `--help` is printed."""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks._measure import Result, python, summarize

BOUND = 2.0


def run(quick: bool) -> list[Result]:
    """Time `python -m sharedlabel.train --help` in fresh processes."""
    rounds = 1 if quick else 5
    with tempfile.TemporaryDirectory() as folder:
        times = [python(["-m", "sharedlabel.train", "--help"], Path(folder))[0] for _ in range(rounds)]
    note = f"fresh process, median of {rounds}; best {min(times):.2f} s"
    return [summarize("help: python -m sharedlabel.train --help", "s", times, bound=BOUND, note=note)]
