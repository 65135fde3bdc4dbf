"""Trained networks rebuilt from stored outputs."""

from __future__ import annotations

import pytest
import torch

from sharedlabel import config
from sharedlabel.errors import StoreError
from sharedlabel.stages import _restore as restore
from sharedlabel.types import SetShape

PRIOR = torch.full((10,), 0.1).log()


@pytest.mark.parametrize(
    ("aggregator", "width", "message"),
    [
        ("lstm", 7, r"standardize.mean of shape \[7\] for lstm on features of width 7 and 10 classes"),
        ({"name": "lstm", "hidden": 9}, None, r"for lstm on features of width \d+ and 10 classes, got"),
        (
            "deep_sets",
            None,
            r"for deep_sets on features of width \d+ and 10 classes, got none from .*; use the features",
        ),
    ],
)
def test_a_checkpoint_of_other_features_or_options_is_refused(finished, aggregator, width, message):
    cell = next(cell for cell in finished.grid.cells if cell.aggregator == "lstm")
    artifact = finished.store.load("aggregate", cell.aggregate.key)
    width = width or artifact.tensors()["standardize.mean"].numel()
    shape = SetShape(torch.zeros(width), torch.ones(width), PRIOR)
    with pytest.raises(StoreError, match=message):
        restore.stored_aggregator(config.resolve("aggregators", aggregator), shape, artifact)
