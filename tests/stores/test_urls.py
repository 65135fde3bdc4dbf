"""A store at a URL: the same as in a folder, for machines that share nothing else."""

from __future__ import annotations

import json
import threading
import time
import warnings
from pathlib import Path

import pytest
import torch

from sharedlabel import evaluate, grid, train
from sharedlabel.deployment import cells
from sharedlabel.errors import StoreError
from sharedlabel.files import leases
from sharedlabel.files.remote import Remote
from sharedlabel.grid.calls import job
from sharedlabel.grid.driver import finish
from sharedlabel.grid.executors.here import Here
from sharedlabel.records import read
from sharedlabel.report import plots
from sharedlabel.store import Output, Store, opened, remote

from .conftest import URL

KEY = "a" * 64


def saved(store: Store, *values: float, key: str = KEY):
    shards = [{"x": torch.full((2,), value)} for value in values or (1.0,)]
    return store.save("dense", key, Output(shards, {"loss": 0.5}), {}, time.perf_counter())


def test_what_one_machine_saves_another_loads(service, host):
    artifact = saved(host("one"), 0.0, 1.0)
    assert artifact.tensors()["x"].tolist() == [0.0, 0.0, 1.0, 1.0]
    names = {name.removeprefix(f"artifacts/dense/{KEY}/") for name in service.objects()}
    shards = {f"{checksum}.safetensors" for checksum in artifact.manifest["files"].values()}
    assert names == {"store.json", "manifest.json", *shards}
    other = host("two").load("dense", KEY)
    assert other.manifest == artifact.manifest
    assert other.meta == {"loss": 0.5}
    assert not other.folder.exists()  # nobody has asked for tensors
    assert torch.equal(other.tensors()["x"], artifact.tensors()["x"])
    service.requests.clear()
    assert host("two", readonly=True).find("aa").tensors()["x"].tolist() == [0.0, 0.0, 1.0, 1.0]
    assert not [path for _, path in service.requests if "safetensors" in path.partition("?")[0]]


def test_a_place_that_was_never_written_has_nothing_and_is_not_made_to_be_read(service, host):
    store = host("one", readonly=True)
    assert not store.has("dense", KEY)
    assert store.manifests("dense") == []
    assert not store.exists()
    with pytest.raises(StoreError, match=f"expected a store to write artifact dense/{KEY[:12]} to, got {URL} to read"):
        saved(store)
    assert service.objects() == {}


def test_what_a_cache_has_and_the_place_has_not_is_put_there(service, host, tmp_path):
    local = Store(tmp_path / "one" / "store")
    saved(local)
    assert not host("one", readonly=True).has("dense", KEY)
    assert host("one").has("dense", KEY)
    assert host("two").load("dense", KEY).manifest == local.load("dense", KEY).manifest


def test_the_first_of_two_writers_wins_and_the_second_takes_what_is_there(service, host):
    one, two = host("one"), host("two")
    first = saved(one, 1.0)
    second = two._here.save("dense", KEY, Output([{"x": torch.zeros(2)}]), {}, 0.0)  # of other numbers, as by a GPU
    assert two.load("dense", KEY).manifest == first.manifest != second.manifest
    assert two.load("dense", KEY).tensors()["x"].tolist() == [1.0, 1.0]
    three = host("three")
    three._here.save("dense", KEY, Output([{"x": torch.zeros(2)}]), {}, 0.0)
    assert three._put("dense", KEY, {})  # both had looked before either had written
    assert three.load("dense", KEY).manifest == first.manifest


