"""Embed images with a backbone, shard by shard, and the accuracy of single images."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from jaxtyping import Int64
from torch import Tensor

from sharedlabel.backbones._base import Backbone
from sharedlabel.config.sections import TrainerConfig
from sharedlabel.errors import TrainingError
from sharedlabel.scoring.data import Data
from sharedlabel.training.devices import device
from sharedlabel.training.loaders import looked_up
from sharedlabel.training.precision import WEIGHTS, computing
from sharedlabel.training.resident import resident
from sharedlabel.training.sending import sent
from sharedlabel.types import Images

SHARD_IMAGES = 16_384
EMBED_BATCH = 512
_PIXELS = 2**21  # of a batch, 2,048 images of 32 x 32


def embed(
    backbone: Backbone, images: Images, order: Int64[Tensor, "m"], runtime: TrainerConfig
) -> Iterator[dict[str, Tensor]]:
    """Yield embeddings `[s d]` and logits `[s c]` of the images in order, one shard after the other; none is kept.

    They are computed in the precision and the memory format in which networks are trained, and have 32 bits.

    Raises:
        TrainingError: an embedding or a logit is not finite.
    """
    target = device(runtime)
    network, images = _prepared(backbone, target, runtime), resident(images, target)
    order = order.to(images.device)
    for shard in order.split(SHARD_IMAGES):
        yield _embed_shard(network, images, shard, target, runtime.precision)


def _prepared(backbone: Backbone, target: torch.device, runtime: TrainerConfig) -> Backbone:
    """Return a network as it is trained, on a device; a copy where its weights are of another type there."""
    weights = WEIGHTS.get(runtime.precision)
    network = backbone if weights is None else copy.deepcopy(backbone).to(weights)
    if runtime.channels_last:
        network.to(memory_format=torch.channels_last)
    return network.to(target).eval()


def _batch_size(images: Images, target: torch.device) -> int:
    """Return how many images a pass takes: where a launch costs more than a cache saves, more small ones."""
    if target.type == "cpu":
        return EMBED_BATCH
    return max(EMBED_BATCH, min(SHARD_IMAGES, _PIXELS // (images.shape[-2] * images.shape[-1])))


@torch.inference_mode()
def _embed_shard(
    network: Backbone, images: Images, shard: Tensor, target: torch.device, precision: str
) -> dict[str, Tensor]:
    made = {
        "embeddings": torch.empty(len(shard), network.embedding_dim, device=target),
        "logits": torch.empty(len(shard), network.classifier.out_features, device=target),
    }
    size = _batch_size(images, target)
    places = [tensor.split(size) for tensor in made.values()]
    batches = sent(([batch] for batch in looked_up(images, shard.split(size))), target)
    for (batch,), embeddings, logits in zip(batches, *places, strict=True):
        with computing(precision, target):
            embedding = network.embed(batch)
            classified = network.classify(embedding)
        embeddings.copy_(embedding)
        logits.copy_(classified)
    made = {name: tensor.cpu() for name, tensor in made.items()}  # once a shard: who copies waits for the device
    for name, tensor in made.items():
        if not torch.isfinite(tensor).all():
            raise TrainingError(
                f"expected finite {name}, got NaN or Inf; lower the learning rate or the compression ratio"
            )
    return made


def accuracy(backbone: Backbone, data: Data, runtime: TrainerConfig) -> float:
    """Return the accuracy of single validation images."""
    order = data.splits["validation"]
    shards = embed(backbone, data.dataset.images, order, runtime)
    predicted = torch.cat([shard["logits"].argmax(-1) for shard in shards])
    backbone.to("cpu")
    return float((predicted == data.labels("validation")).double().mean())
