"""What is asked of cuDNN holds for a GPU, and for the time of a stage call alone."""

from __future__ import annotations

import pytest
import torch

from sharedlabel.config.sections import TrainerConfig
from sharedlabel.training.devices import tuned


@pytest.mark.parametrize(("accelerator", "asked"), [("gpu", True), ("gpu", False), ("cpu", True)])
def test_cudnn_looks_for_the_quickest_convolutions_where_it_is_asked_to(accelerator: str, asked: bool) -> None:
    before = torch.backends.cudnn.benchmark
    with tuned(TrainerConfig(accelerator=accelerator, cudnn_benchmark=asked)):
        assert torch.backends.cudnn.benchmark == (before or (asked and accelerator == "gpu"))
    assert torch.backends.cudnn.benchmark == before
