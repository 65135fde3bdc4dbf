"""Images are brought to a device once, and only if they fit there."""

from __future__ import annotations

import torch

from sharedlabel.training import resident
from sharedlabel.training.loaders import ImageLoader

META = torch.device("meta")  # a device without memory, in the place of a GPU


def test_images_stay_where_they_are_on_the_cpu_and_where_there_is_no_room(monkeypatch):
    images = torch.zeros(8, 3, 4, 4, dtype=torch.uint8)
    assert resident.resident(images, torch.device("cpu")) is images
    assert resident.resident(images, META) is images  # whose free memory cannot be told
    monkeypatch.setattr(resident, "_free", lambda _: int(images.numel() / resident.SHARE) - 1)
    assert resident.resident(images, META) is images


def test_images_that_fit_are_brought_once(monkeypatch):
    images, others = torch.zeros(2, 8, 3, 4, 4, dtype=torch.uint8)
    monkeypatch.setattr(resident, "_free", lambda _: int(images.numel() / resident.SHARE) + 1)
    there = resident.resident(images, META)
    assert (there.device, there.dtype, there.shape) == (META, images.dtype, images.shape)
    assert resident.resident(images, META) is there
    assert resident.resident(others, META) is not there
    assert resident.resident(images, META) is there


def test_batches_are_where_the_images_are():
    images, labels = torch.zeros(8, 1, 2, 2, dtype=torch.uint8), torch.arange(8)
    batches = list(ImageLoader(images.to(META), labels, torch.arange(8), 4, seed=0))
    assert [(batch.device, own.device, len(batch)) for batch, own in batches] == [(META, META, 4)] * 2
