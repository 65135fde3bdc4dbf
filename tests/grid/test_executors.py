"""What every executor promises: the same artifacts, errors as values, workers that may die, and nothing left behind."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sharedlabel import grid
from sharedlabel.config import Experiment
from sharedlabel.errors import CompressionError, TrainingError
from sharedlabel.files.claims import Claims
from sharedlabel.grid import Grid
from sharedlabel.grid.calls import job
from sharedlabel.grid.driver import finish
from sharedlabel.grid.executors import local
from sharedlabel.grid.executors.base import Executor
from sharedlabel.grid.executors.here import Here
from sharedlabel.grid.executors.local import Local
from sharedlabel.grid.failures import Failed
from sharedlabel.store import Store
from sharedlabel.training import compression

pytestmark = pytest.mark.usefixtures("quick_forks")
Make = Callable[[Grid, Store], Executor]


def here(prepared: Grid, store: Store) -> Executor:
    return Here(job(prepared), store, 1)


def processes(prepared: Grid, store: Store) -> Executor:
    return Local(job(prepared), prepared.experiment, store.root, [{}, {"COLOUR": "blue"}], 1)


EXECUTORS = pytest.mark.parametrize("make", [here, processes])
WITH_PROCESSES = pytest.mark.parametrize("make", [processes])


class Told:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.failures: list[Failed] = []
        self.waits: list[str] = []
        self.losses: list[str] = []
        self.others: list[str] = []

    def __call__(self, node, seconds, worker=0):
        if seconds is None:
            self.begun.append(f"{node.stage}-{node.key}")

    def failed(self, failed, worker=0):
        self.failures.append(failed)

    def waiting(self, reason):
        self.waits.append(reason)

    def lost(self, node):
        self.losses.append(node.call.name)

    def elsewhere(self, node):
        self.others.append(node.call.name)


def run(experiment: Experiment, make: Make, folder: str = "store") -> tuple[Grid, Store, Told]:
    prepared, store, told = grid.prepare(experiment), Store(Path(experiment.output) / folder), Told()
    finish(prepared, store, make(prepared, store), told)
    return prepared, store, told


def stored(store: Store) -> dict[str, object]:
    """Return the content of every artifact but for measured times."""
    folders = (store.root / "artifacts").glob("*/*")
    manifests = [store.load(path.parent.name, path.name).manifest for path in folders]
    return {
        f"{one['stage']}-{one['key']}": (one["files"], one["meta"]) for one in manifests if one["stage"] != "latency"
    }


@EXECUTORS
def test_each_call_is_computed_once_and_what_is_stored_is_the_same_bit_for_bit(tiny, make):
    experiment = tiny()
    prepared, store, told = run(experiment, make)
    assert grid.missing(prepared, store) == []
    assert len(set(told.begun)) == len(told.begun) == len(list((store.root / "artifacts").glob("*/*")))
    assert list((store.root / "claims").iterdir()) == list((store.root / "owners").iterdir()) == []
    reference = run(experiment, here, "reference")[1]
    assert stored(store) == stored(reference)


@EXECUTORS
def test_a_call_that_fails_is_a_value_with_a_traceback_and_all_else_is_computed(tiny, make):
    prepared, store, told = run(tiny("raise"), make)
    assert {(one.node.stage, one.reason) for one in told.failures} == {("aggregate", "RuntimeError: it rains")}
    assert len(told.failures) == 2  # of two ratios
    assert "odd.py" in told.failures[0].details
    assert [name.partition("-")[0] for name in told.losses] == ["evaluate"] * 2
    assert {node.stage for node in grid.missing(prepared, store)} == {"aggregate", "evaluate"}
    assert list((store.root / "claims").iterdir()) == []


@EXECUTORS
@pytest.mark.parametrize(
    ("does", "reason"),
    [("exit", "expected a plugin that returns or raises an error, got sys.exit(7)"), ("mute", "MuteError")],
)
def test_a_plugin_ends_no_run(tiny, make, does, reason):
    _, _, told = run(tiny(does), make)
    assert {one.reason for one in told.failures} == {reason}


@EXECUTORS
def test_warnings_are_told_where_the_run_is(tiny, make):
    with pytest.warns(UserWarning, match="it may rain"):
        prepared, store, _ = run(tiny("warn"), make)
    assert grid.missing(prepared, store) == []


@WITH_PROCESSES
def test_a_call_whose_worker_dies_is_given_to_another_and_numbers_are_the_same(tiny, make, tmp_path):
    experiment = tiny("die", 2)
    prepared, store, told = run(experiment, make)
    assert grid.missing(prepared, store) == []
    assert told.failures == []
    assert len(list(tmp_path.glob("seen-flag*"))) == 2
    assert stored(store) == stored(run(experiment, here, "reference")[1])


@WITH_PROCESSES
def test_a_call_of_which_workers_die_again_and_again_has_failed(tiny, make, tmp_path):
    _, _, told = run(tiny("die", 6), make)
    assert [one.reason for one in told.failures] == [
        "3 processes that computed it died, as they do when memory runs out"
    ] * 2
    assert list(tmp_path.glob("flag*")) == []


TOGETHER = (
    "--aggregators=[log_pool]",
    "--pruners=[magnitude, random]",
    "--ratios=[1, 1.5, 2]",
    "--seeds=[0, 1]",
    "--retrain.epochs=2",
    "--trainer.networks=3",
)


def numbers(store: Store) -> dict[str, dict[str, Tensor]]:
    """Return the networks and what is read of them, by key."""
    return {
        f"{path.parent.name}-{path.name}": store.load(path.parent.name, path.name).tensors()
        for stage in ("dense", "prune", "features")
        for path in (store.root / "artifacts" / stage).iterdir()
    }


@EXECUTORS
def test_calls_that_are_computed_together_end_as_each_does_alone_but_for_rounding(tiny, make):
    prepared, store, told = run(tiny("nothing", 0, *TOGETHER), make)
    assert grid.missing(prepared, store) == []
    assert (told.failures, told.waits) == ([], [])
    assert len(set(told.begun)) == len(told.begun) == len(list((store.root / "artifacts").glob("*/*")))
    assert [list((store.root / name).glob("*")) for name in ("claims", "unfinished")] == [[], []]
    alone = run(tiny("nothing", 0, *TOGETHER, "--trainer.networks=1"), here, "reference")[1]
    ours, theirs = numbers(store), numbers(alone)
    assert ours.keys() == theirs.keys()
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


class Given(Here):
    """So many workers, which take turns in this process; notes what they are given, by stage."""

    def __init__(self, prepared: Grid, store: Store, workers: int) -> None:
        super().__init__(job(prepared), store, 1)
        self.workers, self.given = range(workers), {}

    def free(self):
        return [] if self._ended else list(self.workers)

    def start(self, worker, calls):
        assert len({call.stage for call in calls}) == 1
        self.given.setdefault(calls[0].stage, []).append(len(calls))
        super().start(worker, calls)


@pytest.mark.parametrize(
    ("workers", "dense", "prune"),
    [(1, [2], [8, 2]), (2, [1, 1], [5, 5]), (4, [1, 1], [3, 3, 2, 2])],
)
def test_free_workers_share_the_calls_that_can_be_computed_together_up_to_as_many_as_asked(tiny, workers, dense, prune):
    experiment = tiny("nothing", 0, *TOGETHER, "--trainer.networks=8")
    prepared, store = grid.prepare(experiment), Store(Path(experiment.output) / "store")
    executor = Given(prepared, store, workers)
    finish(prepared, store, executor, Told())
    given = executor.given
    assert given.pop("dense") == dense  # of two seeds
    assert given.pop("prune") == prune  # of two seeds: the dense network, two pruners at two ratios
    assert {size for others in given.values() for size in others} == {1}


def test_what_another_driver_computes_is_not_computed_together_with_the_rest(tiny):
    prepared = grid.prepare(tiny("nothing", 0, *TOGETHER))
    store, other = Store(Path(prepared.experiment.output) / "store"), Claims(Path(prepared.experiment.output) / "store")
    theirs = [node for node in grid.missing(prepared, store) if node.stage == "prune"][1]

    class Waiting(Told):
        def waiting(self, reason):
            super().waiting(reason)
            other.give_up(theirs.call.name)

    executor, told = Given(prepared, store, 1), Waiting()
    with other.owned():
        assert other.take(theirs.call.name)
        finish(prepared, store, executor, told)
    assert executor.given["prune"] == [3, 3, 3, 1]
    assert told.waits == ["for calls that other runs compute"]
    assert told.begun.count(theirs.call.name) == 1
    assert grid.missing(prepared, store) == []


@EXECUTORS
def test_calls_that_fail_together_are_computed_one_after_the_other(tiny, make):
    diverging = ("--retrain.optimizer=sgd", "--retrain.learning_rate=1.0e+6", "--retrain.epochs=20")
    with pytest.warns(RuntimeWarning, match="prune are computed one after the other, not together: expected a finite"):
        _, store, told = run(tiny("nothing", 0, *TOGETHER, *diverging), make)
    assert {(one.node.stage, one.reason.partition(" in epoch")[0]) for one in told.failures} == {
        ("prune", "expected a finite loss, got nan")
    }
    assert list((store.root / "claims").iterdir()) == []


def test_one_call_that_fails_takes_none_of_those_that_it_is_computed_together_with(tiny, monkeypatch):
    cut = compression.cut

    def odd(start, ratio, plugin, *others):
        if (plugin.name, ratio) == ("random", 2.0):
            raise CompressionError("it rains")
        return cut(start, ratio, plugin, *others)

    monkeypatch.setattr(compression, "cut", odd)
    with pytest.warns(
        RuntimeWarning, match="3 calls of prune are computed one after the other, not together: it rains"
    ):
        prepared, store, told = run(tiny("nothing", 0, *TOGETHER), here)
    assert [(one.node.config.pruner.name, one.node.config.ratio) for one in told.failures] == [("random", 2.0)] * 2
    missing = grid.missing(prepared, store)
    assert [node.config.pruner.name for node in missing if node.stage == "prune"] == ["random"] * 2


@WITH_PROCESSES
def test_calls_of_which_a_worker_has_died_are_given_to_others_one_by_one(tiny, make, monkeypatch):
    experiment = tiny("nothing", 0, *TOGETHER)
    prepared, store, given = grid.prepare(experiment), Store(Path(experiment.output) / "store"), []
    executor = make(prepared, store)
    start = executor.start

    def kill(worker, calls):
        given.append(calls)
        start(worker, calls)
        if len(calls) > 1:
            os.kill(executor._workers[worker].pid, signal.SIGKILL)

    monkeypatch.setattr(executor, "start", kill)
    assert finish(prepared, store, executor, Told()) == {}
    assert grid.missing(prepared, store) == []
    killed = [call.key for calls in given if len(calls) > 1 for call in calls]
    assert killed
    assert len(killed) == len(set(killed))
    alone = [calls[0].key for calls in given if len(calls) == 1]
    assert set(killed) <= set(alone)


def test_workers_that_cannot_begin_say_why(tiny, monkeypatch):
    prepared = grid.prepare(tiny())
    store = Store(Path(prepared.experiment.output) / "store")
    monkeypatch.setattr(local.mapped, "dumps", lambda *_: b"no pickle")
    with pytest.raises(TrainingError, match="expected a worker process that can begin, got: UnpicklingError"):
        finish(prepared, store, processes(prepared, store), Told())


class Deadly:
    """Ends whatever process unpickles it."""

    def __reduce__(self):
        return os._exit, (1,)


def test_workers_that_die_before_they_have_done_anything_are_told_of(tiny, monkeypatch):
    prepared = grid.prepare(tiny())
    store = Store(Path(prepared.experiment.output) / "store")
    monkeypatch.setattr(local, "Setup", lambda *_: Deadly())
    with pytest.raises(TrainingError, match="expected worker processes that stay alive, got 5 in a row"):
        finish(prepared, store, processes(prepared, store), Told())


def test_nothing_runs_on_when_the_block_ends_whatever_is_under_way(tiny, tmp_path):
    prepared = grid.prepare(tiny("wait", 1))
    store = Store(Path(prepared.experiment.output) / "store")
    odd = next(node for node in grid.missing(prepared, store) if "odd" in str(node.config))
    for node in odd.chain():
        if node is not odd:
            grid.run_node(node, prepared, store, lambda *_: None)
    with processes(prepared, store) as executor:
        executor.start(0, (odd.call,))
        while not (seen := list(tmp_path.glob("seen-flag0-*"))):
            executor.ended(0.05)
        worker = int(seen[0].name.split("-")[2])
        os.kill(worker, 0)
        assert executor.free() == [1]
    assert ended(worker)
    assert not store.has(odd.stage, odd.key)


def test_workers_end_with_the_process_that_they_work_for(tiny, tmp_path):
    prepared = grid.prepare(tiny("wait", 1))
    store = Store(Path(prepared.experiment.output) / "store")
    child = os.fork()
    if not child:
        try:
            finish(prepared, store, processes(prepared, store), Told())
        finally:
            os._exit(1)
    while not (seen := list(tmp_path.glob("seen-flag0-*"))):
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert ended(int(seen[0].name.split("-")[2]))
    assert finish(prepared, store, processes(prepared, store), told := Told()) == {}
    assert told.waits == []  # the claims of who was killed are void at once
    assert grid.missing(prepared, store) == []


def ended(process: int) -> bool:
    """Wait for a process that is not our child to end; nobody waits for it longer than a test may take."""
    while Path(f"/proc/{process}").exists():
        if Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.02)
    return True
