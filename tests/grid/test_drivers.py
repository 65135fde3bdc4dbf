"""Several drivers on one store do each call once; a run that is killed, stopped or fails in part goes on later."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from sharedlabel import grid, train
from sharedlabel.errors import WriteError
from sharedlabel.files.claims import Claims
from sharedlabel.grid.calls import job
from sharedlabel.grid.driver import Run, finish
from sharedlabel.grid.executors.base import Ended
from sharedlabel.grid.executors.here import Here
from sharedlabel.grid.jobs import Outcome
from sharedlabel.records import read
from sharedlabel.store import Store

from .test_executors import Told, ended, here, run, stored

COMMAND = "import sys; from sharedlabel import train; sys.exit(train.main(sys.argv[1:]))"


@pytest.fixture
def command(arguments) -> Callable[..., subprocess.Popen[str]]:
    """Start the command in a process of its own; the arguments are those of `arguments`."""
    started: list[subprocess.Popen[str]] = []

    def start(*given: object) -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        pipe = subprocess.PIPE
        started.append(
            subprocess.Popen(
                [sys.executable, "-W", "ignore", "-c", COMMAND, *arguments(*given)],
                env=environment,
                stdout=pipe,
                stderr=pipe,
                text=True,
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def waited(tmp_path: Path) -> int:
    """Wait until a call waits; return the process that it is in."""
    while not (seen := list(tmp_path.glob("seen-flag*"))):
        time.sleep(0.05)
    return int(seen[0].name.split("-")[2])


def test_two_drivers_on_one_store_do_each_call_once_whatever_their_clocks_say(tiny, tmp_path):
    experiment = tiny()
    prepared, folder = grid.prepare(experiment), Path(experiment.output) / "store"
    ready, go = os.pipe(), os.pipe()

    def drive(wait: Callable[[], object]) -> list[str]:
        store, told = Store(folder), Told()
        wait()
        assert finish(prepared, store, Here(job(prepared), store, 1), told) == {}
        return told.begun

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        other = os.fork()
    if not other:  # in a container of the same name, say, whose clock is an hour ahead
        ahead, begun = time.time, ["nothing"]
        try:
            time.time = lambda: ahead() + 3600
            begun = drive(lambda: (os.write(ready[1], b"x"), os.read(go[0], 1)))
        finally:
            (tmp_path / "begun").write_text("\n".join(begun))
            os._exit(0)
    os.read(ready[0], 1)
    ours = drive(lambda: os.write(go[1], b"x"))
    os.waitpid(other, 0)
    theirs = (tmp_path / "begun").read_text().splitlines()
    assert ours
    assert theirs
    assert sorted(ours + theirs) == sorted(f"{path.parent.name}-{path.name}" for path in folder.glob("artifacts/*/*"))
    assert stored(Store(folder)) == stored(run(experiment, here, "reference")[1])


def test_a_driver_waits_for_what_another_computes_and_takes_over_when_that_is_gone(tiny):
    prepared = grid.prepare(tiny())
    store, told = Store(Path(prepared.experiment.output) / "store"), Told()
    other = Claims(store.root)
    first = grid.missing(prepared, store)[0]

    class Waiting(Told):
        def waiting(self, reason):
            super().waiting(reason)
            other.give_up(first.call.name)  # it has failed there, say

    told = Waiting()
    with other.owned():
        assert other.take(first.call.name)
        finish(prepared, store, Here(job(prepared), store, 1), told)
    assert told.waits == ["for calls that other runs compute"]
    assert told.begun.count(f"{first.stage}-{first.key}") == 1
    assert grid.missing(prepared, store) == []


def test_what_another_driver_has_stored_meanwhile_is_not_computed(tiny):
    prepared = grid.prepare(tiny())
    store, told = Store(Path(prepared.experiment.output) / "store"), Told()
    first, *others = grid.missing(prepared, store)

    class Late(Here):
        """Computes another call, too, whenever it is given one: that is what another driver looks like."""

        def start(self, worker, calls):
            super().start(worker, calls)
            if others and others[0].stage == "prune":
                grid.run_node(others[0], prepared, store, lambda *_: None)

    finish(prepared, store, Late(job(prepared), store, 1), told)
    assert f"{others[0].stage}-{others[0].key}" not in told.begun
    assert told.others == [others[0].call.name]
    assert f"{first.stage}-{first.key}" in told.begun


def test_a_store_that_takes_nothing_stops_the_run_wherever_that_is_noticed(tiny):
    prepared = grid.prepare(tiny())
    store = Store(Path(prepared.experiment.output) / "store")

    class Full:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def free(self):
            return [0]

        def place(self, worker):
            return worker

        def start(self, worker, calls):
            self.ending = [Ended(worker, calls[0], Outcome(None, "could not write: the disk is full", "", True))]

        def ended(self, seconds):
            return self.ending

    with pytest.raises(WriteError, match="could not write: the disk is full"):
        finish(prepared, store, Full(), Told())
    (store.root / "claims").rmdir()
    (store.root / "claims").write_text("in the way")
    with pytest.raises(WriteError, match=r"could not write claims to .*; nothing is lost"):
        finish(prepared, store, Full(), Told())


def test_nothing_more_is_started_after_a_failure_where_the_first_one_counts(tiny):
    prepared = grid.prepare(tiny("raise"))
    store, told = Store(Path(prepared.experiment.output) / "store"), Told()
    with Run(store, Here(job(prepared), store, 1), told, fail_fast=True) as running:
        running.compute([node for node in grid.missing(prepared, store) if node.stage != "latency"])
    assert len(running.failed) == len(told.failures) == 1
    assert told.begun[-1] == f"aggregate-{told.failures[0].node.key}"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])  # SIGTERM stops a run in tests/test_cli.py
def test_a_run_with_workers_is_stopped_in_mid_call_and_goes_on_with_the_same_rows(
    command, arguments, tmp_path, number, capfd
):
    process = command("wait", 1, "--workers=2")
    worker = waited(tmp_path)
    process.send_signal(number)
    errors = process.communicate()[1]
    assert process.returncode == (-number if number == signal.SIGKILL else 2)
    assert ("stopped: everything finished so far is stored" in errors) == (number != signal.SIGKILL)
    assert ended(worker)
    artifacts = tmp_path / "runs" / "store" / "artifacts"
    before = {path: path.read_bytes() for path in artifacts.glob("*/*/manifest.json")}
    assert before
    assert train.main(arguments("wait")) == 0
    computed = int(re.findall(r"computed (\d+) stage calls", capfd.readouterr().out)[0])
    after = {path: path.read_bytes() for path in artifacts.glob("*/*/manifest.json")}
    assert before.items() <= after.items()
    assert computed == len([path for path in after.keys() - before.keys() if "summar" not in path.parts[-3]])


def test_a_cell_that_always_fails_costs_no_other_and_the_exit_code_says_so(command, tmp_path):
    process = command("raise", 0, "--workers=2")
    output, errors = process.communicate()
    assert process.returncode == 3, errors
    assert "failed: aggregate mlp none 1x odd iid seed 0: RuntimeError: it rains" in output
    results = read(tmp_path / "runs" / "tiny")
    assert {failure.aggregator for failure in results.failures} == {"odd"}
    assert {row.aggregator for row in results.rows} == {"log_pool", "tempered_log_pool", "exact"}
    assert len(list((tmp_path / "runs" / "tiny" / "failures").iterdir())) == 2


def test_calls_that_others_have_stored_after_the_look_are_not_waited_for(tiny, monkeypatch):
    prepared = grid.prepare(tiny())
    store = Store(Path(prepared.experiment.output) / "store")
    finish(prepared, store, Here(job(prepared), store, 1), Told())

    class Strict(Here):
        def ended(self, seconds):
            assert self._ended or seconds is not None, "nobody would ever end"
            return super().ended(seconds)

    monkeypatch.setattr(Store, "among", lambda self, places: set())
    told = Told()
    assert finish(prepared, store, Strict(job(prepared), store, 1), told) == {}
    assert told.begun == []
