"""Images of varying quality, cut into tuples: scores of tuples that share images are dependent."""

from __future__ import annotations

import torch
from torch import Tensor

from sharedlabel.types import Tuples

PREFIXES = (1, 4, 8)
ONSET = torch.tensor([1.0, 2.5, 3.5], dtype=torch.float64)


def cut(class_size: int, classes: int, partitions: int, width: int, generator: torch.Generator) -> Tuples:
    """Shuffle each class and cut it into disjoint tuples, once per partition."""
    count = class_size // width
    order = torch.rand(partitions, classes, class_size, generator=generator).argsort(dim=2)
    offset = torch.arange(classes)[:, None] * class_size
    indices = (order + offset)[:, :, : count * width].reshape(partitions, classes * count, width)
    labels = torch.arange(classes).repeat_interleave(count).expand(partitions, -1).contiguous()
    return Tuples(indices, labels, torch.full(labels.shape, 1 / labels.shape[1]))


def scores(quality: Tensor, tuples: Tuples, kind: str) -> Tensor:
    """Score tuples from the qualities of their images, `[p t k]`: right or wrong, or a log-likelihood."""
    summed = quality[tuples.indices].cumsum(dim=2)[:, :, [n - 1 for n in PREFIXES]]
    if kind == "right":
        return (summed + ONSET > 0).double()
    return torch.nn.functional.logsigmoid(summed + ONSET)
