"""W&B in a process of its own: it takes what it takes in this process, and what it does not take is told at the end."""

from __future__ import annotations

import dataclasses
import os
import signal
import time
import warnings
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from sharedlabel.config import Experiment
from sharedlabel.errors import TrackingError
from sharedlabel.machine import cores, forks
from sharedlabel.running import publishing
from sharedlabel.running.collect import losses, rows
from sharedlabel.running.publishing import Publisher
from sharedlabel.running.tracking import Tracker
from tests.conftest import Finished

pytest.importorskip("wandb")


@pytest.fixture(autouse=True)
def _no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither this machine's key nor its settings."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_SILENT", "true")


def publish(finished: Finished, tracker: Any) -> None:
    with tracker:
        for cell in finished.grid.cells[1:3]:
            tracker.cell(rows(cell, finished.grid, finished.store), losses(cell, finished.store))
        tracker.summary(finished.results, lambda: {"ri": "<svg></svg>"}, "0123456789abcdef")


def published(folder: Path) -> dict[str, list[str]]:
    """Return the files of every run, by its id."""
    runs = (folder / "wandb").glob("offline-run-*")
    return {
        run.name.rpartition("-")[2]: sorted(path.name.partition("_")[0] for path in run.rglob("files/**/*.*"))
        for run in runs
    }


def test_another_process_publishes_the_same_and_a_second_time_nothing(finished: Finished, tmp_path: Path) -> None:
    experiment = dataclasses.replace(finished.experiment, tracking="offline")
    publish(finished, Tracker(experiment, tmp_path / "here"))
    there = Publisher(Tracker(experiment, tmp_path / "there"))
    publish(finished, there)
    assert published(tmp_path / "there") == published(tmp_path / "here") != {}
    assert "wandb" not in (name for name in os.listdir(tmp_path))
    before = published(tmp_path / "there")
    again = Publisher(Tracker(experiment, tmp_path / "there"))
    assert all(again.has(cell.id) for cell in finished.grid.cells[1:3])
    publish(finished, again)
    assert again._process is None  # nothing was left to tell
    assert published(tmp_path / "there") == before


def test_what_wandb_does_not_take_is_told_when_all_else_is_done(finished: Finished, tmp_path: Path) -> None:
    experiment = dataclasses.replace(finished.experiment, tracking="offline")
    publisher = Publisher(Tracker(experiment, tmp_path))
    (tmp_path / "wandb").write_text("a file where a folder has to be")
    done = []

    def told() -> None:
        with publisher:
            for cell in finished.grid.cells[:3]:
                publisher.cell(rows(cell, finished.grid, finished.store), {})
            done.append(True)

    with pytest.raises(TrackingError, match=r"expected W&B to take digits-mlp-none-1x-\S+, got \w+: .*--tracking none"):
        told()
    assert done == [True]


def test_a_process_that_dies_is_told(finished: Finished, tmp_path: Path) -> None:
    publisher = Publisher(Tracker(dataclasses.replace(finished.experiment, tracking="offline"), tmp_path))

    def figures() -> dict[str, str]:
        assert publisher._process is not None
        os.killpg(workers_of(publisher._process._forks), signal.SIGKILL)
        return {}

    with (
        pytest.raises(TrackingError, match="expected the process that publishes to W&B to live, got its end"),
        publisher,
    ):
        publisher.summary(finished.results, figures, "0" * 16)


def workers_of(process: forks.Forks) -> int:
    """Return the one process that is a fork of it, as soon as there is one."""
    children = Path(f"/proc/{process._process.pid}/task/{process._process.pid}/children")
    while not (forked := children.read_text().split()):
        time.sleep(0.01)
    return int(*forked)


class FiguresError(Exception):
    """Figures cannot be drawn."""


@pytest.mark.parametrize("stop", [KeyboardInterrupt, FiguresError])
def test_what_is_being_published_is_finished_when_a_run_breaks_off(
    finished: Finished, tmp_path: Path, stop: type[BaseException]
) -> None:
    publisher = Publisher(Tracker(dataclasses.replace(finished.experiment, tracking="offline"), tmp_path))
    figures = Future[dict[str, str]]()
    cell = finished.grid.cells[0]

    def broken_off() -> None:
        with publisher:
            publisher.cell(rows(cell, finished.grid, finished.store), {})
            publisher.summary(finished.results, figures.result, "0" * 16)
            while not list(tmp_path.glob("wandb/offline-run-*")):
                time.sleep(0.01)
            raise stop

    with pytest.raises(stop):
        broken_off()
    figures.cancel()
    folders = sorted(tmp_path.glob("wandb/offline-run-*"))
    assert folders
    assert all(list(folder.glob("*.wandb")) for folder in folders)  # W&B writes it last
    assert not publisher._tracker.has("0" * 16)  # the next run publishes it


def test_its_warnings_are_warned_here(tmp_path: Path) -> None:
    told: list[forks.Warned] = []
    before = warnings.showwarning
    try:
        forks.tell_warnings(told.append)
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            forks.tell_warnings(told.append)
            warnings.warn("W&B cannot be reached", RuntimeWarning, stacklevel=1)
    finally:
        warnings.showwarning = before
    (one,) = told
    with pytest.warns(RuntimeWarning, match="W&B cannot be reached"):
        one.warn()


@pytest.mark.parametrize(
    ("workers", "available", "tracking", "kind"),
    [
        ("1", 4, "offline", Tracker),
        ("2", 1, "offline", Tracker),
        ("2", 4, "none", Tracker),
        ("2", 4, "offline", Publisher),
    ],
)
def test_a_process_of_its_own_needs_cores(
    workers: str, available: int, tracking: str, kind: type, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(cores, "available", lambda: available)
    experiment = Experiment(tracking=tracking, workers=int(workers))  # type: ignore[arg-type]
    assert type(publishing.tracker(experiment, tmp_path)) is kind
