from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import sharedlabel
from sharedlabel import sweet_spot
from sharedlabel.errors import ConfigError, DataError
from sharedlabel.summary import sweetspot
from sharedlabel.summary.sweetspot import Choice, Point, Rule

# A grid of four ratios and two n, by hand; speedups 1, 2, 4 and 8.
GRID = [
    Point(1.0, 1, 1.0, 0.70, 0.80),
    Point(2.0, 1, 0.5, 0.70, 0.79),
    Point(4.0, 1, 0.25, 0.69, 0.78),
    Point(8.0, 1, 0.125, 0.50, 0.60),
    Point(1.0, 4, 4.0, 0.96, 0.98),
    Point(2.0, 4, 2.0, 0.95, 0.97),
    Point(4.0, 4, 1.0, 0.93, 0.95),
    Point(8.0, 4, 0.5, 0.80, 0.88),
]


def _place(choice: Choice) -> tuple[float, int] | None:
    return None if choice.point is None else (choice.point.ratio, choice.point.n)


@pytest.mark.parametrize(
    ("rho", "n", "expected", "interior"),
    [
        (0.98, 1, (4.0, 1), True),  # 0.69 >= 0.98 * 0.70 = 0.686
        (0.98, 4, (2.0, 4), True),  # 0.95 >= 0.9408 > 0.93
        (1.0, 4, (1.0, 4), False),
        (0.5, 4, (8.0, 4), False),
    ],
)
def test_retain(rho: float, n: int, expected: tuple[float, int], interior: bool) -> None:
    choice = sweet_spot(GRID, "retain", share=rho, n=n)
    assert _place(choice) == expected
    assert choice.interior is interior
    assert choice.reason == ""


def test_retain_prefers_the_better_of_equal_cost() -> None:
    points = [Point(1.0, 2, 2.0, 0.5, 0.9), Point(2.0, 2, 1.0, 0.5, 0.6), Point(4.0, 2, 1.0, 0.75, 0.9)]
    assert _place(sweet_spot(points, "retain", n=2)) == (4.0, 2)


def test_retain_takes_the_cheapest_though_a_dearer_one_fails() -> None:
    points = [Point(1.0, 2, 2.0, 0.9, 0.9), Point(2.0, 2, 1.0, 0.5, 0.6), Point(4.0, 2, 0.5, 0.89, 0.9)]
    assert _place(sweet_spot(points, "retain", n=2)) == (4.0, 2)


@pytest.mark.parametrize(
    ("passes", "expected", "interior"),
    [(1.0, (4.0, 4), True), (0.5, (8.0, 4), False), (2.0, (2.0, 4), True), (100.0, (1.0, 4), False)],
)
def test_budget(passes: float, expected: tuple[float, int], interior: bool) -> None:
    choice = sweet_spot(GRID, "budget", passes=passes)
    assert _place(choice) == expected
    assert choice.interior is interior


def test_budget_prefers_the_cheaper_of_equals_and_forgives_rounding() -> None:
    assert _place(sweet_spot(GRID[:3], "budget", passes=1.0)) == (2.0, 1)
    tenth = Point(2.0, 3, 0.1 + 0.1 + 0.1, 0.5, 0.5)
    assert _place(sweet_spot([tenth], "budget", passes=0.3)) == (2.0, 3)


def test_budget_too_small_says_what_the_cheapest_costs() -> None:
    choice = sweet_spot(GRID, "budget", passes=0.1)
    assert choice.point is None
    assert not choice.interior
    assert "0.125 dense passes" in choice.reason


@pytest.mark.parametrize(("accuracy", "expected"), [(0.79, (8.0, 4)), (0.9, (4.0, 4)), (0.98, (1.0, 4)), (0.99, None)])
def test_target(accuracy: float, expected: tuple[float, int] | None) -> None:
    choice = sweet_spot(GRID, "target", accuracy=accuracy)
    assert _place(choice) == expected
    assert ("highest n-accuracy is 0.98" in choice.reason) is (expected is None)


def test_target_prefers_the_more_accurate_of_equal_cost() -> None:
    assert _place(sweet_spot(GRID, "target", accuracy=0.7)) == (4.0, 1)
    assert _place(sweet_spot([GRID[1], GRID[7]], "target", accuracy=0.7)) == (8.0, 4)


def test_knee_by_hand() -> None:
    """Costs 1/8 to 4 are 0, .2, .4, .6, .8, 1 on the log scale; RI from .50 to .96.

    Distances: 0, .213, .252, .335, .178, 0.
    """
    choice = sweet_spot(GRID, "knee")
    assert _place(choice) == (4.0, 4)
    assert choice.interior


