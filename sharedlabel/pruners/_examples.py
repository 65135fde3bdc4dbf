"""Examples that a pruner runs a network on: checked, in batches, some of each class."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from jaxtyping import Int64, Num
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from sharedlabel.backbones._base import Backbone
from sharedlabel.errors import CompressionError

_BATCH = 128
_PIXELS = _BATCH * 64 * 64  # of a batch of larger images


def batches(
    network: Backbone, images: Num[Tensor, "n ..."], labels: Int64[Tensor, "n"] | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield images and labels on the network's device, in batches of about equal size.

    Args:
        network: where to move the images; if its batch normalisation uses batch statistics, two images are needed.
        images: as the network takes them.
        labels: class indices; zeros if there are none.

    Raises:
        CompressionError: the examples do not fit the network, or batch statistics of a single image are asked for.
    """
    check_examples(network, images, labels)
    if len(images) == 1 and any(isinstance(m, _BatchNorm) and m.training for m in network.modules()):
        raise CompressionError(
            "expected at least 2 images for the batch statistics of batch normalisation, got 1; pass more images or "
            "use the running statistics"
        )
    device = network.normalize.mean.device
    limit = min(_BATCH, max(2, _PIXELS // images[0, 0].numel()))
    count = -(-len(images) // limit)
    labels = torch.zeros(len(images), dtype=torch.int64) if labels is None else labels
    for some, classes in zip(images.tensor_split(count), labels.tensor_split(count), strict=True):
        yield some.to(device), classes.to(device)


def check_examples(network: Backbone, images: Num[Tensor, "n ..."], labels: Int64[Tensor, "m"] | None = None) -> None:
    """Refuse examples that do not fit a network.

    Args:
        network: the network that is to be run on them.
        images: as the network takes them.
        labels: class indices, if they are used.

    Raises:
        CompressionError: images of another shape or with values that are not finite, other numbers of images and
            labels, or labels that are no classes of the network.
    """
    if tuple(images.shape[1:]) != tuple(network.image_shape):
        raise CompressionError(
            f"expected images of {_sizes(network.image_shape)} (channels, height, width), got "
            f"{_sizes(images.shape[1:])}; pass images of the size that the network was built for"
        )
    if bad := images.numel() - int(images.isfinite().sum()):
        raise CompressionError(
            f"expected finite images, got {bad} NaN or infinite of {images.numel()} values; remove these images"
        )
    if labels is None:
        return
    if len(labels) != len(images):
        raise CompressionError(
            f"expected one label per image, got {len(images)} images and {len(labels)} labels; pass both of the same "
            "examples"
        )
    classes = network.classifier.out_features
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise CompressionError(
            f"expected labels from 0 to {classes - 1}, got {int(labels.min())} to {int(labels.max())}; pass class "
            "indices, or a network with more classes"
        )


def _sizes(shape: Iterable[int]) -> str:
    return " x ".join(map(str, shape))


def of_each_class(labels: Int64[Tensor, "n"], count: int) -> Int64[Tensor, "m"]:
    """Return the positions of the first `count` examples of each class, in order; of all where a class has fewer.

    >>> of_each_class(torch.tensor([2, 2, 0, 2, 0]), 2)
    tensor([0, 1, 2, 4])
    """
    return torch.cat([(labels == label).nonzero()[:count, 0] for label in labels.unique()]).sort().values
