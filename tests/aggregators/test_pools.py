from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sharedlabel import rng
from sharedlabel.aggregators import log_pool, majority_vote, mean_vote, tempered_log_pool
from sharedlabel.aggregators._base import Aggregator
from sharedlabel.aggregators._pool import LIMITS, fit_coefficients
from sharedlabel.errors import TrainingError
from sharedlabel.types import SetShape

PRIOR = (0.6, 0.3, 0.1)


def set_shape(prior: tuple[float, ...] = PRIOR) -> SetShape:
    zeros = torch.zeros(2).double()
    return SetShape(
        embedding_mean=zeros, embedding_scale=zeros + 1, log_prior=torch.tensor(prior, dtype=torch.float64).log()
    )


def run(aggregator: Aggregator, logits: Tensor) -> Tensor:
    return aggregator(torch.zeros(*logits.shape[:2], 2).double(), logits)


def softmax(row: list[float]) -> list[float]:
    top = max(row)
    parts = [math.exp(x - top) for x in row]
    return [x / sum(parts) for x in parts]


def reference(kind: str, rows: list[list[float]]) -> list[float]:
    """One prefix by its textbook formula, in plain Python."""
    probabilities, k = [softmax(row) for row in rows], len(rows)
    columns = list(zip(*probabilities, strict=True))
    if kind == "mean":
        return [sum(column) / k for column in columns]
    if kind == "majority":
        votes = [row.index(max(row)) for row in rows]
        return [(votes.count(y) + 2.0 * PRIOR[y]) / (k + 2.0) for y in range(3)]
    products = [math.prod(column) / PRIOR[y] ** (k - 1) for y, column in enumerate(columns)]
    return [x / sum(products) for x in products]


BUILT = {
    "mean": mean_vote.build(mean_vote.Config(), set_shape()),
    "majority": majority_vote.build(majority_vote.Config(alpha=2.0), set_shape()),
    "log": log_pool.build(log_pool.Config(), set_shape()),
    "tempered": tempered_log_pool.build(tempered_log_pool.Config(), set_shape()),
}


@pytest.mark.parametrize("kind", BUILT)
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), instances=st.integers(1, 9), scale=st.floats(0.1, 8))
def test_every_prefix_equals_the_formula(kind: str, seed: int, instances: int, scale: float) -> None:
    logits = scale * torch.randn(2, instances, 3, generator=rng.generator(seed), dtype=torch.float64)
    out = run(BUILT[kind], logits).exp()
    for t in range(2):
        for k in range(instances):
            expected = torch.tensor(reference(kind, logits[t, : k + 1].tolist())).double()
            torch.testing.assert_close(out[t, k], expected, atol=1e-6, rtol=0)


def test_majority_ties_go_to_the_lowest_class() -> None:
    out = run(BUILT["majority"], torch.zeros(1, 1, 3).double())
    torch.testing.assert_close(out.exp()[0, 0], torch.tensor([2.2, 0.6, 0.2]).double() / 3)


def test_log_pool_equals_the_exact_posterior(discrete) -> None:
    likelihood = discrete.table.T[discrete.symbols].log().cumsum(1)
    exact = (discrete.prior.log() + likelihood).log_softmax(-1)
    out = log_pool.build(log_pool.Config(), discrete.shape)(discrete.embeddings, discrete.logits)
    torch.testing.assert_close(out, exact, atol=1e-9, rtol=0)


def test_instances_that_say_nothing_leave_every_pool_at_the_prior() -> None:
    log_prior = set_shape().log_prior
    logits = log_prior.expand(1, 5, 3)
    for kind in ("mean", "log", "tempered"):
        torch.testing.assert_close(run(BUILT[kind], logits), log_prior.expand(1, 5, 3), atol=1e-9, rtol=0)


def fitted(discrete, logits: Tensor, labels: Tensor | None = None, weights: Tensor | None = None) -> Tensor:
    """Coefficients a0, a1 after a fit."""
    aggregator = tempered_log_pool.build(tempered_log_pool.Config(), discrete.shape)
    labels = discrete.labels if labels is None else labels
    weights = discrete.weights if weights is None else weights
    assert aggregator.fit(torch.zeros(*logits.shape[:2], 2).double(), logits, labels, weights) is True
    return aggregator.pool.coefficients.detach()


