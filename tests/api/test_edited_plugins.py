"""Functions that take plugins run them as they are in their files when they are called."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import sharedlabel as sl
from sharedlabel import config, plugins
from sharedlabel.code import digests

AGGREGATOR = """
from dataclasses import dataclass
from sharedlabel.aggregators import Aggregator
from factor import FACTOR

@dataclass(frozen=True)
class Config:
    pass

class Pool(Aggregator):
    def forward(self, embeddings, logits):
        return (FACTOR * logits).cumsum(1).log_softmax(-1)

def build(config, shape):
    return Pool()
"""
PRUNER = """
from dataclasses import dataclass
import torch
from sharedlabel.pruners import prunable
from factor import FACTOR

STRUCTURED, NESTED, NEEDS = False, True, frozenset()

@dataclass(frozen=True)
class Config:
    pass

def scores(backbone, config, context):
    return {name: FACTOR * layer.weight for name, layer in prunable(backbone).items()}
"""


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(plugins, "_taken", {})
    monkeypatch.setenv("SHAREDLABEL_PLUGIN_FILES", "{}")
    Path("pool.py").write_text(AGGREGATOR)
    Path("sieve.py").write_text(PRUNER)
    factor(1)
    yield
    digests.forget()
    sys.modules.pop("factor", None)


def factor(value: int) -> None:
    """Edit the file beside the plugins."""
    Path("factor.py").write_text(f"FACTOR = {value}")
    os.utime("factor.py", (10**9 + value, 10**9 + value))


def test_an_aggregator_is_that_of_its_file_as_it_is_now():
    logits = torch.tensor([[[0.0, 1.0]]])
    for value in (1, -1):
        factor(value)
        agg = sl.aggregator("./pool.py", num_classes=2)
        assert agg(torch.zeros(1, 1, 1), logits)[0, -1].diff().item() == pytest.approx(value)


def test_a_pruner_is_that_of_its_file_as_it_is_now():
    network = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 2))
    kept = []
    for value in (1, -1):
        factor(value)
        pruned = sl.prune(network, 2, "./sieve.py", example_inputs=torch.zeros(1, 8))
        kept.append(pruned[0].weight[pruned[0].weight != 0])
    assert kept[0].mean() > 0 > kept[1].mean()


def test_an_estimator_that_is_fitted_goes_on_with_what_it_has_begun_with(monkeypatch):
    refreshed: list[None] = []
    monkeypatch.setattr(config.plugins, "refresh", lambda: refreshed.append(None))
    draw = np.random.default_rng(0)
    y = np.repeat([0, 1], 40)
    rows = draw.normal(size=(80, 2)).astype(np.float32) + y[:, None]
    model = sl.SharedLabelClassifier(aggregator="./pool.py", pruner="./sieve.py", ratio=2, epochs=1, random_state=0)
    for fits in (1, 2):
        model.fit(rows, y)
        assert len(refreshed) == fits
