"""A service that fails, answers late or loses answers, and files that are not what they were."""

from __future__ import annotations

import errno
import os

import pytest
import torch

from sharedlabel import grid, train
from sharedlabel.errors import ConfigError, StoreError, WriteError
from sharedlabel.files import patience
from sharedlabel.files.claims import Claims
from sharedlabel.files.patience import patiently
from sharedlabel.files.remote import Remote
from sharedlabel.grid.calls import job
from sharedlabel.grid.driver import finish
from sharedlabel.grid.executors.here import Here
from sharedlabel.store import Store, checks, local

from .conftest import URL, Fault
from .test_urls import KEY, Told, saved

AGAIN = "tried again for 300 s"


def test_a_service_that_fails_for_a_while_costs_no_call(service, host, experiment, waits):
    prepared, store, told = grid.prepare(experiment), host("one"), Told()
    service.faults += [
        Fault("GET", "artifacts/dense", 2, "503 Slow Down", "ServiceUnavailable"),
        Fault("PUT", "claims/aggregate", 1),
        Fault("PUT", "claims/prune", 1, done=True),
        Fault("PUT", "artifacts/features/.*safetensors", 3),
        Fault("PUT", "artifacts/features/.*manifest", 1, done=True),
        Fault("DELETE", "claims/features", 1),
    ]
    with pytest.warns(RuntimeWarning, match=AGAIN):
        finish(prepared, store, Here(job(prepared), store, 1), told)
    assert service.faults == []
    assert sorted(waits) == [1.0] * 6 + [2.0] * 2 + [4.0]
    assert len(told.begun) == len(set(told.begun))
    assert grid.missing(prepared, host("two")) == []
    assert {name.partition("/")[0] for name in service.objects()} == {"artifacts", "store.json"}


@pytest.fixture
def hasty(service, monkeypatch):
    """Wait for an answer for a moment only."""
    import s3fs

    monkeypatch.setattr(s3fs.S3FileSystem, "read_timeout", 0.2)
    s3fs.S3FileSystem.clear_instance_cache()
    yield
    s3fs.S3FileSystem.clear_instance_cache()


def test_an_answer_that_takes_too_long_is_asked_for_again(service, hasty, host, waits):
    saved(host("one"))
    two = host("two")
    service.faults.append(Fault("GET", "manifest", status="", seconds=0.6))
    with pytest.warns(RuntimeWarning, match=rf"could not read artifacts/dense/{KEY}/manifest.json at {URL}: .*{AGAIN}"):
        assert two.has("dense", KEY)
    assert waits == [1.0]


def test_a_service_that_stays_away_is_an_error_that_stops_the_run_and_loses_nothing(service, host, waits):
    store = host("one")
    service.faults.append(Fault("PUT", "safetensors", 10**6))
    with (
        pytest.warns(RuntimeWarning, match=AGAIN),
        pytest.raises(WriteError, match=f"could not write artifacts/dense/.* at {URL}: .*; nothing is lost, run the"),
    ):
        saved(store)
    assert sum(waits) == 300
    assert sorted(waits) == waits[:-1] + waits[-1:] or waits[-1] < 30
    service.faults.clear()
    assert host("one").load("dense", KEY).tensors()["x"].tolist() == [1.0, 1.0]  # from the cache
    assert host("two").has("dense", KEY)


def test_a_place_that_has_never_answered_is_not_waited_for(service, host, waits):
    service.faults.append(Fault("PUT", "store.json", 10**6))
    with pytest.raises(StoreError, match="expected a store that can be read and written at"):
        host("one")
    assert waits == []


def test_keys_that_are_refused_are_not_tried_again(service, host, waits):
    store = host("one")
    service.faults.append(Fault("PUT", "safetensors", 10**6, "403 Forbidden", "AccessDenied"))
    with pytest.raises(WriteError, match=r"could not write artifacts/dense/.*: not now; nothing is lost"):
        saved(store)
    assert waits == []


def test_a_state_that_cannot_be_put_there_does_not_end_the_training(service, host):
    states = host("one").unfinished("dense", KEY)
    service.faults.append(Fault("PUT", "unfinished", 10**6))
    with pytest.raises(OSError, match="could not write unfinished"):
        states.write(1, lambda path: path.write_text("state"))
    service.faults.append(Fault("GET", "unfinished", 10**6))
    assert states.path(1).read_text() == "state"


def damaged(service, name: str, content: bytes) -> None:
    from moto.backends import get_backend

    (whole,) = (one for one in service.objects() if one.endswith(name))
    get_backend("s3")["123456789012"]["aws"].put_object("bucket", f"prefix/{whole}", content)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("safetensors", b"cut off", "shard-00000.safetensors is not there with its size"),
        ("manifest.json", b"{", "JSONDecodeError"),
        ("manifest.json", b'{"sha256": "0"}', "its manifest was altered"),
    ],
)
def test_a_damaged_artifact_is_put_there_again_or_dropped(service, host, name, content, said):
    first = saved(host("one")).manifest
    damaged(service, name, content)
    with pytest.warns(RuntimeWarning, match=f"dense/{KEY[:12]} is damaged .*{said}.*; the next run computes it again"):
        assert not host("three", readonly=True).has("dense", KEY)
    with pytest.warns(RuntimeWarning, match=f"dense/{KEY[:12]} is damaged .*{said}.* or computed again"):
        assert not host("two").has("dense", KEY)
    assert not [one for one in service.objects() if one.startswith("artifacts")]
    assert host("one").has("dense", KEY)  # it is whole in that cache
    assert host("two").load("dense", KEY).manifest == first


