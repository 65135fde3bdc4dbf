"""LightningModules: thin shells that train the pure parts, and the only place where Lightning is imported."""

from __future__ import annotations

import contextlib
import copy
import functools
import logging
import math
import signal
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import pytorch_lightning as pl
import torch
from jaxtyping import Float, Num
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from sharedlabel.aggregators._base import CHUNK, Aggregator, prefix_loss
from sharedlabel.backbones._base import Backbone
from sharedlabel.config import FitConfig, JointConfig, TrainConfig, TrainerConfig
from sharedlabel.errors import ConfigError, TrainingError
from sharedlabel.loaders import TupleBatch, augment
from sharedlabel.training import callbacks, resume
from sharedlabel.training.resume import Epochs, Keeper, Unwatching, Workplace
from sharedlabel.training.scores import TupleScores

# Lightning's remarks on loaders and devices, and its own use of what newer versions of torch deprecate.
_NOISE = (
    "does not have many workers|have no `val_dataloader`|GPU available but not used|logging interval|treespec, LeafSpec"
)
_BACKBONE, _AGGREGATOR, _JOINT = TrainConfig(), FitConfig(), JointConfig()  # what the modules do unless told otherwise


@runtime_checkable
class AfterStep(Protocol):
    """What is called after every step of a backbone's training, and goes on where a killed training was."""

    def __call__(self, network: Any, share: float, /) -> None:
        """Look at the network, or change it, after this share of the steps."""

    def state(self, network: Any, /) -> dict[str, Any]:
        """Return what it has to know to go on, as tensors and plain data."""

    def restore(self, network: Any, state: dict[str, Any], /) -> None:
        """Go on from there; the network has yet to get its weights."""


