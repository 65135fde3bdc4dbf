"""Every call is given once, after what it needs; the order is the one that is promised."""

from __future__ import annotations

import random

import pytest

from sharedlabel.grid import schedule as schedules
from sharedlabel.grid.schedule import NOBODY, Schedule, State


def drawn(seed: int, count: int = 60) -> list[tuple[int, ...]]:
    """Draw the needs of calls: up to three earlier ones each."""
    moments = random.Random(seed)
    return [tuple(moments.sample(range(call), min(call, moments.randrange(4)))) for call in range(count)]


@pytest.mark.parametrize("stale", [10_000, 0])
@pytest.mark.parametrize("seed", range(20))
def test_each_call_is_given_once_and_after_what_it_needs_whatever_the_order_in_which_calls_end(
    seed, stale, monkeypatch
):
    monkeypatch.setattr(schedules, "_STALE", stale)  # tidied up at every chance, or never
    needs, moments = drawn(seed), random.Random(seed)
    schedule = Schedule(needs, heavy=set(moments.sample(range(len(needs)), 10)))
    working: dict[int, int] = {}
    given: list[int] = []
    while schedule.open:
        for worker in {0, 1, 2} - working.keys():
            call = schedule.take(worker)
            if call is not None:
                assert all(schedule.state(needed) == State.DONE for needed in needs[call])
                if moments.random() < 0.1:  # somebody else has it, or its worker has died
                    schedule.put_back(call)
                    continue
                given.append(call)
                working[worker] = call
        if working:
            worker = moments.choice(sorted(working))
            schedule.done(working.pop(worker), worker)
    assert sorted(given) == list(range(len(needs)))


@pytest.mark.parametrize("seed", range(20))
def test_what_needs_a_call_that_failed_is_never_given_and_all_else_is(seed):
    needs = drawn(seed)
    schedule, failing = Schedule(needs), {3, 20}
    lost: set[int] = set()
    for call, needed in enumerate(needs):
        if call in failing or lost & set(needed):
            lost.add(call)
    given = []
    while (call := schedule.take()) is not None:
        given.append(call)
        (schedule.lose if call in failing else schedule.done)(call)
    assert schedule.open == 0
    assert set(given) == set(range(len(needs))) - lost | (failing - {c for c in failing if lost & set(needs[c])})
    assert {call for call in range(len(needs)) if schedule.state(call) == State.LOST} == lost


def test_one_worker_goes_through_the_calls_in_their_order():
    schedule = Schedule([(), (0,), (1,), (0,), (3,), ()])
    order = []
    while (call := schedule.take(0)) is not None:
        order.append(call)
        schedule.done(call, 0)
    assert order == [0, 1, 2, 3, 4, 5]


def test_what_heavy_calls_wait_for_comes_first_by_the_length_of_the_chain():
    #                    a chain of three heavy calls      one heavy call after it   none
    schedule = Schedule([(), (), (1,), (2,), (3,), (), (5,)], heavy={2, 3, 4, 6})
    assert [schedule.take(), schedule.take(), schedule.take()] == [1, 5, 0]


def test_a_worker_goes_on_with_what_it_has_made_among_equals():
    schedule = Schedule([(), (), (0,), (1,), (0,), (1,)])
    first, second = schedule.take(0), schedule.take(1)
    assert (first, second) == (0, 1)
    schedule.done(0, 0)
    schedule.done(1, 1)
    assert [schedule.take(1), schedule.take(0), schedule.take(1), schedule.take(0)] == [3, 2, 5, 4]
    schedule = Schedule([(), (), (0,), (1,)])
    schedule.done(0)
    schedule.done(1)
    assert schedule.take(1) == 2  # nobody has made what lay there


def test_a_worker_without_anything_of_its_own_takes_what_another_would_come_to_last():
    schedule = Schedule([(), (0,), (0,), (0,), (0,)], heavy={0, 1, 2, 3})
    assert schedule.take(0) == 0
    schedule.done(0, 0)
    assert [schedule.take(1), schedule.take(0), schedule.take(1), schedule.take(0)] == [4, 1, 3, 2]
    schedule = Schedule([(), (0,), (0,), (1,)], heavy={3})
    assert schedule.take(0) == 0
    schedule.done(0, 0)
    assert schedule.take(1) == 1  # the last of those that come first


def test_done_twice_counts_once_and_a_stored_call_makes_its_readers_ready():
    schedule = Schedule([(), (0,)])
    schedule.done(0)
    schedule.done(0)
    assert (schedule.open, schedule.take(), schedule.take()) == (1, 1, None)


def test_calls_that_need_later_ones_are_refused():
    with pytest.raises(ValueError, match="expected call 0 to need calls of smaller numbers, got 1"):
        Schedule([(1,), ()])


def test_calls_of_a_group_are_told_until_they_are_taken_and_what_others_wait_for_comes_first():
    schedule = Schedule([(), (), (0,), (), (1, 3), (0,)], heavy={4}, groups=[NOBODY, 7, 7, 7, NOBODY, 7])
    assert schedule.alike(0) == []
    assert schedule.take() == 1
    assert schedule.alike(1) == [3]
    schedule.done(0)
    assert schedule.alike(1) == [3, 2, 5]
    schedule.take_this(2)
    assert schedule.state(2) == State.TAKEN
    assert schedule.alike(1) == [3, 5]
    schedule.put_back(2)
    assert schedule.alike(1) == [3, 2, 5]
    schedule.lose(5)
    assert [schedule.take() for _ in range(3)] == [3, 2, None]
    assert schedule.alike(1) == []
    assert Schedule([(), ()]).alike(0) == []
