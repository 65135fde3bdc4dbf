"""Every public metric refuses what it cannot mean, in one sentence, with the type checks of the tests switched off."""

from __future__ import annotations

import inspect
import math
from dataclasses import replace
from typing import Any

import jaxtyping
import pytest
import torch

from sharedlabel import rng
from sharedlabel.data.tuples import partition
from sharedlabel.errors import DataError
from sharedlabel.metrics import _shells as shells
from sharedlabel.metrics import (
    accuracy,
    behrens_fisher,
    brier,
    calibration,
    cost,
    diagrams,
    gain,
    information,
    intervals,
    moderation,
    paired,
    stopping,
    uncertainty,
)
from sharedlabel.types import Tuples

TUPLES, PREFIXES, CLASSES = 12, 3, 4
LOGS = (torch.randn(TUPLES, PREFIXES, CLASSES, generator=rng.generator(0, "checks"), dtype=torch.float64)).log_softmax(
    -1
)
LABELS = torch.arange(TUPLES) % CLASSES
WEIGHTS = torch.ones(TUPLES, dtype=torch.float64)
JOINT = torch.full((2, 3, 3), 1 / 9, dtype=torch.float64)
ONES = torch.ones(PREFIXES, dtype=torch.float64)
DRAWN = partition(torch.arange(24) % 2, 3, 2, torch.tensor([0.5, 0.5]).double(), rng.generator(0, "checks"), None)
SCORES = torch.rand(2, 8, 2, generator=rng.generator(1, "checks"), dtype=torch.float64)


def only(at: Any) -> Tuples:
    """A part of them."""
    return Tuples(DRAWN.indices[at], DRAWN.labels[at], DRAWN.weights[at])


ESTIMATE = uncertainty.estimate(SCORES, DRAWN, (1, 3), 24)
STOPS = stopping.Stops(torch.ones(TUPLES, 2, dtype=torch.int64), torch.ones(TUPLES, 2, dtype=torch.bool))
RATES = stopping.Rates(*(torch.ones(2, dtype=torch.float64) for _ in range(3)))
DIAGRAM = diagrams.reliability(LOGS, LABELS)
ALONE = Tuples(torch.arange(3 * TUPLES).view(1, TUPLES, 3), LABELS[None], WEIGHTS[None])
SPREAD = behrens_fisher.Spread(*torch.tensor([[0.5], [9.0], [0.5], [4.0]], dtype=torch.float64))