class _Trained(pl.LightningModule):
    """What the three modules share: the optimiser, the schedule, the record of losses and what is logged.

    Logged are `train/loss`, `validation/loss` and `test/loss` (nats, the mean of an epoch) with the metrics of the
    module, and `train/loss_step` and `train/accuracy_step` of single steps. Metrics of training are computed where a
    logger or a callback may look at them, so a Trainer without any spends no time on them.
    """

    history: Tensor

    def __init__(self, learning_rate: float, weight_decay: float, warmup: float = 0.1) -> None:
        super().__init__()
        self.learning_rate, self.weight_decay, self.warmup = float(learning_rate), float(weight_decay), float(warmup)
        self.register_buffer("history", torch.zeros(0))
        self.register_load_state_dict_pre_hook(_resize)  # type: ignore[no-untyped-call]
        self._losses: list[Tensor] = []
        self._scores: dict[str, TupleScores] = {}
        self._watched = False

    def make_optimizer(self, parameters: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """Return the optimiser; AdamW unless a module says otherwise."""
        return torch.optim.AdamW(parameters, lr=self.learning_rate)

    def configure_optimizers(self) -> Any:
        """Decay weights but not biases and norms; warm up linearly, then follow the schedule, step by step.

        The schedule is as long as the Trainer trains. Where that has no end (`max_epochs=-1`), the rate is constant.

        Raises:
            TrainingError: there is nothing to train.
        """
        trainable = [parameter for parameter in self.parameters() if parameter.requires_grad]
        if not trainable:
            raise TrainingError(
                f"expected something to train, got {type(self).__name__} without a parameter that requires a gradient; "
                "use it as it is, or make parameters require gradients"
            )
        optimizer = self.make_optimizer(
            [
                {"params": [p for p in trainable if p.ndim > 1], "weight_decay": self.weight_decay},
                {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
            ]
        )
        total = self.trainer.estimated_stepping_batches
        steps = None if math.isinf(total) else max(int(total), 1)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: 1.0 if steps is None else self.scale(step, steps)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def scale(self, step: int, steps: int) -> float:
        """Return the learning rate at a step as a share of its peak: linear warm-up, then cosine to zero."""
        rising = max(1, round(self.warmup * steps))
        if step < rising:
            return (step + 1) / rising
        return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))

    def on_fit_start(self) -> None:
        """Find out whether anybody looks at what is logged."""
        watching = [one for one in self.trainer.callbacks if not isinstance(one, Unwatching)]  # type: ignore[attr-defined]
        self._watched = bool(self.trainer.loggers or watching)

    def record(self, loss: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """Keep a step's loss for the epoch's mean without waiting for the device."""
        self._losses.append(loss.detach())
        if self._watched:
            self.log("train/loss_step", loss.detach(), prog_bar=True)
        return loss

    def _log_accuracy(self, phase: str, logits: Tensor, labels: Tensor) -> None:
        """Log the share of single images that are right: `accuracy`, while training that of single steps, too."""
        accuracy = (logits.detach().argmax(-1) == labels).float().mean()
        self._log({f"{phase}/accuracy": accuracy}, len(labels))
        if phase == "train":
            self.log("train/accuracy_step", accuracy)

    def on_train_epoch_end(self) -> None:
        """Store and log the epoch's mean loss; stop with a message if it is not finite."""
        mean = torch.stack(self._losses).mean()
        self._losses.clear()
        self.history = torch.cat([self.history, mean.to(self.history)[None]])
        if not torch.isfinite(mean):
            raise TrainingError(
                f"expected a finite loss, got {mean.item()} in epoch {self.current_epoch + 1}; "
                f"lower learning_rate (now {self.learning_rate:g}) or check the images for NaN and Inf"
            )
        if self._watched:
            self._log({"train/loss": mean})
            self._log_scores("train")

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of the epoch's tuples."""
        self._log_scores("validation")

    def on_test_epoch_end(self) -> None:
        """Log the metrics of the test tuples."""
        self._log_scores("test")

    def losses(self) -> list[float]:
        """Return the mean loss (nats) of every epoch trained."""
        return [float(value) for value in self.history.tolist()]

    def _log(self, values: Mapping[str, Tensor], count: int = 1) -> None:
        """Log values of an epoch, or of a batch of so many, as means over the epoch and the devices."""
        several = self.trainer.world_size > 1
        self.log_dict(dict(values), on_step=False, on_epoch=True, batch_size=count, sync_dist=several)

    def _score(
        self, phase: str, log_posterior: Tensor, labels: Tensor, weights: Tensor, sizes: Sequence[int] = ()
    ) -> None:
        """Add tuples to the metrics of an epoch; posteriors are those after every prefix unless sizes are given."""
        if phase not in self._scores:
            _, prefixes, classes = log_posterior.shape
            self._scores[phase] = TupleScores(sizes or range(1, prefixes + 1), classes).to(self.device)
        self._scores[phase].update(log_posterior.detach(), labels, weights)

    def _log_scores(self, phase: str) -> None:
        scores = self._scores.pop(phase, None)
        if scores is not None:
            self._log({f"{phase}/{name}": value for name, value in scores.named().items()})


def _resize(module: nn.Module, state: Mapping[str, Tensor], prefix: str, *_: Any) -> None:
    """Give the buffers whose length a state decides that length, before they are loaded."""
    for name in ("history", "log_correction"):
        own, loaded = module._buffers.get(name), state.get(prefix + name)
        if own is not None and loaded is not None and own.shape != loaded.shape:
            setattr(module, name, own.new_empty(loaded.shape))


def _weighed(labels: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return labels and their weights, 1 each where a batch has none."""
    return labels, weights[0] if weights else torch.ones(len(labels), device=labels.device)


class BackboneModule(_Trained):
    """Train or retrain a backbone on single images; its masks hold (`backbones/_masking.py`).

    A batch is images `[b C H W]` and labels `[b]`, as from a `DataLoader` of pairs. Logged beside the loss: `accuracy`.

    Args:
        backbone: maps images to logits `[b c]`; dense or pruned.
        learning_rate: peak learning rate.
        weight_decay: L2 penalty of `sgd`, decoupled decay of `adamw`; biases and norms do not decay.
        warmup: share of the steps with a linearly rising learning rate, in [0, 1].
        optimizer: `adamw`, or `sgd` with Nesterov momentum.
        momentum: momentum of `sgd`.
        schedule: `cosine` to zero, or `constant`; both after the warm-up.
        label_smoothing: in [0, 1].
        crop: pad by this many pixels and crop at random; 0 is off.
        flip: mirror left to right at random.
        compiled: train through torch.compile.
        span: the part of the recipe's steps to train, as shares in [0, 1].
        after_step: told of the network and the share of the steps done after every step; not saved with the module.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        learning_rate: float = _BACKBONE.learning_rate,
        weight_decay: float = _BACKBONE.weight_decay,
        warmup: float = _BACKBONE.warmup,
        optimizer: Literal["sgd", "adamw"] = _BACKBONE.optimizer,
        momentum: float = _BACKBONE.momentum,
        schedule: Literal["cosine", "constant"] = _BACKBONE.schedule,
        label_smoothing: float = _BACKBONE.label_smoothing,
        crop: int = _BACKBONE.crop,
        flip: bool = _BACKBONE.flip,
        compiled: bool = False,
        span: tuple[float, float] = (0.0, 1.0),
        after_step: AfterStep | None = None,
    ) -> None:
        super().__init__(learning_rate, weight_decay, warmup)
        self.save_hyperparameters(ignore=["backbone", "after_step"])
        self.optimizer, self.momentum, self.schedule = optimizer, float(momentum), schedule
        self.label_smoothing, self.crop, self.flip = float(label_smoothing), crop, flip
        self.backbone, self.span, self.after_step = backbone, span, after_step
        self._steps = 0
        self._network: nn.Module = torch.compile(backbone) if compiled else backbone  # type: ignore[assignment]

    @classmethod
    def of(
        cls,
        backbone: Backbone,
        recipe: TrainConfig,
        compiled: bool = False,
        span: tuple[float, float] = (0.0, 1.0),
        after_step: AfterStep | None = None,
    ) -> BackboneModule:
        """Return the module that trains a backbone by a recipe."""
        return cls(backbone, **_options(recipe), compiled=compiled, span=span, after_step=after_step)

    def forward(self, images: Num[Tensor, "b C H W"]) -> Float[Tensor, "b c"]:
        """Return the logits of images."""
        logits: Tensor = self._network(images)
        return logits

    def make_optimizer(self, parameters: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """Return AdamW, or SGD with Nesterov momentum."""
        if self.optimizer == "adamw":
            return super().make_optimizer(parameters)
        return torch.optim.SGD(parameters, lr=self.learning_rate, momentum=self.momentum, nesterov=self.momentum > 0)

    def scale(self, step: int, steps: int) -> float:
        """Follow the configured schedule, from the beginning of the span."""
        self._steps, step = steps, step + round(self.span[0] * steps)
        rising = max(1, round(self.warmup * steps))
        return 1.0 if self.schedule == "constant" and step >= rising else super().scale(step, steps)

    def training_step(self, batch: Sequence[Tensor]) -> Tensor:
        """Return the cross-entropy of an augmented batch."""
        images, labels = batch
        logits = self._network(augment(images, self.crop, self.flip))
        if self._watched:
            self._log_accuracy("train", logits, labels)
        return self.record(nn.functional.cross_entropy(logits, labels, label_smoothing=self.label_smoothing))

    def validation_step(self, batch: Sequence[Tensor]) -> None:
        """Log the cross-entropy and the accuracy."""
        self._evaluate("validation", batch)

    def test_step(self, batch: Sequence[Tensor]) -> None:
        """Log the cross-entropy and the accuracy."""
        self._evaluate("test", batch)

    def predict_step(self, batch: Tensor | Sequence[Tensor]) -> Tensor:
        """Return the logits of a batch of images, or of one of images and labels."""
        logits: Tensor = self(batch if isinstance(batch, Tensor) else batch[0])
        return logits

    def on_train_batch_end(self, *_: Any) -> None:
        """Stop at the end of the span."""
        done = round(self.span[0] * self._steps) + self.global_step
        if self.after_step is not None:
            self.after_step(self.backbone, done / self._steps)
        if self.span[1] < 1 and done >= round(self.span[1] * self._steps):
            self.trainer.should_stop = True

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save how far `after_step` is."""
        if self.after_step is not None:
            checkpoint["after_step"] = self.after_step.state(self.backbone)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Let `after_step` go on from there."""
        if self.after_step is not None:
            self.after_step.restore(self.backbone, checkpoint["after_step"])

    def _evaluate(self, phase: str, batch: Sequence[Tensor]) -> None:
        images, labels = batch
        logits = self(images)
        loss = nn.functional.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        self._log({f"{phase}/loss": loss}, len(labels))
        self._log_accuracy(phase, logits, labels)


class AggregatorModule(_Trained):
    """Train an aggregator on embeddings and logits by the likelihood of every prefix.

    A batch is embeddings `[t n d]`, calibrated logits `[t n c]`, labels `[t]` and, unless all count alike, weights
    `[t]`. Logged beside the loss: `n_accuracy@k` and `ri@k` after k = 1, 2, 4, ... and n instances.

    Args:
        aggregator: the set aggregator.
        learning_rate: peak of a cosine schedule with 10% warm-up, AdamW.
        weight_decay: decoupled.
        validation: a batch to watch: the epoch with the least loss on it is kept, and training stops `patience` epochs
            after it. None leaves both to callbacks, such as `EarlyStopping("validation/loss")`.
        patience: epochs without a better loss on `validation`.
    """

    def __init__(
        self,
        aggregator: Aggregator,
        *,
        learning_rate: float = _AGGREGATOR.learning_rate,
        weight_decay: float = _AGGREGATOR.weight_decay,
        validation: TupleBatch | None = None,
        patience: int = _AGGREGATOR.patience,
    ) -> None:
        super().__init__(learning_rate, weight_decay)
        self.save_hyperparameters(ignore=["aggregator", "validation"])
        self.aggregator, self.validation, self.patience = aggregator, validation, patience
        self.best, self.best_epoch, self.best_state = math.inf, 0, copy.deepcopy(aggregator.state_dict())
        if validation is not None:
            self.best = self._validation_loss(validation)

    @classmethod
    def of(cls, aggregator: Aggregator, recipe: FitConfig, validation: TupleBatch) -> AggregatorModule:
        """Return the module that trains an aggregator by a recipe."""
        return cls(aggregator, **_options(recipe), validation=validation, patience=recipe.patience)

    def forward(self, embeddings: Float[Tensor, "t n d"], logits: Float[Tensor, "t n c"]) -> Float[Tensor, "t n c"]:
        """Return the log-posterior after every prefix."""
        posterior: Tensor = self.aggregator(embeddings, logits)
        return posterior

    def training_step(self, batch: Sequence[Tensor]) -> Tensor:
        """Return the weighted negative log-likelihood (nats), averaged over prefixes as the aggregator weighs them."""
        embeddings, logits, labels, *rest = batch
        labels, weights = _weighed(labels, rest)
        prefixes, importance = _weighted(self.aggregator, logits.shape[1])
        posterior = self.aggregator.at(embeddings, logits, prefixes)
        losses = prefix_loss(posterior, labels)
        if self._watched:
            self._score("train", posterior, labels, weights, prefixes)
        return self.record((losses @ importance.to(losses) * weights).mean())

    def validation_step(self, batch: Sequence[Tensor]) -> None:
        """Log the loss and the metrics."""
        self._evaluate("validation", batch)

    def test_step(self, batch: Sequence[Tensor]) -> None:
        """Log the loss and the metrics."""
        self._evaluate("test", batch)

    def predict_step(self, batch: Sequence[Tensor]) -> Tensor:
        """Return the log-posterior after every prefix; whatever follows embeddings and logits is not looked at."""
        posterior: Tensor = self(*batch[:2])
        return posterior

    def on_train_epoch_end(self) -> None:
        """Keep the best epoch; stop when it is long ago."""
        super().on_train_epoch_end()
        if self.validation is None:
            return
        loss = self._validation_loss(self.validation)
        if self._watched:
            self._log({"validation/loss": torch.tensor(loss)})
        if loss < self.best:
            self.best, self.best_epoch = loss, self.current_epoch + 1
            self.best_state = copy.deepcopy(self.aggregator.state_dict())
        if self.current_epoch + 1 - self.best_epoch >= self.patience:
            self.trainer.should_stop = True

    def on_fit_end(self) -> None:
        """Restore the best epoch."""
        if self.validation is not None:
            self.aggregator.load_state_dict(self.best_state)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the best epoch with the last one."""
        checkpoint["best"] = {"loss": self.best, "epoch": self.best_epoch, "state": self.best_state}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Load the best epoch."""
        best = checkpoint["best"]
        self.best, self.best_epoch, self.best_state = best["loss"], best["epoch"], best["state"]

    def _evaluate(self, phase: str, batch: Sequence[Tensor]) -> None:
        embeddings, logits, labels, *rest = batch
        labels, weights = _weighed(labels, rest)
        posterior = self(embeddings, logits)
        importance = self.aggregator.prefix_weights(posterior.shape[1]).to(posterior)
        loss = (prefix_loss(posterior, labels) @ importance * weights).mean()
        self._log({f"{phase}/loss": loss}, len(labels))
        self._score(phase, posterior, labels, weights)

    @torch.no_grad()
    def _validation_loss(self, validation: TupleBatch) -> float:
        training = self.aggregator.training
        self.aggregator.eval()
        prefixes, importance = _weighted(self.aggregator, validation[1].shape[1])
        total = 0.0
        for embeddings, logits, labels, weights in zip(*(part.split(CHUNK) for part in validation), strict=True):
            posterior = self.aggregator.draft(embeddings.to(self.device), logits.to(self.device), prefixes).cpu()
            total += float((prefix_loss(posterior, labels) @ importance.to(posterior) * weights).sum())
        self.aggregator.train(training)
        return total / float(validation[3].sum())


def _weighted(aggregator: Aggregator, size: int) -> tuple[list[int], Float[Tensor, "k"]]:
    """Return the prefixes that count in an aggregator's loss, and their weights."""
    weights = aggregator.prefix_weights(size)
    counted = weights.nonzero()[:, 0]
    return (counted + 1).tolist(), weights[counted]


class SharedLabelModule(_Trained):
    """A backbone at its compression ratio and an aggregator, trained together through the likelihood of the tuple.

    A batch is images `[t n C H W]`, with distillation the log-posteriors of the teacher `[t n c]`, labels `[t]` and,
    unless all count alike, weights `[t]`. Logged beside the loss: `accuracy` of single images, `n_accuracy@k` and
    `ri@k` after k = 1, 2, 4, ... and n instances.

    Args:
        backbone: any module with `embed(images [b C H W]) -> [b d]` and `classify(embeddings) -> [b c]`.
        aggregator: the set aggregator.
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
        ConfigError: a backbone without `embed` and `classify`.

    >>> import pytorch_lightning as pl
    >>> from sharedlabel.aggregators import log_pool
    >>> from sharedlabel.types import SetShape
    >>> body = nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.ReLU())
    >>> backbone = Backbone(body, nn.Linear(4, 3), (1, 4, 4))
    >>> shape = SetShape(torch.zeros(4), torch.ones(4), torch.full((3,), 1 / 3).log())
    >>> module = SharedLabelModule(backbone, log_pool.build(log_pool.Config(), shape), learning_rate=0.01)
    >>> module(torch.zeros(2, 5, 1, 4, 4)).shape
    torch.Size([2, 5, 3])
    """

    log_correction: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        aggregator: Aggregator,
        *,
        learning_rate: float = _JOINT.learning_rate,
        weight_decay: float = _JOINT.weight_decay,
        instance_loss: float = _JOINT.instance_loss,
        batch_norm: Literal["frozen", "running"] = _JOINT.batch_norm,
        distill: float = _JOINT.distill,
        set_loss: float = _JOINT.set_loss,
        temperature: float = 1.0,
        log_correction: Float[Tensor, "c"] | None = None,
    ) -> None:
        super().__init__(learning_rate, weight_decay)
        absent = [name for name in ("embed", "classify") if not callable(getattr(backbone, name, None))]
        if absent:
            raise ConfigError(
                f"expected a backbone with embed(images) and classify(embeddings), got {type(backbone).__name__} "
                f"without {' and '.join(absent)}; add the methods, or put its parts into a Backbone(body, classifier, "
                "image_shape)"
            )
        self.save_hyperparameters(ignore=["backbone", "aggregator", "log_correction"])
        self.backbone, self.aggregator = backbone, aggregator
        self.instance_loss, self.set_loss, self.distill = float(instance_loss), float(set_loss), float(distill)
        self.batch_norm, self.temperature = batch_norm, temperature
        self.register_buffer("log_correction", torch.zeros(1) if log_correction is None else log_correction)

    @classmethod
    def of(
        cls,
        backbone: Backbone,
        aggregator: Aggregator,
        recipe: JointConfig,
        temperature: float,
        log_correction: Float[Tensor, "c"],
    ) -> SharedLabelModule:
        """Return the module that trains both by a recipe."""
        options = _options(recipe)
        return cls(backbone, aggregator, **options, temperature=temperature, log_correction=log_correction)

    def instances(self, images: Num[Tensor, "t n C H W"]) -> tuple[Float[Tensor, "t n d"], Float[Tensor, "t n c"]]:
        """Return the embeddings and raw logits of every instance."""
        backbone: Any = self.backbone
        embeddings: Tensor = backbone.embed(images.flatten(0, 1))
        logits: Tensor = backbone.classify(embeddings)
        return embeddings.unflatten(0, images.shape[:2]), logits.unflatten(0, images.shape[:2])

    def fused(self, embeddings: Float[Tensor, "t n d"], logits: Float[Tensor, "t n c"]) -> Float[Tensor, "t n c"]:
        """Return the log-posterior after every prefix, of embeddings and raw logits."""
        posterior: Tensor = self.aggregator(embeddings, (logits + self.log_correction) / self.temperature)
        return posterior

    def forward(self, images: Num[Tensor, "t n C H W"]) -> Float[Tensor, "t n c"]:
        """Return the log-posterior after every prefix of every tuple of images."""
        return self.fused(*self.instances(images))

    def on_train_epoch_start(self) -> None:
        """Keep batch-norm statistics fixed if asked to."""
        if self.batch_norm == "frozen":
            for module in self.backbone.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()

    def training_step(self, batch: Sequence[Tensor]) -> Tensor:
        """Return the weighted sum of the losses of the recipe (nats)."""
        images, taught, labels, weights = self._parts(batch)
        embeddings, logits = self.instances(images)
        set_loss, seen = self.set_loss, (embeddings, logits)
        if not set_loss and not self.distill:  # the limit of small weights: AdamW does not see how small gradients are
            set_loss, seen = 1.0, (embeddings.detach(), logits.detach())
        posterior = self.fused(*seen)
        losses = self._losses_of(posterior, logits, labels, set_loss)
        if self.distill:
            if taught is None:
                raise TrainingError(
                    f"expected batches with the log-posteriors of a teacher for distill={self.distill:g}, got batches "
                    f"of {len(batch)} tensors; pass images, teacher, labels, weights, or set distill to 0"
                )
            losses = losses + self.distill * divergence(taught, posterior).mean(1)
        if self._watched:
            self._observe("train", posterior, logits, labels, weights)
        return self.record((losses * weights).mean())

    def validation_step(self, batch: Sequence[Tensor]) -> None:
        """Log the loss, without distillation, and the metrics."""
        self._evaluate("validation", batch)

    def test_step(self, batch: Sequence[Tensor]) -> None:
        """Log the loss, without distillation, and the metrics."""
        self._evaluate("test", batch)

    def predict_step(self, batch: Tensor | Sequence[Tensor]) -> Tensor:
        """Return the log-posterior after every prefix, of images or of a batch that begins with them."""
        posterior: Tensor = self(batch if isinstance(batch, Tensor) else batch[0])
        return posterior

    def _evaluate(self, phase: str, batch: Sequence[Tensor]) -> None:
        images, _, labels, weights = self._parts(batch)
        embeddings, logits = self.instances(images)
        posterior = self.fused(embeddings, logits)
        losses = self._losses_of(posterior, logits, labels, self.set_loss or 1.0)
        self._log({f"{phase}/loss": (losses * weights).mean()}, len(labels))
        self._observe(phase, posterior, logits, labels, weights)

    def _parts(self, batch: Sequence[Tensor]) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
        """Return images, log-posteriors of the teacher or None, labels and weights."""
        images, *taught, labels, weights = batch if len(batch) > 2 else (*batch, torch.ones_like(batch[1]))
        return images, taught[0] if taught else None, labels, weights

    def _losses_of(self, posterior: Tensor, logits: Tensor, labels: Tensor, set_loss: float) -> Float[Tensor, "t"]:
        single = prefix_loss(logits.log_softmax(-1), labels).mean(1)
        return set_loss * prefix_loss(posterior, labels).mean(1) + self.instance_loss * single

    def _observe(self, phase: str, posterior: Tensor, logits: Tensor, labels: Tensor, weights: Tensor) -> None:
        """Log the accuracy of single images, and add the tuples to the metrics of the epoch."""
        self._log_accuracy(phase, logits, labels[:, None])
        self._score(phase, posterior, labels, weights)


def _options(recipe: TrainConfig | FitConfig | JointConfig) -> dict[str, Any]:
    """Return what a recipe says to a module; the rest of it is for loaders and the Trainer."""
    others = {"epochs", "batch_size", "steps", "tuples", "trials", "patience", "batches"}
    return {name: value for name, value in vars(recipe).items() if name not in others}


def divergence(teacher: Float[Tensor, "t n c"], student: Float[Tensor, "t n c"]) -> Float[Tensor, "t n"]:
    """Return KL(teacher || student) (nats) between log-posteriors after every prefix."""
    return nn.functional.kl_div(student, teacher.to(student).exp(), reduction="none").sum(-1)


def trainer(
    config: TrainerConfig, epochs: int, gradient_clip: float = 0.0, small: bool = False, **options: Any
) -> pl.Trainer:
    """Build the Lightning Trainer.

    Args:
        config: where and how.
        epochs: passes over the loader.
        gradient_clip: largest gradient norm; 0 is off.
        small: train on one device in full precision, as aggregators are.
        options: further arguments of the Trainer, such as callbacks.

    Raises:
        ConfigError: a device that is absent or an option that Lightning does not know.
    """
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)  # it announces devices and tips at every start
    devices: Any = 1 if small else config.devices
    several = devices not in (1, "1")
    strategy = "ddp_spawn" if several and config.strategy == "auto" else config.strategy
    try:
        return pl.Trainer(
            max_epochs=epochs,
            accelerator=config.accelerator,
            devices=devices,
            strategy="auto" if small else strategy,
            precision="32-true" if small else config.precision,
            gradient_clip_val=gradient_clip or None,
            **{
                "logger": False,
                "enable_checkpointing": False,
                "enable_progress_bar": False,
                "enable_model_summary": False,
                **config.options,
                **options,
            },
        )
    except (MisconfigurationException, TypeError, ValueError, RuntimeError, ImportError, MemoryError) as error:
        asked = {"accelerator": config.accelerator, "devices": config.devices, "strategy": config.strategy}
        other = [name for name in ("accelerator", "strategy") if asked[name] != "auto"]
        advice = f"set trainer.{' and trainer.'.join(other)} to auto" if other else "correct trainer.options"
        stated = ", ".join(f"{name}={value!r}" for name, value in asked.items())
        raise ConfigError(
            f"trainer: {stated} cannot be used here: {' '.join(str(error).split()).rstrip('.')}; {advice}"
        ) from error


