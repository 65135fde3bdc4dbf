"""The sandbox itself: where it may stand, what happens when it does not start, and when its user stops it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sharedlabel import plugins
from sharedlabel.errors import ConfigError
from sharedlabel.leaderboard.board import commands
from sharedlabel.leaderboard.folder import Board
from sharedlabel.leaderboard.sandbox import examination, limits, run, usage
from sharedlabel.leaderboard.submission import reading, scaffold
from tests.leaderboard.conftest import KIND, listed, make_board, needs_sandbox, submit

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("prefix", ["prefix", "base_prefix"])
def test_a_board_below_what_is_shown_is_refused(tmp_path, monkeypatch, prefix):
    """An environment made at the root of a checkout shows all of it, the answers too."""
    board = make_board(tmp_path / "checkout" / "leaderboard")
    scaffold.new(board, "mine")
    monkeypatch.setattr(sys, prefix, str(tmp_path / "checkout"))
    with pytest.raises(ConfigError, match="expected the leaderboard outside of"):
        commands.check(reading.named(board.root, "mine"), board, "bwrap")


def broken(folder: Path) -> str:
    """Make a bwrap that passes the probe and then fails as it does where networks cannot be unshared."""
    folder.mkdir()
    program = folder / "bwrap"
    program.write_text("""#!/bin/sh
case "$*" in *--ro-bind\\ /\\ /*) exit 0;; esac
echo "bwrap: loopback: Failed RTM_NEWADDR: Operation not permitted" >&2
exit 1
""")
    program.chmod(0o755)
    return str(folder)


def test_a_sandbox_that_does_not_start_disputes_nothing(board, tmp_path, monkeypatch):
    submit(board, "mine", 1.0)
    listed(board, "mine", "self-reported")
    monkeypatch.setenv("PATH", broken(tmp_path / "bin") + os.pathsep + os.environ["PATH"])
    protocol = board.protocol("toy-v1")
    with pytest.raises(ConfigError, match=r"expected bwrap to start a process, got: .*RTM_NEWADDR"):
        commands.verify(board, protocol, "mine", "bwrap", 1, print)
    assert [event.status for event in commands.entry(board, protocol, "mine").history()] == ["self-reported"]


@needs_sandbox
def test_findings_that_are_none_are_refused(written, board):
    code = """
import os, sys
for descriptor in range(3, 20):
    try:
        os.write(descriptor, (2).to_bytes(8, "little") + b"[]")
    except OSError:
        pass
os._exit(0)
"""
    with pytest.raises(limits.SandboxError, match="expected Findings, got something else"):
        examination.examine(written(top=code), [(board.protocol("toy-v1"), 6)], KIND)


@needs_sandbox
def test_an_interrupt_ends_everything_at_once(tmp_path):
    board = make_board(tmp_path / "leaderboard")
    folder = scaffold.new(board, "sleeper")
    source = folder / "aggregator.py"
    source.write_text(source.read_text().replace("super().__init__()", "super().__init__()\n        sleep()", 1))
    source.write_text(source.read_text() + "\n\ndef sleep():\n    while True:\n        pass\n")
    command = [sys.executable, "-m", "sharedlabel.leaderboard", "--root", str(board.root), "check", "sleeper"]
    started = subprocess.Popen([*command, "--sandbox", KIND], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while (
        not (inside := children(started.pid, "sharedlabel.leaderboard.sandbox.child")) and time.monotonic() < deadline
    ):
        time.sleep(0.05)
    assert inside
    started.send_signal(signal.SIGINT)
    _, error = started.communicate(timeout=60)
    assert started.returncode == 2
    assert "stopped: what was under way is lost" in error
    while any(Path(f"/proc/{pid}").exists() for pid in inside) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in inside if Path(f"/proc/{pid}").exists()]


def children(pid: int, program: str) -> list[int]:
    """List the processes below one that run a program; before it there is a short one that looks for a sandbox."""
    below = [one for one in usage.descendants(pid) if one != pid]
    return [one for one in below if program in usage._text(Path(f"/proc/{one}/cmdline"))]


@needs_sandbox
def test_every_aggregator_of_the_package_can_be_imported_inside(written, board):
    imports = "\n".join(f"import sharedlabel.aggregators.{name}" for name in plugins.available("aggregators"))
    findings = examination.examine(written(top=imports), [(board.protocol("toy-v1"), 6)], KIND)
    assert findings.problems == ()


@needs_sandbox
@pytest.mark.skipif(KIND != "bwrap", reason="containers bring their own libraries")
def test_other_libraries_are_not_there(written, board):
    """Some bring data sets with their labels."""
    import sklearn  # it is installed

    assert sklearn.__version__
    search = """
import importlib.util
for name in ("sklearn", "torchvision", "matplotlib", "wandb"):
    if importlib.util.find_spec(name):
        raise RuntimeError("FOUND " + name)
"""
    answered = run.run(written(start=search), board.protocol("toy-v1"), board, KIND, 1, lambda line: None)
    assert set(answered.tensors) == {"dense.0.validation", "dense.0.test"}


def test_a_board_without_protocols_has_no_names(tmp_path):
    assert Board(tmp_path).ids() == ()


def test_what_a_trusted_submission_leaves_where_it_runs_goes_with_it(written, board, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    leaves = 'open("left", "w").close()'
    assert examination.examine(written(top=leaves), [(board.protocol("toy-v1"), 6)], "trusted").problems == ()
    assert os.listdir(tmp_path) == ["leaderboard"]
