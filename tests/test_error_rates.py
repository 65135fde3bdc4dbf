"""The simulations of error rates: what they call a broken promise, and that they repeat."""

from __future__ import annotations

import dataclasses

import pytest

from benchmarks import error_rates
from benchmarks.error_rates import Saturated, Setting

SMALL = Setting(5, 2.0, methods=3, networks=2)


def test_a_family_wise_error_above_what_chance_allows_is_a_fault() -> None:
    errors = {"error pooled primary": [1.0] * 40 + [0.0] * 360, "cover pooled": [0.95, 0.94] * 200}
    assert error_rates.faults(SMALL, errors) == ["error pooled primary: 0.100, at most 0.06"]
    assert error_rates.faults(SMALL, errors | {"error pooled primary": [1.0] * 28 + [0.0] * 372}) == []


@pytest.mark.parametrize(
    ("share", "fault"), [(0.90, True), (0.925, True), (0.935, False), (0.968, False), (0.98, True)]
)
def test_coverage_outside_its_bounds_is_a_fault(share: float, fault: bool) -> None:
    values = [share - 0.01, share + 0.01] * 200
    assert bool(error_rates.faults(SMALL, {"cover single": values})) is fault


def test_with_few_seeds_any_verdict_is_a_fault() -> None:
    few = dataclasses.replace(SMALL, seeds=3)
    assert error_rates.faults(few, {"error pooled primary": [0.0] * 9 + [1.0]}) == [
        "error pooled primary: a verdict with 3 seeds"
    ]
    assert error_rates.faults(few, {"error pooled primary": [0.0] * 10, "cover single": [0.5] * 10}) == []


def test_near_saturation_intervals_may_cover_more_but_not_less() -> None:
    setting = Saturated(45, 8, 20, 3.1)
    held = {"error alike": [0.0] * 400, "cover n-accuracy": [1.0] * 400, "cover RI": [1.0] * 400}
    assert error_rates.near_saturation(setting, held) == []
    assert len(error_rates.near_saturation(setting, held | {"cover RI": [0.0] * 60 + [1.0] * 340})) == 1
    assert len(error_rates.near_saturation(setting, held | {"error alike": [1.0] * 60 + [0.0] * 340})) == 1


def test_repetitions_repeat_and_show_true_differences() -> None:
    repetitions = [error_rates.repetition(SMALL, number) for number in range(6)]
    assert repetitions[0] == error_rates.repetition(SMALL, 0)
    assert len({one["cover single"] for one in repetitions}) > 1
    steps = dataclasses.replace(SMALL, step=8.0, ratio=0.5)
    assert error_rates.repetition(steps, 0)["power primary"] == 1
    assert not any(value for name, value in error_rates.repetition(steps, 0).items() if name.startswith("error"))


def test_methods_that_are_alike_and_nearly_always_right() -> None:
    """In 41% of repetitions p was below .05 while variances were clamped at zero."""
    repetitions = [error_rates.saturated(Saturated(45, 8, 20, 3.1), number) for number in range(40)]
    assert sum(one["error alike"] for one in repetitions) <= 2
    assert sum(one["cover RI"] for one in repetitions) >= 37
    assert sum(one["cover symmetric"] for one in repetitions) < 30


def test_the_command_prints_every_setting_and_says_whether_promises_hold(capsys) -> None:
    code = error_rates.main(["--quick", "--repetitions", "2"])
    said = capsys.readouterr().out
    assert said.count("seeds, V/I 2") >= 4
    assert "(no verdict)" in said
    assert ("every promise holds" in said) is (code == 0)
