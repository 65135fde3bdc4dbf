"""What is handed to other processes holds no images that lie in a file."""

from __future__ import annotations

from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np
import pytest
import torch

from sharedlabel.backbones import mlp
from sharedlabel.config.sections import TrainConfig, TrainerConfig
from sharedlabel.machine import mapped
from sharedlabel.scoring.data import Data
from sharedlabel.training.compression import BackboneTrainer
from sharedlabel.training.loaders import Chosen, ImageLoader
from sharedlabel.training.modules import BackboneModule
from sharedlabel.types import Dataset

COUNT = 30_000  # images of a KiB


@pytest.fixture
def images(tmp_path: Path) -> torch.Tensor:
    written = np.lib.format.open_memmap(tmp_path / "images.npy", "w+", np.uint8, (COUNT, 1, 32, 32))
    written[:, 0, 0, 0] = np.arange(COUNT) % 256
    written.flush()
    return mapped.opened(tmp_path / "images.npy")


class _Steps:
    """Holds the data of a grid, as gradual pruning does."""

    def __init__(self, training: BackboneTrainer) -> None:
        self.training = training


def test_a_training_on_several_devices_is_handed_paths(images: torch.Tensor) -> None:
    indices, labels = torch.arange(COUNT), torch.arange(COUNT) % 2
    dataset = Dataset("made up", images, labels, ("a", "b"), None, None, "0" * 64)
    data = Data(dataset, {"backbone": indices}, torch.tensor([0.5, 0.5]), "key")
    network = mlp.build(mlp.Config(widths=(8, 6)), (1, 32, 32), 2)
    recipe = TrainConfig()
    steps = _Steps(BackboneTrainer(data, TrainerConfig(), recipe, recipe, 0))
    module = BackboneModule.of(network, recipe, after_step=steps)  # type: ignore[arg-type]
    loader = ImageLoader(images, labels, indices, 32, 0)
    handed = ForkingPickler.dumps((module, loader, Chosen(images, indices)))
    assert len(handed) < 2**20
    given = ForkingPickler.loads(handed)
    batches = [next(iter(one))[0] for one in (loader, given[1])]
    assert torch.equal(*batches)
    assert given[0].after_step.training.data.dataset.images.shape == images.shape
    assert torch.equal(given[2][torch.tensor([[3, 7]])], images[torch.tensor([[3, 7]])])


def test_a_tensor_in_memory_is_handed_on_as_torch_does(images: torch.Tensor) -> None:
    tensor = torch.arange(5)
    assert torch.equal(ForkingPickler.loads(ForkingPickler.dumps(tensor)), tensor)
    assert tensor.is_shared()
    assert not images.is_shared()
