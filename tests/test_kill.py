"""Killed at any moment, a run goes on where it was and ends with the same numbers."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
from torch import Tensor

from sharedlabel import train
from sharedlabel.records import Results, read
from sharedlabel.training import base, resume

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


# Within an epoch: where a training is when it dies, and what it is then. Forked, since a new process takes seconds.
WITHIN: dict[str, Callable[[base.TrainedModule], bool]] = {
    "dense": lambda _: True,
    "prune": lambda module: getattr(getattr(module, "after_step", None), "done", 0) > 0,  # some of gradual pruning
    "aggregate": lambda _: True,
}


def kill_within(stage: str, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> int:
    """Run in a process that dies by SIGKILL in the second epoch of a training of a stage; return how it ended."""
    record = base.TrainedModule.record

    def record_or_die(self: base.TrainedModule, loss: Tensor) -> Tensor:
        workplace = resume.current()
        at_work = workplace is not None and workplace.logs.name.startswith(f"{stage}-")
        if at_work and len(self.history) > 0 and self._losses and WITHIN[stage](self):
            os.kill(os.getpid(), signal.SIGKILL)
        return record(self, loss)

    with monkeypatch.context() as patch, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        patch.setattr(base.TrainedModule, "record", record_or_die)
        child = os.fork()
        if not child:
            try:
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
                train.main(arguments)
            finally:
                os._exit(1)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def stored(output: Path) -> dict[tuple[str, str], object]:
    """Return what is stored of every stage call but for the seconds it took; times, and summaries of them, differ."""
    artifacts = [json.loads(path.read_text()) for path in (output / "store" / "artifacts").rglob("manifest.json")]
    return {
        (one["stage"], one["key"]): (one["files"], one["meta"])
        for one in artifacts
        if one["stage"] not in {"latency", "summarize"}
    }


def test_killed_within_an_epoch_a_training_goes_on_with_the_same_numbers(small, tmp_path, monkeypatch):
    arguments = (
        *small,
        "--pruners=[{name: magnitude, schedule: {when: gradual, steps: 4, until: 1.0}}]",
        "--aggregators=[lstm]",
        "--dense.epochs=3",
        "--retrain.epochs=3",
        "--fit.epochs=3",
        "--fit.batch_size=16",
        "--trainer.checkpoint_seconds=0",
        "--latency.repeats=1",
        "--latency.seconds=0.01",
        "--margin.epsilons=[]",
        "--adaptive.rules=[]",
    )
    undisturbed = (*arguments, f"--output={tmp_path / 'undisturbed'}", "--trainer.checkpoint_seconds=null")
    assert train.main(undisturbed) == 0
    output = tmp_path / "runs"
    for stage in WITHIN:
        assert kill_within(stage, arguments, monkeypatch) == -signal.SIGKILL
        assert [path.name for path in (output / "store" / "unfinished").iterdir()] == [stage]
    assert train.main(arguments) == 0
    assert stored(output) == stored(tmp_path / "undisturbed")
    assert list((output / "store" / "unfinished").iterdir()) == []
