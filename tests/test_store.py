"""The store: whole or absent, checked, never stale."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch

from sharedlabel.config import Experiment, digest
from sharedlabel.errors import StoreError
from sharedlabel.store import Output, Store, artifact_key

KEY = artifact_key("dense", 1, {"seed": 0}, {}, {})


def save(store: Store, value: float = 1.0, key: str = KEY):
    return store.save(
        "dense", key, Output({"w": torch.full((3,), value)}, {"loss": 0.5}), {"version": 1}, time.perf_counter()
    )


def test_what_is_saved_is_loaded(tmp_path):
    store = Store(tmp_path)
    assert not store.has("dense", KEY)
    save(store)
    artifact = Store(tmp_path).load("dense", KEY)
    assert artifact.meta == {"loss": 0.5}
    assert torch.equal(artifact.tensors()["w"], torch.ones(3))
    assert artifact.manifest["version"] == 1
    assert artifact.manifest["seconds"] >= 0


def test_shards_are_written_one_at_a_time_and_read_as_one(tmp_path):
    written = []

    def shards():
        for index in range(3):
            written.append(sorted(path.name for path in (tmp_path / "partial").rglob("*.safetensors")))
            yield {"x": torch.full((2, 4), float(index))}

    artifact = Store(tmp_path).save("features", KEY, Output(shards()), {}, time.perf_counter())
    assert [len(names) for names in written] == [0, 1, 2]
    assert torch.equal(artifact.tensors()["x"][:, 0], torch.tensor([0.0, 0.0, 1.0, 1.0, 2.0, 2.0]))


def test_a_stage_that_fails_leaves_nothing(tmp_path):
    def shards():
        yield {"x": torch.zeros(1)}
        raise RuntimeError("interrupted")

    store = Store(tmp_path)
    with pytest.raises(RuntimeError, match="interrupted"):
        store.save("features", KEY, Output(shards()), {}, time.perf_counter())
    assert not store.has("features", KEY)
    assert list((tmp_path / "partial").iterdir()) == []


def test_two_shards_are_joined_and_one_is_mapped(tmp_path):
    store, shard = Store(tmp_path), {"x": torch.ones(2, 4)}
    two = store.save("features", "a" * 64, Output([shard, shard]), {}, time.perf_counter())
    one = store.save("features", "b" * 64, Output([shard]), {}, time.perf_counter())
    assert (two.tensors()["x"].shape, one.tensors()["x"].shape) == ((4, 4), (2, 4))
    assert two.manifest["files"].keys() == {"shard-00000.safetensors", "shard-00001.safetensors"}


def test_a_manifest_says_what_was_stored_when_and_how_long_it_took(tmp_path):
    before = datetime.now(UTC).replace(microsecond=0)
    root = tmp_path / "new" / "store"
    output, started = Output({"x": torch.ones(1)}), time.perf_counter() - 1.23456
    artifact = Store(root).save("dense", "c" * 64, output, {"device": "cpu"}, started)
    facts = artifact.manifest
    assert (facts["format"], facts["key"], facts["stage"], facts["device"]) == (1, "c" * 64, "dense", "cpu")
    assert before <= datetime.fromisoformat(facts["created"]) <= datetime.now(UTC)
    assert facts["created"].endswith("+00:00")
    assert facts["seconds"] == round(facts["seconds"], 3)
    assert 1.234 < facts["seconds"] < 60
    assert artifact.folder == root / "artifacts" / "dense" / ("c" * 64)
    assert (artifact.folder / "manifest.json").read_text().startswith('{\n "sha256": "')
    assert sorted(path.name for path in root.iterdir()) == ["artifacts", "partial", "store.json"]


def test_an_artifact_is_found_by_the_first_digits_of_its_key(tmp_path):
    store = Store(tmp_path)
    for stage, key in (("dense", "ab" * 32), ("prune", "ac" * 32)):
        store.save(stage, key, Output({"x": torch.ones(1)}), {}, time.perf_counter())
    artifact = store.find("ac")
    assert (artifact.key, artifact.manifest["stage"]) == ("ac" * 32, "prune")
    for digits, count in (("a", 2), ("b", 0), ("*", 0), ("ac/..", 0), ("", 0)):
        message = f"expected one artifact whose key begins with {digits!r} in {tmp_path}, got {count}; run the grid"
        with pytest.raises(StoreError, match=re.escape(message)):
            store.find(digits)


def test_the_manifests_of_a_stage_come_in_the_order_of_their_keys(tmp_path):
    store = Store(tmp_path)
    assert store.manifests("dense") == []
    for key in ("b" * 64, "a" * 64, "c" * 64):
        store.save("dense", key, Output({"x": torch.ones(1)}), {}, time.perf_counter())
    store.save("prune", "d" * 64, Output({"x": torch.ones(1)}), {}, time.perf_counter())
    (tmp_path / "artifacts" / "dense" / ("b" * 64) / "manifest.json").unlink()
    with pytest.warns(RuntimeWarning, match=r"dense/bbbbbbbbbbbb is damaged \(FileNotFoundError: "):
        manifests = Store(tmp_path).manifests("dense")
    assert [manifest["key"] for manifest in manifests] == ["a" * 64, "c" * 64]


def test_what_cannot_be_written_is_said_in_a_sentence(tmp_path):
    store = Store(tmp_path)
    (tmp_path / "partial").rmdir()
    message = f"could not write artifact dense/cccccccccccc to {tmp_path}: {os.strerror(errno.ENOENT)}; nothing is lost"
    with pytest.raises(StoreError, match=message):
        store.save("dense", "c" * 64, Output({"x": torch.ones(1)}), {}, time.perf_counter())


@pytest.mark.parametrize("damage", ["truncate", "flip", "manifest", "edit", "missing"])
def test_a_damaged_artifact_is_dropped_with_a_warning(tmp_path, damage):
    folder = save(Store(tmp_path)).folder
    shard, manifest = folder / "shard-00000.safetensors", folder / "manifest.json"
    if damage == "truncate":
        shard.write_bytes(shard.read_bytes()[:-2])
    elif damage == "flip":
        content = bytearray(shard.read_bytes())
        content[-1] ^= 1
        shard.write_bytes(bytes(content))
    elif damage == "manifest":
        manifest.write_text(manifest.read_text()[:40])
    elif damage == "edit":
        manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"meta": {"loss": 0.0}}))
    else:
        shard.unlink()
    store = Store(tmp_path)
    with pytest.warns(RuntimeWarning, match=f"dense/{KEY[:12]} is damaged .* computed again"):
        assert not store.has("dense", KEY)
    save(store, 2.0)
    assert torch.equal(store.load("dense", KEY).tensors()["w"], torch.full((3,), 2.0))


def altered(folder: Path, **stated) -> None:
    """Let a manifest state something else, with a checksum that fits."""
    manifest = json.loads((folder / "manifest.json").read_text()) | stated
    del manifest["sha256"]
    (folder / "manifest.json").write_text(json.dumps({"sha256": digest(manifest), **manifest}))


OTHER = artifact_key("dense", 1, {"seed": 1}, {}, {})


@pytest.mark.parametrize(
    ("stage", "key", "stated", "said"),
    [
        ("dense", OTHER, {}, f"dense/{KEY[:12]}, format 1,"),
        ("prune", KEY, {}, f"dense/{KEY[:12]}, format 1,"),
        ("dense", KEY, {"format": 2}, f"dense/{KEY[:12]}, format 2,"),
    ],
)
def test_an_artifact_that_is_not_what_its_place_says_is_dropped_with_a_warning(tmp_path, stage, key, stated, said):
    """Every checksum fits, but it is another result: read, it would pass for that of its place."""
    store = Store(tmp_path)
    folder = save(store).folder
    assert store.has("dense", KEY)
    altered(folder, **stated)
    if folder != store._folder(stage, key):
        shutil.copytree(folder, store._folder(stage, key))
    if not stated:  # the one that it is a copy of is fine, which says nothing of the copy
        assert store.has("dense", KEY)
    again = Store(tmp_path) if stated else store
    with pytest.warns(RuntimeWarning, match=f"{stage}/{key[:12]} is damaged .*that of {said} .* computed again"):
        assert not again.has(stage, key)
    assert not again._folder(stage, key).exists()


def test_the_first_of_two_writers_wins_and_the_second_goes_on(tmp_path):
    first, second = Store(tmp_path), Store(tmp_path)
    save(first, 1.0)
    assert torch.equal(save(second, 1.0).tensors()["w"], torch.ones(3))


def test_a_newer_store_is_refused(tmp_path):
    Store(tmp_path)
    (tmp_path / "store.json").write_text('{"format": 99}')
    with pytest.raises(StoreError, match="has store format 99, this version reads up to 1; upgrade"):
        Store(tmp_path)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="file"):
        Store(tmp_path / "file" / "store")


def test_what_is_opened_to_read_is_only_read(tmp_path):
    with pytest.raises(StoreError, match=r"no artifact dense/[0-9a-f]{12} in .*; run the grid to compute it"):
        Store(tmp_path / "none", readonly=True).load("dense", KEY)
    (tmp_path / "store.json").write_text("[]")
    for readonly, said in ((True, "can be read at"), (False, "can be read and written at")):
        with pytest.raises(StoreError, match=rf"a store that {said} .*, got: store.json that does not state a "):
            Store(tmp_path, readonly)
    (tmp_path / "store.json").unlink()
    save(Store(tmp_path))
    with pytest.raises(StoreError, match=rf"a store to write artifact dense/{KEY[:12]} to, got .* to read only"):
        save(Store(tmp_path, readonly=True))
    next((tmp_path / "artifacts" / "dense").rglob("*.safetensors")).write_bytes(b"")
    with pytest.warns(RuntimeWarning, match="is damaged .*; the next run computes it again"):
        assert not Store(tmp_path, readonly=True).has("dense", KEY)


def test_states_of_trainings_lie_apart_until_nobody_has_touched_them_for_a_month(tmp_path):
    unfinished = Store(tmp_path).unfinished("dense", KEY)
    written = []
    unfinished.write(1, lambda path: written.append(path) or path.write_text("state"))
    assert unfinished.path(1) == tmp_path / "unfinished" / "dense" / KEY / "00001.ckpt"
    assert tmp_path / "partial" in written[0].parents
    Store(tmp_path)
    assert unfinished.path(1).read_text() == "state"
    old = time.time() - 32 * 24 * 3600
    os.utime(unfinished.path(1).parent, (old, old))
    Store(tmp_path, readonly=True)
    assert unfinished.path(1).is_file()
    Store(tmp_path)
    assert not unfinished.path(1).exists()


def test_a_full_disk_is_a_clear_error_and_nothing_stays(tmp_path):
    # A limit on file size makes the operating system refuse the write for real, as a full disk does.
    script = """
