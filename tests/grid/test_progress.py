"""What a run says: how far it is, who is at what, how long it will take, for people and for programs."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from sharedlabel import grid, train
from sharedlabel.grid.failures import Failed
from sharedlabel.grid.progress import Json, Lines, View, reporter
from sharedlabel.grid.remaining import Remaining
from sharedlabel.grid.words import described
from sharedlabel.store import Store


@pytest.fixture
def planned(tiny):
    """The tiny grid, and its calls."""
    prepared = grid.prepare(tiny())
    return prepared, grid.missing(prepared, Store(Path(prepared.experiment.output) / "nothing", readonly=True))


def console(terminal: bool) -> Console:
    return Console(file=io.StringIO(), width=120, force_terminal=terminal)


def test_a_line_for_each_call_off_a_terminal(planned, tmp_path):
    prepared, calls = planned
    told = reporter(console(False), prepared, calls, 3, 2, tmp_path)
    assert type(told) is Lines
    with told.showing():
        told(calls[0], None, 1)
        told(calls[0], 1.25, 1)
        told.failed(Failed(calls[1], "it rains", "Traceback"), 0)
        told.lost(calls[2])
        told.elsewhere(calls[3])
        told.waiting("for 2 calls that other runs compute")
        told(calls[4], 1.25, 1)
    assert told.console.file.getvalue() == (
        f"[1/{len(calls)}] dense mlp seed 0: 1.2 s, about 0:{round(1.25 * (len(calls) - 1) / 2):02} left\n"
        "failed: prune mlp none 1x seed 0: it rains\n"
        "waiting for 2 calls that other runs compute\n"
        f"[3/{len(calls) - 2}] {described(calls[4], prepared)}: 1.2 s, "
        f"about 0:{round(1.25 * (len(calls) - 5) / 2):02} left\n"
    )
    (kept,) = (tmp_path / "failures").iterdir()
    assert kept.read_text() == "Traceback"


@pytest.mark.parametrize("count", [100, 101, 1_000])
def test_at_most_a_hundred_lines_off_a_terminal_and_all_failures(planned, count):
    prepared, calls = planned
    configs = [dataclasses.replace(calls[0].config, seed=seed) for seed in range(count)]
    many = [dataclasses.replace(calls[0], config=config) for config in configs]
    told = reporter(console(False), prepared, many)
    for number, call in enumerate(many):
        if number in (7, 8):
            told.failed(Failed(call, "it rains", "Traceback"))
        else:
            told(call, 1.0)
    lines = told.console.file.getvalue().splitlines()
    ended = [line for line in lines if line.startswith("[")]
    assert len(lines) - len(ended) == 2
    assert len(ended) == {100: 98, 101: 98, 1_000: 100}[count]
    assert ended[-1] == f"[{count - 2}/{count - 2}] dense mlp seed {count - 1}: 1.0 s"  # no time is left


def test_a_call_that_took_long_is_told_anyway(planned):
    prepared, calls = planned
    many = [dataclasses.replace(calls[0], config=dataclasses.replace(calls[0].config, seed=at)) for at in range(1_000)]
    told = reporter(console(False), prepared, many)
    for call, seconds in zip(many, (9.0, 10.0, 11.0, 1.0), strict=False):
        told(call, seconds)
    assert [line.split(":")[0] for line in told.console.file.getvalue().splitlines()] == [
        "[2/1000] dense mlp seed 1",
        "[3/1000] dense mlp seed 2",
    ]


def test_a_terminal_shows_every_worker_what_is_reused_and_what_is_left(planned):
    prepared, calls = planned
    told = reporter(console(True), prepared, calls, 3, 2)
    assert type(told) is View
    with told.showing() as _:
        told(calls[0], None, 0)
        told(calls[0], 2.0, 0)
        told(calls[1], None, 1)
        told(calls[2], None, 0)
    shown = told.console.file.getvalue()
    assert "calls, 3 reused" in shown
    assert f"1/{len(calls)}" in shown
    assert "prune mlp none 1x seed 0" in shown
    left = round(2.0 * (len(calls) - 1) / 2)  # two workers, and all others as long as the one that is known
    assert f"about 0:{left:02} left" in shown


def test_programs_read_what_happens_as_json(arguments, capsys):
    assert train.main([*arguments("raise"), "--json"]) == 3
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    kinds = [event["event"] for event in events]
    assert (kinds[0], kinds[-1]) == ("plan", "report")
    assert {"start", "end", "failed"} == set(kinds[1:-1])
    plan, report = events[0], events[-1]
    ended = [event for event in events if event["event"] == "end"]
    assert (plan["stored"], plan["workers"]) == (0, 1)
    assert [event["done"] for event in ended] == list(range(1, len(ended) + 1))
    assert (ended[-1]["done"], ended[-1]["left_seconds"]) == (ended[-1]["calls"], 0)
    assert report["computed"] == len(ended) == kinds.count("start") - 2
    assert report["failed"] == kinds.count("failed") == 2
    assert {event["reason"] for event in events if event["event"] == "failed"} == {"RuntimeError: it rains"}
    assert all(event["left_seconds"] >= 0 for event in ended)
    assert [event["time"] for event in events] == sorted(event["time"] for event in events)


def test_what_is_left_is_told_by_calls_alike(planned):
    _, calls = planned
    one, two = (node for node in calls if node.stage == "prune")
    alike = next(node for node in calls if node.stage == "dense")
    left = Remaining([alike, one, two])
    assert left.seconds() is None
    left.took(alike, 10.0)
    assert left.seconds() == 20.0  # on average
    left.took(one, 1.0)
    assert left.seconds() == 1.0  # another pruner of the same stage
    left.lose(two)
    assert left.seconds() == 0.0
    left.lose(two)
    assert left.seconds() == 0.0


def test_events_are_told_at_once(planned, capsys):
    prepared, calls = planned
    told = reporter(None, prepared, calls, 0, 1)
    assert type(told) is Json
    told.waiting("until another run has measured its times")
    assert [json.loads(line)["event"] for line in capsys.readouterr().out.splitlines()] == ["plan", "waiting"]