def test_what_its_size_does_not_show_is_noticed_when_it_is_read(service, host):
    artifact = saved(host("one"))
    content = (artifact.folder / "shard-00000.safetensors").read_bytes()
    damaged(service, "safetensors", content[:-1] + b"\1")
    two = host("two")
    other = two.load("dense", KEY)
    with (
        pytest.warns(RuntimeWarning, match="is damaged .*shard-00000.safetensors does not match its checksum"),
        pytest.raises(StoreError, match=f"dense/{KEY[:12]} in {URL} was damaged; run the same command again"),
    ):
        other.tensors()
    assert not other.folder.exists()
    assert not two.has("dense", KEY)


def test_a_cache_that_is_damaged_is_fetched_again(service, host):
    saved(host("one"))
    two = host("two")
    shard = two.load("dense", KEY).folder / "shard-00000.safetensors"
    two.load("dense", KEY).tensors()
    shard.write_bytes(b"cut off")
    with pytest.warns(RuntimeWarning, match="is damaged .*; it is fetched or computed again"):
        assert host("two").load("dense", KEY).tensors()["x"].tolist() == [1.0, 1.0]


def failing(times: int, number: int):
    """A function that fails so often as the system does."""
    left = [times]

    def fail(*_: object) -> None:
        left[0] -= 1
        if left[0] >= 0:
            raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.ESTALE])
def test_a_disk_that_is_full_or_read_only_for_a_minute_is_waited_for(tmp_path, monkeypatch, waits, number):
    store, fail, flush = Store(tmp_path), failing(6, number), local._flush
    monkeypatch.setattr(local, "_flush", lambda folder: fail() or flush(folder))
    with pytest.warns(
        RuntimeWarning, match=f"could not write artifact dense/{KEY[:12]} to .*: {os.strerror(number)}; "
    ):
        assert torch.equal(saved(store).tensors()["x"], torch.ones(2))
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0]
    assert list((tmp_path / "partial").iterdir()) == []


def test_what_cannot_be_read_for_a_while_is_not_damaged(tmp_path, monkeypatch, waits):
    folder = saved(Store(tmp_path)).folder
    (folder / "shard-00000.safetensors").touch()
    fail, hashed = failing(2, errno.ESTALE), checks.hashed
    monkeypatch.setattr(checks, "hashed", lambda path: fail() or hashed(path))
    with pytest.warns(RuntimeWarning, match=f"could not read {folder}: {os.strerror(errno.ESTALE)}; {AGAIN}"):
        assert Store(tmp_path).has("dense", KEY)
    assert waits == [1.0, 2.0]
    monkeypatch.setattr(checks, "hashed", failing(10**6, errno.EIO))
    (folder / "shard-00000.safetensors").touch()
    with pytest.warns(RuntimeWarning, match=r"is damaged \(OSError: .*; it is computed again|could not read"):
        assert not Store(tmp_path).has("dense", KEY)


def test_what_must_not_be_read_is_kept(tmp_path, monkeypatch):
    folder = saved(Store(tmp_path)).folder
    (folder / "shard-00000.safetensors").touch()
    monkeypatch.setattr(checks, "hashed", failing(10**6, errno.EACCES))
    said = f"expected an artifact that can be read at {folder}, got: {os.strerror(errno.EACCES)}; it is kept"
    with pytest.raises(StoreError, match=said):
        Store(tmp_path).has("dense", KEY)
    monkeypatch.undo()
    assert Store(tmp_path).has("dense", KEY)


def test_what_does_not_pass_and_what_stays_is_an_error(tmp_path, monkeypatch, waits):
    store = Store(tmp_path)
    monkeypatch.setattr(local, "_flush", failing(10**6, errno.EACCES))
    with pytest.raises(WriteError, match=f"could not write artifact .* to {tmp_path}: {os.strerror(errno.EACCES)}"):
        saved(store)
    assert waits == []
    monkeypatch.setattr(local, "_flush", failing(10**6, errno.ENOSPC))
    with pytest.warns(RuntimeWarning), pytest.raises(WriteError, match=os.strerror(errno.ENOSPC)):
        saved(store)
    assert sum(waits) == patience.SECONDS
    assert not store.has("dense", KEY)


def test_claims_wait_for_a_full_disk_and_leave_no_name_without_an_owner(tmp_path, waits, monkeypatch):
    ours = Claims(tmp_path)
    with ours.owned():
        fail = failing(2, errno.ENOSPC)
        monkeypatch.setattr("sharedlabel.files.places._fill", lambda file, text: fail() or file.write(text))
        with pytest.warns(RuntimeWarning, match="could not write .*work.0: No space"):
            assert ours.take("work")
        assert not ours.take("work")
    assert waits == [1.0, 2.0]


def test_how_long_is_waited_is_a_number_of_seconds(monkeypatch):
    monkeypatch.setenv(patience.VARIABLE, "a while")
    with pytest.raises(
        ConfigError, match="expected seconds to wait in the environment variable SHAREDLABEL_PATIENCE, g"
    ):
        patiently(lambda: None, "x")


def test_a_run_ends_with_a_message_when_the_service_stays_away(service, host, arguments, capsys):
    host("one")
    service.faults.append(Fault("PUT", "artifacts/features", 10**6))
    assert train.main([*arguments, f"--store={URL}"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: could not write artifacts/features/")
    assert "nothing is lost" in told
    assert Remote(URL).sizes("claims") == {}