def fit(
    module: _Trained,
    loader: Epochs,
    config: TrainerConfig,
    epochs: int,
    gradient_clip: float = 0.0,
    small: bool = False,
) -> None:
    """Train a module and leave it on the CPU in evaluation mode; within a stage call, go on where a killed run was.

    Args:
        module: what to train.
        loader: gives its batches.
        config: where and how.
        epochs: passes over the loader.
        gradient_clip: largest gradient norm; 0 is off.
        small: train on one device in full precision, as aggregators are.
    """
    module.train()  # Lightning keeps the mode it finds, and restored backbones come in evaluation mode
    workplace = resume.current()
    make = functools.partial(trainer, config, epochs, gradient_clip, small)
    if epochs and workplace is None:
        _run(make(), module, loader)
    elif epochs and workplace is not None:
        _go_on(make, module, loader, config, workplace)
    module.to("cpu").eval()


def _go_on(
    make: Callable[..., pl.Trainer], module: _Trained, loader: Epochs, config: TrainerConfig, workplace: Workplace
) -> None:
    """Train from where a killed run was, if there was one, and keep states for the next."""
    number = workplace.begin()
    path, state = workplace.left(number) or (None, None)
    if state is not None and resume.finished(state):
        resume.restore_end(state, module, loader)
        return
    options = callbacks.watching(config, workplace, number)
    keeper = Keeper(workplace, number, loader, state)
    made = make(**{**options, "callbacks": [*options["callbacks"], keeper]}, enable_checkpointing=True)
    _run(made, module, loader, path)
    if made.world_size == 1:
        workplace.finish(number, resume.end(workplace, module.to("cpu"), loader))


def _run(trainer: pl.Trainer, module: _Trained, loader: Epochs, state: Path | None = None) -> None:
    """Train, from a state if there is one."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=f".*({_NOISE}).*")
        with _interruptible():
            trainer.fit(module, loader, ckpt_path=state, weights_only=True)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Pass Ctrl-C on as KeyboardInterrupt: Lightning would exit with code 1 and ignore every later Ctrl-C."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as stopped:
        if not isinstance(stopped.__context__, KeyboardInterrupt):
            raise
        signal.signal(signal.SIGINT, handler)
        raise KeyboardInterrupt from stopped


def device(config: TrainerConfig) -> torch.device:
    """Return the device that features are computed on: the one the Trainer would use first."""
    name = config.accelerator
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name in {"gpu", "cuda"}:
        return torch.device("cuda")
    return torch.device(name)