def test_many_are_asked_for_at_once(service, host, monkeypatch):
    monkeypatch.setattr(remote, "_AT_ONCE", 2)
    one, keys = host("one"), [f"{number}" * 64 for number in range(5)]
    for key in keys:
        saved(one, key=key)
    places = [("dense", key) for key in (*keys, "a" * 64)]
    two = host("two")
    service.requests.clear()
    assert two.among(places) == set(places[:5])
    methods = [(method, path.rpartition("/")[2]) for method, path in service.requests]
    assert len(methods) == 1 + 5  # the list, and the manifests
    assert two.among(places) == set(places[:5])
    assert [manifest["key"] for manifest in two.manifests("dense")] == keys
    assert len(service.requests) == 6
    three = host("three")
    three._listing()
    one.remove("dense", keys[0])
    with pytest.warns(RuntimeWarning, match=r"is damaged \(FileNotFoundError"):
        assert three.among(places) == set(places[1:5])


def test_a_file_is_created_once(service):
    place = Remote(URL)
    assert place.create("claims/a", "ours")
    assert not place.create("claims/a", "theirs")
    assert place.create("claims/a", "ours")  # as when the first answer was lost
    assert place.read("claims/a") == "ours"
    place.remove("claims/a")
    place.remove("claims/a")
    with pytest.raises(FileNotFoundError):
        place.read("claims/a")


def test_owners_that_give_no_sign_of_life_are_gone_by_the_clock_of_the_place(service, host, monkeypatch):
    ours, theirs = host("one").claims(), host("two").claims()
    late = time.time() + 3600
    with theirs.owned(), monkeypatch.context() as skewed:
        assert theirs.take("work")
        skewed.setattr(time, "time", lambda: late)
        with ours.owned():
            assert not ours.take("work")
            assert not ours.is_free("work")
            assert ours.is_free("other")
            owner = service.objects()[f"owners/{theirs._owner}"]
            owner.last_modified = owner.last_modified.replace(year=2020)
            assert ours.is_free("work")
            assert ours.take("work")
            assert sorted(name for name in service.objects() if "claims" in name) == ["claims/work.0", "claims/work.1"]
            ours.give_up("work")
    left = {name.partition("/")[0] for name in service.objects()}
    assert left == {"store.json", "clock"}


def test_who_works_gives_signs_of_life(service, host, monkeypatch):
    monkeypatch.setattr(leases, "HEARTBEAT", 0.01)
    ours = host("one").claims()
    with ours.owned():
        owner = service.objects()[f"owners/{ours._owner}"]
        waited = time.monotonic() + 30
        while service.objects()[f"owners/{ours._owner}"] is owner:
            assert time.monotonic() < waited, "no sign of life in 30 s"
            time.sleep(0.01)


def test_states_of_trainings_are_found_by_other_machines_until_the_artifact_is_there(service, host):
    host("one").unfinished("dense", KEY).write(1, lambda path: path.write_text("half"))
    two = host("two")
    assert two.unfinished("dense", KEY).path(1).read_text() == "half"
    assert not two.unfinished("dense", KEY).path(2).exists()
    state = service.objects()[f"unfinished/dense/{KEY}/00001.ckpt"]
    host("three")
    state.last_modified = state.last_modified.replace(year=2020)
    host("three", readonly=True)
    assert f"unfinished/dense/{KEY}/00001.ckpt" in service.objects()
    host("three")
    assert f"unfinished/dense/{KEY}/00001.ckpt" not in service.objects()
    two.unfinished("dense", KEY).write(1, lambda path: path.write_text("more"))
    saved(two)
    assert not [name for name in service.objects() if name.startswith("unfinished")]
    assert not two.unfinished("dense", KEY).path(1).exists()


