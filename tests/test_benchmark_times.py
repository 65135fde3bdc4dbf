"""How benchmarks time and what they record beside a number; time itself is made up here."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import _measure
from benchmarks._measure import Result, Times, interleaved, ratios, summarize
from sharedlabel.measurements.timing import Seconds


def test_every_benchmark_that_is_offered_can_be_run_and_every_command_too() -> None:
    for name in command.available():
        assert callable(importlib.import_module(f"benchmarks.{name}").run)
    for name in command.COMMANDS:
        assert callable(importlib.import_module(f"benchmarks.{name}").main)


class Machine:
    """Two clocks; somebody else has the core for `away` seconds in every call."""

    def __init__(self, away: float) -> None:
        self.wall = self.cpu = 0.0
        self.away = away
        self.order: list[str] = []

    def __call__(self) -> Seconds:
        return Seconds(self.wall, self.cpu)

    def call(self, name: str, seconds: float) -> None:
        cold = 0.002 if self.order and self.order[-1] != name else 0.0
        self.order.append(name)
        self.cpu += seconds + cold
        self.wall += seconds + cold + self.away


def test_short_calls_take_turns_in_blocks_and_ratios_are_of_processor_time() -> None:
    machine = Machine(away=0.01)
    slow, fast = interleaved(lambda: machine.call("a", 0.004), lambda: machine.call("b", 0.001), 2, 6, clock=machine)
    assert machine.order == ["a", "b", *["a"] * 8, *["b"] * 16, *["a"] * 8]
    assert list(ratios(slow, fast)) == pytest.approx([4, 4])
    result = summarize("speed", "x", ratios(slow, fast))
    assert result.contention == pytest.approx(11)
    assert "11.00 times as long on the wall as on the processor: busy" in result.conditions


def test_long_calls_alternate_one_by_one() -> None:
    machine = Machine(away=0.0)
    interleaved(lambda: machine.call("a", 1.0), lambda: machine.call("b", 2.0), 3, clock=machine)
    assert machine.order == ["a", "b", "a", "b", "b", "a", "a", "b"]


def test_several_threads_are_timed_on_the_wall() -> None:
    machine = Machine(away=0.01)
    torch.set_num_threads(2)
    slow, fast = interleaved(lambda: machine.call("a", 0.004), lambda: machine.call("b", 0.001), 2, 6, clock=machine)
    assert list(ratios(slow, fast)) == pytest.approx([14 / 11, 14 / 11])


@pytest.mark.parametrize("there", [True, False])
def test_every_number_says_the_load_and_whether_there_was_byte_code(monkeypatch, tmp_path, there: bool) -> None:
    cached = tmp_path / "config.pyc"
    if there:
        cached.touch()
    spec = importlib.util.spec_from_file_location("sharedlabel.config", Path("config.py"))
    assert spec is not None
    spec.cached = str(cached)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    monkeypatch.setattr("os.getloadavg", lambda: (3.25, 0.0, 0.0))
    result = summarize("start", "s", [1.0])
    assert (result.load, result.bytecode, result.contention) == (3.25, there, None)
    assert result.conditions == ("load 3.25, byte code there" if there else "load 3.25, no byte code")
    assert result.record().items() >= {"load": 3.25, "bytecode": there, "contended": False}.items()
    cell = next(iter(command._table([result], [], False).columns[0].cells))
    assert result.conditions in str(cell)


def test_a_ratio_is_as_contended_as_the_worse_of_its_times() -> None:
    assert ratios(Times([1.0], 1.5), Times([2.0], 1.0)).contention == 1.5
    assert ratios(Times([1.0]), Times([2.0])).contention is None
    assert Result("x", 1.0, "", 1.0, 1.0, contention=1.05, load=None, bytecode=True).conditions == (
        "load unknown, byte code there, 1.05 times as long on the wall as on the processor"
    )


def test_a_call_alone_is_timed_on_the_wall() -> None:
    machine = Machine(away=0.03)
    taken = _measure.seconds(lambda: machine.call("a", 0.01), 2, machine)
    assert list(taken) == pytest.approx([0.04, 0.04])
    assert summarize("call", "s", taken).contention == pytest.approx(4)


def test_ratios_are_scaled() -> None:
    assert list(ratios(Times([6.0]), Times([2.0]), 10)) == [30]
