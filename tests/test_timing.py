"""Blocks that take turns, and what a busy machine does to two clocks; time itself is made up here."""

from __future__ import annotations

import pytest

from sharedlabel.measurements import timing
from sharedlabel.measurements.timing import Seconds


class Machine:
    """Clocks that move as calls say.

    Args:
        away: seconds on the wall that pass in every third call while somebody else has the core.
    """

    def __init__(self, away: float = 0.0) -> None:
        self.wall = self.cpu = 0.0
        self.away, self.calls, self.last = away, 0, ""
        self.order: list[str] = []

    def clock(self) -> Seconds:
        return Seconds(self.wall, self.cpu)

    def call(self, name: str, warm: float, cold: float | None = None) -> None:
        """Take `warm` seconds of the processor, or `cold` ones after another call had the caches."""
        taken = warm if cold is None or self.last == name else cold
        self.last = name
        self.calls += 1
        self.cpu += taken
        self.wall += taken + (self.away if self.calls % 3 == 0 else 0.0)
        self.order.append(name)


def test_calls_take_turns_in_blocks_and_alternate_who_is_first() -> None:
    machine = Machine()
    taken = timing.in_turns(
        [lambda: machine.call("a", 0.001), lambda: machine.call("b", 0.001)], 30, 1.0, machine.clock
    )
    assert [len(passes) for passes in taken] == [30, 30]
    block = 2 + 6  # two that do not count
    assert machine.order == ["a"] * block + (["b"] * 2 * block + ["a"] * 2 * block) * 2 + ["b"] * block


def test_passes_that_find_the_caches_of_another_call_do_not_count() -> None:
    machine = Machine()
    small = lambda: machine.call("small", 0.001, 0.004)  # noqa: E731
    large = lambda: machine.call("large", 0.013, 0.014)  # noqa: E731
    taken = timing.in_turns([small, large], 30, 10.0, machine.clock)
    assert [sum(one.cpu for one in passes) / len(passes) for passes in taken] == pytest.approx([0.001, 0.013])


@pytest.mark.parametrize("away", [0.0, 0.009])
def test_the_ratio_of_processor_times_does_not_depend_on_who_else_is_there(away: float) -> None:
    machine = Machine(away)
    calls = [lambda: machine.call("a", 0.001), lambda: machine.call("b", 0.003)]
    first, second = timing.in_turns(calls, 30, 10.0, machine.clock)
    assert sum(one.cpu for one in second) / sum(one.cpu for one in first) == pytest.approx(3)
    ratios = [timing.contention(first), timing.contention(second)]
    expected = [1 + away / 0.003, 1 + away / 0.009]
    assert ratios == pytest.approx(expected, rel=0.01)
    assert [timing.contended(ratio) for ratio in ratios] == [away > 0] * 2


@pytest.mark.parametrize("passes", [1, 3, 4, 7, 30])
def test_no_more_passes_than_asked_for_but_three(passes: int) -> None:
    machine = Machine()
    (alone,) = timing.in_turns([lambda: machine.call("a", 0.001)], passes, 1.0, machine.clock)
    assert len(alone) == machine.calls == max(passes, 3)


def test_slow_calls_get_three_blocks_of_one_pass_that_counts() -> None:
    machine = Machine()
    calls = [lambda: machine.call("a", 5.0), lambda: machine.call("b", 4.0)]
    assert [len(passes) for passes in timing.in_turns(calls, 30, 1.0, machine.clock)] == [3, 3]
    assert machine.order == ["a"] * 2 + ["b"] * 4 + ["a"] * 4 + ["b"] * 2  # one of two does not count


def test_a_tenth_is_allowed_and_what_is_unknown_is_not_marked() -> None:
    quiet, busy = [Seconds(1.09, 1.0)], [Seconds(1.11, 1.0)]
    assert [timing.contended(timing.contention(passes)) for passes in (quiet, busy)] == [False, True]
    assert timing.contention([Seconds(1.0, 0.0)]) is None
    assert not timing.contended(None)


def test_the_load_is_that_of_the_system_where_it_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (1.234, 5.0, 6.0))
    assert timing.load() == 1.23

    def silent() -> tuple[float, float, float]:
        raise OSError

    monkeypatch.setattr("os.getloadavg", silent)
    assert timing.load() is None


def test_both_clocks_move_while_the_processor_works() -> None:
    start = timing.now()
    while (taken := timing.now().since(start)).cpu < 0.001:
        pass
    assert taken.wall > 0
