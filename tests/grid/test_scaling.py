"""What the benchmark of scaling measures with: copies of a seed, calls that wait, shares of machines, memory."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from benchmarks import scaling
from benchmarks._copied import fill
from benchmarks._memory import private
from benchmarks._sleeping import Sleeping
from sharedlabel import grid
from sharedlabel.grid.jobs import Call
from sharedlabel.store import Store

from .test_executors import here, run


def test_copies_of_a_seed_are_whole_artifacts_of_the_others(tiny):
    experiment = tiny()
    _, store, _ = run(experiment, here)
    several = dataclasses.replace(experiment, seeds=(*experiment.seeds, 7, 8))
    prepared = grid.prepare(several)
    assert grid.missing(prepared, store) != []
    assert fill(several, store) == len(store.names())
    assert grid.missing(prepared, store) == []
    assert [problem for *_, problem in store.verify() if problem] == []
    scored = {
        (cell.ratio, cell.aggregator, cell.seed): store.load(cell.evaluate.stage, cell.evaluate.key)
        for cell in prepared.cells
    }
    assert {seed for *_, seed in scored} == {*experiment.seeds, 7, 8}
    for (ratio, aggregator, _), artifact in scored.items():
        assert artifact.meta == scored[ratio, aggregator, experiment.seeds[0]].meta


def test_a_call_that_waits_is_stored(tmp_path):
    store, call = Store(tmp_path / "store"), Call("sleep", "0" * 64, None, {}, "data", {})
    (outcome,) = Sleeping(0.0).attempt((call,), store)
    assert outcome.reason == ""
    assert store.has("sleep", "0" * 64)


def test_private_memory_is_what_a_process_holds_itself():
    before = private()
    held = b"x" * (256 << 20)
    assert private() >= before + 128  # pages of libraries stop being its own when another process maps them, too
    assert len(held) == 256 << 20


def test_efficiency_is_the_share_of_what_machines_could_do(monkeypatch):
    monkeypatch.setattr(scaling, "_told", lambda *_: {"1": [16.0, 4.0], "2": [8.0, 4.0], "4": [5.0, 8.0]})
    strong, weak = scaling._machines(0.5, 8, (1, 2, 4))
    assert (strong.measured, strong.verdict) == (0.8, "met")
    assert (weak.measured, weak.verdict) == (0.5, "missed")
    assert "1.00 at 1 (16.0 s), 1.00 at 2 (8.0 s), 0.80 at 4 (5.0 s)" in strong.note


def test_a_run_that_computes_nothing_is_judged_by_what_it_takes_beyond_torch(monkeypatch):
    asked: list[list[str]] = []

    def told(arguments: list[str], folder: str) -> dict[str, float]:
        assert Path(folder).exists()
        many = any("89" in one for one in arguments)
        steps = {"import torch": 1.5, "laying out": 0.5, "looking": 0.25, "collecting": 0.25}
        return {**steps, "in all": 9.0 if many else 3.0, "cells": 10_080 if many else 112, "wall": 9.0 if many else 6.0}

    monkeypatch.setattr(scaling, "_told", told)
    monkeypatch.setattr(scaling, "_run", lambda arguments, _: asked.append(arguments) or (40.0, "39060\n"))
    small, large, first = scaling._resumed(90, 3)
    assert [one[1] for one in asked] == ["sharedlabel.train", "benchmarks._copied", "sharedlabel.train"]
    assert (small.measured, small.verdict, small.contention) == (1.5, "met", 2.0)
    assert (large.measured, large.verdict, large.contention) == (6.0, "missed", 1.0)
    assert "9.0 s in all: import torch 1.50 s, laying out 0.50 s" in large.note
    assert "other imports and printing 6.50 s" in large.note
    assert (first.measured, first.verdict) == (40.0, "none")
    assert "39,060 calls" in first.note


@pytest.mark.parametrize("grown", [0.0, 40.0])
def test_growth_is_that_of_the_second_half(monkeypatch, grown):
    calls = [10.0, 50.0, 50.0, 50.0 + grown]
    facts = {"workers": [calls, calls], "driver": calls, "cells": 4, "publishing": 0.03}
    monkeypatch.setattr(scaling, "_told", lambda *_: facts)
    held, worker, driver, publishing = scaling._small(1)
    assert (held.measured, publishing.measured) == (50.0 + grown, 0.03)
    assert (worker.measured, driver.measured) == (grown, grown)
    assert worker.verdict == driver.verdict == ("missed" if grown else "met")
