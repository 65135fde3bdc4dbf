"""The Trainer of a grid, and `fit`, which trains a module and goes on where a killed run was."""

from __future__ import annotations

import contextlib
import functools
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException

from sharedlabel.config.sections import TrainerConfig
from sharedlabel.errors import ConfigError, TrainingError
from sharedlabel.training import callbacks, resume
from sharedlabel.training.base import TrainedModule
from sharedlabel.training.devices import device
from sharedlabel.training.resume import Epochs, Keeper, Unwatching, Workplace

# Precisions of the weights themselves, which have 32 bits before and after. Lightning changes them when it has loaded,
# and so rounded, what a killed run has left.
_WEIGHTS = {"bf16-true": torch.bfloat16, "64-true": torch.float64}


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
        ConfigError: a device that is absent, a precision that it does not compute in, or an option that Lightning does
            not know.
    """
    if not small and config.precision == "16-mixed" and device(config).type == "cpu":
        raise ConfigError(
            "trainer.precision: expected one that a CPU computes in, got '16-mixed', in whose place Lightning takes "
            "'bf16-mixed'; ask for that"
        )
    chosen: Any = config.devices
    accelerator = config.accelerator
    if small:  # one device, perhaps by its number, as torch writes it
        accelerator, _, number = accelerator.partition(":")
        chosen = f"{number}," if number else 1
    several = chosen not in (1, "1")
    strategy = "ddp_spawn" if several and config.strategy == "auto" else config.strategy
    try:
        return pl.Trainer(
            max_epochs=epochs,
            accelerator=accelerator,
            devices=chosen,
            strategy="auto" if small else strategy,
            precision="32-true" if small else config.precision,
            gradient_clip_val=gradient_clip or None,
            **{**callbacks.quiet(), **config.options, **options},
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
    module: TrainedModule,
    loader: Epochs,
    config: TrainerConfig,
    epochs: int,
    gradient_clip: float = 0.0,
    small: bool = False,
) -> None:
    """Train a module, in a stage call from where a killed run was; leave it on the CPU, in 32 bits, in evaluation mode.

    Args:
        module: what to train.
        loader: gives its batches.
        config: where and how.
        epochs: passes over the loader.
        gradient_clip: largest gradient norm; 0 is off.
        small: train on one device in full precision, as aggregators are.

    Raises:
        TrainingError: a callback has ended the training early, or made it longer.
    """
    weights = None if small else _WEIGHTS.get(config.precision)
    if weights is not None:
        module.to(weights)
    module.train()  # Lightning keeps the mode it finds, and restored backbones come in evaluation mode
    workplace = resume.current()
    make = functools.partial(trainer, config, epochs, gradient_clip, small)
    if epochs and workplace is None:
        _run(make(), module, loader)
    elif epochs and workplace is not None:
        _go_on(make, module, loader, config, workplace, epochs)
    module.to("cpu").eval()
    if weights is not None:
        module.float()


def _go_on(
    make: Callable[..., pl.Trainer],
    module: TrainedModule,
    loader: Epochs,
    config: TrainerConfig,
    workplace: Workplace,
    epochs: int,
) -> None:
    """Train from where a killed run was, if there was one, and keep states for the next."""
    number = workplace.begin()
    state = workplace.left(number)
    if state is not None and resume.finished(state):
        resume.restore_end(state, module, loader)
        return
    options = callbacks.watching(config, workplace, number, len(loader))
    whole, keeper = _Whole(epochs, len(loader)), Keeper(workplace, number, loader, state)
    if state is not None:
        options["plugins"] = [resume.Held(state)]
    made = make(**{**options, "callbacks": [*options["callbacks"], whole, keeper]}, enable_checkpointing=True)
    _run(made, module, loader, state is not None)
    if made.world_size == 1:
        whole.check(made, module)  # again: a training without any step has no end
        workplace.finish(number, resume.end(workplace, module.to("cpu"), loader))


class _Whole(Unwatching):
    """Refuses a training that is not as long as its recipe says: a callback has changed it, and no key says so.

    Args:
        epochs: of the recipe.
        steps: in an epoch.
    """

    def __init__(self, epochs: int, steps: int) -> None:
        self.epochs, self.steps = epochs, steps

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Check in every process."""
        self.check(trainer, pl_module)

    def check(self, trainer: pl.Trainer, module: TrainedModule) -> None:
        """Compare the steps that were taken with those of the recipe, or those after which the module has ended it."""
        expected = self.epochs * self.steps if module.ended is None else module.ended
        if (trainer.global_step, trainer.num_training_batches) != (expected, self.steps):
            raise TrainingError(
                f"expected {expected} steps of training, {self.steps} in an epoch, got {trainer.global_step}: a "
                "callback has changed how long it is, which no key would say; let callbacks only look, or train with "
                "a Trainer of your own"
            )


def _run(trainer: pl.Trainer, module: TrainedModule, loader: Epochs, held: bool = False) -> None:
    """Train, from the state that the trainer holds if it holds one."""
    with callbacks.without_noise(), _interruptible():
        trainer.fit(module, loader, ckpt_path=resume.HELD if held else None, weights_only=True)


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
