"""What modules log while Lightning trains, validates and tests them, if anybody looks at it.

No key says what stands here, so nothing here changes what is trained: renaming or adding what is logged keeps all that
is stored.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor, nn

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule as Module

    from sharedlabel.training.scores import TupleScores
else:

    class Module(nn.Module):
        """In the place of a LightningModule, whose import takes seconds; `modules.py` adds it to what it trains."""

        def _pass(self, *_: Any) -> None:
            """Do nothing, as Lightning's own hooks."""

        on_train_epoch_start = on_train_batch_end = on_before_optimizer_step = on_fit_end = _pass
        on_save_checkpoint = on_load_checkpoint = _pass


class LoggingModule(Module):
    """A module that logs where it is a LightningModule, and has nobody to log for where it is none.

    Logged are `train/loss`, `validation/loss` and `test/loss` (nats, the mean of an epoch) with the metrics of the
    module, and `train/loss_step` and `train/accuracy_step` of single steps. Metrics of training are computed where a
    logger or a callback may look at them, so a Trainer without any spends no time on them.
    """

    def __init__(self) -> None:
        super().__init__()
        self._scores: dict[str, TupleScores] = {}
        self._watched = False

    def _keep_options(self, but: Sequence[str]) -> None:
        """Let Lightning, where it is there, keep what the constructor that calls this and those of subclasses got."""
        save = getattr(self, "save_hyperparameters", None)
        if save is not None:
            frame = inspect.currentframe()
            save(ignore=list(but), frame=frame and frame.f_back)

    def on_fit_start(self) -> None:
        """Find out whether anybody looks at what is logged."""
        watching = [one for one in self.trainer.callbacks if not getattr(one, "unwatching", False)]  # type: ignore[attr-defined]
        self._watched = bool(self.trainer.loggers or watching)

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of the epoch's tuples."""
        self._log_scores("validation")

    def on_test_epoch_end(self) -> None:
        """Log the metrics of the test tuples."""
        self._log_scores("test")

    def _log_step(self, loss: Float[Tensor, "*k"]) -> None:
        """Log the loss of a step of training, if anybody looks."""
        if self._watched:
            self.log("train/loss_step", loss.detach(), prog_bar=True)

    def _log_epoch(self, loss: Float[Tensor, "*k"]) -> None:
        """Log the mean loss and the metrics of an epoch of training, if anybody looks."""
        if self._watched:
            self._log_loss("train", loss)
            self._log_scores("train")

    def _log_loss(self, phase: str, loss: Float[Tensor, ""], count: int = 1) -> None:
        """Log the loss of an epoch, or of a batch of so many."""
        self._log({f"{phase}/loss": loss}, count)

    def _log_accuracy(self, phase: str, logits: Tensor, labels: Tensor) -> None:
        """Log the share of single images that are right: `accuracy`, while training that of single steps, too."""
        accuracy = (logits.detach().argmax(-1) == labels).float().mean()
        self._log({f"{phase}/accuracy": accuracy}, len(labels))
        if phase == "train":
            self.log("train/accuracy_step", accuracy)

    def _log(self, values: Mapping[str, Tensor], count: int = 1) -> None:
        """Log values of an epoch, or of a batch of so many, as means over the epoch and the devices."""
        several = self.trainer.world_size > 1
        self.log_dict(dict(values), on_step=False, on_epoch=True, batch_size=count, sync_dist=several)

    def _score(
        self, phase: str, log_posterior: Tensor, labels: Tensor, weights: Tensor, sizes: Sequence[int] = ()
    ) -> None:
        """Add tuples to the metrics of an epoch; posteriors are those after every prefix unless sizes are given.

        Of ragged tuples, whose weights have a column for each size, those that reach the largest are added.
        """
        if weights.ndim == 2:
            whole = weights[:, -1] > 0
            log_posterior, labels, weights = log_posterior[whole], labels[whole], weights[whole, -1]
        if phase not in self._scores:
            from sharedlabel.training.scores import TupleScores

            _, prefixes, classes = log_posterior.shape
            self._scores[phase] = TupleScores(sizes or range(1, prefixes + 1), classes).to(self.device)
        self._scores[phase].update(log_posterior.detach(), labels, weights)

    def _log_scores(self, phase: str) -> None:
        scores = self._scores.pop(phase, None)
        if scores is not None:
            self._log({f"{phase}/{name}": value for name, value in scores.named().items()})
