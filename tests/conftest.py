"""Shared fixtures: a grid small enough to run in seconds, on real images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sharedlabel.config import Experiment, parse

SMALL = (
    "--backbones=[{name: mlp, label: mlp, widths: [32, 16]}]",
    "--pruners=[magnitude]",
    "--ratios=[1, 2]",
    "--aggregators=[mean_vote, log_pool, lstm]",
    "--dense.epochs=2",
    "--retrain.epochs=1",
    "--fit.epochs=2",
    "--evaluation.n=[1, 2, 4]",
    "--evaluation.partitions=2",
    "--sweet_spot.replicates=20",
    "--tracking=none",
)


@pytest.fixture(autouse=True)
def _one_thread():
    """Small tensors are faster on one thread, and results do not depend on how busy the machine is."""
    torch.set_num_threads(1)


@pytest.fixture
def small(tmp_path: Path) -> tuple[str, ...]:
    """Command-line arguments of a small grid that writes below a temporary folder."""
    return (*SMALL, f"--output={tmp_path / 'runs'}", f"--data_root={tmp_path / 'data'}")


@pytest.fixture
def experiment(small: tuple[str, ...]) -> Experiment:
    """The small grid as an experiment."""
    return parse(small)[0]
