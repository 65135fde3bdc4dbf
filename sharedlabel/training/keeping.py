"""How Lightning keeps the state of a training and goes on from one: `resume.py` says what a state is."""

from __future__ import annotations

import copy
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.plugins.io import TorchCheckpointIO

from sharedlabel.training import resume
from sharedlabel.training.resume import Epochs, State, Workplace

HELD = "the state that was read"  # in the place of the path of a checkpoint, for a Trainer with `Held`


class Held(TorchCheckpointIO):
    """Gives Lightning a state that was read where it asks for `HELD`; reads and writes files as usual.

    Args:
        state: what `Workplace.left` has returned.
    """

    def __init__(self, state: State) -> None:
        self.state = state

    def load_checkpoint(self, path: Any, *options: Any, **others: Any) -> State:
        """Return the state, or what a file holds, such as the one by which a spawned process returns its weights."""
        if path == HELD:  # copied: optimisers go on in the tensors that they get, which spawned processes would share
            return copy.deepcopy(self.state)
        return super().load_checkpoint(path, *options, **others)


class Unwatching(pl.Callback):
    """A callback that does not look at what is logged."""

    unwatching = True


class Keeper(pl.callbacks.Checkpoint, Unwatching):
    """Writes the state of a training at the end of an epoch where it is time, and none at its last one.

    Args:
        workplace: says when and where.
        number: of the training within the stage call.
        loader: gives the batches.
        state: what the training goes on from, or None.
    """

    def __init__(self, workplace: Workplace, number: int, loader: Epochs, state: State | None) -> None:
        self.workplace, self.number, self.loader, self.state = workplace, number, loader, state

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Go on with the random numbers and the batches."""
        del trainer, pl_module
        if self.state is not None:
            resume.restore_streams(self.state, self.loader)
            self.state = None

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the state if it is time and the training goes on."""
        last = trainer.should_stop or pl_module.current_epoch + 1 >= (trainer.max_epochs or 0)
        if not last and trainer.world_size == 1 and self.workplace.due():
            self.workplace.write(self.number, trainer.save_checkpoint)

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: State) -> None:
        """Add what Lightning does not know."""
        del trainer, pl_module
        checkpoint[resume.OURS] = resume.streams(self.workplace, self.loader)