def test_a_whole_grid_is_computed_once_and_reported_from_another_machine(
    service, host, arguments, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(plots, "_KINDS", [])
    host("one")
    assert train.main([*arguments, f"--store={URL}"]) == 0
    assert not (tmp_path / "runs" / "store").exists()
    results = read(tmp_path / "runs" / "tiny")
    assert "store" not in results.config
    host("two")
    writes = len([method for method, _ in service.requests if method == "PUT"])
    assert train.main([*arguments, f"--store={URL}"]) == 0
    assert "computed nothing" in capsys.readouterr().out
    assert len([method for method, _ in service.requests if method == "PUT"]) <= writes + 1  # the marker, at most
    assert read(tmp_path / "runs" / "tiny").rows == results.rows
    before = set(service.objects())
    host("three")
    assert evaluate.main([*arguments, f"--store={URL}"]) == 0
    assert read(tmp_path / "runs" / "tiny").rows == results.rows
    assert set(service.objects()) == before
    compressed = next(row for row in results.rows if row.aggregator == "log_pool" and row.ratio == 2)
    assert cells.restore(compressed.cell, results.dataset, host("four", readonly=True)).temperature > 0
    assert train.main(list(arguments)) == 0  # in a folder: the same numbers
    for one, other in zip(read(tmp_path / "runs" / "tiny").rows, results.rows, strict=True):
        kept = {name: value for name, value in vars(one).items() if not name.startswith("measured_")}
        assert kept == {name: getattr(other, name) for name in kept}


class Told:
    """Notes what is begun."""

    def __init__(self) -> None:
        self.begun: list[str] = []

    def __call__(self, node, seconds, worker=0):
        self.begun += [node.call.name] * (seconds is None)

    def failed(self, failed):
        raise AssertionError(failed.reason)

    def waiting(self, reason):
        """Wait."""

    def elsewhere(self, node):
        """It is begun there."""


def test_two_machines_do_each_call_once(service, host, experiment):
    prepared, told = grid.prepare(experiment), (Told(), Told())
    stores, started = (host("one"), host("two")), threading.Barrier(2)

    def drive(store: Store, one: Told) -> None:
        started.wait()
        with warnings.catch_warnings():
            finish(prepared, store, Here(job(prepared), store, 1), one)

    threads = [threading.Thread(target=drive, args=pair) for pair in zip(stores, told, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    begun = [*told[0].begun, *told[1].begun]
    manifests = [name for name in service.objects() if name.endswith("manifest.json")]
    assert len(begun) == len(set(begun)) == len(manifests)
    assert told[0].begun
    assert told[1].begun
    assert grid.missing(prepared, host("three")) == []


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (
            "s3://nobody-has-this/x",
            "expected a store that can be read and written at s3://nobody-has-this/x, got: The ",
        ),
        (
            "nonsense://x",
            "expected a URL whose protocol fsspec can use here, got nonsense://x: Protocol not known: non",
        ),
        ("s3:/bucket/x", "got 's3:/bucket/x'; write 's3://bucket/x', or './s3:/bucket/x' for a folder of that name"),
    ],
)
def test_a_place_that_cannot_be_used_is_named(service, url, said):
    with pytest.raises(StoreError, match=said):
        opened(url)


def test_a_package_that_is_missing_is_named(monkeypatch):
    import fsspec

    def absent(url):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", absent)
    with pytest.raises(StoreError, match=r'Install s3fs .*; install the package for it with `pip install "sharedlabel'):
        opened(URL)


def test_a_newer_store_is_refused(service, host):
    Remote(URL).create("store.json", json.dumps({"format": 99}))
    with pytest.raises(StoreError, match=f"{URL} has store format 99, this version reads up to 1; upgrade"):
        host("one")


def test_other_protocols_do_as_well(tmp_path, monkeypatch):
    monkeypatch.setenv("SHAREDLABEL_CACHE", str(tmp_path / "cache"))
    saved(opened("memory://somewhere/store"))
    monkeypatch.setenv("SHAREDLABEL_CACHE", str(tmp_path / "other"))
    assert opened("memory://somewhere/store", readonly=True).load("dense", KEY).tensors()["x"].tolist() == [1.0, 1.0]
    assert isinstance(opened(f"file://{tmp_path / 'local'}"), Store)
    assert (tmp_path / "local" / "store.json").is_file()
    assert opened(Path(tmp_path / "local"), readonly=True).where == str(tmp_path / "local")
