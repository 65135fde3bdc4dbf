"""The Trainer of a grid, and `fit`, which trains a module, with a Trainer or without, and goes on after a kill."""

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
from sharedlabel.training import callbacks, loop, resume, watchers
from sharedlabel.training.base import TrainedModule
from sharedlabel.training.devices import device
from sharedlabel.training.ranks import Ranks
from sharedlabel.training.resume import Epochs, Keeper, State, Unwatching, Workplace

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
    strategy: Any = Ranks() if several and config.strategy == "auto" else config.strategy
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
    if epochs:
        _train(module, loader, config, epochs, gradient_clip, small)
    module.to("cpu").eval()
    if weights is not None:
        module.float()


def _train(
    module: TrainedModule, loader: Epochs, config: TrainerConfig, epochs: int, gradient_clip: float, small: bool
) -> None:
    """Train in a plain loop, or by Lightning where it takes that; go on from where a killed run was."""
    workplace = resume.current()
    watched = workplace is not None and watchers.anybody(config)
    target = None if watched else _target(config, small)
    make = functools.partial(trainer, config, epochs, gradient_clip, small)
    if workplace is None:
        if target is None:
            _run(make(), module, loader)
        else:
            loop.train(module, loader, epochs, target, gradient_clip)
        return
    number = workplace.begin()
    state = workplace.left(number)
    if state is not None and resume.finished(state):
        resume.restore_end(state, module, loader)
        return
    if state is not None and (resume.LOOP in state) != (target is not None):
        state = None  # somebody watches now who did not, or the other way round: the same numbers, from the start
    if target is not None:
        keep = functools.partial(workplace.keep, number, loader)
        loop.train(module, loader, epochs, target, gradient_clip, state, keep)
    elif not _by_lightning(make, module, loader, config, workplace, number, state, epochs):
        return
    workplace.finish(number, resume.end(workplace, module.to("cpu"), loader))


def _target(config: TrainerConfig, small: bool) -> torch.device | None:
    """Return the device of a plain loop; None for several, other precisions, and what Lightning alone knows."""
    alone = small or (config.devices == 1 and config.strategy == "auto" and config.precision == "32-true")
    if not alone or config.options or config.accelerator not in ("auto", "cpu", "cuda", "gpu"):
        return None
    target = device(config)
    if target.type == "cuda":
        return target if torch.cuda.is_available() else None
    return None if config.accelerator == "auto" and torch.backends.mps.is_available() else target


def _by_lightning(
    make: Callable[..., pl.Trainer],
    module: TrainedModule,
    loader: Epochs,
    config: TrainerConfig,
    workplace: Workplace,
    number: int,
    state: State | None,
    epochs: int,
) -> bool:
    """Train by Lightning, watched; tell whether this process has the result."""
    options = callbacks.watching(config, workplace, number, len(loader))
    whole, keeper = _Whole(epochs, len(loader)), Keeper(workplace, number, loader, state)
    if state is not None:
        options["plugins"] = [resume.Held(state)]
    made = make(**{**options, "callbacks": [*options["callbacks"], whole, keeper]}, enable_checkpointing=True)
    _run(made, module, loader, state is not None)
    if made.world_size == 1:
        whole.check(made, module)  # again: a training without any step has no end
    return made.world_size == 1


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
