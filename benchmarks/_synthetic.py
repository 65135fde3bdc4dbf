"""Synthetic features of a test set, and evaluation tuples of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sharedlabel import rng
from sharedlabel.data.tuples import partition
from sharedlabel.types import SetShape, Tuples

CLASSES = 10
WIDTH = 64
N = 16


@dataclass(frozen=True)
class TestSet:
    """Features of a test set whose single images are classified right about three times in four.

    Attributes:
        embeddings: `[m d]`.
        logits: `[m c]`, log-posteriors of single images.
        prior: `[c]`, uniform, float64.
        drawn: tuples of `N` images.
    """

    embeddings: Tensor
    logits: Tensor
    prior: Tensor
    drawn: Tuples

    @property
    def sources(self) -> tuple[Tensor, Tensor]:
        """Embeddings and logits, as the evaluation takes them."""
        return self.embeddings, self.logits

    @property
    def shape(self) -> SetShape:
        """What an aggregator is built for."""
        deviation, mean = torch.std_mean(self.embeddings, dim=0)
        return SetShape(mean, deviation, self.prior.log().float())


def test_set(images: int, partitions: int) -> TestSet:
    """Draw features with a Gaussian cluster per class.

    Args:
        images: images of the test set, the same number of each class.
        partitions: times that they are cut into tuples.
    """
    stream = rng.generator(0, "benchmarks")
    labels = torch.arange(images) % CLASSES
    logits = torch.randn(images, CLASSES, generator=stream)
    logits[torch.arange(images), labels] += 2.2
    centers = torch.randn(CLASSES, WIDTH, generator=stream)
    embeddings = centers[labels] + torch.randn(images, WIDTH, generator=stream)
    prior = torch.full((CLASSES,), 1 / CLASSES, dtype=torch.float64)
    drawn = partition(labels, N, partitions, prior, stream)
    return TestSet(embeddings, logits.log_softmax(-1), prior, drawn)