def overconfident(discrete, factor: float) -> Tensor:
    """Logits whose evidence is multiplied by a factor, up to a constant."""
    return discrete.prior.log() + factor * (discrete.logits - discrete.prior.log())


@pytest.mark.parametrize("factor", [0.4, 1.0, 2.5])
def test_tempering_recovers_a_known_confidence(discrete, factor: float) -> None:
    coefficients = fitted(discrete, overconfident(discrete, factor))
    torch.testing.assert_close(coefficients, torch.tensor([-math.log(factor), 0.0]).double(), atol=0.06, rtol=0)


def test_tempering_recovers_repeated_instances(discrete) -> None:
    """k copies of one instance hold the evidence of one: b(k) = 1 / k."""
    logits = discrete.logits[:, :1].expand(-1, 7, -1)
    torch.testing.assert_close(fitted(discrete, logits), torch.tensor([0.0, -1.0]).double(), atol=0.06, rtol=0)


def test_fit_beats_a_grid_of_temperatures(discrete) -> None:
    """The optimum of the weighted loss, by brute force, with unequal weights."""
    logits, weights = overconfident(discrete, 1.7), discrete.weights * torch.linspace(0.1, 3, 3000).double()
    sums = (logits.log_softmax(-1) - discrete.prior.log()).cumsum(1)
    log_counts = torch.arange(1, 8).double().log()

    def weighted_loss(a0: float, a1: float) -> float:
        log_posterior = (discrete.prior.log() + (a0 + a1 * log_counts).exp()[:, None] * sums).log_softmax(-1)
        picked = log_posterior[torch.arange(3000), :, discrete.labels].mean(1)
        return float(-(weights * picked).sum() / weights.sum())

    a0, a1 = fitted(discrete, logits, weights=weights).tolist()
    best = min(weighted_loss(a0 + da, a1 + db) for da in (-0.05, 0.05, 0) for db in (-0.05, 0.05, 0))
    assert weighted_loss(a0, a1) <= best + 1e-6
    assert abs(a0 - fitted(discrete, logits)[0]) > 1e-4


@pytest.mark.parametrize("scale", [1e-3, 1e4])
def test_fit_is_bounded_on_degenerate_tuples(discrete, scale: float) -> None:
    """Tuples that are all right, or whose evidence is far too weak, ask for an infinite temperature."""
    labels = discrete.labels
    logits = scale * torch.nn.functional.one_hot(labels, 3).double()[:, None].expand(-1, 7, -1)
    coefficients = fitted(discrete, discrete.prior.log() + logits)
    assert coefficients.isfinite().all()
    for value, (low, high) in zip(coefficients.tolist(), LIMITS, strict=True):
        assert low <= value <= high
    if scale < 1:
        assert coefficients[0] == LIMITS[0][1]


def test_the_limits_of_a_temperature_are_reached_and_kept() -> None:
    """Evidence that is sure of anything asks for no weight at all, and evidence that is right but faint for any weight.

    One instance may be off by a factor of e^5; b(k) falls as k^-2 at most and rises as k at most.
    """
    stream, labels = rng.generator(0, "limits"), torch.arange(3000) % 3
    log_prior, weights = torch.full((3,), 1 / 3).double().log(), torch.ones(3000).double()
    noise = 50 * torch.randn(3000, 4, 3, generator=stream, dtype=torch.float64)
    faint = 1e-3 * torch.nn.functional.one_hot(labels, 3).double()[:, None].expand(-1, 4, -1)
    for evidence, expected in ((noise, [-5, -2]), (faint, [5, 1])):
        assert fit_coefficients(evidence.cumsum(1), log_prior, labels, weights).tolist() == expected


def test_one_tuple_of_one_instance_can_be_fitted(discrete) -> None:
    coefficients = fitted(discrete, discrete.logits[:1, :1], discrete.labels[:1], discrete.weights[:1])
    assert coefficients.isfinite().all()
    assert coefficients[1] == 0


def test_fit_refuses_logits_that_are_not_finite(discrete) -> None:
    logits = discrete.logits.clone()
    logits[3, 5, 1] = torch.nan  # spreads to 3 classes of the prefixes 5 and 6
    with pytest.raises(TrainingError, match="expected finite log-probabilities and prior, got 6 values that are not"):
        fitted(discrete, logits)