def test_knee_ignores_what_is_off_the_envelope() -> None:
    dominated = [*GRID, Point(16.0, 4, 3.9, 0.1, 0.2), Point(16.0, 8, 4.0, 0.9, 0.2)]
    assert _place(sweet_spot(dominated, "knee")) == (4.0, 4)


def test_a_knee_may_be_slight_and_the_cheaper_of_two_alike_is_taken() -> None:
    """Costs 2, 4, 8, 32 are 0, .25, .5, 1 on the log scale."""

    def line(*ri: float) -> list[Point]:
        return [Point(64 / cost, 1, cost, value, 0.5) for cost, value in zip((2.0, 4.0, 8.0, 32.0), ri, strict=True)]

    assert _place(sweet_spot(line(0.0, 0.2, 0.5 + 2**-10, 1.0), "knee")) == (8.0, 1)
    assert _place(sweet_spot(line(0.0, 0.5, 0.75, 1.0), "knee")) == (16.0, 1)


@pytest.mark.parametrize(
    "ri", [[0.1, 0.2, 0.3], [0.1, 0.15, 0.9], [0.9, 0.2, 0.1], [0.1, 0.05, 0.9]], ids=["line", "sag", "one", "two"]
)
def test_no_knee(ri: list[float]) -> None:
    points = [Point(4.0 / cost, 1, cost, value, 0.5) for cost, value in zip((1.0, 2.0, 4.0), ri, strict=True)]
    choice = sweet_spot(points, "knee")
    assert choice.point is None
    assert "above the chord" in choice.reason


@pytest.mark.parametrize(
    ("tau", "expected"),
    [
        (0.0, (1.0, 4)),
        (0.015, (2.0, 4)),
        (0.05, (4.0, 4)),  # gains per doubling along the envelope: .19, .11, .13, .02, .01
        (0.12, (4.0, 4)),
        (0.15, (4.0, 1)),
        (0.5, None),
    ],
)
def test_marginal(tau: float, expected: tuple[float, int] | None) -> None:
    assert _place(sweet_spot(GRID, "marginal", gain=tau)) == expected


def test_marginal_takes_a_gain_that_just_suffices_and_none_for_nothing() -> None:
    points = [Point(4.0, 1, 1.0, 0.25, 0.5), Point(2.0, 1, 2.0, 0.5, 0.5), Point(1.0, 1, 4.0, 0.5, 0.5)]
    assert _place(sweet_spot(points, "marginal", gain=0.25)) == (2.0, 1)
    assert _place(sweet_spot(points, "marginal", gain=0.0)) == (2.0, 1)


def test_marginal_counts_gains_per_doubling() -> None:
    points = [Point(4.0, 1, 1.0, 0.1, 0.5), Point(2.0, 1, 8.0, 0.4, 0.5)]
    assert _place(sweet_spot(points, "marginal", gain=0.1 - 1e-9)) == (2.0, 1)
    assert _place(sweet_spot(points, "marginal", gain=0.101)) is None


@pytest.mark.parametrize(
    ("rule", "chosen"),
    [
        (Rule("retain", 0.98, 1), True),
        (Rule("budget", 1.0), True),
        (Rule("target", 0.8), True),
        (Rule("knee"), False),
        (Rule("marginal", 0.0), False),
    ],
)
def test_a_single_point(rule: Rule, chosen: bool) -> None:
    choice = sweetspot.choose(GRID[:1], rule)
    assert _place(choice) == ((1.0, 1) if chosen else None)
    assert not choice.interior
    assert bool(choice.reason) is not chosen


def test_a_rule_can_be_held_to_one_n() -> None:
    assert _place(sweetspot.choose(GRID, Rule("budget", 1.0, 1))) == (2.0, 1)
    assert sweetspot.choose(GRID, Rule("knee", None, 3)).reason == "no point has n = 3"


@pytest.mark.parametrize("ri", [-0.1, 0.0])
def test_retain_says_why_it_cannot_choose(ri: float) -> None:
    """A share of nothing is nothing: every network would retain it."""
    assert "no dense network" in sweet_spot(GRID[1:4], "retain", n=1).reason
    hopeless = [Point(1.0, 1, 1.0, ri, 0.1), Point(2.0, 1, 0.5, 0.2, 0.1)]
    choice = sweet_spot(hopeless, "retain", n=1)
    assert choice.point is None
    assert "not positive" in choice.reason


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (Point(8.0, 2, 1.0, math.nan, 0.5), r"finite RI, got nan at ratio 8, n = 2"),
        (Point(8.0, 2, 1.0, 0.5, math.inf), r"finite n-accuracy, got inf at ratio 8"),
        (Point(8.0, 2, math.nan, 0.5, 0.5), r"finite cost, got nan"),
        (Point(8.0, 2, 0.0, 0.5, 0.5), r"positive costs, got 0 dense passes"),
        (Point(8.0, 4, 1.0, 0.5, 0.5), r"two at ratio 8, n = 4"),
    ],
)
def test_points_that_cannot_be_compared_are_refused(bad: Point, message: str) -> None:
    with pytest.raises(DataError, match=message):
        sweet_spot([*GRID, bad], "knee")


