"""Trainings that nobody watches: the steps of a Lightning Trainer, bit for bit, in a loop of their own.

A Trainer asks callbacks, loggers, profilers and its strategy around every step, which takes as long as the step of a
small network. Where there is nobody to ask, `fit.fit` takes this loop in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from sharedlabel.training import resume
from sharedlabel.training.base import TrainedModule
from sharedlabel.training.precision import WEIGHTS, computing
from sharedlabel.training.resume import LOOP, Epochs, State
from sharedlabel.training.sending import sent


class Loop:
    """What a module asks of its Trainer; the names are Lightning's.

    Args:
        max_epochs: passes over the loader.
        num_training_batches: steps in an epoch.
        precision: in which the module computes.
    """

    loggers = callbacks = ()

    def __init__(self, max_epochs: int, num_training_batches: int, precision: str) -> None:
        self.max_epochs, self.num_training_batches, self.precision = max_epochs, num_training_batches, precision
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
    precision: str = "32-true",
) -> None:
    """Train a module on one device.

    Args:
        module: what to train.
        loader: gives its batches.
        epochs: passes over the loader.
        device: where.
        gradient_clip: largest gradient norm; 0 is off.
        state: what a killed run has left by `keep`, to go on from.
        keep: called after every epoch but the last with the function that returns the state of the training.
        precision: in which it computes; its weights are of that type already.
    """
    loop = Loop(epochs, len(loader), precision)
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
    device = module.home
    if device.type == "cpu":  # a look for captured graphs, and so for drivers, in every step
        optimizer._accelerator_graph_capture_health_check = _nothing
    scaler = torch.amp.GradScaler(device.type, enabled=loop.precision == "16-mixed")
    if scaler.is_enabled():  # it may skip the first steps, which the schedule would take for steps in the wrong order
        optimizer._opt_called = True
    if state is not None:
        progress = state[LOOP]
        optimizer.load_state_dict(progress["optimizer"])
        schedule.load_state_dict(progress["schedule"])
        scaler.load_state_dict(progress["scaler"])
        loop.current_epoch, loop.global_step = progress["epochs"], progress["steps"]
        resume.restore_streams(state, loader)

    def left() -> State:
        progress = {"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
        progress |= {"scaler": scaler.state_dict(), "epochs": loop.current_epoch, "steps": loop.global_step}
        state: State = {"state_dict": module.state_dict(), LOOP: progress}
        module.on_save_checkpoint(state)
        return state

    step = _Step(module, optimizer, scaler, gradient_clip, loop.precision)
    while not loop.done:
        _epoch(module, loader, loop, step, schedule)
        if keep is not None and not loop.done:
            keep(left)
    module.on_fit_end()


class _Step:
    """A step of a training, which nothing in it waits for but a scaler of gradients of 16 bits.

    Args:
        module: that is trained.
        optimizer: of its parameters.
        scaler: keeps gradients in the range of their type, where that needs it.
        gradient_clip: largest gradient norm; 0 is off.
        precision: in which the module computes.
    """

    def __init__(
        self,
        module: TrainedModule,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        gradient_clip: float,
        precision: str,
    ) -> None:
        self.module, self.optimizer, self.scaler, self.gradient_clip = module, optimizer, scaler, gradient_clip
        self.device, self.precision, self.weights = module.home, precision, WEIGHTS.get(precision)
        self.parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def __call__(self, batch: Sequence[Tensor]) -> None:
        """Take the step of a batch that is where the module is."""
        if self.weights is not None:
            batch = [part.to(self.weights) if part.is_floating_point() else part for part in batch]
        for parameter in self.parameters:
            parameter.grad = None
        with computing(self.precision, self.device):
            loss: Any = self.module.training_step(batch)
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        self.module.on_before_optimizer_step(self.optimizer)
        if self.gradient_clip:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.gradient_clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()


def _epoch(module: TrainedModule, loader: Epochs, loop: Loop, step: _Step, schedule: Any) -> None:
    module.on_train_epoch_start()
    for number, batch in enumerate(sent(loader, step.device)):
        step(batch)
        loop.global_step += 1
        schedule.step()
        module.on_train_batch_end(None, batch, number)
        if loop.should_stop:
            break
    module.on_train_epoch_end()
    loop.current_epoch += 1


def _nothing() -> None:
    pass
