"""`sl.sweet_spot` takes points in whatever form they come; the rules are tested in `tests/test_sweetspot.py`."""

from __future__ import annotations

import numpy as np
import pytest

import sharedlabel as sl
from sharedlabel.errors import ConfigError, DataError
from sharedlabel.summary.sweetspot import Point, Rule, choose

POINTS = [(1, 1, 1.0, 0.70, 0.80), (2, 1, 0.5, 0.70, 0.79), (4, 1, 0.25, 0.69, 0.78), (4, 4, 1.0, 0.93, 0.95)]
EXPECTED = choose([Point(float(p[0]), *p[1:]) for p in POINTS], Rule("budget", 1.0))
NAMES = ("ratio", "n", "cost", "ri", "n_accuracy")


@pytest.mark.parametrize(
    "points",
    [
        POINTS,
        iter(POINTS),
        np.array(POINTS),
        [dict(zip(NAMES, point, strict=True)) for point in POINTS],
        [{**dict(zip(NAMES, point, strict=True)), "cost_dense_passes": point[2], "pruner": "own"} for point in POINTS],
        [Point(float(point[0]), *point[1:]) for point in POINTS],
    ],
    ids=["tuples", "iterator", "array", "mappings", "rows", "points"],
)
def test_points_of_every_form_mean_the_same(points) -> None:
    assert sl.sweet_spot(points) == EXPECTED


def test_points_are_a_part_of_a_table(finished) -> None:
    pytest.importorskip("pandas", reason='pandas is not installed; pip install "sharedlabel[pandas]"')
    summaries = sl.Results(finished.results).summaries
    with pytest.raises(DataError, match="expected one point per ratio and n, got two at ratio"):
        sl.sweet_spot(summaries)
    part = summaries.query("split == 'validation' and aggregator == 'log_pool'")
    chosen = sl.sweet_spot(part, "budget", passes=2).point
    assert chosen is not None
    [spot] = [
        spot
        for spot in finished.results.sweet_spots
        if (spot.rule, spot.value, spot.aggregator, spot.pruner) == ("budget", 2.0, "log_pool", "magnitude")
    ]
    assert (chosen.ratio, chosen.n) == (spot.ratio, spot.n)


def test_rules_have_usual_values() -> None:
    assert sl.sweet_spot(POINTS).rule == Rule("budget", 1.0)
    assert sl.sweet_spot(POINTS, "retain", n=1).rule == Rule("retain", 0.98, 1)
    assert sl.sweet_spot(POINTS, "target").rule == Rule("target", 0.95)
    assert sl.sweet_spot(POINTS, "marginal").rule == Rule("marginal", 0.02)
    assert sl.sweet_spot(POINTS, "knee").rule == Rule("knee")
    assert sl.sweet_spot(POINTS, "budget", n=1, passes=0.5).rule == Rule("budget", 0.5, 1)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: sl.sweet_spot(POINTS, "buget"), ConfigError, "unknown sweet-spot rule 'buget'; did you mean 'budget'"),
        (lambda: sl.sweet_spot(POINTS, "budget", share=0.9), ConfigError, r"'budget' takes passes=..., got share=0\.9"),
        (lambda: sl.sweet_spot(POINTS, "knee", gain=1), ConfigError, "rule 'knee' takes no value, got gain=1"),
        (lambda: sl.sweet_spot(POINTS, passes=-1), ConfigError, "takes a positive number of dense passes"),
        (lambda: sl.sweet_spot([]), DataError, "at least one point"),
        (lambda: sl.sweet_spot([(1, 1, 1.0)]), DataError, "expected points of five numbers, ratio, n, cost, ri"),
        (lambda: sl.sweet_spot([(1, 1, 1.0, "0.5", 0.5)]), DataError, "five numbers, .* got .*'0.5'"),
        (lambda: sl.sweet_spot(["abcde"]), DataError, "expected points of five numbers"),
        (lambda: sl.sweet_spot([{"ratio": 1, "n": 1}]), DataError, "got one without cost, ri, n_accuracy; add or rena"),
    ],
)
def test_mistakes_are_a_sentence(call, error, message) -> None:
    with pytest.raises(error, match=message):
        call()