@pytest.fixture(autouse=True)
def without_type_checks(monkeypatch):
    """Outside of tests there are none."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def updated(shell):
    """Return what a fresh shell does with an update alone."""

    def update(log_posterior, labels, weights=None):
        metric = shell()
        metric.update(log_posterior, labels, weights)
        metric.compute()

    return update


SCORED = {  # of a log-posterior, labels, and perhaps weights
    "log2_posterior_of_label": information.log2_posterior_of_label,
    "confusion": information.confusion,
    "fit_temperature": calibration.fit_temperature,
    "correct": accuracy.correct,
    "n_accuracy": accuracy.n_accuracy,
    "negative_log_likelihood": calibration.negative_log_likelihood,
    "brier_score": brier.brier_score,
    "bin_sums": lambda logs, labels, weights=WEIGHTS: diagrams.bin_sums(logs, labels, weights, 3),  # may be all 0
    "reliability": diagrams.reliability,
    "calibration_error": diagrams.calibration_error,
    "squared_distance": brier.squared_distance,
    "NAccuracy": updated(lambda: shells.NAccuracy(PREFIXES)),
    "NegativeLogLikelihood": updated(lambda: shells.NegativeLogLikelihood(PREFIXES)),
    "BrierScore": updated(lambda: shells.BrierScore(PREFIXES)),
    "InformationGain": updated(lambda: shells.InformationGain(CLASSES, PREFIXES)),
    "RelativeInformation": updated(lambda: shells.RelativeInformation(CLASSES)),
    "information_gain": gain.information_gain,
    "relative_information": gain.relative_information,
    "CalibrationError": updated(lambda: shells.CalibrationError(PREFIXES)),
}
POSTERIORS = {  # of a log-posterior
    **{name: lambda logs, metric=metric: metric(logs, LABELS) for name, metric in SCORED.items()},
    "floor_posterior": information.floor_posterior,
    "apply_temperature": lambda logs: calibration.apply_temperature(logs, ONES),
    "largest": stopping.largest,
    "margin": stopping.margin,
}
WEIGHED = {  # of weights
    **{
        name: lambda weights, metric=metric: metric(LOGS, LABELS, weights)
        for name, metric in SCORED.items()
        if "weights" in inspect.signature(metric).parameters
    },
    "posterior_gain": lambda weights: information.posterior_gain(-torch.ones(TUPLES, 2).double(), weights, 1.0),
    "rates": lambda weights: stopping.rates(STOPS, torch.ones(TUPLES, 2, dtype=torch.bool), weights),
}
ON_ANY_SCALE = {"correct", "n_accuracy", "NAccuracy", "confusion", "floor_posterior"}
ON_ANY_SCALE |= {"apply_temperature", "fit_temperature", "NegativeLogLikelihood", "InformationGain"}
ON_ANY_SCALE |= {"negative_log_likelihood", "RelativeInformation", "information_gain", "relative_information"}


def spoilt(values: torch.Tensor, value: float) -> torch.Tensor:
    copy = values.clone()
    copy[(1,) * values.ndim] = value
    return copy


@pytest.mark.parametrize("name", POSTERIORS)
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (LOGS.exp(), r"expected log-posteriors, got probabilities; pass their logarithm, values\.log\(\)"),
        (LOGS[:, 0], r"^expected log-posteriors as floating-point numbers \[t n c\], got float64 \[12, 4\]; a si"),
        (LOGS.tolist(), r"^expected log-posteriors as a tensor \[t n c\], got a list; use torch.as_tensor$"),
        (LOGS.argmax(-1), r"floating-point numbers \[t n c\], got int64 \[12, 3\]"),
        ((100 * LOGS).long(), r"floating-point numbers \[t n c\], got int64 \[12, 3, 4\]"),
        (spoilt(LOGS, math.nan), "expected finite log-posteriors, got nan; check the aggregator and its features"),
        (spoilt(LOGS, math.inf), "expected finite log-posteriors, got inf"),
        (torch.full_like(LOGS, -math.inf), "expected finite log-posteriors, got -inf"),
        (LOGS.index_fill(0, torch.tensor([5]), -math.inf), "expected finite log-posteriors, got -inf"),
        (LOGS.sub(LOGS.amax(2, keepdim=True)).sign().add(1), "expected log-posteriors, got probabilities"),
    ],
    ids=[
        "probabilities",
        "[t c]",
        "list",
        "decisions",
        "whole numbers",
        "nan",
        "inf",
        "impossible",
        "one tuple",
        "certain",
    ],
)
def test_what_is_no_log_posterior_is_refused(name, wrong, message):
    with pytest.raises(DataError, match=message):
        POSTERIORS[name](wrong)


@pytest.mark.parametrize("name", sorted(set(POSTERIORS) - ON_ANY_SCALE))
def test_posteriors_must_sum_to_1_where_that_counts(name):
    with pytest.raises(DataError, match=r"whose probabilities sum to 1, got a sum of 1\.10517; normalise them with"):
        POSTERIORS[name](LOGS + 0.1)
    POSTERIORS[name](LOGS + 1e-4)


@pytest.mark.parametrize("name", sorted(ON_ANY_SCALE))
def test_posteriors_may_have_any_scale_where_it_does_not_count(name):
    POSTERIORS[name](LOGS + 0.1)
    POSTERIORS[name](LOGS - 5)


@pytest.mark.parametrize("name", SCORED)
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (LABELS.where(LABELS > 0, 9), "expected labels from 0 to 3, got 9"),
        (LABELS.index_fill(0, torch.tensor([3]), 7), "expected labels from 0 to 3, got 7"),
        (LABELS + 1, "expected labels from 0 to 3, got 4; number classes as the posteriors do"),
        (LABELS - 1, "expected labels from 0 to 3, got -1"),
        (LABELS[1:], r"expected labels as int64 \[12\], got int64 \[11\]; give one to each tuple"),
        (LABELS[:, None], r"expected labels as int64 \[12\], got int64 \[12, 1\]"),
        (LABELS.double(), r"expected labels as int64 \[12\], got float64 \[12\]; pass labels.long\(\)"),
        (LABELS.int(), r"expected labels as int64 \[12\], got int32 \[12\]; pass labels.long\(\)"),
    ],
    ids=["three", "one", "above", "below", "short", "column", "floats", "narrow"],
)
def test_labels_that_there_are_not_are_refused(name, wrong, message):
    with pytest.raises(DataError, match=message):
        SCORED[name](LOGS, wrong)


@pytest.mark.parametrize("name", WEIGHED)
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (WEIGHTS[1:], r"expected weights \[t\] with t = 12, got \[11\]; pass what belongs together"),
        (WEIGHTS[:, None], r"expected weights as floating-point numbers \[t\], got float64 \[12, 1\]"),
        (LABELS, r"expected weights as floating-point numbers \[t\], got int64 \[12\]"),
        (-WEIGHTS, "expected weights of at least 0, got -1"),
        (math.inf * WEIGHTS, "expected weights with a finite sum above 0, got inf"),
        (math.nan * WEIGHTS, "expected weights of at least 0, got nan"),
    ],
    ids=["short", "column", "whole numbers", "negative", "inf", "nan"],
)
def test_weights_that_are_none_are_refused(name, wrong, message):
    with pytest.raises(DataError, match=message):
        WEIGHED[name](wrong)


@pytest.mark.parametrize("name", sorted(WEIGHED.keys() - {"bin_sums"}))
def test_weights_that_weigh_nothing_are_refused(name):
    with pytest.raises(DataError, match="weights with a finite sum above 0, got 0; leave them out to weigh all alike"):
        WEIGHED[name](0 * WEIGHTS)


SCORES_WRONG = [
    ({"prefixes": (1, 4)}, "expected numbers of instances from 1 to the 3 of a tuple, got 4; change the prefixes"),
    ({"prefixes": (0, 3)}, "from 1 to the 3 of a tuple, got 0"),
    ({"prefixes": (1, 2.5)}, r"from 1 to the 3 of a tuple, got 2\.5"),
    ({"prefixes": (3,)}, r"with k = 1, got \[.*, 2\]; pass what belongs together"),
    ({"instances": 23}, "expected tuples of 23 instances, got one with number 23; pass the split's size"),
    ({"clusters": torch.arange(23)}, r"expected a group of each of 24 instances, got \[23\]; pass one each"),
    ({"scores": math.nan}, "expected scores without NaN, got nan"),
    ({"scores": -math.inf}, "expected finite scores, got infinity; floor posteriors before taking their logarithm"),
    ({"tuples": only(slice(1))}, r"with p = 1, got \[.*2, 8, 2\]"),
    ({"tuples": only((slice(None), slice(1, None)))}, r"with t = 7, got \[.*8, 2\]"),
]


OF_SCORES = {
    "estimate": uncertainty.estimate,
    "seed_average": lambda scores, **given: uncertainty.seed_average(scores.expand(3, -1, -1, -1), **given),
    "all_pairs": lambda scores, **given: paired.all_pairs(scores.expand(3, 3, -1, -1, -1), **given),
}


OF_GROUPS = {
    "estimate": lambda tuples, groups: uncertainty.estimate(SCORES[:1], tuples, (1, 3), 24, groups),
    "seed_average": lambda tuples, groups: uncertainty.seed_average(SCORES[None, :1], tuples, (1, 3), 24, groups),
    "all_pairs": lambda tuples, groups: paired.all_pairs(SCORES[:, None, None], tuples, (1, 3), 24, groups),
}


@pytest.mark.parametrize(("change", "message"), SCORES_WRONG, ids=range(len(SCORES_WRONG)))
@pytest.mark.parametrize("name", OF_SCORES)
def test_scores_that_do_not_belong_to_the_tuples_are_refused(name, change, message):
    given = {"tuples": DRAWN, "prefixes": (1, 3), "instances": 24, "clusters": None, **change}
    scores = spoilt(SCORES, given.pop("scores", 0.5))
    with pytest.raises(DataError, match=message):
        OF_SCORES[name](scores, **given)


@pytest.mark.parametrize("name", OF_SCORES)
def test_no_prefixes_at_all_are_refused(name):
    given = {"tuples": DRAWN, "prefixes": (), "instances": 24, "clusters": None}
    with pytest.raises(DataError, match="from 1 to the 3 of a tuple, got none; change the prefixes"):
        OF_SCORES[name](SCORES[..., :0], **given)


@pytest.mark.parametrize("name", OF_SCORES)
def test_scores_of_independent_images_and_of_groups_are_meant(name):
    OF_SCORES[name](SCORES, tuples=DRAWN, prefixes=(1, 3), instances=24, clusters=None)
    groups = torch.zeros(24, dtype=torch.int64)
    groups[DRAWN.indices[0]] = torch.arange(8)[:, None]
    alone = only(slice(1))
    OF_GROUPS[name](alone, groups)


ONE = torch.tensor([0.5], dtype=torch.float64)
OTHERS = {
    "label_entropy": [
        (lambda: information.label_entropy(torch.tensor([0.5, 0.5])), "expected log-priors, got probabilities"),
        (lambda: information.label_entropy(LOGS), r"log-priors as floating-point numbers \[c\], got float64 \[12,"),
        (lambda: information.label_entropy(torch.tensor([0.0, 0.0])), "log-priors whose probabilities sum to 1"),
    ],
    "floor_posterior": [
        (lambda: information.floor_posterior(LOGS, 0.0), r"uniform distribution in \(0, 1\), got 0;"),
        (lambda: information.floor_posterior(LOGS, 1.0), r"uniform distribution in \(0, 1\), got 1;"),
    ],
    "posterior_gain": [
        (lambda: information.posterior_gain(ONE[None], None, 1.0), r"log2 posteriors of at most 0\.001, got 0\.5"),
        (lambda: information.posterior_gain(-ONE[None], None, -1.0), "a label entropy in bits of at least 0, got -1"),
        (lambda: information.posterior_gain(-ONE, None, 1.0), r"log2 posteriors as floating-point numbers \[t n\]"),
    ],
    "decision_gain": [
        (lambda: information.decision_gain(JOINT + JOINT), "^expected joint distributions that sum to 1, got a sum"),
        (lambda: information.decision_gain(-JOINT), r"joint distributions in \[0, 1\.001\], got -0\.111"),
        (lambda: information.decision_gain(torch.stack([JOINT[0], 2 * JOINT[0]])), "got a sum of 2; divide by"),
        (lambda: information.decision_gain(JOINT[:, :2]), r"^expected joint distributions \[n c c\] with c = 3, got"),
    ],
    "decision_gain_null": [
        (lambda: information.decision_gain_null(JOINT, 0), "a number of tuples of at least 1, got 0"),
        (lambda: information.decision_gain_null(2 * JOINT, 9), "joint distributions that sum to 1, got a sum of 2"),
    ],
    "decision_gain_adjusted": [
        (lambda: information.decision_gain_adjusted(math.nan * ONE, ONE, 1.0), "^expected gains without NaN, got nan"),
        (lambda: information.decision_gain_adjusted(ONE, math.nan * ONE, 1.0), "gains by chance without NaN, got nan"),
        (lambda: information.decision_gain_adjusted(ONE, ONE, -1.0), "a label entropy in bits of at least 0, got -1"),
    ],
    "accuracy_gain": [
        (lambda: information.accuracy_gain(3 * ONE, 4), r"accuracies in \[0, 1\], got 1\.5"),
        (lambda: information.accuracy_gain(-ONE, 4), r"accuracies in \[0, 1\], got -0\.5"),
        (
            lambda: information.accuracy_gain(ONE[None], 4),
            r"accuracies as floating-point numbers \[n\], got float64 \[1, 1\]; bring it into this form",
        ),
        (lambda: information.accuracy_gain(ONE, 1), "a number of classes of at least 2, got 1"),
    ],
    "information_gain": [
        (lambda: gain.information_gain(LOGS, LABELS, log_prior=ONES), r"log-priors \[c\] with c = 4, got \[3\]"),
        (lambda: gain.relative_information(LOGS[:1], LABELS[:1]), "at least two labels that occur, got .* 0.0 bits"),
    ],
    "entropy_of": [
        (lambda: gain.entropy_of(-ONES), "counts of labels of at least 0, got -1"),
        (lambda: gain.entropy_of(0 * ONES), "a number of labels above 0, got 0"),
    ],
    "share_of_entropy": [
        (lambda: information.share_of_entropy(ONE, math.nan), "at least two labels that occur, got .* nan bits"),
        (lambda: information.share_of_entropy(ONE, math.inf), "at least two labels that occur, got .* inf bits"),
        (lambda: information.share_of_entropy(math.nan * ONE, 1.0), "gains without NaN, got nan"),
    ],
    "log_correction": [
        (lambda: calibration.log_correction(ONES, ONES[1:]), r"frequencies \[c\] with c = 3, got \[2\]"),
        (lambda: calibration.log_correction(-ONES, ONES), "a prior of at least 0, got -1"),
        (lambda: calibration.log_correction(ONES, 0 * ONES), "a frequency above 0, got 0"),
    ],
    "single_temperature": [
        (lambda: calibration.single_temperature(LOGS[:, 0], LABELS, ONES), r"logits \[m c\] with c = 3, got \[12, 4\]"),
        (lambda: calibration.single_temperature(LOGS[:, 0], LABELS[1:], torch.ones(4)), r"labels as int64 \[12\], got"),
        (lambda: calibration.single_temperature(LOGS[:, 0], LABELS, torch.zeros(4)), "a finite sum above 0, got 0"),
    ],
    "calibrate_logits": [
        (lambda: calibration.calibrate_logits(LOGS, ONES, 1.0), r"log corrections \[c\] with c = 4, got \[3\]"),
        (lambda: calibration.calibrate_logits(LOGS[..., 1:], ONES, 0.0), "a temperature above 0, got 0"),
        (lambda: calibration.calibrate_logits(math.nan * LOGS, ONES, 1.0), "logits without NaN, got nan"),
    ],
    "apply_temperature": [
        (lambda: calibration.apply_temperature(LOGS, ONES[1:]), r"temperatures \[n\] with n = 3, got \[2\]"),
        (lambda: calibration.apply_temperature(LOGS, 0 * ONES), "expected temperatures above 0, got"),
    ],
    "temperatures": [
        (
            lambda: calibration.temperatures(LOGS.exp(), ALONE, (1, 2, 3), None),
            "expected log-posteriors, got probabilities",
        ),
        (
            lambda: calibration.temperatures(LOGS, ALONE, (1, 3), None),
            r"log-posteriors \[t n c\] with n = 2, got \[12, 3, 4\]",
        ),
    ],
    "independent": [
        (lambda: uncertainty.independent((1, 0), 24), "numbers of instances above 0, got 0"),
        (lambda: uncertainty.independent((1, 2), 0), "a split's size above 0, got 0"),
    ],
    "bin_sums": [
        (lambda: diagrams.bin_sums(LOGS, LABELS, WEIGHTS, 0), "a number of bins of at least 1, got 0"),
    ],
    "reliability_from_sums": [
        (lambda: diagrams.reliability_from_sums(LOGS), r"sums \[s n bins\] with s = 3, got \[12, 3, 4\]"),
        (lambda: diagrams.reliability_from_sums(-LOGS[:3].abs()), "sums of at least 0, got -"),
    ],
    "calibration_gap": [
        (lambda: diagrams.calibration_gap(DIAGRAM._replace(mass=2 + DIAGRAM.mass)), r"mass of a .* \[0, 1\.001\]"),
        (lambda: diagrams.calibration_gap(DIAGRAM._replace(accuracy=ONE)), r"accuracy of a .* \[n bins\], got"),
    ],
    "cost": [
        (lambda: cost.cost(0, 1.0, 1.0), "numbers of instances above 0, got 0"),
        (lambda: cost.cost(1, -1.0, 1.0), "MACs of at least 0, got -1"),
        (lambda: cost.cost(1, 1.0, math.nan), "MACs of at least 0, got nan"),
    ],
    "dense_passes": [
        (lambda: cost.dense_passes(1.0, 0), "MACs of the dense backbone above 0, got 0"),
        (lambda: cost.dense_passes(-1.0, 1), "MACs of at least 0, got -1"),
    ],
    "efficiency": [
        (lambda: cost.efficiency(1.0, 0.0), "costs in dense passes above 0, got 0"),
        (lambda: cost.efficiency(math.nan, 1.0), "gains without NaN, got nan"),
    ],
    "margin": [
        (lambda: stopping.margin(torch.zeros(2, 2, 1)), "a number of labels of at least 2, got 1"),
    ],
    "stops": [
        (lambda: stopping.stops(3 * ONE[None], ONE), r"confidences in \[0, 1\.001\], got 1\.5"),
        (lambda: stopping.stops(ONE, ONE), r"confidences as floating-point numbers \[t n\], got float64 \[1\]"),
        (lambda: stopping.stops(ONE[None], math.nan * ONE), "thresholds without NaN, got nan"),
    ],
    "rates": [
        (lambda: stopping.rates(STOPS, LOGS), r"expected bool \[12, n\] of what is right, got float64 \[12, 3, 4\]"),
        (lambda: stopping.rates(STOPS, STOPS.reached[1:]), r"expected bool \[12, n\] of .*, got bool \[11, 2\]"),
    ],
    "candidates": [
        (lambda: stopping.candidates(-ONE[None]), r"confidences in \[0, 1\.001\], got -0\.5"),
    ],
    "for_error": [
        (lambda: stopping.for_error(RATES, 1.0, 10), r"a nominal error in \(0, 1\), got 1"),
    ],
    "for_instances": [
        (lambda: stopping.for_instances(RATES, 0.5), r"a mean number of instances of at least 1, got 0\.5"),
    ],
    "draw_multipliers": [
        (lambda: uncertainty.draw_multipliers(0, 5, torch.Generator()), "a number of replicates of at least 1, got 0"),
        (lambda: uncertainty.draw_multipliers(5, 0, torch.Generator()), "a number of units of at least 1, got 0"),
    ],
    "fit_temperature": [
        (lambda: calibration.fit_temperature(LOGS, LABELS, sizes=(1, 2, 2)), r"3 different sizes, .*, got \[1, 2, 2\]"),
        (lambda: calibration.fit_temperature(LOGS, LABELS, sizes=(0, 1, 2)), r"3 different sizes, .*, got \[0, 1, 2\]"),
        (lambda: calibration.fit_temperature(LOGS, LABELS, independent=ONES[1:]), r"\[n\] with n = 3, got \[2\]"),
        (lambda: calibration.fit_temperature(LOGS, LABELS, independent=0 * ONES), "above 0, got 0"),
    ],
    "replicate": [
        (lambda: uncertainty.replicate([ESTIMATE], SCORES[0]), "a number of multipliers of at least 24, got 2"),
    ],
    "p_value": [
        (lambda: behrens_fisher.p_value(math.nan * ONE, SPREAD), "mean differences without NaN, got nan"),
        (lambda: behrens_fisher.p_value(ONE, replace(SPREAD, of_images=-ONE)), r"variances of at least 0, got -0\.5"),
        (lambda: behrens_fisher.p_value(ONE, replace(SPREAD, of_seeds=-ONE)), r"variances of at least 0, got -0\.5"),
    ],
    "quantile": [
        (lambda: behrens_fisher.quantile(1.5, SPREAD), r"a level in \[0, 1\], got 1\.5"),
        (lambda: behrens_fisher.quantile(-0.5, SPREAD), r"a level in \[0, 1\], got -0\.5"),
        (
            lambda: behrens_fisher.quantile(0.95, replace(SPREAD, seed_freedom=0 * ONE)),
            "degrees of freedom of seeds above 0, got 0",
        ),
    ],
    "rule_of_three": [
        (lambda: intervals.rule_of_three(1.5, ONE), r"a level in \[0, 1\], got 1\.5"),
        (lambda: intervals.rule_of_three(-0.5, ONE), r"a level in \[0, 1\], got -0\.5"),
        (lambda: intervals.rule_of_three(0.95, 0 * ONE), "a number of trials above 0, got 0"),
    ],
    "interval": [
        (lambda: intervals.interval(ONE, SPREAD, 95), r"a level in \[0, 1\], got 95"),
        (lambda: intervals.interval(ONE, SPREAD.scaled(math.nan)), "variances of at least 0, got nan"),
    ],
    "loss_interval": [
        (lambda: intervals.loss_interval(-ONE, SPREAD, ONE), r"a loss of at least 0, got -0\.5"),
        (lambda: intervals.loss_interval(ONE, SPREAD, 0 * ONE), "a number of trials above 0, got 0"),
    ],
    "wilson": [
        (lambda: intervals.wilson(3 * ONE, SPREAD, ONE), r"shares in \[0, 1\], got 1\.5"),
        (lambda: intervals.wilson(-ONE, SPREAD, ONE), r"shares in \[0, 1\], got -0\.5"),
    ],
    "bonferroni": [
        (lambda: intervals.bonferroni(3 * ONE, 2), r"p-values in \[0, 1\], got 1\.5"),
        (lambda: intervals.bonferroni(-ONE, 2), r"p-values in \[0, 1\], got -0\.5"),
        (lambda: intervals.bonferroni(ONE, 0), "a number of tests of at least 1, got 0"),
    ],
    "moderate": [
        (lambda: moderation.moderate(-JOINT, 2), r"^expected variances of at least 0, got -0\.111"),
        (
            lambda: moderation.moderate(JOINT[0], 2),
            r"variances as floating-point numbers \[pairs places k\], got float",
        ),
        (lambda: moderation.moderate(JOINT, 0), "degrees of freedom above 0, got 0"),
    ],
    "shells": [
        (lambda: shells.NAccuracy(2).update(LOGS, LABELS), r"log-posteriors \[t n c\] with n = 2, got \[12, 3, 4\]"),
        (lambda: shells.CalibrationError(2).update(LOGS, LABELS), r"log-posteriors \[t n c\] with n = 2, got"),
        (lambda: shells.NAccuracy(0), "a number of instances of at least 1, got 0"),
        (lambda: shells.NAccuracy(2.5), r"a number of instances as a whole number of at least 1, got 2\.5; pass one"),
        (lambda: shells.InformationGain("3"), "a number of classes as a whole number of at least 2, got '3'"),
        (lambda: shells.CalibrationError(bins=0), "a number of bins of at least 1, got 0"),
        (lambda: diagrams.reliability(LOGS, LABELS, bins=7.5), r"a number of bins as a whole number of .* got 7\.5"),
        (lambda: shells.InformationGain(1), "a number of classes of at least 2, got 1"),
        (
            lambda: shells.InformationGain(3).update(LOGS, LABELS),
            r"log-posteriors \[t n c\] with c = 3, got \[12, 3, 4\]",
        ),
        (
            lambda: shells.InformationGain(4, log_prior=LOGS[0, 0, :3]),
            "expected log-priors whose probabilities sum to 1",
        ),
        (lambda: shells.InformationGain(4, log_prior=torch.full((2,), 0.5).log()), r"log-priors \[c\] with c = 4, got"),
    ],
}


@pytest.mark.parametrize(
    ("call", "message"),
    [case for cases in OTHERS.values() for case in cases],
    ids=[f"{name}-{number}" for name, cases in OTHERS.items() for number in range(len(cases))],
)
def test_other_arguments_without_a_meaning_are_refused(call, message):
    with pytest.raises(DataError, match=message) as caught:
        call()
    assert "; " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_public_metric_is_refused_something():
    modules = (accuracy, brier, calibration, cost, diagrams, gain, information, paired, stopping, uncertainty)
    modules += (behrens_fisher, intervals, moderation)
    public = {
        name
        for module in modules
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_")
    }
    public.discard("columns")  # of rows: what it calls is tried
    tried = {*POSTERIORS, *WEIGHED, *OF_SCORES, *OTHERS}
    assert public - tried == set()


def test_a_refused_batch_leaves_a_shell_as_it_was():
    metric = shells.CalibrationError(PREFIXES)
    metric.update(LOGS, LABELS)
    before = metric.compute()
    for log_posterior in (LOGS + 1, LOGS.exp(), LOGS[:, :2]):
        with pytest.raises(DataError):
            metric.update(log_posterior, LABELS)
    assert torch.equal(metric.compute(), before)


def test_impossible_labels_are_meant_and_empty_batches_change_nothing():
    sure = torch.tensor([[[0.0, -math.inf]]])
    assert information.floor_posterior(sure).isfinite().all()
    metric = shells.NAccuracy(1)
    metric.update(sure, torch.tensor([0]))
    metric.update(sure[:0], torch.tensor([0])[:0])
    assert metric.compute().item() == 1


@pytest.mark.parametrize("name", sorted(WEIGHED.keys() & SCORED.keys() - {"bin_sums"}))
def test_a_mean_over_no_tuples_has_no_value(name):
    """Functions and classes say so alike."""
    message = r"^expected at least one tuple to take a mean over, got none; check .* by update before compute$"
    for weights in (None, WEIGHTS[:0]):
        with pytest.raises(DataError, match=message):
            SCORED[name](LOGS[:0], LABELS[:0], weights)


@pytest.mark.parametrize("name", SCORED)
def test_lists_in_the_place_of_labels_are_refused(name):
    with pytest.raises(DataError, match=r"^expected labels as a tensor \[t\], got a list; use torch.as_tensor$"):
        SCORED[name](LOGS, LABELS.tolist())


@pytest.mark.parametrize("name", WEIGHED)
def test_lists_in_the_place_of_weights_are_refused(name):
    with pytest.raises(DataError, match=r"^expected weights as a tensor \[t\], got a list; use torch.as_tensor$"):
        WEIGHED[name](WEIGHTS.tolist())
