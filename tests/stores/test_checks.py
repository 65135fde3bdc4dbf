"""What is read once on a machine is known by sizes and times, and read again when these change or `verify` asks."""

from __future__ import annotations

import json
import os
import time

import pytest
import torch

from sharedlabel import cli, verify
from sharedlabel.config import digest
from sharedlabel.errors import ConfigError, StoreError
from sharedlabel.store import Output, Store, checks, opened

from .conftest import URL
from .test_faults import damaged
from .test_urls import KEY, saved


@pytest.fixture
def reads(monkeypatch) -> list[str]:
    """Names of the files whose every byte is read."""
    seen: list[str] = []
    real = checks.hashed
    monkeypatch.setattr(checks, "hashed", lambda path: seen.append(path.name) or real(path))
    return seen


def old(folder) -> None:
    """Let files look as if nobody had just written them."""
    before = time.time_ns() - 10**10
    for path in folder.iterdir():
        os.utime(path, ns=(before, before))


def flipped(path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def test_what_this_machine_has_written_or_read_is_not_read_again(tmp_path, reads):
    artifact = saved(Store(tmp_path), 1.0, 2.0)
    assert Store(tmp_path).has("dense", KEY)
    assert Store(tmp_path, readonly=True).has("dense", KEY)
    assert reads == []
    assert artifact.manifest["bytes"] == dict.fromkeys(artifact.manifest["files"], 72)


def test_a_change_at_once_is_noticed(tmp_path, reads):
    folder = saved(Store(tmp_path)).folder
    flipped(folder / "shard-00000.safetensors")
    with pytest.warns(RuntimeWarning, match="does not match its checksum"):
        assert not Store(tmp_path).has("dense", KEY)


def test_other_times_or_another_machine_have_it_read_once(tmp_path, reads, monkeypatch):
    folder = saved(Store(tmp_path)).folder
    old(folder)
    assert Store(tmp_path).has("dense", KEY)
    assert Store(tmp_path).has("dense", KEY)
    monkeypatch.setenv(checks.CACHE, str(tmp_path / "of another machine"))
    assert Store(tmp_path).has("dense", KEY)
    assert Store(tmp_path).has("dense", KEY)
    assert reads == ["shard-00000.safetensors"] * 2


def test_what_may_still_be_changing_is_read_until_it_has_settled(tmp_path, reads):
    folder = saved(Store(tmp_path)).folder
    (folder / "shard-00000.safetensors").touch()
    later = time.time_ns() + 10**12
    os.utime(folder / "shard-00000.safetensors", ns=(later, later))
    assert Store(tmp_path).has("dense", KEY)
    assert Store(tmp_path).has("dense", KEY)
    assert len(reads) == 2


def test_a_manifest_of_former_versions_that_states_no_sizes_is_read(tmp_path, reads):
    folder = saved(Store(tmp_path)).folder
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["sha256"], manifest["bytes"]
    (folder / "manifest.json").write_text(json.dumps({"sha256": digest(manifest), **manifest}))
    assert Store(tmp_path).has("dense", KEY)
    assert reads == ["shard-00000.safetensors"]


def test_a_size_that_is_not_the_stated_one_is_noticed_without_reading(tmp_path, reads):
    folder = saved(Store(tmp_path)).folder
    (folder / "shard-00000.safetensors").write_bytes(b"cut off")
    with pytest.warns(RuntimeWarning, match="shard-00000.safetensors does not have its size"):
        assert not Store(tmp_path).has("dense", KEY)
    assert reads == []


def test_processes_see_what_others_have_noted(tmp_path, reads):
    driver, worker = Store(tmp_path), Store(tmp_path)
    assert not driver.has("dense", KEY)
    saved(worker)
    assert driver.has("dense", KEY)
    assert reads == []


def test_notes_that_are_lost_torn_or_many_cost_another_reading_at_most(tmp_path, reads, monkeypatch):
    monkeypatch.setattr(checks, "_SPARE", 0)
    store = Store(tmp_path)
    saved(store)
    notes = store._notes._path
    assert notes is not None
    stranger, forgotten = notes.with_name("stranger"), notes.with_name("0" * 32)
    for other in (stranger, forgotten):
        other.touch()
        os.utime(other, (0, 0))
    lines = notes.read_text()
    notes.write_text("dense/b torn\ndense/c\n" + "dense/d 0\n" * 9 + lines + lines.rstrip()[:-2])
    assert Store(tmp_path).has("dense", KEY)
    assert reads == ["shard-00000.safetensors"]
    assert len(notes.read_text().splitlines()) == 4
    assert not forgotten.exists()
    assert stranger.exists()
    notes.write_bytes(b"\xff\xfe")
    assert Store(tmp_path).has("dense", KEY)
    assert len(reads) == 2


def test_verify_reads_every_byte_and_removes_nothing_unless_told_to(tmp_path, capsys, reads):
    store = Store(tmp_path)
    folder = saved(store).folder
    saved(store, key="b" * 64)
    assert cli.main(["verify", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path}: 2 artifacts read, 0 damaged\n"
    assert len(reads) == 2
    shard = folder / "shard-00000.safetensors"
    times = shard.stat()
    flipped(shard)
    os.utime(shard, ns=(times.st_atime_ns, times.st_mtime_ns))  # a disk that forgets tells no time
    assert Store(tmp_path).has("dense", KEY)
    assert verify.main([str(tmp_path)]) == 1
    said = f"dense/{KEY}: shard-00000.safetensors does not match its checksum\n{tmp_path}: 2 artifacts read, 1 damaged"
    assert capsys.readouterr().out == f"{said}\n"
    assert folder.exists()
    with pytest.warns(RuntimeWarning, match="does not match its checksum"):  # by now this machine knows
        assert not Store(tmp_path, readonly=True).has("dense", KEY)
    assert verify.main([str(tmp_path), "--remove"]) == 1
    assert capsys.readouterr().out == f"{said} and removed\n"
    assert not folder.exists()
    assert verify.main([str(tmp_path)]) == 0
    assert verify.main([str(tmp_path / "none")]) == 2
    assert "expected a store at" in capsys.readouterr().err


def test_verify_reads_what_is_at_a_url(service, host, capsys):
    store = host("one")
    saved(store, 1.0)
    saved(store, 2.0, key="b" * 64)
    assert verify.main([URL]) == 0
    content = (store.load("dense", KEY).folder / "shard-00000.safetensors").read_bytes()
    checksum = store.load("dense", KEY).manifest["files"]["shard-00000.safetensors"]
    damaged(service, f"{checksum}.safetensors", content[:-1] + b"\1")
    assert host("two").has("dense", KEY)
    capsys.readouterr()
    assert verify.main([URL]) == 1
    assert f"dense/{KEY}: shard-00000.safetensors does not match its checksum" in capsys.readouterr().out
    assert verify.main([URL, "--remove"]) == 1
    assert f"{URL}: 2 artifacts read, 1 damaged and removed" in capsys.readouterr().out
    host("three")
    assert verify.main([URL]) == 0


def test_shards_that_a_killed_run_has_left_are_named_once_they_are_old(service, host, capsys):
    store = host("one")
    saved(store)
    store.place.remove(f"artifacts/dense/{KEY}/manifest.json")
    assert verify.main([URL]) == 0  # somebody may be writing it
    for name, left in service.objects().items():
        if name.startswith("artifacts"):
            left.last_modified = left.last_modified.replace(year=2020)
    capsys.readouterr()
    assert verify.main([URL, "--remove"]) == 1
    assert f"dense/{KEY}: its manifest was never written" in capsys.readouterr().out
    assert not [name for name in service.objects() if name.startswith("artifacts")]


def test_who_has_no_home_has_no_notes_and_reads_again(tmp_path, reads, monkeypatch):
    def nobody(text):
        raise ConfigError("nobody")

    monkeypatch.setattr(checks, "home", nobody)
    saved(Store(tmp_path))
    assert Store(tmp_path).has("dense", KEY)
    assert reads == ["shard-00000.safetensors"]


def test_where_notes_cannot_be_written_that_is_no_error(tmp_path, reads, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv(checks.CACHE, str(tmp_path / "file"))
    saved(Store(tmp_path))
    assert Store(tmp_path).has("dense", KEY)
    assert reads == ["shard-00000.safetensors"]


def test_a_cache_that_cannot_be_written_is_named(service, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv(checks.CACHE, str(tmp_path / "file"))
    with pytest.raises(StoreError, match=f"; it is the cache of {URL}, which SHAREDLABEL_CACHE moves elsewhere"):
        opened(URL)


def test_a_single_shard_is_mapped_from_the_cache(service, host):
    host("one").save("dense", KEY, Output({"x": torch.arange(4)}), {}, 0.0)
    artifact = host("two").load("dense", KEY)
    assert artifact.tensors()["x"].tolist() == [0, 1, 2, 3]
    assert artifact.folder.is_dir()
