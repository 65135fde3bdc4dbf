"""Killed at any moment, a run goes on where it was and ends with the same numbers."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from sharedlabel import train
from sharedlabel.records import Results, read

# The kill comes from outside Python and cannot be caught; only its moment is fixed: a finished artifact lies beside the
# store, complete but not yet moved into place.
KILLED = """
import os, signal, sys
from sharedlabel import train
from sharedlabel.store import Store

publish, left = Store._publish, [int(sys.argv[1])]

def publish_or_die(partial, final):
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    left[0] -= 1
    publish(partial, final)

Store._publish = staticmethod(publish_or_die)
sys.exit(train.main(sys.argv[2:]))
"""


def kill_after(calls: int, arguments: tuple[str, ...]) -> int:
    """Run in a process that dies by SIGKILL once it has stored so many stage calls; return its exit status."""
    command = [sys.executable, "-W", "ignore", "-c", KILLED, str(calls), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, stdout=subprocess.DEVNULL, env=environment, check=False).returncode


def comparable(results: Results) -> list[dict[str, object]]:
    return [{k: v for k, v in asdict(row).items() if not k.startswith("measured_")} for row in results.rows]


def test_kills_change_no_number(finished, small, experiment):
    moments, store = random.Random(0), Path(experiment.output) / "store"
    kept: dict[Path, bytes] = {}
    for calls in moments.sample(range(2, 7), 2):
        assert kill_after(calls, small) == -signal.SIGKILL
        assert len(list((store / "partial").iterdir())) == 1
        now = {path: path.read_bytes() for path in sorted((store / "artifacts").rglob("manifest.json"))}
        assert len(now) == len(kept) + calls
        assert {path: now.get(path) for path in kept} == kept
        kept = now
    assert not (Path(experiment.output) / experiment.name / "rows.csv").exists()
    assert train.main(small) == 0
    assert {path: path.read_bytes() for path in kept} == kept
    assert list((store / "partial").iterdir()) == []
    assert comparable(read(Path(experiment.output) / experiment.name)) == comparable(finished.results)