import resource, signal, sys, time, torch
from pathlib import Path
from sharedlabel.errors import StoreError
from sharedlabel.store import Output, Store
store = Store(Path(sys.argv[1]))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    store.save("dense", "0" * 64, Output({"w": torch.zeros(10_000)}), {}, time.perf_counter())
except StoreError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    assert f"could not write artifact dense/000000000000 to {tmp_path}: {os.strerror(errno.EFBIG)}" in done.stdout
    assert "free some space" in done.stdout
    assert list((tmp_path / "partial").iterdir()) == []
    assert not Store(tmp_path).has("dense", "0" * 64)


def test_keys_depend_on_stage_version_config_inputs_and_code():
    keys = {
        artifact_key("dense", 1, {"seed": 0}, {}, {}),
        artifact_key("prune", 1, {"seed": 0}, {}, {}),
        artifact_key("dense", 2, {"seed": 0}, {}, {}),
        artifact_key("dense", 1, {"seed": 1}, {}, {}),
        artifact_key("dense", 1, {"seed": 0}, {"data": "a"}, {}),
        artifact_key("dense", 1, {"seed": 0}, {"data": "b"}, {}),
        artifact_key("dense", 1, {"seed": 0}, {}, {"stage": "a"}),
        artifact_key("dense", 1, {"seed": 0}, {}, {"stage": "b"}),
        artifact_key("dense", 1, Experiment(), {}, {}),
    }
    assert len(keys) == 9


def test_keys_stay_what_they_are():
    """Another key for the same call would leave every store behind."""
    given = {"config": {"seed": 0}, "inputs": {"data": "a"}, "code": {"stage": "b"}}
    assert artifact_key("dense", 1, *given.values()) == digest({"stage": "dense", "version": 1, **given})


def test_seconds_are_those_since_the_start_in_milliseconds(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "perf_counter", lambda: 10.0)
    artifact = Store(tmp_path).save("dense", KEY, Output({"x": torch.ones(1)}), {}, 10.0 - 1.23456)
    assert artifact.manifest["seconds"] == 1.235


def test_an_absent_artifact_is_named(tmp_path: Path):
    with pytest.raises(StoreError, match=f"no artifact dense/{KEY[:12]}"):
        Store(tmp_path).load("dense", KEY)
