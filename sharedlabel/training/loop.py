"""Trainings that nobody watches: the steps of a Lightning Trainer, bit for bit, in a loop of their own.

A Trainer asks callbacks, loggers, profilers and its strategy around every step, which takes as long as the step of a
small network. Where there is nobody to ask, `trainer.fit` takes this loop in its place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from sharedlabel.training import resume
from sharedlabel.training.base import TrainedModule
from sharedlabel.training.resume import LOOP, Epochs, State


class Loop:
    """What a module asks of its Trainer; the names are Lightning's.

    Args:
        max_epochs: passes over the loader.
        num_training_batches: steps in an epoch.
    """

    loggers = callbacks = ()
    precision = "32-true"

    def __init__(self, max_epochs: int, num_training_batches: int) -> None:
        self.max_epochs, self.num_training_batches = max_epochs, num_training_batches
        self.estimated_stepping_batches = max_epochs * num_training_batches
        self.current_epoch = self.global_step = 0
        self.should_stop = False

    @property
    def done(self) -> bool:
        """Whether there is nothing left to train."""
        return self.should_stop or self.current_epoch >= self.max_epochs or not self.num_training_batches


def train(
    module: TrainedModule,
    loader: Epochs,
    epochs: int,
    device: torch.device,
    gradient_clip: float = 0.0,
    state: State | None = None,
    keep: Callable[[Callable[[], State]], None] | None = None,
) -> None:
    """Train a module on one device, in the precision of its weights.

    Args:
        module: what to train.
        loader: gives its batches.
        epochs: passes over the loader.
        device: where.
        gradient_clip: largest gradient norm; 0 is off.
        state: what a killed run has left by `keep`, to go on from.
        keep: called after every epoch but the last with the function that returns the state of the training.
    """
    loop = Loop(epochs, len(loader))
    module.to(device)
    module.trainer = loop  # type: ignore[assignment]
    try:
        with torch.enable_grad():
            _train(module, loader, loop, gradient_clip, state, keep)
    finally:
        module.trainer = None


def _train(
    module: TrainedModule,
    loader: Epochs,
    loop: Loop,
    gradient_clip: float,
    state: State | None,
    keep: Callable[[Callable[[], State]], None] | None,
) -> None:
    module.on_fit_start()
    if state is not None:
        module.on_load_checkpoint(state)
        module.load_state_dict(state["state_dict"])
    made = module.configure_optimizers()
    optimizer, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
    if module.device.type == "cpu":  # a look for captured graphs, and so for drivers, in every step
        optimizer._accelerator_graph_capture_health_check = _nothing
    if state is not None:
        progress = state[LOOP]
        optimizer.load_state_dict(progress["optimizer"])
        schedule.load_state_dict(progress["schedule"])
        loop.current_epoch, loop.global_step = progress["epochs"], progress["steps"]
        resume.restore_streams(state, loader)

    def left() -> State:
        progress = {"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
        progress |= {"epochs": loop.current_epoch, "steps": loop.global_step}
        state: State = {"state_dict": module.state_dict(), LOOP: progress}
        module.on_save_checkpoint(state)
        return state

    while not loop.done:
        _epoch(module, loader, loop, optimizer, schedule, gradient_clip)
        if keep is not None and not loop.done:
            keep(left)
    module.on_fit_end()


def _epoch(
    module: TrainedModule, loader: Epochs, loop: Loop, optimizer: Any, schedule: Any, gradient_clip: float
) -> None:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    module.on_train_epoch_start()
    for number, batch in enumerate(loader):
        loss: Any = module.training_step([part.to(module.device, non_blocking=True) for part in batch])
        for parameter in parameters:
            parameter.grad = None
        loss.backward()
        module.on_before_optimizer_step(optimizer)
        if gradient_clip:
            torch.nn.utils.clip_grad_norm_(parameters, gradient_clip)
        optimizer.step()
        loop.global_step += 1
        schedule.step()
        module.on_train_batch_end(None, batch, number)
        if loop.should_stop:
            break
    module.on_train_epoch_end()
    loop.current_epoch += 1


def _nothing() -> None:
    pass
