"""Who lives is told by a lock or a lease, never by a name: containers have host names and process ids alike."""

import errno
import fcntl
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from sharedlabel.errors import StoreError
from sharedlabel.files import leases
from sharedlabel.store import Output, Store

KEY = "a" * 64
# A process in the middle of its work: it says so, and ends when its input does, well if its folder is still there.
WRITER = """
import sys
from pathlib import Path
from sharedlabel.files import leases

place = Path(sys.argv[1]) / "partial"
leases.sweep(place)
with leases.claimed(place) as folder:
    (folder / "shard").touch()
    print(folder.name, flush=True)
    sys.stdin.read()
    (folder / "shard").unlink()
"""
# The same process id and host name for every process, as in containers.
FIRST_OF_ITS_KIND = ("unshare", "--pid", "--fork", "--kill-child", "--uts")


@contextmanager
def writing(root: Path, *within: str) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A process at work and its folder; killed at the end, should it still be there."""
    (root / "partial").mkdir(exist_ok=True)
    process = subprocess.Popen(
        [*within, sys.executable, "-c", WRITER, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        with process:
            assert process.stdout is not None
            yield process, root / "partial" / process.stdout.readline().strip()
            process.kill()
    finally:
        process.kill()


def ended(process: subprocess.Popen[str]) -> int:
    assert process.stdin is not None
    process.stdin.close()
    return process.wait()


def partial(root: Path) -> list[Path]:
    return sorted((root / "partial").iterdir())


def aged(path: Path) -> None:
    """Let a file or folder look untouched for longer than a lease."""
    before = time.time() - leases.LEASE - 60
    os.utime(path, (before, before))


def test_a_folder_goes_with_the_process_that_was_killed_and_stays_with_one_that_lives(tmp_path):
    with writing(tmp_path) as (killed, _), writing(tmp_path) as (living, kept):
        assert len(partial(tmp_path)) == 2
        killed.kill()
        killed.wait()
        Store(tmp_path)
        assert partial(tmp_path) == [kept]
        assert ended(living) == 0
    assert partial(tmp_path) == []


@pytest.mark.skipif(
    subprocess.run([*FIRST_OF_ITS_KIND, "true"], check=False, capture_output=True).returncode != 0,
    reason="this user may not make namespaces of process ids",
)
def test_two_containers_with_the_same_host_name_and_process_id_leave_each_other_alone(tmp_path):
    with writing(tmp_path, *FIRST_OF_ITS_KIND) as (first, kept):
        with writing(tmp_path, *FIRST_OF_ITS_KIND) as (second, _):
            assert len(partial(tmp_path)) == 2
            assert ended(second) == 0
        assert partial(tmp_path) == [kept]
        first.kill()
        first.wait()
    with writing(tmp_path, *FIRST_OF_ITS_KIND) as (again, folder):  # of the same name as the one that was killed
        assert partial(tmp_path) == [folder]
        assert ended(again) == 0
    assert partial(tmp_path) == []


def test_two_may_write_the_same_artifact_at_once(tmp_path):
    first, second = Store(tmp_path), Store(tmp_path)

    def shards():
        yield {"x": torch.zeros(1)}
        second.save("dense", KEY, Output([{"x": torch.zeros(1)}, {"x": torch.ones(1)}]), {}, time.perf_counter())
        yield {"x": torch.ones(1)}

    artifact = first.save("dense", KEY, Output(shards()), {}, time.perf_counter())
    assert artifact.tensors()["x"].tolist() == [0.0, 1.0]
    assert partial(tmp_path) == []


@contextmanager
def elsewhere(monkeypatch) -> Iterator[None]:
    """Another machine: another kernel, whose locks are not seen here."""
    with monkeypatch.context() as other:
        other.setattr(leases, "machine", lambda: "another kernel")
        yield


def test_a_folder_of_another_machine_stays_until_its_lease_is_over(tmp_path, monkeypatch):
    Store(tmp_path)
    with elsewhere(monkeypatch), leases.claimed(tmp_path / "partial") as folder:
        kept = shutil.copytree(folder, tmp_path / "partial" / ("0" * 32))  # as its lock would look from here
    Store(tmp_path)
    assert partial(tmp_path) == [kept]
    aged(kept / leases.LOCK)
    Store(tmp_path)
    assert partial(tmp_path) == []


def test_where_a_kernel_has_no_name_or_a_file_system_no_locks_the_lease_counts(tmp_path, monkeypatch):
    def unsupported(file, kind):
        raise OSError(errno.ENOLCK, "No locks available")

    Store(tmp_path)
    for name, value in ((leases, ("machine", lambda: "")), (fcntl, ("flock", unsupported))):
        with monkeypatch.context() as here:
            here.setattr(name, *value)
            with leases.claimed(tmp_path / "partial") as folder:
                kept = shutil.copytree(folder, tmp_path / "partial" / ("0" * 32))
                Store(tmp_path)
                assert partial(tmp_path) == sorted([folder, kept])
            aged(kept / leases.LOCK)
            Store(tmp_path)
            assert partial(tmp_path) == []


def test_who_works_gives_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(leases, "HEARTBEAT", 0.01)
    with leases.claimed(tmp_path) as folder:
        aged(folder / leases.LOCK)
        waited = time.monotonic() + 30
        while leases.expired(folder / leases.LOCK):
            assert time.monotonic() < waited, "no sign of life in 30 s"
            time.sleep(0.01)


def test_the_clock_is_that_of_the_file_system(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 0.0)
    with leases.claimed(tmp_path) as folder:
        assert not leases.expired(folder / leases.LOCK)
        aged_before = os.stat(folder / leases.LOCK).st_mtime - leases.LEASE - 1
        os.utime(folder / leases.LOCK, (aged_before, aged_before))
        assert leases.expired(folder / leases.LOCK)


def test_a_folder_that_is_just_made_is_not_taken_away_before_it_is_locked(tmp_path):
    bare = tmp_path / ("1" * 32)
    bare.mkdir()
    leases.sweep(tmp_path)
    assert bare.exists()
    aged(bare)
    leases.sweep(tmp_path)
    assert not bare.exists()


def test_leftovers_of_older_versions_go_when_their_lease_is_over_and_files_of_others_never(tmp_path):
    Store(tmp_path)
    names = (f"{KEY}@some-host@1", f"{KEY}@@77", "notes", "notes@home", f"{leases.MARK}{'2' * 32}")
    for name in names:
        (tmp_path / "partial" / name).mkdir()
    Store(tmp_path)
    assert len(partial(tmp_path)) == len(names)
    for name in names:
        aged(tmp_path / "partial" / name)
    Store(tmp_path)
    assert {path.name for path in partial(tmp_path)} == set(names[2:])


def test_who_removes_loses_nothing_to_another_who_does_so_at_the_same_time(tmp_path):
    for number in range(40):
        left = tmp_path / f"{number:032x}"
        left.mkdir()
        (left / leases.LOCK).write_text(leases.machine())
        (left / "shard").write_bytes(b"0" * 1000)
    context = multiprocessing.get_context("fork")
    removers = [context.Process(target=leases.sweep, args=(tmp_path,)) for _ in range(4)]
    for remover in removers:
        remover.start()
    for remover in removers:
        remover.join()
    assert [remover.exitcode for remover in removers] == [0] * 4
    assert list(tmp_path.iterdir()) == []


def test_an_owner_that_comes_late_finds_its_folder_gone_not_half_there(tmp_path, monkeypatch):
    """A machine that slept for longer than a lease: the others went on without it."""
    with elsewhere(monkeypatch):
        store = Store(tmp_path)

    def shards():
        yield {"x": torch.zeros(1)}
        (folder,) = partial(tmp_path)
        aged(folder / leases.LOCK)
        with monkeypatch.context() as unseen:
            unseen.setattr(fcntl, "flock", lambda file, kind: None)
            Store(tmp_path)
        assert partial(tmp_path) == []
        yield {"x": torch.ones(1)}

    with elsewhere(monkeypatch), pytest.raises(StoreError, match="could not write artifact dense/aaaaaaaaaaaa"):
        store.save("dense", KEY, Output(shards()), {}, time.perf_counter())
    assert not store.has("dense", KEY)


def test_a_worker_that_was_forked_does_not_keep_the_lock_of_its_parent_nor_lose_it(tmp_path):
    script = """
