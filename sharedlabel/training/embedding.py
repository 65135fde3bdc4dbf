"""Embed images with a backbone, shard by shard, and the accuracy of single images."""

from __future__ import annotations

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
from sharedlabel.training.resident import resident
from sharedlabel.types import Images

SHARD_IMAGES = 16_384
EMBED_BATCH = 512


def embed(
    backbone: Backbone, images: Images, order: Int64[Tensor, "m"], target: torch.device
) -> Iterator[dict[str, Tensor]]:
    """Yield embeddings `[s d]` and logits `[s c]` of the images in order, one shard after the other; none is kept.

    Raises:
        TrainingError: an embedding or a logit is not finite.
    """
    network, images = backbone.to(target).eval(), resident(images, target)
    order = order.to(images.device)
    for shard in order.split(SHARD_IMAGES):
        yield _embed_shard(network, images, shard, target)


@torch.inference_mode()
def _embed_shard(network: Backbone, images: Images, shard: Tensor, target: torch.device) -> dict[str, Tensor]:
    made = {
        "embeddings": torch.empty(len(shard), network.embedding_dim, device=target),
        "logits": torch.empty(len(shard), network.classifier.out_features, device=target),
    }
    parts = torch.arange(len(shard), device=target).split(EMBED_BATCH)
    batches = looked_up(images, (shard[rows.to(shard.device)] for rows in parts))
    for rows, batch in zip(parts, batches, strict=True):
        embedding = network.embed(batch.to(target))
        made["embeddings"][rows] = embedding.float()
        made["logits"][rows] = network.classify(embedding).float()
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
    shards = embed(backbone, data.dataset.images, order, device(runtime))
    predicted = torch.cat([shard["logits"].argmax(-1) for shard in shards])
    backbone.to("cpu")
    return float((predicted == data.labels("validation")).double().mean())
