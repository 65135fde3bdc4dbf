"""Vector and matrix log-pools: known maps, another library, optimality, user errors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from sharedlabel import rng
from sharedlabel.aggregators import matrix_log_pool, tempered_log_pool, vector_log_pool
from sharedlabel.aggregators._linear_pool import LinearPool
from sharedlabel.errors import TrainingError

FREE = {"off_diagonal": 0.0, "bias": 0.0}


def fitted(module: Any, discrete, logits: Tensor, **options: Any) -> LinearPool:
    pool: LinearPool = module.build(module.Config(**options), discrete.shape)
    embeddings = torch.zeros(*logits.shape[:2], 2).double()
    assert pool.fit(embeddings, logits, discrete.labels, discrete.weights) is True
    return pool


def distorted(discrete, matrix: Tensor, shift: Tensor) -> Tensor:
    """Log-probabilities whose evidence is `matrix` times the right one plus `shift`, up to a constant per instance."""
    evidence = discrete.logits.log_softmax(-1) - discrete.prior.log()
    return discrete.prior.log() + evidence @ matrix.T + shift


def posterior(pool: Any, logits: Tensor) -> Tensor:
    return pool(torch.zeros(*logits.shape[:2], 2).double(), logits).detach()


def exact(discrete) -> Tensor:
    likelihood = discrete.table.T[discrete.symbols].log().cumsum(1)
    return (discrete.prior.log() + likelihood).log_softmax(-1)


def test_vector_pool_undoes_weights_and_biases_of_the_labels(discrete) -> None:
    """With one weight for all labels the distortion can be undone exactly; biases on top of it too."""
    logits = distorted(discrete, 2.5 * torch.eye(3).double(), torch.tensor([0.5, -1.0, 0.3]).double())
    log_posterior = posterior(fitted(vector_log_pool, discrete, logits), logits)
    torch.testing.assert_close(log_posterior.exp(), exact(discrete).exp(), atol=0.06, rtol=0)
    tempered = tempered_log_pool.build(tempered_log_pool.Config(), discrete.shape)
    tempered.fit(discrete.embeddings, logits, discrete.labels, discrete.weights)
    assert (posterior(tempered, logits).exp() - exact(discrete).exp()).abs().mean() > 0.05


def test_matrix_pool_undoes_a_known_matrix(discrete) -> None:
    mixing = torch.tensor([[1.0, 0.6, 0.0], [-0.4, 0.8, 0.2], [0.3, 0.0, 1.5]]).double()
    logits = distorted(discrete, mixing, torch.tensor([0.4, 0.0, -0.4]).double())
    pool = fitted(matrix_log_pool, discrete, logits, **FREE)
    torch.testing.assert_close(posterior(pool, logits).exp(), exact(discrete).exp(), atol=0.08, rtol=0)
    assert (posterior(pool, logits).exp() - exact(discrete).exp()).abs().mean() < 0.01
    vector = fitted(vector_log_pool, discrete, logits)
    assert (posterior(vector, logits).exp() - exact(discrete).exp()).abs().mean() > 0.02


def test_matrix_pool_of_one_instance_is_logistic_regression(discrete) -> None:
    """Under a uniform prior the offset vanishes, and both maximise the same likelihood over the same scores."""
    mixing = torch.tensor([[1.0, 0.6, 0.0], [-0.4, 0.8, 0.2], [0.3, 0.0, 1.5]]).double()
    logits = distorted(discrete, mixing, torch.zeros(3).double())[:, :1]
    uniform = type(discrete)(torch.full((3,), 1 / 3).double(), discrete.table, discrete.symbols, discrete.labels)
    pool = fitted(matrix_log_pool, uniform, logits, **FREE)
    scores = logits[:, 0].log_softmax(-1).numpy()
    model = LogisticRegression(C=1e4, tol=1e-8, max_iter=2000).fit(scores, discrete.labels.numpy())
    expected = torch.from_numpy(model.predict_proba(scores))
    torch.testing.assert_close(posterior(pool, logits)[:, 0].exp(), expected, atol=0.015, rtol=0)


@pytest.mark.parametrize("module", [vector_log_pool, matrix_log_pool])
def test_fit_is_where_the_gradient_of_the_penalised_loss_vanishes(module: Any, discrete) -> None:
    """The stated objective, differentiated by autograd, with unequal weights."""
    logits = distorted(discrete, 0.7 * torch.eye(3).double() + 0.1, torch.zeros(3).double())
    weights = torch.linspace(0.1, 3, len(discrete.labels)).double()
    pool = module.build(module.Config(), discrete.shape)
    start = [parameter.detach().clone() for parameter in pool.parameters()]
    pool.fit(discrete.embeddings, logits, discrete.labels, weights)
    out = pool(discrete.embeddings, logits)
    picked = out[torch.arange(len(out)), :, discrete.labels].mean(1)
    loss = -(weights * picked).sum() / weights.sum()
    for parameter, before in zip(pool.parameters(), start, strict=True):
        loss = loss + (parameter - before).square().sum() / (2 * len(out))
    if module is matrix_log_pool:
        off_diagonal = pool.weight - pool.weight.diag().diag()
        loss = loss + 0.1 * off_diagonal.square().sum() / 6 + 0.1 * pool.bias.square().mean()
    for gradient in torch.autograd.grad(loss, list(pool.parameters())):
        assert gradient.abs().max() < 1e-4


def test_penalties_pull_the_matrix_to_a_diagonal(discrete) -> None:
    logits = distorted(discrete, torch.eye(3).double() + 0.5, torch.tensor([1.0, 0.0, 0.0]).double())
    sizes = []
    for strength in (0.0, 0.1, 100.0):
        pool = fitted(matrix_log_pool, discrete, logits, off_diagonal=strength, bias=strength)
        off_diagonal = pool.weight - pool.weight.diag().diag()
        sizes.append((float(off_diagonal.detach().norm()), float(pool.bias.detach().norm())))
    assert sizes[0] > sizes[1] > sizes[2]
    assert max(sizes[2]) < 0.02


@pytest.mark.parametrize("module", [vector_log_pool, matrix_log_pool])
def test_fit_is_finite_on_tuples_that_are_all_right(module: Any, discrete) -> None:
    logits = 20 * torch.nn.functional.one_hot(discrete.labels, 3).double()[:, None].expand(-1, 7, -1)
    pool = fitted(module, discrete, logits)
    assert all(p.isfinite().all() and p.abs().max() < 100 for p in pool.parameters())


@pytest.mark.parametrize("module", [vector_log_pool, matrix_log_pool])
def test_one_tuple_of_one_instance_leaves_the_pool_near_its_start(module: Any, discrete) -> None:
    pool = module.build(module.Config(), discrete.shape)
    logits = rng_logits()
    pool.fit(torch.zeros(1, 1, 2).double(), logits, discrete.labels[:1], discrete.weights[:1])
    assert all(p.isfinite().all() and p.abs().max() < 3 for p in pool.parameters())


def rng_logits() -> Tensor:
    return torch.randn(1, 1, 3, generator=rng.generator(0), dtype=torch.float64)


def test_fit_refuses_logits_that_are_not_finite(discrete) -> None:
    logits = discrete.logits.clone()
    logits[3, 5, 1] = torch.nan
    with pytest.raises(TrainingError, match="expected finite log-probabilities and prior, got 6 values that are not"):
        fitted(vector_log_pool, discrete, logits)
