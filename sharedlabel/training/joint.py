"""Train a backbone and an aggregator together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn

from sharedlabel.aggregators._base import Aggregator, prefix_loss
from sharedlabel.backbones._base import Backbone
from sharedlabel.config import schema
from sharedlabel.config.sections import JointConfig
from sharedlabel.errors import ConfigError, TrainingError
from sharedlabel.training.base import TrainedModule, options_of

_RECIPE = JointConfig()  # what the module does unless told otherwise


class SharedLabelTraining(TrainedModule):
    """A backbone and an aggregator that are trained together; `SharedLabelModule` says how."""

    log_correction: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        aggregator: nn.Module,
        *,
        learning_rate: float = _RECIPE.learning_rate,
        weight_decay: float = _RECIPE.weight_decay,
        instance_loss: float = _RECIPE.instance_loss,
        batch_norm: Literal["frozen", "running"] = _RECIPE.batch_norm,
        distill: float = _RECIPE.distill,
        set_loss: float = _RECIPE.set_loss,
        temperature: float = 1.0,
        log_correction: Float[Tensor, "c"] | None = None,
    ) -> None:
        options: dict[str, Any] = {"learning_rate": learning_rate, "weight_decay": weight_decay}
        options |= {"instance_loss": instance_loss}
        options |= {"batch_norm": batch_norm, "distill": distill, "set_loss": set_loss}
        schema.read(JointConfig, options)
        if not 0 < temperature < math.inf:
            raise ConfigError(f"temperature: expected a number above 0, got {temperature}; 1 leaves logits as they are")
        super().__init__(learning_rate, weight_decay)
        absent = [name for name in ("embed", "classify") if not callable(getattr(backbone, name, None))]
        if absent:
            raise ConfigError(
                f"expected a backbone with embed(images) and classify(embeddings), got {type(backbone).__name__} "
                f"without {' and '.join(absent)}; wrap it, sharedlabel.backbone(network, example_inputs), or add the "
                "methods"
            )
        self._keep_options(but=("backbone", "aggregator", "log_correction"))
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
    ) -> SharedLabelTraining:
        """Return the module that trains both by a recipe."""
        options = options_of(SharedLabelTraining, recipe)
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
        losses = self._losses_of(posterior, logits, labels, set_loss)  # [t n]
        if self.distill:
            if taught is None:
                raise TrainingError(
                    f"expected batches with the log-posteriors of a teacher for distill={self.distill:g}, got batches "
                    f"of {len(batch)} tensors; pass images, teacher, labels, weights, or set distill to 0"
                )
            losses = losses + self.distill * divergence(taught, posterior)
        if self._watched:
            self._observe("train", posterior, logits, labels, weights)
        return self.record(_averaged(losses, weights))

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
        self._log_loss(phase, _averaged(losses, weights), len(labels))
        self._observe(phase, posterior, logits, labels, weights)

    def _parts(self, batch: Sequence[Tensor]) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
        """Return images, log-posteriors of the teacher or None, labels and weights."""
        images, *taught, labels, weights = batch if len(batch) > 2 else (*batch, torch.ones_like(batch[1]))
        return images, taught[0] if taught else None, labels, weights

    def _losses_of(self, posterior: Tensor, logits: Tensor, labels: Tensor, set_loss: float) -> Float[Tensor, "t n"]:
        single = prefix_loss(logits.log_softmax(-1), labels)
        return set_loss * prefix_loss(posterior, labels) + self.instance_loss * single

    def _observe(self, phase: str, posterior: Tensor, logits: Tensor, labels: Tensor, weights: Tensor) -> None:
        """Log the accuracy of single images, and add the tuples to the metrics of the epoch."""
        self._log_accuracy(phase, logits, labels[:, None])
        self._score(phase, posterior, labels, weights)


def _averaged(losses: Float[Tensor, "t n"], weights: Float[Tensor, "t"] | Float[Tensor, "t n"]) -> Float[Tensor, ""]:
    """Return the mean loss of tuples over prefixes; weights of ragged tuples are those at every n."""
    return (losses.mean(1) * weights).mean() if weights.ndim == 1 else (losses * weights).mean()


def divergence(teacher: Float[Tensor, "t n c"], student: Float[Tensor, "t n c"]) -> Float[Tensor, "t n"]:
    """Return KL(teacher || student) (nats) between log-posteriors after every prefix."""
    return nn.functional.kl_div(student, teacher.to(student).exp(), reduction="none").sum(-1)
