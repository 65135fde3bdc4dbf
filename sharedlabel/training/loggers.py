"""Loggers of Lightning by name, and what they are told besides losses: rates, gradients, speed, a look at validation.

No key says what stands here, so nothing here changes what is computed.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger
from torch import Tensor, nn

from sharedlabel import rng
from sharedlabel.config.sections import TrainerConfig
from sharedlabel.errors import ConfigError
from sharedlabel.training.keeping import Unwatching
from sharedlabel.training.watchers import Watched

# What a logger needs: one of these packages, the first of which is proposed.
_NEEDED: Mapping[str, tuple[str, ...]] = {"tensorboard": ("tensorboard", "tensorboardX")}


def check(config: TrainerConfig) -> None:
    """Refuse a logger whose package is not installed.

    Raises:
        ConfigError: such a logger.
    """
    needed = _NEEDED.get(config.logger, ())
    if needed and not any(map(importlib.util.find_spec, needed)):
        raise ConfigError(
            f"trainer.logger: {config.logger} needs the package {needed[0]}, which is not installed; pip install "
            f"{needed[0]}, or set trainer.logger to csv"
        )


def logger(name: str, logs: Path, number: int, watched: Watched | None) -> Logger | bool:
    """Return a logger of a training; False where nothing is logged.

    Args:
        name: `csv`, `tensorboard` or `wandb`.
        logs: folder of the stage call's logs.
        number: of the training within the stage call.
        watched: what is told of the call.
    """
    if name == "wandb":
        from sharedlabel.training import live  # W&B is imported only when it is used

        return live.logger(watched, number) or False
    taken = {path.name for path in logs.iterdir()} if logs.is_dir() else set()
    names = [f"training-{number}", *(f"training-{number}.{again}" for again in range(2, len(taken) + 3))]
    folder = next(name for name in names if name not in taken)  # what a killed run has logged stays
    return (CSVLogger if name == "csv" else TensorBoardLogger)(logs, name="", version=folder)


class Pulse(Unwatching):
    """Tells loggers, where single steps are logged, the learning rate, the norm of the gradient and the speed.

    Logged are `train/learning_rate`, `train/gradient_norm` (before it is clipped) and `train/images_per_second`, over
    the steps since it was logged before.
    """

    def __init__(self) -> None:
        self._since = 0, 0.0  # steps, seconds

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to measure: what lies between two epochs is no step."""
        del pl_module
        self._since = trainer.global_step, time.perf_counter()

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Log, where this step is logged."""
        seen: Any = trainer  # it has what no type says
        if not seen.loggers or (seen.global_step + 1) % seen.log_every_n_steps:
            return
        loader: Any = seen.train_dataloader
        images = loader.batch_size * getattr(loader, "n", 1)
        gradients = [one.grad for one in pl_module.parameters() if one.grad is not None]
        steps, now = trainer.global_step + 1 - self._since[0], time.perf_counter()
        values = {
            "train/learning_rate": optimizer.param_groups[0]["lr"],
            "train/gradient_norm": float(nn.utils.get_total_norm(gradients)),
            "train/images_per_second": steps * images / (now - self._since[1]),
        }
        self._since = trainer.global_step + 1, now
        for one in trainer.loggers:
            one.log_metrics(values, step=trainer.global_step)


class Look(Unwatching):
    """Validates a module at the end of every epoch, which trains nothing, so that its losses can be watched.

    Args:
        held_out: returns the batches of validation.
    """

    def __init__(self, held_out: Callable[[], Iterator[Sequence[Tensor]]]) -> None:
        self.held_out = held_out

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the loss and the metrics of validation."""
        modes = [(module, module.training) for module in pl_module.modules()]
        pl_module.eval()
        with torch.no_grad(), rng.untouched(), trainer.precision_plugin.val_step_context():
            for batch in self.held_out():
                sent = trainer.strategy.batch_to_device(batch)
                pl_module.validation_step(trainer.precision_plugin.convert_input(sent))
            pl_module.on_validation_epoch_end()
        for module, training in modes:
            module.training = training