def test_no_points_at_all_are_refused() -> None:
    with pytest.raises(DataError, match="at least one point"):
        sweet_spot([])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("buget", 1.0), "did you mean 'budget'"),
        (("budget", None), "positive number of dense passes as its value, got None"),
        (("budget", 0.0), "got 0"),
        (("retain", 1.2, 1), r"share in \(0, 1\] as its value, got 1.2"),
        (("retain", 0.9), "give it an n"),
        (("knee", 1.0), "nothing as its value"),
        (("marginal", -0.1), "at least 0"),
        (("target", 1.5), "got 1.5"),
    ],
)
def test_rules_that_make_no_sense_are_refused(arguments: tuple[str, float | None], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Rule(*arguments)


def test_a_choice_knows_its_rule_and_a_budget_is_one_dense_pass_unless_given() -> None:
    assert sweet_spot(GRID) == sweet_spot(GRID, "budget", passes=1.0)
    assert sweet_spot(GRID).rule == Rule("budget", 1.0)
    assert sweet_spot(GRID, "budget", passes=0.1).rule == Rule("budget", 0.1)


METHODS = {
    "dear": [Point(2.0, 1, 0.9, 0.6, 0.8)],
    "cheap": [Point(4.0, 1, 0.4, 0.6, 0.7)],
    "poor": [Point(8.0, 1, 0.4, 0.5, 0.9)],
    "beyond": [Point(1.0, 1, 9.0, 0.9, 0.5)],
}


@pytest.mark.parametrize(
    ("rule", "expected"),
    [(Rule("budget", 1.0), ["cheap", "dear", "poor"]), (Rule("target", 0.65), ["poor", "cheap", "dear"])],
    ids=["more information, then lower cost", "lower cost, then higher accuracy"],
)
def test_methods_are_ordered_by_what_their_rule_is_about(rule: Rule, expected: list[str]) -> None:
    ordered = sweetspot.across(METHODS, rule)
    assert [method for method, _ in ordered] == expected
    assert all(choice == sweetspot.choose(METHODS[method], rule) for method, choice in ordered)


RULES = [
    Rule("retain", 0.98, 4),
    Rule("retain", 0.98, 1),
    Rule("budget", 1.0),
    Rule("target", 0.9),
    Rule("knee"),
    Rule("marginal", 0.05),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.name}-{rule.n}")
def test_replicates_choose_as_one_by_one(rule: Rule) -> None:
    random = np.random.default_rng(0)
    ri = np.array([point.ri for point in GRID]) + 0.15 * random.standard_normal((300, len(GRID)))
    accuracy = np.array([point.n_accuracy for point in GRID]) + 0.1 * random.standard_normal(ri.shape)
    stability = sweetspot.interior_share(GRID, rule, ri, accuracy)
    choices = [
        sweetspot.choose(
            [Point(p.ratio, p.n, p.cost, float(r), float(a)) for p, r, a in zip(GRID, *row, strict=True)], rule
        )
        for row in zip(ri, accuracy, strict=True)
    ]
    places = [_place(choice) for choice in choices]
    assert stability.replicates == 300
    assert stability.interior == pytest.approx(np.mean([choice.interior for choice in choices]))
    assert stability.undecided == pytest.approx(places.count(None) / 300)
    assert stability.chosen == pytest.approx({place: places.count(place) / 300 for place in set(places) - {None}})
    assert list(stability.chosen.values()) == sorted(stability.chosen.values(), reverse=True)
    assert sum(stability.chosen.values()) + stability.undecided == pytest.approx(1)


def test_replicates_of_another_shape_are_refused() -> None:
    with pytest.raises(DataError, match=r"RI as \[replicates, 8\], got \(5, 7\)"):
        sweetspot.interior_share(GRID, RULES[2], np.zeros((5, 7)))
    with pytest.raises(DataError, match="got nan at ratio 1, n = 4"):
        sweetspot.interior_share(GRID, RULES[2], np.where(np.arange(8) == 4, np.nan, np.zeros((5, 8))))


def test_choosing_needs_no_torch() -> None:
    code = "import sys, sharedlabel.summary.sweetspot; sys.exit('torch' in sys.modules)"
    root = Path(sharedlabel.__file__).parents[1]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)
