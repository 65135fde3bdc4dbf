"""Ranks that are forked train as those that Lightning spawns, and end when one of them fails."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from sharedlabel.backbones import mlp
from sharedlabel.config.sections import TrainConfig, TrainerConfig
from sharedlabel.errors import TrainingError
from sharedlabel.training.fit import fit
from sharedlabel.training.loaders import ImageLoader
from sharedlabel.training.modules import BackboneModule

IMAGES = torch.randint(256, (64, 1, 6, 6), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
AFTER = """
import os
import torch.distributed

class After:
    def __init__(self, how):
        self.how = how
    def __call__(self, network, share):
        if torch.distributed.get_rank() == 1:
            if self.how == "dies":
                os._exit(3)
            raise ValueError("a bug in rank 1")
    def state(self, network):
        return {}
    def restore(self, network, state):
        pass
"""


def train(strategy: str, after: object = None) -> BackboneModule:
    torch.manual_seed(0)
    network = mlp.build(mlp.Config(widths=(8,)), (1, 6, 6), 2)
    module = BackboneModule.of(network, TrainConfig(crop=1, flip=True), after_step=after)  # type: ignore[arg-type]
    loader = ImageLoader(IMAGES, torch.arange(64) % 2, torch.arange(64), 16, 0)
    fit(module, loader, TrainerConfig(accelerator="cpu", devices=2, strategy=strategy), 2)
    return module


def test_they_train_as_spawned_ranks_do_again_and_again() -> None:
    spawned = train("ddp_spawn")
    for _ in range(2):
        forked = train("auto")
        assert forked.losses() == spawned.losses()
        pairs = zip(forked.state_dict().values(), spawned.state_dict().values(), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)


@pytest.mark.parametrize(
    ("how", "message"),
    [("raises", "rank 1: Traceback(.|\n)*ValueError: a bug in rank 1"), ("dies", "rank 1: its process has died")],
)
def test_one_that_fails_ends_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, message: str
) -> None:
    (tmp_path / "failing.py").write_text(AFTER)
    monkeypatch.syspath_prepend(tmp_path)
    import failing

    with pytest.raises(TrainingError, match=message):
        train("auto", failing.After(how))
    del sys.modules["failing"]
