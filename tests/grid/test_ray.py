"""Ray computes what the other executors compute, on several machines that may die; here they are simulated on one."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback

from sharedlabel import grid
from sharedlabel.config.sections import RayConfig
from sharedlabel.errors import ConfigError
from sharedlabel.grid.calls import job
from sharedlabel.grid.driver import Run, finish
from sharedlabel.grid.executors import choose
from sharedlabel.grid.executors import ray as executor
from sharedlabel.grid.executors.ray import Ray
from sharedlabel.store import Store
from sharedlabel.training.callbacks import watched

from .test_executors import TOGETHER, Told, here, numbers, run, stored

pytestmark = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the extra sharedlabel[ray]")


@pytest.fixture(scope="module", autouse=True)
def _environment() -> Iterator[None]:
    """What Ray reads when it is imported, which nobody does before."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**executor._USUAL, "RAY_AUTH_TOKEN": "0" * 40}.items():
            patch.setenv(name, value)
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")]))
        yield


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A cluster of two machines with room for one call each."""
    import ray
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    made.add_node(num_cpus=1)
    yield made
    ray.shutdown()
    made.shutdown()


def test_what_a_signal_does_is_not_changed_by_ray(monkeypatch):
    import ray

    def changed(**_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    former = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(ray, "init", changed)
    executor._connected(RayConfig())
    assert signal.getsignal(signal.SIGTERM) is former


def test_an_address_at_which_nobody_answers_is_told_at_once():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # nobody listens
        address = f"127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(ConfigError, match=f"a cluster of Ray that answers at '{address}', got: .*refused"):
            executor._connected(RayConfig(address=address))


@pytest.mark.parametrize("option", ["callbacks", "devices"])
def test_what_workers_of_ray_would_leave_out_is_refused(tiny, option):
    devices = ["--trainer.devices=2"] if option == "devices" else []
    prepared = grid.prepare(tiny("nothing", 0, "--executor=ray", *devices))
    watching = watched(Callback()) if option == "callbacks" else contextlib.nullcontext()
    with watching, pytest.raises(ConfigError, match="executor: expected local with"):
        choose.executor(prepared, Store(Path(prepared.experiment.output) / "store"), 1)


@pytest.fixture
def on(cluster, monkeypatch):
    """Return the executor on the cluster; all runs share a connection, so that workers import what they need once."""
    import ray

    if not ray.is_initialized():
        executor._connected(RayConfig(address=cluster.address))
    monkeypatch.setattr(executor, "_connected", lambda config: ray)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    return lambda prepared, store: Ray(job(prepared), prepared.experiment, store.root, {"CPU": 1.0})


def test_two_machines_store_the_same_bit_for_bit_and_do_each_call_once(tiny, on):
    experiment = tiny()
    prepared, store, told = run(experiment, on)
    assert grid.missing(prepared, store) == []
    assert len(set(told.begun)) == len(told.begun) == len(list((store.root / "artifacts").glob("*/*")))
    assert stored(store) == stored(run(experiment, here, "reference")[1])


def test_every_machine_that_is_free_gets_a_call_at_once(tiny, on):
    prepared = grid.prepare(tiny())
    store = Store(Path(prepared.experiment.output) / "store")
    call = grid.missing(prepared, store)[0].call
    with on(prepared, store) as made:
        free = len(made.free())
        for worker in made.free():
            made.start(worker, (call,))
        assert len(made._under_way) == free >= 2
        assert not made.free()


def test_calls_that_are_computed_together_end_as_each_does_alone_but_for_rounding(tiny, on):
    prepared, store, told = run(tiny("nothing", 0, *TOGETHER), on)
    assert grid.missing(prepared, store) == []
    assert len(set(told.begun)) == len(told.begun) == len(list((store.root / "artifacts").glob("*/*")))
    alone = run(tiny("nothing", 0, *TOGETHER, "--trainer.networks=1"), here, "reference")[1]
    torch.testing.assert_close(numbers(store), numbers(alone), rtol=1e-4, atol=1e-5)


def test_failures_warnings_and_workers_that_die_are_told(tiny, on, tmp_path):
    _, _, told = run(tiny("raise"), on)
    assert {(one.node.stage, one.reason) for one in told.failures} == {("aggregate", "RuntimeError: it rains")}
    assert "odd.py" in told.failures[0].details
    with pytest.warns(UserWarning, match="it may rain"):
        run(tiny("warn"), on, "warned")
    prepared, store, told = run(tiny("die", 1), on, "died")
    assert grid.missing(prepared, store) == []
    assert told.failures == []
    assert len(list(tmp_path.glob("seen-flag*"))) == 1


def test_machines_may_die_and_others_may_come(tiny, on, cluster, tmp_path):
    prepared = grid.prepare(tiny("wait", 2))
    store, told = Store(Path(prepared.experiment.output) / "store"), Told()
    failed: list[object] = []

    def compute() -> None:
        failed.append(finish(prepared, store, on(prepared, store), told))

    driver = threading.Thread(target=compute)
    driver.start()
    while len(list(tmp_path.glob("seen-flag*"))) < 2:  # a call on each machine
        time.sleep(0.05)
    lost = next(node for node in cluster.worker_nodes if node is not cluster.head_node)
    cluster.remove_node(lost, allow_graceful=False)
    cluster.add_node(num_cpus=1)
    odd = [f"aggregate-{node.key}" for node in grid.missing(prepared, store) if "odd" in str(node.config)]
    while sum(told.begun.count(one) for one in odd) < 3:  # the call of the machine that died is given to the new one
        time.sleep(0.05)
    (tmp_path / "go").touch()
    driver.join()
    assert failed == [{}]
    assert grid.missing(prepared, store) == []
    assert sum(told.begun.count(one) for one in odd) == 3


def test_a_run_says_that_no_machine_has_room_and_goes_on_when_one_comes(tiny, on, cluster):
    prepared = grid.prepare(tiny())
    store = Store(Path(prepared.experiment.output) / "store")

    class Waiting(Told):
        def waiting(self, reason):
            super().waiting(reason)
            cluster.add_node(num_cpus=3)

    told = Waiting()
    made = Ray(job(prepared), prepared.experiment, store.root, {"CPU": 3.0})
    first = grid.missing(prepared, store)[0]
    with Run(store, made, told) as running:
        running.compute([first])
    assert told.waits == ["for calls that no machine has room for"]
    assert store.has(first.stage, first.key)


def test_a_cluster_that_does_not_answer_is_told_in_a_sentence(monkeypatch):
    import ray

    def refuse(**_: object) -> None:
        raise ConnectionError("nobody there\nat all")

    monkeypatch.setattr(executor, "_ask", lambda address: None)
    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(ConfigError, match=r"expected a cluster of Ray that answers at '10\.0\.0\.1:6379', got: nobody"):
        executor._connected(RayConfig(address="10.0.0.1:6379"))
