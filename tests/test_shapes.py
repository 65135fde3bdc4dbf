"""Shapes in annotations are checked while tests run, and only then."""

from __future__ import annotations

import jaxtyping
import pytest
import torch

from sharedlabel.metrics.accuracy import correct, n_accuracy
from sharedlabel.types import Tuples


def test_a_shape_that_is_stated_is_checked() -> None:
    labels = torch.tensor([0, 1])
    assert correct(torch.zeros(2, 3, 4), labels).shape == (2, 3)
    with pytest.raises(jaxtyping.TypeCheckError, match="log_posterior"):
        correct(torch.zeros(2, 3), labels)
    with pytest.raises(jaxtyping.TypeCheckError, match="labels"):
        n_accuracy(torch.zeros(2, 3, 4), torch.zeros(3, dtype=torch.int64))
    with pytest.raises(jaxtyping.TypeCheckError, match="indices"):
        Tuples(torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2, 3))
