"""Killed at any moment, a run goes on where it was and ends with the same numbers."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

from sharedlabel import train
from sharedlabel.results import Results, read


def kill_in_the_middle(arguments: list[str], lines: int, seconds: float) -> int:
    """Start a run, kill it so many seconds after so many lines of progress, and return its exit status."""
    process = subprocess.Popen(
        [sys.executable, "-m", "sharedlabel.train", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    with process:
        assert process.stdout is not None
        seen = 0
        while seen < lines and (line := process.stdout.readline()):
            seen += line.startswith("[")
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
    return process.returncode


def comparable(results: Results) -> list[dict[str, object]]:
    return [{k: v for k, v in asdict(row).items() if not k.startswith("measured_")} for row in results.rows]


def test_three_kills_change_no_number(finished, small, experiment):
    moments, store = random.Random(0), Path(experiment.output) / "store"
    kept: dict[Path, bytes] = {}
    for _ in range(3):
        assert kill_in_the_middle([*small], moments.randint(2, 5), moments.uniform(0, 0.3)) == -signal.SIGKILL
        now = {path: path.read_bytes() for path in sorted((store / "artifacts").rglob("manifest.json"))}
        assert len(now) >= len(kept) + 2
        assert {path: now.get(path) for path in kept} == kept
        kept = now
    assert not (Path(experiment.output) / experiment.name / "rows.csv").exists()
    assert train.main(small) == 0
    assert {path: path.read_bytes() for path in kept} == kept
    assert list((store / "partial").iterdir()) == []
    assert comparable(read(Path(experiment.output) / experiment.name)) == comparable(finished.results)
