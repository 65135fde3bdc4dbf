"""What the LightningModules share: optimiser, schedule, the record of losses, and what is logged."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from jaxtyping import Float
from torch import Tensor, nn

from sharedlabel.config import FitConfig, JointConfig, TrainConfig
from sharedlabel.errors import TrainingError
from sharedlabel.training.resume import Unwatching
from sharedlabel.training.scores import TupleScores


class TrainedModule(pl.LightningModule):
    """What the three modules share: the optimiser, the schedule, the record of losses and what is logged.

    Logged are `train/loss`, `validation/loss` and `test/loss` (nats, the mean of an epoch) with the metrics of the
    module, and `train/loss_step` and `train/accuracy_step` of single steps. Metrics of training are computed where a
    logger or a callback may look at them, so a Trainer without any spends no time on them.
    """

    def __init__(self, learning_rate: float, weight_decay: float, warmup: float = 0.1) -> None:
        super().__init__()
        self.learning_rate, self.weight_decay, self.warmup = float(learning_rate), float(weight_decay), float(warmup)
        self.history = torch.zeros(0)  # of the epochs trained; no buffer, since averaged weights have no history
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
        self.history = torch.cat([self.history, mean.float().cpu()[None]])
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

    def get_extra_state(self) -> Tensor:
        """Return what the state holds besides weights and buffers: the losses."""
        return self.history

    def set_extra_state(self, state: Tensor) -> None:
        """Take the losses over from a state."""
        self.history = state

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
    """Give the correction of logits the length that it has in a state, before it is loaded."""
    own, loaded = module._buffers.get("log_correction"), state.get(f"{prefix}log_correction")
    if own is not None and loaded is not None and own.shape != loaded.shape:
        module.log_correction = own.new_empty(loaded.shape)


def options_of(recipe: TrainConfig | FitConfig | JointConfig) -> dict[str, Any]:
    """Return what a recipe says to a module; the rest of it is for loaders and the Trainer."""
    others = {"epochs", "batch_size", "steps", "tuples", "trials", "patience", "batches"}
    return {name: value for name, value in vars(recipe).items() if name not in others}
