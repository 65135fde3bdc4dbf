"""What is trained shares an optimiser, a schedule and a record of losses; `logged.py` has what is logged."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sharedlabel.config.sections import FitConfig, JointConfig, TrainConfig
from sharedlabel.errors import TrainingError
from sharedlabel.training.logged import LoggingModule


class TrainedModule(LoggingModule):
    """What is trained, by a plain loop as it is or by Lightning as one of `modules.py`: the hooks are Lightning's."""

    def __init__(self, learning_rate: float, weight_decay: float, warmup: float = 0.1) -> None:
        super().__init__()
        self.learning_rate, self.weight_decay, self.warmup = float(learning_rate), float(weight_decay), float(warmup)
        self.history = torch.zeros(0)  # of the epochs trained; no buffer, since averaged weights have no history
        self.register_load_state_dict_pre_hook(_resize)  # type: ignore[no-untyped-call]
        self.ended: int | None = None
        self._losses: list[Tensor] = []

    @property
    def home(self) -> torch.device:
        """Where its weights are."""
        first = next(self.parameters(), None)
        return torch.device("cpu") if first is None else first.device

    def end(self, steps: int) -> None:
        """Stop as the recipe says, after so many steps in all, which `ended` tells from then on."""
        self.ended, self.trainer.should_stop = steps, True

    def make_optimizer(self, parameters: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """Return the optimiser; AdamW unless a module says otherwise, its step one call where weights have 32 bits."""
        kinds = {parameter.device.type for group in parameters for parameter in group["params"]}
        fused = kinds <= {"cpu", "cuda"} and self.trainer.precision == "32-true"
        return torch.optim.AdamW(parameters, lr=self.learning_rate, fused=fused or None)

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
                {"params": [p for p in trainable if self.decays(p)], "weight_decay": self.weight_decay},
                {"params": [p for p in trainable if not self.decays(p)], "weight_decay": 0.0},
            ]
        )
        total = self.trainer.estimated_stepping_batches
        steps = None if math.isinf(total) else max(int(total), 1)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: 1.0 if steps is None else self.scale(step, steps)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def decays(self, parameter: Tensor) -> bool:
        """Tell whether a parameter decays: weights do, biases and norms do not."""
        return parameter.ndim > 1

    def scale(self, step: int, steps: int) -> float:
        """Return the learning rate at a step as a share of its peak: linear warm-up, then cosine to zero."""
        rising = max(1, round(self.warmup * steps))
        if step < rising:
            return (step + 1) / rising
        return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))

    def record(self, loss: Float[Tensor, "*k"]) -> Float[Tensor, "*k"]:
        """Keep a step's loss, or those of several networks, for the epoch's mean without waiting for the device."""
        self._losses.append(loss.detach())
        self._log_step(loss)
        return loss

    def on_train_epoch_end(self) -> None:
        """Store and log the epoch's mean loss, of each network; stop with a message if it is not finite."""
        mean = torch.stack(self._losses).mean(0)
        self._losses.clear()
        self.history = torch.cat([self.history, mean.float().cpu()[None]])
        if not torch.isfinite(mean).all():
            raise TrainingError(
                f"expected a finite loss, got {mean.tolist()} in epoch {self.trainer.current_epoch + 1}; "
                f"lower learning_rate (now {self.learning_rate:g}) or check the images for NaN and Inf"
            )
        self._log_epoch(mean)

    def get_extra_state(self) -> Tensor:
        """Return what the state holds besides weights and buffers: the losses."""
        return self.history

    def set_extra_state(self, state: Tensor) -> None:
        """Take the losses over from a state."""
        self.history = state

    def losses(self) -> list[float]:
        """Return the mean loss (nats) of every epoch trained."""
        return [float(value) for value in self.history.tolist()]


def _resize(module: nn.Module, state: Mapping[str, Tensor], prefix: str, *_: Any) -> None:
    """Give the correction of logits the length that it has in a state, before it is loaded."""
    own, loaded = module._buffers.get("log_correction"), state.get(f"{prefix}log_correction")
    if own is not None and loaded is not None and own.shape != loaded.shape:
        module.log_correction = own.new_empty(loaded.shape)


def options_of(module: type[TrainedModule], recipe: TrainConfig | FitConfig | JointConfig) -> dict[str, Any]:
    """Return what a recipe says to the constructor of a module; the rest is for loaders and the Trainer."""
    taken = inspect.signature(module).parameters
    return {name: value for name, value in vars(recipe).items() if name in taken}
