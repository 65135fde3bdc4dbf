from __future__ import annotations

import pytest
import torch
from sklearn.metrics import brier_score_loss

from sharedlabel.errors import DataError
from sharedlabel.metrics.brier import brier_score
from sharedlabel.rng import generator

TUPLES, CLASSES = 40, 3


@pytest.fixture
def scored() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    stream = generator(0, "brier")
    logs = torch.randn(TUPLES, 2, CLASSES, generator=stream, dtype=torch.float64).log_softmax(2)
    return logs, torch.randint(CLASSES, (TUPLES,), generator=stream), torch.rand(TUPLES, generator=stream)


def test_it_is_the_sum_over_classes_of_the_score_of_one_against_the_rest(scored):
    logs, labels, weights = scored
    each = [
        sum(brier_score_loss(labels == c, logs[:, n, c].exp(), sample_weight=weights) for c in range(CLASSES))
        for n in range(2)
    ]
    assert brier_score(logs, labels, weights).tolist() == pytest.approx(each)


def test_no_posterior_scores_better_than_the_true_one_on_average():
    truth = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)
    labels = torch.arange(3)
    scores = [
        brier_score((truth**power / (truth**power).sum()).log().expand(3, 1, 3), labels, truth).item()
        for power in (0.5, 1.0, 2.0)
    ]
    assert min(scores) == scores[1]


def test_a_label_that_is_thought_impossible_costs_two_at_most():
    logs = torch.tensor([[[1.0, 0.0]]]).log()
    assert brier_score(logs, torch.tensor([1])).item() == 2


def test_a_class_that_no_tuple_has_counts_as_wrong():
    logs = torch.tensor([[[0.5, 0.25, 0.25]]]).log()
    assert brier_score(logs, torch.tensor([0])).item() == pytest.approx(0.375)


def test_probabilities_in_the_place_of_their_logarithms_are_refused(scored):
    logs, labels, _ = scored
    with pytest.raises(DataError, match="log"):
        brier_score(logs.exp(), labels)
