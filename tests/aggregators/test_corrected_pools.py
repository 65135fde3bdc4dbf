"""Instance temperature and refit pool: their start, their formulas, what they can learn, user errors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from sharedlabel import rng
from sharedlabel.aggregators import instance_temperature, log_pool, refit_pool, tempered_log_pool
from sharedlabel.aggregators._base import Aggregator, prefix_loss
from sharedlabel.types import SetShape

WIDTH, CLASSES = 5, 3
BOTH = pytest.mark.parametrize("module", [instance_temperature, refit_pool])


def set_shape() -> SetShape:
    prior = torch.tensor([0.5, 0.3, 0.2]).double()
    return SetShape(torch.ones(WIDTH).double(), torch.full((WIDTH,), 2.0).double(), prior.log())


def build(module: Any, *, shake: bool = False, **options: Any) -> Aggregator:
    with rng.seeded(0, "corrected"):
        aggregator: Aggregator = module.build(module.Config(**options), set_shape()).double()
        with torch.no_grad():
            for parameter in aggregator.parameters() if shake else ():
                parameter.add_(0.3 * torch.randn_like(parameter))
    return aggregator.eval()


def inputs(tuples: int = 4, instances: int = 6) -> tuple[Tensor, Tensor]:
    generator = rng.generator(0, "inputs")
    embeddings = torch.randn(tuples, instances, WIDTH, generator=generator, dtype=torch.float64)
    return embeddings, 2 * torch.randn(tuples, instances, CLASSES, generator=generator, dtype=torch.float64)


@BOTH
def test_both_start_at_the_log_pool(module: Any) -> None:
    expected = log_pool.build(log_pool.Config(), set_shape())(*inputs())
    torch.testing.assert_close(build(module)(*inputs()), expected, atol=1e-12, rtol=0)


@BOTH
def test_every_prefix_equals_the_sum_written_out(module: Any) -> None:
    aggregator = build(module, shake=True)
    embeddings, logits = inputs()
    out = aggregator(embeddings, logits)
    log_prior = set_shape().log_prior
    for t in range(4):
        scores = log_prior.clone()
        for k in range(6):
            log_p = logits[t, k].log_softmax(-1)
            hidden = aggregator.read(torch.cat([(embeddings[t, k] - 1) / 2, log_p]))
            if module is refit_pool:
                scores = scores + log_p - log_prior + aggregator.correct(hidden)
            else:
                tau = 10 ** torch.tanh(aggregator.score(hidden) / torch.tensor(10.0).double().log())
                scores = scores + tau * (log_p - log_prior)
            torch.testing.assert_close(out[t, k], scores.log_softmax(-1), atol=1e-9, rtol=0)


def test_weights_of_instances_stay_within_their_bound() -> None:
    aggregator = build(instance_temperature, bound=3.0)
    for bias, extreme in ((1e3, 3.0), (-1e3, 1 / 3)):
        with torch.no_grad():
            aggregator.score.bias.fill_(bias)
        expected = torch.full((4, 6, 1), extreme, dtype=torch.float64)
        torch.testing.assert_close(aggregator.weights(*inputs()), expected)


def test_instance_temperature_learns_which_instances_to_trust() -> None:
    """Half of the instances, marked in the embedding, have logits that are noise."""
    generator = rng.generator(0, "trust")
    labels = torch.randint(CLASSES, (400,), generator=generator)
    noisy = torch.rand(400, 6, generator=generator, dtype=torch.float64) < 0.5
    logits = 2 * torch.randn(400, 6, CLASSES, generator=generator, dtype=torch.float64)
    logits = logits + torch.where(noisy, 0.0, 3.0)[..., None] * torch.nn.functional.one_hot(labels, CLASSES)[:, None]
    embeddings = torch.zeros(400, 6, WIDTH).double()
    embeddings[..., 0] = torch.where(noisy, -2.0, 4.0)
    aggregator = build(instance_temperature, dropout=0.0)
    optimizer = torch.optim.Adam(aggregator.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        prefix_loss(aggregator(embeddings, logits), labels).mean().backward()
        optimizer.step()
    weights = aggregator.weights(embeddings, logits).squeeze(-1)
    assert weights[noisy].mean() < 0.3
    assert weights[~noisy].mean() > 0.6


def test_a_refit_pool_without_a_hidden_layer_is_linear() -> None:
    aggregator = build(refit_pool, hidden=0, shake=True)
    assert [tuple(p.shape) for p in aggregator.parameters()] == [(CLASSES, WIDTH + CLASSES), (CLASSES,)]


@BOTH
def test_dropout_acts_in_training_only(module: Any) -> None:
    aggregator = build(module, dropout=0.5, shake=True)
    assert torch.equal(aggregator(*inputs()), aggregator(*inputs()))
    aggregator.train()
    with rng.seeded(0, "dropout"):
        assert not torch.allclose(aggregator(*inputs()), aggregator(*inputs()))


def test_a_tempered_refit_pool_starts_at_the_tempered_log_pool(discrete) -> None:
    pool = tempered_log_pool.build(tempered_log_pool.Config(), discrete.shape)
    model = refit_pool.build(refit_pool.Config(tempered=True), discrete.shape).double().eval()
    data = (discrete.embeddings, 3 * discrete.logits, discrete.labels, discrete.weights)
    pool.fit(*data)
    assert model.fit(*data) is False
    assert torch.equal(model(*data[:2]), pool(*data[:2]))
    assert float(model.pool.coefficients.detach().abs().max()) > 0.1  # a third of the logits was right
