from __future__ import annotations

import itertools
import math

import pytest
import torch

from sharedlabel.metrics.accuracy import correct, n_accuracy


def test_exact_posterior_reaches_the_enumerated_accuracy() -> None:
    """Two coins, `k` flips: the expected accuracy is enumerated over all outcomes."""
    heads = torch.tensor([0.4, 0.7], dtype=torch.float64)
    flips, rows, labels, weights = 3, [], [], []
    for label, outcome in itertools.product(range(2), itertools.product((0, 1), repeat=flips)):
        likelihood = torch.stack([heads if face else 1 - heads for face in outcome]).log()
        rows.append(likelihood.cumsum(0).log_softmax(1))
        labels.append(label)
        weights.append(float(likelihood[:, label].sum().exp()) / 2)
    expected = []
    for k in range(1, flips + 1):
        total = 0.0
        for outcome in itertools.product((0, 1), repeat=k):
            joint = [math.prod(float(p if face else 1 - p) for face in outcome) / 2 for p in heads]
            total += max(joint)
        expected.append(total)
    accuracy = n_accuracy(torch.stack(rows), torch.tensor(labels), torch.tensor(weights))
    assert accuracy.tolist() == pytest.approx(expected, abs=1e-6)


def test_ties_go_to_the_lowest_class() -> None:
    tied = torch.full((3, 1, 3), 1 / 3).log()
    assert correct(tied, torch.tensor([0, 1, 2])).flatten().tolist() == [True, False, False]


def test_weights_have_no_scale() -> None:
    log_posterior = torch.tensor([[[0.9, 0.1]], [[0.9, 0.1]]]).log()
    labels = torch.tensor([0, 1])
    for scale in (1.0, 10.0):
        assert n_accuracy(log_posterior, labels, torch.tensor([3.0, 1.0]) * scale).item() == pytest.approx(0.75)
    assert n_accuracy(log_posterior, labels).item() == pytest.approx(0.5)
    assert n_accuracy(log_posterior[:1], labels[:1]).item() == 1
