"""The LightningModules: what is trained, for any Trainer of Lightning, whose import takes seconds."""

from __future__ import annotations

from typing import TypeVar

import pytorch_lightning as pl

from sharedlabel.training.aggregator import AggregatorTraining
from sharedlabel.training.backbone import BackboneTraining
from sharedlabel.training.base import TrainedModule
from sharedlabel.training.joint import SharedLabelTraining

Trained = TypeVar("Trained", bound=TrainedModule)


class BackboneModule(BackboneTraining, pl.LightningModule):
    """Train or retrain a backbone on single images; its masks hold (`backbones/_masking.py`).

    A batch is images `[b C H W]` and labels `[b]`, as from a `DataLoader` of pairs. Logged beside the loss: `accuracy`.

    Args:
        backbone: maps images to logits `[b c]`; dense or pruned.
        learning_rate: peak learning rate.
        weight_decay: L2 penalty of `sgd`, decoupled decay of `adamw`; biases and norms do not decay.
        warmup: share of the steps with a linearly rising learning rate, in [0, 1].
        optimizer: `adamw`, or `sgd` with Nesterov momentum.
        momentum: momentum of `sgd`.
        schedule: `cosine` to `final_rate`, or `constant`; both after the warm-up.
        label_smoothing: in [0, 1].
        crop: pad by this many pixels and crop at random; 0 is off.
        flip: mirror left to right at random.
        final_rate: learning rate at the end of the cosine, as a share of its peak.
        augment: transforms of torchvision.transforms.v2 by their names, or as mappings of `name` and options, which
            change each image on its own after crop and mirror.
        mixup: alpha of the Beta distribution of shares in which pairs of images are mixed; 0 is off.
        ema: decay of the exponential moving average of weights and statistics that the network ends with; 0 is off.
        compiled: train through torch.compile, as it is or in one of its modes.
        span: the part of the recipe's steps to train, as shares in [0, 1].
        after_step: told of the network and the share of the steps done after every step; not saved with the module.

    Raises:
        ConfigError: a value that an option does not take.
    """


class AggregatorModule(AggregatorTraining, pl.LightningModule):
    """Train an aggregator on embeddings and logits by the likelihood of every prefix.

    A batch is embeddings `[t n d]`, calibrated logits `[t n c]`, labels `[t]` and, unless all count alike, weights
    `[t]`. Logged beside the loss: `n_accuracy@k` and `ri@k` after k = 1, 2, 4, ... and n instances.

    Args:
        aggregator: the set aggregator.
        learning_rate: peak of a cosine schedule with 10% warm-up, AdamW.
        weight_decay: decoupled.
        validation: a batch to watch, best where the aggregator is trained: the epoch with the least loss on it is kept,
            and training stops `patience` epochs after it. None leaves both to callbacks, such as
            `EarlyStopping("validation/loss")`.
        patience: epochs without a better loss on `validation`.

    Raises:
        ConfigError: a value that an option does not take.
    """


class SharedLabelModule(SharedLabelTraining, pl.LightningModule):
    """A backbone at its compression ratio and an aggregator, trained together through the likelihood of the tuple.

    A batch is images `[t n C H W]`, with distillation the log-posteriors of the teacher `[t n c]`, labels `[t]` and,
    unless all count alike, weights `[t]`. Logged beside the loss: `accuracy` of single images, `n_accuracy@k` and
    `ri@k` after k = 1, 2, 4, ... and n instances.

    Args:
        backbone: any module with `embed(images [b C H W]) -> [b d]` and `classify(embeddings) -> [b c]`.
        aggregator: maps embeddings `[t n d]` and logits `[t n c]` to log-posteriors `[t n c]`: a plugin, or what
            `sharedlabel.aggregator` returns.
        learning_rate: peak of a cosine schedule with 10% warm-up, AdamW.
        weight_decay: decoupled.
        instance_loss: weight of the cross-entropy of each single instance beside the tuple loss.
        batch_norm: `frozen` keeps the running statistics, `running` updates them.
        distill: weight of KL(teacher || student) between the posteriors after every prefix; 0 is off.
        set_loss: weight of the tuple loss. With 0 and without distillation the backbone learns from single instances
            alone, and the aggregator follows it by the tuple loss, whose gradient stops at the backbone.
        temperature: divides the corrected logits before the aggregator sees them.
        log_correction: `[c]`, added to the logits: from the backbone's class frequencies to the prior of tuples; None
            for none.

    Raises:
        ConfigError: a backbone without `embed` and `classify`, or a value that an option does not take.

    >>> import torch
    >>> from torch import nn
    >>> from sharedlabel.aggregators import log_pool
    >>> from sharedlabel.backbones import Backbone
    >>> from sharedlabel.types import SetShape
    >>> body = nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.ReLU())
    >>> backbone = Backbone(body, nn.Linear(4, 3), (1, 4, 4))
    >>> shape = SetShape(torch.zeros(4), torch.ones(4), torch.full((3,), 1 / 3).log())
    >>> module = SharedLabelModule(backbone, log_pool.build(log_pool.Config(), shape), learning_rate=0.01)
    >>> module(torch.zeros(2, 5, 1, 4, 4)).shape
    torch.Size([2, 5, 3])
    """


_MODULES: dict[type[TrainedModule], type[TrainedModule]] = {
    BackboneTraining: BackboneModule,
    AggregatorTraining: AggregatorModule,
    SharedLabelTraining: SharedLabelModule,
}


def module(trained: type[Trained]) -> type[Trained]:
    """Return the LightningModule of what is trained."""
    return _MODULES[trained]  # type: ignore[return-value]
