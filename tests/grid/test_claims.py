"""A piece of work is claimed by one owner that lives, and by the next when that one is gone."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sharedlabel.files import claims, leases
from sharedlabel.files.claims import Claims

HOLDING = """
import sys, time
from pathlib import Path
from sharedlabel.files.claims import Claims
ours = Claims(Path(sys.argv[1]))
with ours.owned():
    print(ours.take("work"), flush=True)
    time.sleep(60)
"""


@pytest.fixture
def owner(tmp_path):
    """A process that has claimed `work`."""
    process = subprocess.Popen([sys.executable, "-c", HOLDING, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "True\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def names(folder: Path) -> set[str]:
    return {path.name for path in (folder / "claims").iterdir()}


def test_one_has_it_until_it_is_given_up(tmp_path):
    ours, theirs = Claims(tmp_path), Claims(tmp_path)
    with ours.owned(), theirs.owned():
        assert ours.is_free("work")
        assert ours.take("work")
        assert not theirs.take("work")
        assert not ours.take("work")
        assert not theirs.is_free("work")
        assert theirs.take("other")
        ours.give_up("work")
        assert theirs.is_free("work")
        assert theirs.take("work")
    assert names(tmp_path) == set()
    assert list((tmp_path / "owners").iterdir()) == []


def test_an_owner_that_was_killed_is_followed_by_one_and_no_other(tmp_path, owner):
    ours, theirs = Claims(tmp_path), Claims(tmp_path)
    with ours.owned(), theirs.owned():
        assert not ours.take("work")
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        assert ours.is_free("work")
        assert ours.take("work")
        assert not theirs.take("work")
        assert names(tmp_path) == {"work.0", "work.1"}
        ours.give_up("work")
        assert names(tmp_path) == set()
        assert theirs.take("work")


def test_an_owner_on_another_machine_is_gone_when_it_has_not_been_heard_of(tmp_path, owner, monkeypatch):
    ours = Claims(tmp_path)
    with ours.owned():
        monkeypatch.setattr(leases, "machine", lambda: "another machine")
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        assert not ours.take("work")  # it may live where we do not see it
        (folder,) = (path for path in (tmp_path / "owners").iterdir() if path.name != ours._owner)
        age = folder.stat().st_mtime - claims.LEASE - 1
        os.utime(folder / leases.LOCK, (age, age))
        assert ours.take("work")


def test_a_claim_that_does_not_say_whose_it_is_counts_for_a_lease(tmp_path):
    ours = Claims(tmp_path)
    with ours.owned():
        path = tmp_path / "claims" / "work.0"
        path.touch()
        assert not ours.take("work")
        age = path.stat().st_mtime - claims.LEASE - 1
        os.utime(path, (age, age))
        assert ours.take("work")
        assert names(tmp_path) == {"work.0", "work.1"}


def test_a_claim_of_an_owner_whose_folder_is_no_more_is_void(tmp_path):
    ours = Claims(tmp_path)
    with ours.owned():
        (tmp_path / "claims" / "work.0").write_text("0" * 32)
        assert ours.is_free("work")
        assert ours.take("work")


@pytest.mark.parametrize("looks", ["read", "is_left"])
def test_a_claim_that_another_machine_has_removed_may_be_called_stale(tmp_path, monkeypatch, looks):
    ours, theirs = Claims(tmp_path), Claims(tmp_path)
    with theirs.owned(), ours.owned():
        assert theirs.take("work")

        def stale(*_: object) -> str:
            monkeypatch.undo()
            theirs.give_up("work")
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

        place, name = (Path, "read_text") if looks == "read" else (leases, "is_left")
        monkeypatch.setattr(place, name, stale)
        assert ours.take("work")
        assert names(tmp_path) == {"work.0"}
