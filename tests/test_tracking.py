"""W&B runs, written offline for real and read back from their files."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from sharedlabel.config import Experiment
from sharedlabel.records import AXES, TABLES
from sharedlabel.records.measurements import Failure
from sharedlabel.running import tracking
from sharedlabel.running.collect import losses, rows
from sharedlabel.running.tracking import CURVES, Tracker

wandb = pytest.importorskip("wandb")
BLOCK, HEADER = 32_768, 7


@pytest.fixture(autouse=True)
def _no_account(monkeypatch, tmp_path):
    """Neither this machine's key nor its settings."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_SILENT", "true")


def records(path: Path) -> list[Any]:
    """Read an offline run: a log of blocks, each record in one or several pieces with a header of seven bytes."""
    from wandb.proto import wandb_internal_pb2

    data, at, parsed, whole = path.read_bytes(), HEADER, [], b""
    while at + HEADER <= len(data):
        left = BLOCK - at % BLOCK
        if left < HEADER:
            at += left
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        whole += data[at + HEADER : at + HEADER + length]
        at += HEADER + length
        if kind in {1, 4}:  # complete, or the last piece
            parsed.append(wandb_internal_pb2.Record.FromString(whole))
            whole = b""
    return parsed


def read_run(folder: Path) -> dict[str, Any]:
    """Return a run's identity, configuration, history and files."""
    (log,) = folder.glob("run-*.wandb")
    parsed = records(log)
    run = next(record.run for record in parsed if record.HasField("run"))
    history = [
        {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
        for record in parsed
        if record.HasField("history")
    ]
    return {
        "id": run.run_id,
        "name": run.display_name,
        "group": run.run_group,
        "job": run.job_type,
        "project": run.project,
        "config": {item.key: json.loads(item.value_json) for item in run.config.update},
        "history": history,
        "tables": {
            path.relative_to(folder / "files" / "media" / "table")
            .as_posix()
            .rpartition("_")[0]
            .rpartition("_")[0]: path
            for path in folder.glob("files/media/table/**/*.table.json")
        },
        "html": sorted(path.name for path in folder.glob("files/media/html/**/*.html")),
        "exit": next(record.exit.exit_code for record in parsed if record.HasField("exit")),
        "summary": {
            item.key: json.loads(item.value_json)
            for record in parsed
            if record.HasField("summary")
            for item in record.summary.update
        },
    }


def publish(finished, experiment: Experiment, folder: Path) -> None:
    """Publish two cells and the summary."""
    with Tracker(experiment, folder) as tracker:
        for cell in finished.grid.cells[1:3]:
            tracker.cell(rows(cell, finished.grid, finished.store), losses(cell, finished.store))
        tracker.summary(finished.results, lambda: {"ri": "<svg></svg>"}, "0123456789abcdef")


def test_one_run_per_cell_and_one_summary_and_a_second_time_nothing(finished, tmp_path):
    experiment = dataclasses.replace(finished.experiment, tracking="offline", project="project")
    publish(finished, experiment, tmp_path)
    folders = sorted((tmp_path / "wandb").glob("offline-run-*"))
    runs = {run["id"]: run for run in map(read_run, folders)}
    tracker = Tracker(experiment, tmp_path)
    cells = {tracker.run_id(cell.id): cell for cell in finished.grid.cells[1:3]}
    total = tracker.run_id("0123456789abcdef")
    assert set(runs) == {*cells, total}
    assert {run["group"] for run in runs.values()} == {experiment.name}
    assert {run["project"] for run in runs.values()} == {"project"}
    assert [runs[name]["job"] for name in (*cells, total)] == ["cell", "cell", "summary"]
    for identifier, cell in cells.items():
        check_cell(runs[identifier], cell, finished)
    assert [runs[name]["name"] for name in (*cells, total)] == [
        "digits-mlp-none-1x-log_pool-frozen-iid-s0",
        "digits-mlp-none-1x-lstm-frozen-iid-s0",
        "digits-summary",
    ]
    assert [path.parent.parent for path in (tmp_path / "wandb").glob("offline-run-*/files/requirements.txt")] == [
        folder for folder in folders if read_run(folder)["id"] == total
    ]  # the same for every cell
    summary = runs[total]
    assert set(summary["tables"]) == {name for name in TABLES if getattr(finished.results, name)}
    table = json.loads(summary["tables"]["rows"].read_text())
    assert len(table["data"]) == len(finished.results.rows)
    assert len(summary["html"]) == 1

    publish(finished, experiment, tmp_path)
    assert sorted((tmp_path / "wandb").glob("offline-run-*")) == folders


def test_experiments_that_share_cells_do_not_share_runs(finished, tmp_path):
    """A wider grid finds the cells of another in the store, and its runs are its own."""
    cell, ids = finished.grid.cells[0], set()
    for name in ("one", "two", "x" * 200):
        experiment = dataclasses.replace(finished.experiment, name=name, tracking="offline")
        with Tracker(experiment, tmp_path / name) as tracker:
            tracker.cell(rows(cell, finished.grid, finished.store), {})
        (folder,) = (tmp_path / name / "wandb").glob("offline-run-*")
        ids.add(read_run(folder)["id"])
    assert len(ids) == 3
    assert max(map(len, ids)) <= 128
    long = dataclasses.replace(finished.experiment, name="x" * 201, tracking="none")
    assert Tracker(long, tmp_path).run_id(cell.id) not in ids


def test_a_cell_that_failed_is_a_failed_run_with_its_reason_once_and_then_a_run_of_its_own(finished, tmp_path):
    experiment = dataclasses.replace(finished.experiment, tracking="offline")
    cell = finished.grid.cells[1]
    cell_rows = rows(cell, finished.grid, finished.store)
    identity = {name: getattr(cell_rows[0], name) for name in ("cell", "data", *AXES)}
    told = Failure(**identity, stage="prune", key="0" * 16, call="c", reason="it broke", details="d", repeat="again")
    for _ in range(2):
        with Tracker(experiment, tmp_path) as tracker:
            tracker.failed(told)
    (failed,) = map(read_run, (tmp_path / "wandb").glob("offline-run-*"))
    assert (failed["exit"], failed["summary"]["failed"], failed["summary"]["repeat"]) == (1, "it broke", "again")
    assert failed["name"] == "digits-mlp-none-1x-log_pool-frozen-iid-s0-failed"
    assert {name: failed["config"][name] for name in AXES} == {name: identity[name] for name in AXES}
    with Tracker(experiment, tmp_path) as tracker:
        tracker.failed(dataclasses.replace(told, reason="it broke otherwise"))
        tracker.cell(cell_rows, {})
    runs = {run["name"]: run for run in map(read_run, (tmp_path / "wandb").glob("offline-run-*"))}
    assert runs["digits-mlp-none-1x-log_pool-frozen-iid-s0"]["exit"] == 0
    assert len(list((tmp_path / "wandb").glob("offline-run-*"))) == 3


@pytest.mark.parametrize("axis", ["data", *AXES])
def test_names_of_runs_tell_every_axis(finished, tmp_path, monkeypatch, axis):
    started = []
    monkeypatch.setattr(Tracker, "_run", lambda self, identifier, name, *_: started.append(name) or MagicMock())
    monkeypatch.setattr(tracking, "_table", lambda records: None)
    tracker = Tracker(dataclasses.replace(finished.experiment, tracking="offline"), tmp_path)
    cell_rows = rows(finished.grid.cells[0], finished.grid, finished.store)
    other = {"ratio": 8.0, "seed": 7, "protocol": "grouped"}.get(axis, "other")
    tracker.cell(cell_rows, {})
    tracker.cell([dataclasses.replace(row, cell="another", **{axis: other}) for row in cell_rows], {})
    assert len(set(started)) == 2


def check_cell(run: dict[str, Any], cell: Any, finished: Any) -> None:
    """The configuration names the cell, and its curves and table hold its rows."""
    config = {name: run["config"][name] for name in ("pruner", "ratio", "aggregator", "seed", "protocol")}
    assert config == {name: getattr(cell, name) for name in config}
    stored = rows(cell, finished.grid, finished.store)
    curves = {point["n"]: point for point in run["history"] if "n" in point}
    assert set(curves) == {row.n for row in stored}
    for row in stored:
        for metric in CURVES:
            assert curves[row.n][f"{row.split}/{metric}"] == pytest.approx(getattr(row, metric))
    trained = losses(cell, finished.store)
    for stage, values in trained.items():
        logged = [point[f"loss/{stage}"] for point in run["history"] if f"loss/{stage}" in point]
        assert logged == pytest.approx(values)
    assert {"dense", "prune"} <= set(trained)
    table = json.loads(run["tables"]["rows"].read_text())
    column = table["columns"].index("n_accuracy")
    assert [row[column] for row in table["data"]] == pytest.approx([row.n_accuracy for row in stored])


def mode(requested: str = "auto") -> str:
    return tracking._mode(requested)


def test_auto_is_offline_without_a_key_and_online_with_one(monkeypatch, tmp_path):
    assert mode() == "offline"
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert mode() == "online"
    assert mode("offline") == "offline"
    assert mode("none") == "none"
    monkeypatch.delenv("WANDB_API_KEY")
    (tmp_path / "netrc").write_text("machine api.wandb.ai\n  login user\n  password 0123\n")
    assert mode() == "online"
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert mode() == "offline"


@pytest.mark.parametrize(
    ("stated", "resolved"), [("offline", "offline"), ("dryrun", "offline"), ("online", "online"), ("disabled", "none")]
)
def test_the_environment_decides_what_auto_means(monkeypatch, stated, resolved):
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_MODE", stated)
    assert mode() == resolved
    assert mode("none") == "none"


def test_an_unreachable_server_means_going_on_offline(finished, tmp_path, monkeypatch):
    real, modes = wandb.init, []

    def refuse(**settings):
        modes.append(settings["mode"])
        if settings["mode"] == "online":
            raise wandb.errors.CommError("no route to host")
        return real(**settings)

    monkeypatch.setattr(wandb, "init", refuse)
    experiment = dataclasses.replace(finished.experiment, tracking="online")
    cell = finished.grid.cells[0]
    with (
        Tracker(experiment, tmp_path) as tracker,
        pytest.warns(RuntimeWarning, match="W&B cannot be reached .*no route to host.*; going on offline"),
    ):
        tracker.cell(rows(cell, finished.grid, finished.store), {})
    assert modes == ["online", "offline"]
    (folder,) = (tmp_path / "wandb").glob("offline-run-*")
    assert read_run(folder)["id"] == tracker.run_id(cell.id)


def test_without_tracking_wandb_is_never_imported(tmp_path):
    """A stub that fails on import stands where W&B would be found."""
    (tmp_path / "wandb.py").write_text("raise AssertionError('imported')\n")
    script = """
from pathlib import Path
import sys
from sharedlabel.config import Experiment
from sharedlabel.running.tracking import Tracker
with Tracker(Experiment(tracking="none"), Path("nowhere")) as tracker:
    tracker.cell([type("Row", (), {"cell": "0"})()], {})
    tracker.summary(None, dict, "0")
print("wandb" in sys.modules, Path("nowhere").exists())
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))},
        check=False,
    )
    assert done.stdout == "False False\n", done.stderr
