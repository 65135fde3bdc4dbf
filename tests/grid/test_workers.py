"""How many workers there are, what they are handed, and that a process that forks them needs nothing of its parent."""

from __future__ import annotations

import dataclasses
import io
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from rich.console import Console

from sharedlabel import grid, running
from sharedlabel.errors import ConfigError
from sharedlabel.grid.executors import choose
from sharedlabel.grid.executors.here import Here
from sharedlabel.grid.executors.local import Local
from sharedlabel.machine import cores, forks, mapped, memory
from sharedlabel.store import Store
from sharedlabel.training import callbacks

COMPUTED = {"adaptive.csv", "comparisons.csv", "ranks.csv", "thresholds.csv"}  # what holds no measured time


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 16),
        ({"cpu.max": "max 100000\n"}, 16),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "20000 100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 16),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
        ({"cpu.max": "nonsense\n"}, 16),
    ],
)
def test_cores_are_those_that_the_container_leaves(tmp_path, monkeypatch, files, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert cores.available(tmp_path) == expected


@pytest.mark.parametrize(("asked", "said", "expected"), [(3, "7", 3), ("auto", "7", 7), ("auto", "", None)])
def test_the_environment_says_what_is_left_to_it(monkeypatch, asked, said, expected):
    monkeypatch.setenv(cores.WORKERS, said)
    assert cores.workers(asked) == expected


@pytest.mark.parametrize("said", ["0", "-1", "two", "1.5", "٣"])
def test_a_number_of_workers_that_is_none_is_refused(monkeypatch, said):
    monkeypatch.setenv(cores.WORKERS, said)
    with pytest.raises(ConfigError, match=r"expected a number above 0 in the environment variable SHAREDLABEL_WORKERS"):
        cores.workers("auto")


@pytest.fixture
def roomy(monkeypatch):
    """A machine of 16 cores and 64 GiB, where nobody has said how many workers there shall be."""
    monkeypatch.delenv(cores.WORKERS)
    monkeypatch.setattr(cores, "available", lambda: 16)
    monkeypatch.setattr(memory, "total", lambda: 64 << 30)


def test_there_are_as_many_workers_as_cores_memory_and_calls_allow(roomy, tiny, monkeypatch):
    experiment = tiny()
    assert choose.workers(experiment) == 16
    assert choose.workers(dataclasses.replace(experiment, threads=4)) == 4
    assert choose.workers(dataclasses.replace(experiment, threads=32)) == 1
    assert choose.workers(dataclasses.replace(experiment, workers=40)) == 40
    several = dataclasses.replace(experiment.trainer, devices=2)
    assert choose.workers(dataclasses.replace(experiment, trainer=several)) == 1
    with callbacks.watched(pl.Callback()):
        assert choose.workers(experiment) == 1
    monkeypatch.setattr(memory, "total", lambda: 3 << 30)
    assert choose.workers(experiment) == 3


def test_gpus_are_shared_out(roomy, tiny, monkeypatch):
    experiment = tiny()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert choose.workers(experiment) == 2
    assert [one["CUDA_VISIBLE_DEVICES"] for one in choose._environments(experiment, 3)] == ["0", "1", "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert [one["CUDA_VISIBLE_DEVICES"] for one in choose._environments(experiment, 2)] == ["5", "7"]


def test_cores_are_shared_out(roomy, tiny, monkeypatch):
    for workers, share in ((1, 16), (3, 5), (16, 1), (40, 1)):
        given = list(choose._environments(tiny(), workers))
        assert given == [{"SHAREDLABEL_CORES": str(share)}] * workers
    monkeypatch.undo()
    whole = cores.available()
    monkeypatch.setenv("SHAREDLABEL_CORES", "1")
    assert cores.available() == 1
    for told in ("", "many", str(whole + 1)):
        monkeypatch.setenv("SHAREDLABEL_CORES", told)
        assert cores.available() == whole


def test_one_call_needs_no_processes(roomy, tiny):
    prepared = grid.prepare(tiny())
    store = Store(Path(prepared.experiment.output) / "store")
    assert isinstance(choose.executor(prepared, store, 1), Here)
    several = choose.executor(prepared, store, 5)
    assert isinstance(several, Local)
    assert len(several.environments) == 5


def test_tensors_are_handed_on_as_files_and_large_ones_alone(tmp_path):
    np.save(tmp_path / "images.npy", np.arange(2**20, dtype=np.uint8))
    images, small = mapped.opened(tmp_path / "images.npy"), torch.arange(4)
    large = torch.arange(2**18)
    content = mapped.dumps({"images": images, "small": small, "large": large}, tmp_path)
    assert len(content) < 2000
    assert len(list(tmp_path.iterdir())) == 2  # the file that was there, and one for what lay in memory
    again = pickle.loads(content)
    assert torch.equal(again["images"], images)
    assert torch.equal(again["small"], small)
    assert torch.equal(again["large"], large)
    again["images"].zero_()  # which is a copy of one's own
    assert torch.equal(mapped.opened(tmp_path / "images.npy"), images)


def test_tensors_are_packed_beside_what_holds_them():
    large = torch.arange(2**18)
    content, arrays = mapped.packed([large, torch.arange(4), large])
    assert len(content) < 2000
    first, small, second = mapped.unpacked(content, arrays)
    assert torch.equal(first, large)
    assert torch.equal(second, large)
    assert small.tolist() == [0, 1, 2, 3]


SCRIPT = """
import sharedlabel as sl
results = sl.run(seeds=[0, 1], workers=2, ratios=[1, 2], pruners=["magnitude"], aggregators=["log_pool", "mean_vote"],
    data={"name": "gaussian", "classes": 3, "dim": 4, "instances_per_class": 48},
    backbones=[{"name": "mlp", "widths": [8]}], comparison={"reference": "log_pool"}, dense={"epochs": 0},
    retrain={"epochs": 0}, evaluation={"n": [1], "partitions": 1}, margin={"epsilons": []}, adaptive={"rules": []},
    latency={"batches": [1], "repeats": 1}, sweet_spot={"replicates": 2}, tracking="none", write=False)
print(len(results.rows))
"""


def test_a_script_needs_no_guarded_main_module(tmp_path):
    (tmp_path / "mine.py").write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-W", "ignore", "mine.py"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "18\n"


def test_processes_that_nobody_has_taken_are_ended():
    forks.warm("builtins:print", 1)
    (process,) = forks._warm.values()
    forks.warm("builtins:print", 1)
    assert list(forks._warm.values()) == [process]
    forks.cool()
    assert forks._warm == {}
    assert process._process.poll() is not None


def test_a_run_of_several_processes_writes_what_one_writes(tiny, tmp_path):
    """Stage calls, the summary of adaptive n, figures and W&B are all done by processes of their own."""
    options = ("--adaptive.rules=[threshold]", "--tracking=offline")
    written = []
    for workers in (1, 2):
        experiment = dataclasses.replace(
            tiny("nothing", 0, *options), workers=workers, output=str(tmp_path / str(workers))
        )
        told = Console(file=io.StringIO())
        results = running.run(*running.open_grid(experiment), told)
        folder = tmp_path / str(workers) / "tiny"
        assert results.adaptive
        assert "computed nothing" not in told.file.getvalue()
        assert told.file.getvalue().endswith(f"upload them: wandb sync {folder / 'wandb' / 'wandb'}\n")
        kept = {path.name: path.read_text() for path in sorted(folder.rglob("*")) if path.suffix in {".csv", ".svg"}}
        runs = len(list((folder / "wandb" / "wandb").glob("offline-run-*")))
        methods = {(row.pruner, row.aggregator) for row in results.rows if row.pruner != "none"}
        assert runs == 1 + len({row.cell for row in results.rows}) + len(methods)
        written.append((sorted(kept), {name: text for name, text in kept.items() if name in COMPUTED}, runs))
    assert written[0] == written[1]
    assert forks._warm == {}
