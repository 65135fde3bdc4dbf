"""Votes and untrained pools against their formulas."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sharedlabel import rng
from sharedlabel.aggregators import confusion_vote, log_pool, max_vote, mean_logit
from sharedlabel.types import SetShape

PRIOR = (0.6, 0.3, 0.1)


def set_shape(prior: tuple[float, ...] = PRIOR) -> SetShape:
    zeros = torch.zeros(2).double()
    return SetShape(zeros, zeros + 1, torch.tensor(prior, dtype=torch.float64).log())


def embeddings(logits: Tensor) -> Tensor:
    return torch.zeros(*logits.shape[:2], 2).double()


def random_logits(seed: int = 0, instances: int = 5) -> Tensor:
    return 2 * torch.randn(3, instances, 3, generator=rng.generator(seed), dtype=torch.float64)


def votes_as_logits(votes: list[list[int]]) -> Tensor:
    return 5 * torch.nn.functional.one_hot(torch.tensor(votes), 3).double()


def test_max_vote_by_hand() -> None:
    logits = random_logits()
    out = max_vote.build(max_vote.Config(), set_shape())(embeddings(logits), logits).exp()
    for t in range(3):
        for k in range(1, 6):
            largest = [max(p[y] for p in logits[t, :k].softmax(-1).tolist()) for y in range(3)]
            expected = torch.tensor([x / sum(largest) for x in largest], dtype=torch.float64)
            torch.testing.assert_close(out[t, k - 1], expected, atol=1e-9, rtol=0)


def test_max_vote_steps_like_its_running_maximum() -> None:
    """What exporters scan is what PyTorch computes in one call."""
    largest, inputs = max_vote.Largest(), random_logits()
    torch.testing.assert_close(super(max_vote.Largest, largest).forward(inputs), largest(inputs))


def test_mean_logit_by_hand() -> None:
    logits = random_logits(1)
    out = mean_logit.build(mean_logit.Config(), set_shape())(embeddings(logits), logits)
    for k in range(1, 6):
        torch.testing.assert_close(out[:, k - 1], logits[:, :k].mean(1).log_softmax(-1), atol=1e-9, rtol=0)


def fitted(
    alpha: float, votes: list[list[int]], labels: list[int], weights: list[float]
) -> confusion_vote.ConfusionVote:
    aggregator = confusion_vote.build(confusion_vote.Config(alpha=alpha), set_shape())
    logits = votes_as_logits(votes)
    assert (
        aggregator.fit(embeddings(logits), logits, torch.tensor(labels), torch.tensor(weights, dtype=torch.float64))
        is True
    )
    return aggregator


def test_confusion_vote_by_hand() -> None:
    """Two tuples of label 0, one of label 1, none of label 2; every number follows from the rule in the docstring."""
    aggregator = fitted(0.5, [[0, 0], [0, 1], [1, 2]], [0, 0, 1], [0.5, 1.5, 1.0])
    counts = {(0, 0): 2.5, (1, 0): 1.5, (1, 1): 1.0, (2, 1): 1.0}  # (vote, label): weighted instances
    table = [[0.0] * 3 for _ in range(3)]
    for vote in range(3):
        share = (sum(counts.get((vote, y), 0) for y in range(3)) + 0.5 / 3) / (6 + 0.5)
        for label in range(3):
            of_label = sum(counts.get((v, label), 0) for v in range(3))
            table[vote][label] = (counts.get((vote, label), 0) + 0.5 * share) / (of_label + 0.5)
    assert all(sum(column) == pytest.approx(1) for column in zip(*table, strict=True))
    torch.testing.assert_close(
        aggregator.log_confusion.exp(), torch.tensor(table, dtype=torch.float64), atol=1e-9, rtol=0
    )
    logits = votes_as_logits([[1, 2, 1]])
    scores = [PRIOR[y] * table[1][y] * table[2][y] * table[1][y] for y in range(3)]
    expected = torch.tensor([x / sum(scores) for x in scores], dtype=torch.float64)
    torch.testing.assert_close(aggregator(embeddings(logits), logits)[0, -1].exp(), expected, atol=1e-9, rtol=0)


def test_confusion_vote_of_a_label_without_tuples_is_that_of_all_labels() -> None:
    table = fitted(1.0, [[0, 0], [0, 1]], [0, 1], [1.0, 1.0]).log_confusion.exp()
    shares = torch.tensor([3 + 1 / 3, 1 + 1 / 3, 1 / 3], dtype=torch.float64) / 5
    torch.testing.assert_close(table[:, 2], shares, atol=1e-9, rtol=0)


def test_confusion_vote_recovers_how_the_voter_errs(discrete) -> None:
    """With many tuples, C is the frequency of each vote given the label, and the posterior that of the votes."""
    aggregator = confusion_vote.build(confusion_vote.Config(), discrete.shape)
    aggregator.fit(discrete.embeddings, discrete.logits, discrete.labels, discrete.weights)
    by_symbol = (discrete.prior[:, None] * discrete.table).argmax(0)  # the vote that each symbol leads to
    exact = torch.stack([discrete.table[:, by_symbol == vote].sum(1) for vote in range(3)])
    torch.testing.assert_close(aggregator.log_confusion.exp(), exact, atol=0.02, rtol=0)
    posterior = (discrete.prior.log() + exact.clamp_min(1e-9).log()[by_symbol[discrete.symbols]].cumsum(1)).log_softmax(
        -1
    )
    torch.testing.assert_close(
        aggregator(discrete.embeddings, discrete.logits).exp(), posterior.exp(), atol=0.05, rtol=0
    )


def test_confusion_vote_knows_less_than_the_log_pool(discrete) -> None:
    def loss(aggregator) -> float:
        out = aggregator(discrete.embeddings, discrete.logits)[:, -1]
        return -float(out[torch.arange(len(out)), discrete.labels].detach().mean())

    voter = confusion_vote.build(confusion_vote.Config(), discrete.shape)
    voter.fit(discrete.embeddings, discrete.logits, discrete.labels, discrete.weights)
    assert (
        loss(log_pool.build(log_pool.Config(), discrete.shape))
        < loss(voter)
        < -float((discrete.prior * discrete.prior.log()).sum())
    )
