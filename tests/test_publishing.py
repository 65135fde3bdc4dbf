"""W&B in a process of its own: it takes what it takes in this process, and what it does not take is told at the end."""

from __future__ import annotations

import functools
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
from sharedlabel.machine import forks
from sharedlabel.tracking.places import Place
from sharedlabel.tracking.publishing import Publisher
from sharedlabel.tracking.runs import Run
from tests.wandb_files import offline, without_account

pytest.importorskip("wandb")


@pytest.fixture(autouse=True)
def _no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither this machine's key nor its settings."""
    without_account(monkeypatch, tmp_path)
    monkeypatch.setenv("WANDB_SILENT", "true")


def run(identifier: str, **values: Any) -> Run:
    history: tuple[dict[str, Any], ...] = ({"n": 1, "test/ri": 0.5}, {"n": 2, "test/ri": 0.6})
    return Run(identifier, f"run-{identifier}", "cell", {"ratio": 2.0}, (), (), history, values)


def publisher(folder: Path, aside: bool = True) -> Publisher:
    return Publisher(Place("digits", "project", "", "offline", folder), aside)


def publish(publisher: Publisher) -> None:
    with publisher:
        for identifier in ("0", "1"):
            publisher.publish(identifier, functools.partial(run, identifier, best=0.6))


def test_another_process_publishes_the_same_and_a_second_time_nothing(tmp_path: Path) -> None:
    publish(publisher(tmp_path / "here", aside=False))
    publish(publisher(tmp_path / "there"))
    here, there = offline(tmp_path / "here"), offline(tmp_path / "there")
    assert set(here) == set(there) == {Place("digits", "", "", "none", Path()).run_id(one) for one in ("0", "1")}
    for one in here:
        assert (here[one].config, here[one].keys()) == (there[one].config, there[one].keys())
        assert here[one].summary["best"] == there[one].summary["best"] == 0.6
    again = publisher(tmp_path / "there")
    assert all(map(again.has, ("0", "1")))
    publish(again)
    assert again._process is None  # nothing was left to tell


@pytest.mark.parametrize("aside", [True, False])
def test_what_wandb_does_not_take_is_told_when_all_else_is_done(tmp_path: Path, aside: bool) -> None:
    telling = publisher(tmp_path, aside)
    (tmp_path / "wandb").write_text("a file where a folder has to be")
    done = []

    def told() -> None:
        with telling:
            telling.publish("0", functools.partial(run, "0"))
            done.append(True)

    with pytest.raises(TrackingError, match=r"expected W&B to take run-0, got \w+: .*--tracking none"):
        told()
    assert done == [True]


def test_a_process_that_dies_is_told(tmp_path: Path) -> None:
    telling = publisher(tmp_path)

    def made() -> Run:
        assert telling._process is not None
        os.kill(workers_of(telling._process._forks), signal.SIGKILL)
        return run("0")

    with (
        pytest.raises(TrackingError, match="expected the process that publishes to W&B to live, got its end"),
        telling,
    ):
        telling.publish("0", made)


def workers_of(process: forks.Forks) -> int:
    """Return the one process that is a fork of it."""
    server = process._process.pid
    born = Path(f"/proc/{server}/task/{server}/children")
    while not born.read_text():
        time.sleep(0.01)
    return int(born.read_text())


class FiguresError(Exception):
    """Figures cannot be drawn."""


@pytest.mark.parametrize("stop", [KeyboardInterrupt, FiguresError])
def test_what_is_being_published_is_finished_when_a_run_breaks_off(tmp_path: Path, stop: type[BaseException]) -> None:
    telling, waiting = publisher(tmp_path), Future[Run]()

    def broken_off() -> None:
        with telling:
            telling.publish("0", functools.partial(run, "0"))
            telling.publish("1", waiting.result)
            while not list(tmp_path.glob("wandb/offline-run-*")):
                time.sleep(0.01)
            raise stop

    with pytest.raises(stop):
        broken_off()
    waiting.cancel()
    (folder,) = tmp_path.glob("wandb/offline-run-*")
    assert list(folder.glob("*.wandb"))  # W&B writes it last
    assert not telling._here.has("1")  # the next run publishes it


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


def test_without_a_key_a_run_that_wants_to_be_online_goes_on_offline_and_says_so(tmp_path: Path) -> None:
    experiment = Experiment(tracking="online")
    said = "expected an API key of W&B, got none; going on offline: nothing is lost"
    with pytest.warns(RuntimeWarning, match=said):
        Publisher.of(experiment, Place.of(experiment, tmp_path), aside=True)


def test_a_run_that_cannot_be_made_is_told_when_those_before_it_are_published(tmp_path: Path) -> None:
    telling = publisher(tmp_path)

    def told() -> None:
        with telling:
            telling.publish("0", functools.partial(run, "0"))
            telling.publish("1", _broken)

    with pytest.raises(FiguresError):
        told()
    assert len(offline(tmp_path)) == 1


def _broken() -> Run:
    raise FiguresError
