"""Train a module in a plain loop, or by Lightning where that takes it, and go on where a killed run was."""

from __future__ import annotations

import functools
from typing import Any, TypeVar

import torch

from sharedlabel.config.sections import TrainerConfig
from sharedlabel.training import loop, resume, watchers
from sharedlabel.training.base import TrainedModule
from sharedlabel.training.devices import plain
from sharedlabel.training.precision import WEIGHTS
from sharedlabel.training.resume import Epochs

Trained = TypeVar("Trained", bound=TrainedModule)


def kind(trained: type[Trained], config: TrainerConfig, small: bool = False) -> type[Trained]:
    """Return the class of what is trained: a LightningModule where Lightning trains it, whose import takes seconds.

    Args:
        trained: what `fit` is to train.
        config: where and how.
        small: as for `fit`.
    """
    if _target(config, small) is not None:
        return trained
    from sharedlabel.training import modules

    return modules.module(trained)


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
    weights = None if small else WEIGHTS.get(config.precision)
    if weights is not None:  # Lightning changes them when it has loaded, and so rounded, what a killed run has left
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
    target, precision = _target(config, small), "32-true" if small else config.precision
    if workplace is None:
        if target is None:
            _by_lightning(module, loader, config, epochs, gradient_clip, small)
        else:
            loop.train(module, loader, epochs, target, gradient_clip, precision=precision)
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
        loop.train(module, loader, epochs, target, gradient_clip, state, keep, precision)
    elif not _by_lightning(module, loader, config, epochs, gradient_clip, small, (workplace, number, state)):
        return
    workplace.finish(number, resume.end(workplace, module.to("cpu"), loader))


def _target(config: TrainerConfig, small: bool) -> torch.device | None:
    """Return the device of a plain loop; None where Lightning trains, as it does where somebody watches.

    Watchers are those of stage calls: outside of them nobody has said what to watch.
    """
    if resume.current() is not None and watchers.anybody(config):
        return None
    return plain(config, small)


def _by_lightning(module: TrainedModule, *arguments: Any) -> bool:
    from sharedlabel.training import trainer

    return trainer.train(module, *arguments)
