"""Adaptive n: rules, temperatures and thresholds; exact posteriors keep their word."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sharedlabel import rng
from sharedlabel.aggregators._pool import pooled
from sharedlabel.data import gaussian, tuples
from sharedlabel.errors import ConfigError, DataError
from sharedlabel.metrics import stopping
from sharedlabel.metrics.uncertainty import estimate
from sharedlabel.scoring import thresholds as adaptive
from sharedlabel.summary.adaptive_n import ratio
from sharedlabel.types import Tuples

RULES = ("threshold", "margin", "sprt")
ERRORS = (0.2, 0.1, 0.05, 0.02)
N_MAX, HALF = 6, 1600
PRIOR = torch.full((4,), 0.25, dtype=torch.float64)


@dataclasses.dataclass(frozen=True)
class Split:
    """Tuples of one half of the images, and their exact posteriors from scaled logits of single images."""

    drawn: Tuples
    posteriors: dict[str, Tensor]
    exact: Tensor


def make(first: int, sharpness: float = 1.0, seed: int = 0) -> Split:
    config = gaussian.Config(classes=4, dim=3, separation=2.0, instances_per_class=HALF // 2, seed=seed)
    dataset = gaussian.load(config, Path())
    images = torch.arange(first, len(dataset.labels), 2)
    drawn = tuples.partition(dataset.labels[images], N_MAX, 3, PRIOR, rng.generator(first, "tuples"))
    index = images[drawn.indices.flatten(0, 1)]
    exact = gaussian.exact_log_posterior(config, dataset, index, PRIOR.log())
    single = gaussian.exact_log_posterior(config, dataset, index.reshape(-1, 1), PRIOR.log()).view_as(exact)
    pool = pooled(sharpness * single, PRIOR.log())
    return Split(drawn, {"aggregator": pool, "log_pool": pool}, exact)


@pytest.fixture(scope="module")
def validation() -> Split:
    return make(0)


@pytest.fixture(scope="module")
def test_split() -> Split:
    return make(1)


@pytest.fixture(scope="module")
def fitted(validation):
    seen = watch(validation, adaptive.temperatures(validation.posteriors, validation.drawn))
    return seen, adaptive.fit(seen, validation.drawn, ERRORS)


def watch(split: Split, temperatures) -> adaptive.Watched:
    return adaptive.watch(split.posteriors, split.drawn, temperatures, RULES)


def test_the_log_pool_is_exact_for_independent_instances(validation):
    torch.testing.assert_close(validation.posteriors["log_pool"], validation.exact)


def test_the_sequential_test_is_the_threshold_rule_of_the_log_pool(validation, fitted):
    seen, thresholds = fitted
    assert torch.equal(seen.confidence["sprt"], seen.confidence["threshold"])
    by_rule = {rule: [dataclasses.replace(t, rule="") for t in thresholds if t.rule == rule] for rule in RULES}
    assert by_rule["sprt"] == by_rule["threshold"]
    other = {**validation.posteriors, "aggregator": validation.posteriors["aggregator"].roll(1, 2)}
    apart = adaptive.watch(other, validation.drawn, adaptive.temperatures(other, validation.drawn), RULES)
    assert torch.equal(apart.confidence["sprt"], seen.confidence["sprt"])
    assert not torch.equal(apart.right, seen.right)  # the label is the aggregator's


def realised(split: Split, stops: stopping.Stops, right: Tensor) -> tuple[Tensor, Tensor]:
    """Share of wrong decisions among those that reached the threshold, and its standard error."""
    shape = (*split.drawn.labels.shape, -1)
    reached = stops.reached.double()
    wrong = reached * (1 - right.double().gather(1, stops.instances - 1))
    mass = split.drawn.weights.double() / split.drawn.weights.double().sum()
    scores = ratio(wrong.view(shape), reached.view(shape), mass)
    estimated = estimate(scores, split.drawn, [N_MAX] * scores.shape[2], HALF)
    return estimated.mean, estimated.se


@pytest.mark.parametrize("alpha", [0.2, 0.05, 0.01])
def test_an_exact_posterior_that_stops_at_1_minus_alpha_errs_alpha_at_most(test_split, alpha):
    """Wald's bound: no calibration and no fitted threshold is needed when the posterior is right."""
    confidence = stopping.largest(test_split.exact)
    stops = stopping.stops(confidence, torch.tensor([1 - alpha], dtype=torch.float64))
    right = test_split.exact.argmax(2) == test_split.drawn.labels.flatten()[:, None]
    error, se = realised(test_split, stops, right)
    assert float(error) - 2 * float(se) <= alpha
    assert float(stops.reached.double().mean()) > 0.3


