"""Train a backbone on single images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Self

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn

from sharedlabel.config import schema
from sharedlabel.config.sections import TrainConfig
from sharedlabel.training import augmenting, compiling
from sharedlabel.training.averaging import Average
from sharedlabel.training.base import TrainedModule, options_of
from sharedlabel.training.compiling import Compiled
from sharedlabel.training.loaders import augment
from sharedlabel.training.steps import AfterStep

_RECIPE = TrainConfig()  # what the module does unless told otherwise


class BackboneTraining(TrainedModule):
    """A backbone that is trained or retrained on single images; `BackboneModule` says how."""

    def __init__(
        self,
        backbone: nn.Module,
        *,
        learning_rate: float = _RECIPE.learning_rate,
        weight_decay: float = _RECIPE.weight_decay,
        warmup: float = _RECIPE.warmup,
        optimizer: Literal["sgd", "adamw"] = _RECIPE.optimizer,
        momentum: float = _RECIPE.momentum,
        schedule: Literal["cosine", "constant"] = _RECIPE.schedule,
        label_smoothing: float = _RECIPE.label_smoothing,
        crop: int = _RECIPE.crop,
        flip: bool = _RECIPE.flip,
        final_rate: float = _RECIPE.final_rate,
        augment: Sequence[augmenting.Spec] = _RECIPE.augment,
        mixup: float = _RECIPE.mixup,
        ema: float = _RECIPE.ema,
        compiled: Compiled = False,
        span: tuple[float, float] = (0.0, 1.0),
        after_step: AfterStep | None = None,
    ) -> None:
        options: dict[str, Any] = {"learning_rate": learning_rate, "weight_decay": weight_decay, "warmup": warmup}
        options |= {"optimizer": optimizer, "momentum": momentum, "schedule": schedule, "final_rate": final_rate}
        options |= {"label_smoothing": label_smoothing, "crop": crop, "flip": flip}
        options |= {"augment": list(augment), "mixup": mixup, "ema": ema}
        schema.read(TrainConfig, options)
        super().__init__(learning_rate, weight_decay, warmup)
        self._keep_options(but=("backbone", "after_step", "span"))
        self.optimizer, self.momentum, self.schedule = optimizer, float(momentum), schedule
        self.label_smoothing, self.crop, self.flip = float(label_smoothing), crop, flip
        self.final_rate, self.mixup, self.ema = float(final_rate), float(mixup), float(ema)
        self._transform = augmenting.transform(augment)
        self._average: Average | None = None
        self.backbone, self.span, self.after_step = backbone, span, after_step
        self._steps = 0
        self._network = compiling.compiled(backbone, compiled)

    @classmethod
    def of(
        cls,
        backbone: nn.Module,
        recipe: TrainConfig,
        compiled: Compiled = False,
        span: tuple[float, float] = (0.0, 1.0),
        after_step: AfterStep | None = None,
    ) -> Self:
        """Return the module that trains a backbone by a recipe."""
        options = options_of(BackboneTraining, recipe)
        return cls(backbone, **options, compiled=compiled, span=span, after_step=after_step)

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
        if step < rising:
            return super().scale(step, steps)
        if self.schedule == "constant":
            return 1.0
        return self.final_rate + (1 - self.final_rate) * super().scale(step, steps)

    def training_step(self, batch: Sequence[Tensor]) -> Tensor:
        """Return the cross-entropy of an augmented batch."""
        images, labels = batch
        images = augment(images, self.crop, self.flip)
        if self._transform is not None:
            images = self._transform(images)
        if self.mixup:
            return self.record(self._mixed(images, labels))
        logits = self._network(images)
        if self._watched:
            self._log_accuracy("train", logits, labels)
        return self.record(self._loss(logits, labels))

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return nn.functional.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)

    def _mixed(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of images mixed with others of the batch, all in one share, as are their losses."""
        share = float(torch.distributions.Beta(self.mixup, self.mixup).sample())
        others = torch.randperm(len(images)).to(images.device)
        scaled = images if images.is_floating_point() else images / 255
        logits = self._network(share * scaled + (1 - share) * scaled[others])
        return share * self._loss(logits, labels) + (1 - share) * self._loss(logits, labels[others])

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
        done = round(self.span[0] * self._steps) + self.trainer.global_step
        if self.ema:
            self._averaged().add(self.backbone)
        if self.after_step is not None:
            self.after_step(self.backbone, done / self._steps)
        if self.span != (0.0, 1.0) and done >= round(self.span[1] * self._steps):
            self.end(self.trainer.global_step)

    def on_fit_end(self) -> None:
        """Take the average of weights."""
        if self._average is not None:
            self._average.give(self.backbone)
            self._average = None

    def _averaged(self) -> Average:
        if self._average is None:
            self._average = Average(self.ema)
        return self._average

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save how far `after_step` is, and the average of weights."""
        if self.ema:
            checkpoint["average"] = self._averaged().state()
        if self.after_step is not None:
            checkpoint["after_step"] = self.after_step.state(self.backbone)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Let `after_step` and the average of weights go on from there."""
        if self.ema:
            self._averaged().restore(checkpoint["average"])
        if self.after_step is not None:
            self.after_step.restore(self.backbone, checkpoint["after_step"])

    def _evaluate(self, phase: str, batch: Sequence[Tensor]) -> None:
        images, labels = batch
        logits = self(images)
        loss = nn.functional.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        self._log_loss(phase, loss, len(labels))
        self._log_accuracy(phase, logits, labels)
