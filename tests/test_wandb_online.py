"""Online publishing and `wandb sync`, against a small server that speaks W&B's part of the protocol."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sharedlabel import cli
from sharedlabel.tracking import tracker as tracking
from sharedlabel.tracking.places import Place, Sweep
from sharedlabel.tracking.runs import Curve, Files, Run
from sharedlabel.tracking.tracker import Tracker
from tests.conftest import Finished
from tests.wandb_files import offline, without_account
from tests.wandb_server import ENTITY, Server, serving

wandb = pytest.importorskip("wandb")
HISTORY = ({"n": 1, "test/ri": 0.5}, {"n": 2, "test/ri": 0.6})
RUN = Run(
    "0", "first", "cell", {"ratio": 2.0}, ("digits",), (Curve("test/ri", "n", "max"),), HISTORY, {"test/ri@2": 0.6}
)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    """A server that this process and its children take for W&B's."""
    without_account(monkeypatch, tmp_path)
    with serving() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        monkeypatch.setenv("WANDB_SILENT", "true")
        monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "staged"))
        monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
        monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
        wandb.teardown()
        yield server
        wandb.teardown()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place("digits", "project", "", "online", tmp_path)


def test_a_run_goes_online_with_its_configuration_history_summary_and_files(
    server: Server, place: Place, tmp_path: Path
) -> None:
    (tmp_path / "rows.csv").write_text("n,ri\n")
    files = Files("digits-results", "results", {"rows.csv": tmp_path / "rows.csv"}, ("latest", "0123"))
    with Tracker(place) as tracker:
        tracker.publish(dataclasses.replace(RUN, files=files))
    run = server.runs[place.run_id("0")]
    assert [run.history[step]["test/ri"] for step in sorted(run.history)] == [0.5, 0.6]
    assert run.summary["test/ri@2"] == 0.6
    assert run.summary["test/ri"] == {"max": 0.6}
    first = run.upserts[0]
    assert (first["groupName"], first["jobType"], first["displayName"]) == ("digits", "cell", "first")
    assert (first["tags"], first["project"]) == (["digits"], "project")
    assert '"ratio"' in first["config"]
    assert run.exit == 0
    (artifact,) = server.artifacts
    assert artifact["artifactTypeName"] == "results"
    assert {one["alias"] for one in artifact["aliases"]} == {"latest", "0123"}
    assert [content for path, content in server.uploads.items() if "rows.csv" in path] == [b"n,ri\n"]


def test_the_same_run_from_another_folder_adds_no_point(server: Server, place: Place, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        with Tracker(dataclasses.replace(place, folder=tmp_path / folder)) as tracker:
            tracker.publish(RUN)
    (run,) = server.runs.values()
    assert [(point["n"], point["test/ri"]) for point in run.history.values()] == [(1, 0.5), (2, 0.6)]


def test_an_entity_that_does_not_exist_loses_nothing_and_is_said_once(
    server: Server, place: Place, tmp_path: Path
) -> None:
    wrong = dataclasses.replace(place, entity="nobody")
    with Tracker(wrong) as tracker:
        with pytest.warns(RuntimeWarning) as said:
            tracker.publish(RUN)
        tracker.publish(dataclasses.replace(RUN, identifier="1"))  # a warning would be an error
    (one,) = [str(one.message) for one in said]
    assert one.startswith("W&B takes no runs now: ")
    assert "entity nobody not found" in one
    assert "nothing is lost, `wandb sync --no-skip-online" in one
    assert len(offline(tmp_path)) == 2
    assert not server.runs


def test_the_id_of_a_deleted_run_is_told_with_what_to_do(
    server: Server, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.deleted.add(place.run_id("0"))
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "2")  # W&B tries again for a minute and a half
    with (
        Tracker(place) as tracker,
        pytest.warns(
            RuntimeWarning, match="previously created and deleted; .*keeps its id for ever: choose another `name`"
        ),
    ):
        tracker.publish(RUN)
    assert list(offline(tmp_path)) == [place.run_id("0")]


def test_a_run_of_a_sweep_is_the_one_that_the_agent_waits_for(server: Server, place: Place) -> None:
    trial = Sweep("sweep1", "trial1", {"fit.learning_rate": 0.01})
    with Tracker(dataclasses.replace(place, sweep=trial)) as tracker:
        tracker.publish(RUN)
        tracker.publish(dataclasses.replace(RUN, identifier="grid", kind="summary"))
    assert set(server.runs) == {place.run_id("0"), "trial1"}
    first = server.runs["trial1"].upserts[0]
    assert first["sweep"] == "sweep1"
    assert '"fit.learning_rate"' in first["config"]
    assert not server.runs[place.run_id("0")].upserts[0].get("sweep")


def test_offline_runs_are_synced_by_wandb_itself(server: Server, place: Place, tmp_path: Path) -> None:
    with Tracker(dataclasses.replace(place, mode="offline")) as tracker:
        tracker.publish(RUN)
    assert not server.runs
    (folder,) = (tmp_path / "wandb").glob("offline-run-*")
    synced(folder)
    run = server.runs[place.run_id("0")]
    assert [run.history[step]["test/ri"] for step in sorted(run.history)] == [0.5, 0.6]
    assert run.summary["test/ri@2"] == 0.6
    assert run.upserts[0]["entity"] in (None, ENTITY)


def test_a_server_that_stops_answering_in_the_middle_loses_nothing_and_is_said_once(
    server: Server, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill = tracking.fill

    def filled(begun: object, run: Run) -> None:
        server.down = True
        fill(begun, run)

    monkeypatch.setattr(tracking, "fill", filled)
    monkeypatch.setattr(tracking, "_WAIT", 1.0)
    with Tracker(place) as tracker:
        with pytest.warns(RuntimeWarning, match="it has not taken all of first within 1 s; going on offline"):
            tracker.publish(RUN)
        tracker.publish(dataclasses.replace(RUN, identifier="1"))  # a warning would be an error
    (whole,) = offline(tmp_path)
    assert whole == place.run_id("1")
    run = server.runs[place.run_id("0")]
    assert not run.history
    server.down = False
    (rest,) = (tmp_path / "wandb").glob("run-*")
    synced(rest)
    assert [run.history[step]["test/ri"] for step in sorted(run.history)] == [0.5, 0.6]


def synced(folder: Path) -> None:
    """Let W&B's own command upload a folder."""
    command = [sys.executable, "-m", "wandb", "sync", "--no-skip-online", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20")
def test_dashboards_are_saved_and_it_is_said_where(
    server: Server, finished: Finished, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pytest.importorskip("wandb_workspaces")
    run = shutil.copytree(Path(finished.experiment.output) / "digits", tmp_path / "digits")
    assert cli.main(["dashboards", str(run)]) == 0, (capsys.readouterr(), server.unknown)
    workspace, report = server.views
    assert (workspace["type"], report["type"]) == ("project-view", "runs")
    assert {one["entityName"] for one in server.views} == {ENTITY}
    assert "by_ratio/ri@4" in workspace["spec"]
    assert "by_ratio/ri@4" in report["spec"]
    said = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in said] == ["workspace", "report"]
    assert all(f"{ENTITY}/sharedlabel" in line for line in said)
