"""Verdicts at the edges: methods that every tuple tells apart alike."""

from __future__ import annotations

import itertools

import pytest
import torch

from sharedlabel.metrics.behrens_fisher import Spread
from sharedlabel.summary.verdicts import ALPHA, Differences, Numbers


def judged(value: float, images: float, seeds: float, independent: float, entropy: float = 2.0) -> Numbers:
    """Judge one difference in bits, given the variances of its mean."""
    spread = Spread(*(torch.tensor([[one]], dtype=torch.float64) for one in (images, 1e3, seeds, 4.0)))
    unit, count = (torch.tensor([one], dtype=torch.float64) for one in (entropy, independent))
    differences = Differences(torch.tensor([[value]], dtype=torch.float64), spread, unit, count, 5)
    return differences.judged(torch.ones(1, 1, dtype=torch.float64), 0.002)[0][0]


def test_a_gap_that_is_the_same_on_every_tuple_is_a_gap():
    numbers = judged(-1.8, 0.0, 0.0, 3000)
    assert numbers.verdict == "worse"
    assert (numbers.low, numbers.high) == pytest.approx((-0.9 - 0.001, -0.9 + 0.001), abs=2e-6)
    assert numbers.p_value < 1e-9


def test_the_rule_of_three_outlasts_moderated_seeds():
    """No tuple differs; the variance over seeds is what moderation made of zero."""
    numbers = judged(0.0, 0.0, 1e-9, 330)
    assert (numbers.low, numbers.high, numbers.verdict) == (pytest.approx(-0.0091, abs=1e-4), -numbers.low, "undecided")


def test_moderated_seeds_outlast_the_rule_of_three():
    narrow, wide = judged(0.0, 0.0, 1e-9, 330), judged(0.0, 0.0, 1.0, 330)
    assert wide.low < 10 * narrow.low


def test_verdict_interval_and_p_value_agree_where_all_tuples_differ_alike():
    for bits, count, seeds in itertools.product((1e-3, 5e-3, 0.02, 0.1), (30.0, 300.0, 3000.0), (0.0, 1e-6)):
        numbers = judged(bits, 0.0, seeds, count)
        assert numbers.low <= numbers.difference <= numbers.high
        assert (numbers.p_value < ALPHA) == (numbers.low > 0), (bits, count, seeds)