def test_fitted_thresholds_keep_their_error_on_fresh_images():
    """Over data sets: the error on test exceeds the nominal one no more than chance, and little of it is wasted."""
    excess = []
    for seed in range(10):
        fitted, fresh = make(0, seed=seed), make(1, seed=seed)
        temperatures = adaptive.temperatures(fitted.posteriors, fitted.drawn)
        thresholds = adaptive.fit(watch(fitted, temperatures), fitted.drawn, ERRORS)
        own = [one for one in thresholds if (one.rule, one.aim) == ("threshold", "error")]
        assert all(one.error < one.value for one in own)
        seen = watch(fresh, temperatures)
        error, _ = realised(fresh, adaptive.stop(seen, own), seen.right)
        nominal = torch.tensor([one.value for one in own], dtype=torch.float64)
        excess.append((error / nominal - 1)[:3])
    excesses = torch.stack(excess)
    assert bool((excesses.mean(0) <= 2 * excesses.std(0) / len(excesses) ** 0.5).all())
    assert bool((excesses.mean(0) >= -0.3).all())


def grouped(seed: int, groups: int, errors: tuple[float, ...]) -> dict[float, float]:
    """Fit thresholds on so many groups of each class; realised error of each nominal one on many fresh groups."""
    size, fresh = 24, 40
    config = gaussian.Config(
        classes=4,
        dim=3,
        separation=3.5,
        instances_per_class=size * (groups + fresh),
        group_size=size,
        nuisance=0.8,
        seed=seed,
    )
    dataset = gaussian.load(config, Path())
    seen_images = torch.arange(config.instances_per_class).repeat(4) < size * groups

    def split(mask: Tensor) -> tuple[Tuples, Tensor, Tensor]:
        images = mask.nonzero().flatten()
        clusters = dataset.groups[images]
        drawn = tuples.partition(dataset.labels[images], N_MAX, 3, PRIOR, rng.generator(seed, "tuples"), clusters)
        index = images[drawn.indices.flatten(0, 1)].reshape(-1, 1)
        single = gaussian.exact_log_posterior(config, dataset, index, PRIOR.log())
        return drawn, pooled(single.view(-1, N_MAX, 4), PRIOR.log()), clusters

    drawn, posterior, clusters = split(seen_images)
    other, others_posterior, _ = split(~seen_images)
    temperatures = adaptive.temperatures({"aggregator": posterior}, drawn, clusters)
    seen = adaptive.watch({"aggregator": posterior}, drawn, temperatures, RULES[:1])
    fitted = [one for one in adaptive.fit(seen, drawn, errors, clusters) if one.aim == "error"]
    if not fitted:
        return {}
    new = adaptive.watch({"aggregator": others_posterior}, other, temperatures, RULES[:1])
    rates = stopping.rates(adaptive.stop(new, fitted), new.right, other.weights.flatten())
    return dict(zip([one.value for one in fitted], rates.error.tolist(), strict=True))


def test_few_groups_promise_no_small_error():
    """Two groups of each of four classes: eight units, so nothing below 1 / 9; images alone promised .01."""
    for seed in range(4):
        assert set(grouped(seed, 2, (0.3, 0.1, 0.05, 0.01))) <= {0.3}


