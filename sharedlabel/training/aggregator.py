"""Train an aggregator on fixed features."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor

from sharedlabel.aggregators._base import Aggregator, prefix_loss
from sharedlabel.config import schema
from sharedlabel.config.sections import FitConfig
from sharedlabel.training.base import TrainedModule, options_of
from sharedlabel.training.loaders import SharedTuples, TupleBatch

_RECIPE = FitConfig()  # what the module does unless told otherwise


class AggregatorTraining(TrainedModule):
    """An aggregator that is trained by the likelihood of every prefix; `AggregatorModule` says how."""

    def __init__(
        self,
        aggregator: Aggregator,
        *,
        learning_rate: float = _RECIPE.learning_rate,
        weight_decay: float = _RECIPE.weight_decay,
        validation: TupleBatch | SharedTuples | None = None,
        patience: int = _RECIPE.patience,
    ) -> None:
        options = {"learning_rate": learning_rate, "weight_decay": weight_decay, "patience": patience}
        schema.read(FitConfig, options)
        super().__init__(learning_rate, weight_decay)
        self._keep_options(but=("aggregator", "validation"))
        self.aggregator, self.patience = aggregator, patience
        self._counted: dict[int, tuple[list[int], Tensor]] = {}  # by the size of tuples
        self.validation = None if validation is None else SharedTuples.of(validation)
        self.best, self.best_epoch, self.best_state = math.inf, 0, _copied(aggregator)
        if self.validation is not None:
            self.best = self._validation_loss(self.validation)

    @classmethod
    def of(cls, aggregator: Aggregator, recipe: FitConfig, validation: TupleBatch | SharedTuples) -> Self:
        """Return the module that trains an aggregator by a recipe."""
        return cls(aggregator, **options_of(AggregatorTraining, recipe), validation=validation)

    def forward(self, embeddings: Float[Tensor, "t n d"], logits: Float[Tensor, "t n c"]) -> Float[Tensor, "t n c"]:
        """Return the log-posterior after every prefix."""
        posterior: Tensor = self.aggregator(embeddings, logits)
        return posterior

    def training_step(self, batch: Sequence[Tensor]) -> Tensor:
        """Return the weighted negative log-likelihood (nats), averaged over prefixes as the aggregator weighs them."""
        embeddings, logits, labels, *rest = batch
        labels, weights = _weighed(labels, rest)
        prefixes, importance = self._weighted(logits)
        posterior = self.aggregator.at(embeddings, logits, prefixes)
        losses = prefix_loss(posterior, labels)
        if self._watched:
            self._score("train", posterior, labels, weights, prefixes)
        return self.record(averaged(losses, importance.to(losses.dtype), weights, prefixes))

    def validation_step(self, batch: Sequence[Tensor]) -> None:
        """Log the loss and the metrics."""
        self._evaluate("validation", batch)

    def test_step(self, batch: Sequence[Tensor]) -> None:
        """Log the loss and the metrics."""
        self._evaluate("test", batch)

    def predict_step(self, batch: Sequence[Tensor]) -> Tensor:
        """Return the log-posterior after every prefix; whatever follows embeddings and logits is not looked at."""
        posterior: Tensor = self(*batch[:2])
        return posterior

    def on_train_epoch_end(self) -> None:
        """Keep the best epoch; stop when it is long ago."""
        super().on_train_epoch_end()
        if self.validation is None:
            return
        loss = self._validation_loss(self.validation)
        if self._watched:
            self._log_loss("validation", torch.tensor(loss))
        if loss < self.best:
            self.best, self.best_epoch = loss, self.trainer.current_epoch + 1
            self.best_state = _copied(self.aggregator)
        if self.trainer.current_epoch + 1 - self.best_epoch >= self.patience:
            self.end((self.trainer.current_epoch + 1) * int(self.trainer.num_training_batches))

    def on_fit_end(self) -> None:
        """Restore the best epoch."""
        if self.validation is not None:
            self.aggregator.load_state_dict(self.best_state)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the best epoch with the last one."""
        checkpoint["best"] = {"loss": self.best, "epoch": self.best_epoch, "state": self.best_state}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Load the best epoch."""
        best = checkpoint["best"]
        self.best, self.best_epoch, self.best_state = best["loss"], best["epoch"], best["state"]

    def _evaluate(self, phase: str, batch: Sequence[Tensor]) -> None:
        embeddings, logits, labels, *rest = batch
        labels, weights = _weighed(labels, rest)
        posterior = self(embeddings, logits)
        importance = self.aggregator.prefix_weights(posterior.shape[1]).to(posterior)
        loss = averaged(prefix_loss(posterior, labels), importance, weights, range(1, posterior.shape[1] + 1))
        self._log_loss(phase, loss, len(labels))
        self._score(phase, posterior, labels, weights)

    def on_train_epoch_start(self) -> None:
        """Ask the aggregator anew which prefixes count."""
        self._counted.clear()

    def _weighted(self, logits: Float[Tensor, "t n c"]) -> tuple[list[int], Float[Tensor, "k"]]:
        """Return the prefixes that count in the loss of a step, and their weights, which every step would wait for."""
        size = logits.shape[1]
        if size not in self._counted:
            prefixes, importance = _weighted(self.aggregator, size)
            self._counted[size] = prefixes, importance.to(logits.device)
        return self._counted[size]

    @torch.no_grad()
    def _validation_loss(self, validation: TupleBatch | SharedTuples) -> float:
        training = self.aggregator.training
        self.aggregator.eval()
        embeddings, logits, tuples, labels, weights = SharedTuples.of(validation).to(self.home)
        prefixes, importance = _weighted(self.aggregator, tuples.shape[1])
        posterior = self.aggregator.over(embeddings, logits, tuples, prefixes, draft=True)
        self.aggregator.train(training)
        losses, importance = prefix_loss(posterior, labels), importance.to(posterior)
        if weights.ndim == 1:
            return float(losses @ importance @ weights / weights.sum())
        return float(averaged(losses, importance, weights, prefixes))


def averaged(
    losses: Float[Tensor, "t k"],
    importance: Float[Tensor, "k"],
    weights: Float[Tensor, "t"] | Float[Tensor, "t n"],
    prefixes: Sequence[int],
) -> Float[Tensor, ""]:
    """Return the mean loss of tuples, each prefix as important as it is said to be.

    Args:
        losses: of every tuple after some prefixes.
        importance: of these prefixes.
        weights: of every tuple, of mean one; of ragged ones at every n.
        prefixes: numbers of instances.
    """
    if weights.ndim == 1:
        return (losses @ importance * weights).mean()
    at = torch.tensor(prefixes, device=weights.device) - 1
    return (losses * weights[:, at].to(losses.dtype) @ importance).mean()


def _copied(aggregator: Aggregator) -> dict[str, Any]:
    """Return a state that later steps do not change; tensors are cloned, which takes an eighth of a deep copy."""
    state = aggregator.state_dict()
    for name, value in state.items():
        state[name] = value.clone() if isinstance(value, Tensor) else copy.deepcopy(value)
    return state


def _weighted(aggregator: Aggregator, size: int) -> tuple[list[int], Float[Tensor, "k"]]:
    """Return the prefixes that count in an aggregator's loss, and their weights."""
    weights = aggregator.prefix_weights(size)
    counted = weights.nonzero()[:, 0]
    return (counted + 1).tolist(), weights[counted]


def _weighed(labels: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return labels and their weights, 1 each where a batch has none."""
    return labels, weights[0] if weights else torch.ones(len(labels), device=labels.device)
