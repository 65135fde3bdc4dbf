"""Verdicts at the very ends of intervals, from differences with a known variance over images."""

from __future__ import annotations

import math

import pytest
import torch

from sharedlabel.metrics.behrens_fisher import Spread
from sharedlabel.summary.verdicts import ALPHA, ROUNDING, Differences, Numbers

ONE_TEST = torch.ones(1, 1, dtype=torch.float64)
HALF = 1.959963984540054  # of a 95% interval, in standard errors


def differences(
    value: float, se: float = 1.0, seeds: int = 5, unit: float = 1.0, independent: float = 100
) -> Differences:
    """One difference whose standard error is known."""
    column = torch.tensor([[value, se, unit, independent]], dtype=torch.float64).T[..., None]
    one = torch.ones(1, 1, dtype=torch.float64)
    spread = Spread(column[1].square(), one * torch.inf, 0 * one, one)
    return Differences(column[0], spread, column[2, 0], column[3, 0], seeds)


def judged(gaps: Differences, margin: float = 0.01, gate: float | None = None, tests: int = 1) -> Numbers:
    opened = None if gate is None else torch.tensor([[gate]], dtype=torch.float64)
    ((numbers,),) = gaps.judged(tests * ONE_TEST, margin, opened)
    return numbers


def test_numbers_are_in_units_and_adjusted_for_the_family() -> None:
    numbers = judged(differences(6.0, 2.0, unit=2.0), tests=5)
    assert numbers[:3] == pytest.approx((3.0, 3 - HALF, 3 + HALF), rel=1e-5)
    assert numbers[3:5] == pytest.approx((3 - 2.5758293, 3 + 2.5758293), rel=1e-5)  # at 99%
    assert numbers[5:7] == pytest.approx((0.0026997961, 5 * 0.0026997961), rel=1e-5)
    assert numbers.verdict == "better"


@pytest.mark.parametrize("sign", [1, -1])
def test_an_interval_that_ends_at_zero_decides_nothing(sign: int) -> None:
    half = float(differences(0.0).ends(ALPHA)[1])
    touching = judged(differences(sign * half))
    assert 0 in (touching.low_adjusted, touching.high_adjusted)
    assert touching.verdict == "undecided"
    assert judged(differences(sign * half * 1.001)).verdict == ("better" if sign > 0 else "worse")


@pytest.mark.parametrize("sign", [1, -1])
def test_an_interval_that_ends_at_the_margin_is_not_inside(sign: int) -> None:
    gaps = differences(sign * 1.0)
    numbers = judged(gaps)
    margin = max(-numbers.low_adjusted, numbers.high_adjusted)
    assert judged(gaps, margin).verdict == "undecided"
    assert judged(gaps, margin * 1.001).verdict == "equivalent"


@pytest.mark.parametrize(("value", "verdict"), [(5.0, "better"), (-5.0, "worse")])
def test_a_closed_gate_draws_the_interval_out_to_zero(value: float, verdict: str) -> None:
    closed = judged(differences(value), gate=ALPHA)
    assert closed.verdict == "undecided"
    assert (closed.low_adjusted, closed.high_adjusted) == pytest.approx(
        sorted((0.0, value + HALF * value / 5)), rel=1e-5
    )
    assert closed.low * closed.high > 0  # its own interval is left alone
    assert closed.p_adjusted == ALPHA
    opened = judged(differences(value), gate=0.049)
    assert (opened.verdict, opened.p_adjusted) == (verdict, 0.049)


def test_behind_a_closed_gate_nothing_is_equivalent() -> None:
    assert judged(differences(0.001, 0.001), gate=0.06).verdict == "undecided"
    assert judged(differences(0.001, 0.001), gate=0.04).verdict == "equivalent"


def test_four_seeds_have_no_verdict() -> None:
    assert judged(differences(5.0, seeds=4)).verdict == "no verdict"


def test_differences_below_rounding_are_none() -> None:
    assert float(differences(20 * ROUNDING, 2 * ROUNDING).p_value()) < 1e-9
    assert float(differences(0.99 * ROUNDING, 1e-7).p_value()) == 1


def test_the_rule_of_three_stands_in_below_rounding_only() -> None:
    low, high = differences(0.0, 0.99 * ROUNDING, independent=10).ends(0.05)
    assert (float(low), float(high)) == pytest.approx((math.log(0.05) / 10, -math.log(0.05) / 10), rel=1e-12)
    assert float(differences(0.0, ROUNDING).spread.se) == ROUNDING
    assert float(differences(0.0, ROUNDING).ends(0.05)[1]) == pytest.approx(HALF * ROUNDING, rel=1e-5)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_difference_that_is_the_same_on_every_tuple_is_judged_by_the_rule_of_three(sign: float) -> None:
    """In its unit: half a bit of two bits is .25, of which 20 independent tuples leave exp(-5) to chance."""
    numbers = judged(differences(sign * 0.5, 0.0, unit=2.0, independent=20))
    assert numbers.p_value == pytest.approx(math.exp(-20 * 0.25))
    reach = -math.log(0.05) / 20
    assert (numbers.low, numbers.high) == pytest.approx((sign * 0.25 - reach, sign * 0.25 + reach))