import os, sys, time
from pathlib import Path
from sharedlabel.files import leases
with leases.claimed(Path(sys.argv[1])):
    told, tell = os.pipe()
    child = os.fork()
    if not child:
        os.write(tell, b"x")
        time.sleep(60)
        os._exit(0)
    os.read(told, 1)
    print(child, flush=True)
    time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    try:
        leases.sweep(tmp_path)
        assert len(list(tmp_path.iterdir())) == 1
        process.kill()
        process.wait()
        os.kill(child, 0)  # lives on
        leases.sweep(tmp_path)
        assert list(tmp_path.iterdir()) == []
    finally:
        process.kill()
        os.kill(child, signal.SIGKILL)
        process.stdout.close()


class WaitError(Exception):
    """Raised in place of a wait."""


def waits():
    raise WaitError


def test_one_measures_alone_on_a_machine_whatever_its_containers_are_called(tmp_path, monkeypatch):
    ours, theirs = Store(tmp_path), Store(tmp_path)
    with ours.at_work(False, waits):
        monkeypatch.setattr("socket.gethostname", lambda: "another container")
        with pytest.raises(WaitError), theirs.at_work(True, waits):
            pass
        with elsewhere(monkeypatch), theirs.at_work(True, waits):  # another machine is none of our business
            pass


def test_lock_files_of_machines_that_are_gone_are_removed_and_those_in_use_are_not(tmp_path, monkeypatch):
    store = Store(tmp_path)
    with elsewhere(monkeypatch), store.at_work(False, waits):
        (left,) = tmp_path.glob("at-work@*")
        aged(left)
        with monkeypatch.context() as here:
            here.setattr(leases, "machine", lambda: "ours")
            Store(tmp_path)
        assert left.exists()
        aged(left)
    with store.at_work(False, waits):
        Store(tmp_path)
        (own,) = tmp_path.glob("at-work@*")
        assert own != left
        aged(own)
        Store(tmp_path)
        assert own.exists()


def test_a_lock_file_that_was_removed_before_it_was_locked_is_opened_again(tmp_path, monkeypatch):
    store, lock, removed = Store(tmp_path), fcntl.flock, []

    def late(file, kind):
        if not removed:
            removed.append(next(tmp_path.glob("at-work@*")))
            removed[0].unlink()
        lock(file, kind)

    with monkeypatch.context() as slow:
        slow.setattr(fcntl, "flock", late)
        with store.at_work(True, waits):
            slow.undo()
            with pytest.raises(WaitError), Store(tmp_path).at_work(False, waits):
                pass
    assert removed
