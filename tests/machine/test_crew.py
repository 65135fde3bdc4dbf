"""Processes that share work give the results of one, in order."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

import pytest

from sharedlabel.machine import crew, forks


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask for processes however short the work is, and wait for them."""
    monkeypatch.setattr(crew, "ALONE", 0.0)
    monkeypatch.setattr(crew, "WORTH", 0.0)
    monkeypatch.setattr(crew, "PATIENCE", 60.0)
    monkeypatch.setattr(crew, "PIECE", 0.0)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """Functions that other processes can import."""
    (tmp_path / "tried.py").write_text(
        "import os\n"
        "def where(number):\n    return number, os.getpid()\n"
        "def leave(path):\n    path.write_text(str(os.getpid()))\n"
        "def fragile(number):\n"
        "    if number == 7 and os.getpid() != int(os.environ['PARENT']):\n        os._exit(1)\n"
        "    return number, os.getpid()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PARENT", str(os.getpid()))
    import tried

    yield tried
    del sys.modules["tried"]


def test_results_come_in_order_from_several_processes(module: object) -> None:
    results = list(crew.ordered(module.where, range(200), 2))  # type: ignore[attr-defined]
    assert [number for number, _ in results] == list(range(200))
    processes = {process for _, process in results}
    assert os.getpid() in processes
    assert len(processes) >= 2


def test_an_error_comes_at_its_place() -> None:
    results = crew.ordered(int, [*map(str, range(50)), "x", "y"], 2)
    assert [next(results) for _ in range(50)] == list(range(50))
    with pytest.raises(ValueError, match="'x'"):
        next(results)


def test_who_takes_no_more_ends_the_processes(module: object) -> None:
    results = crew.ordered(module.where, range(100_000), 2)  # type: ignore[attr-defined]
    others = {process for _, (_, process) in zip(range(20), results, strict=False)} - {os.getpid()}
    results.close()
    assert others
    assert not any(_runs(process) for process in others)


def test_what_a_dead_process_had_is_done_here(module: object) -> None:
    results = list(crew.ordered(module.fragile, range(100), 2))  # type: ignore[attr-defined]
    assert [number for number, _ in results] == list(range(100))
    assert results[7][1] == os.getpid()
    everyone = list(crew.ordered(module.fragile, [0, *[7] * 20], 2))  # type: ignore[attr-defined]
    assert everyone[1:] == [(7, os.getpid())] * 20


def _runs(process: int) -> bool:
    """Tell whether a process has not ended, after waiting for that."""
    for _ in range(1000):
        try:
            if Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return False
        except FileNotFoundError:
            return False
        os.sched_yield()
        import time

        time.sleep(0.01)
    return True


def test_what_a_process_beside_this_one_leaves_is_there_when_it_is_waited_for(module: object, tmp_path: Path) -> None:
    process = forks.Forks("sharedlabel.machine.crew:do", 0)
    with contextlib.closing(process):
        left = tmp_path / "left"
        ahead = crew.Ahead(process, module.leave, left)  # type: ignore[attr-defined]
        ahead.wait()
        assert left.read_text() != str(os.getpid())
        failing = crew.Ahead(process, int, "x")
        failing.wait()  # who misses what it should have left does it again, and sees the error
        dying = crew.Ahead(process, module.fragile, 7)  # type: ignore[attr-defined]
        dying.wait()