def test_thresholds_keep_their_error_on_fresh_groups():
    errors = (0.2, 0.1)
    by_seed = [grouped(seed, 15, errors) for seed in range(10)]
    for error in errors:
        realised = torch.tensor([one[error] for one in by_seed if error in one])
        assert len(realised) > 5
        assert float(realised.mean()) <= error + 2 * float(realised.std()) / len(realised) ** 0.5
        assert float(realised.mean()) > 0.5 * error


def test_thresholds_fall_and_instances_rise_as_errors_get_smaller(fitted):
    _, thresholds = fitted
    for rule in RULES:
        own = [one for one in thresholds if (one.rule, one.aim) == (rule, "error")]
        assert [one.value for one in own] == list(ERRORS)
        assert [one.threshold for one in own] == sorted(one.threshold for one in own)
        assert [one.instances for one in own] == sorted(one.instances for one in own)


def test_the_curve_goes_from_one_instance_to_all(fitted):
    _, thresholds = fitted
    for rule in RULES:
        own = [one for one in thresholds if (one.rule, one.aim) == (rule, "instances")]
        assert [one.value for one in own] == adaptive.curve(N_MAX)
        assert all(one.instances <= one.value + 1e-9 for one in own)
        assert own[0].instances == pytest.approx(1)
        assert (own[-1].instances, own[-1].threshold, own[-1].error) == (pytest.approx(N_MAX), 1.0, None)
        assert all(own[at].instances == pytest.approx(own[at].value, rel=0.05) for at in (2, 3, 4))


def test_temperatures_undo_wrong_confidence(validation):
    """Posteriors that are twice too sure get a temperature of two after every number of instances."""
    sure = make(0, sharpness=1.0)
    doubled = {name: 2 * logs for name, logs in sure.posteriors.items()}
    temperatures = adaptive.temperatures(doubled, sure.drawn)
    usual = adaptive.temperatures(validation.posteriors, validation.drawn)
    assert temperatures["aggregator"].shape == (N_MAX,)
    torch.testing.assert_close(temperatures["aggregator"], 2 * usual["aggregator"], rtol=1e-5, atol=0)
    torch.testing.assert_close(usual["aggregator"], torch.ones_like(usual["aggregator"]), rtol=0, atol=0.25)


def test_what_no_threshold_attains_is_left_out(validation, fitted):
    seen, _ = fitted
    thresholds = adaptive.fit(seen, validation.drawn, (0.1, 1e-6))
    assert {one.value for one in thresholds if one.aim == "error"} == {0.1}


def test_means_are_those_of_every_prefix(validation, fitted):
    seen, _ = fitted
    means = adaptive.means(seen, validation.drawn)
    mass = (validation.drawn.weights / validation.drawn.weights.sum()).flatten()
    for k in range(N_MAX):
        assert means["n_accuracy"][k] == pytest.approx(float(mass @ seen.right[:, k].double()))
        assert means["information"][k] == pytest.approx(float(mass @ seen.information[:, k]))


def test_only_the_sequential_test_needs_the_log_pool():
    assert adaptive.sources(("threshold", "margin")) == {"aggregator"}
    assert adaptive.sources(RULES) == {"aggregator", "log_pool"}


def test_an_unknown_rule_is_named():
    with pytest.raises(ConfigError, match="unknown rule 'treshold'; did you mean 'threshold'"):
        adaptive.sources(("treshold",))


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_posteriors_that_are_not_finite_are_refused(validation, value):
    broken = validation.posteriors["aggregator"].clone()
    broken[5, 2, 1] = value
    with pytest.raises(DataError, match="expected finite log-posteriors, got"):
        adaptive.temperatures({"aggregator": broken}, validation.drawn)


@pytest.mark.parametrize("error", [0.0, 1.0])
def test_nominal_errors_outside_the_open_interval_are_refused(validation, fitted, error):
    with pytest.raises(DataError, match=rf"a nominal error in \(0, 1\), got {error:g}"):
        adaptive.fit(fitted[0], validation.drawn, (error,))
