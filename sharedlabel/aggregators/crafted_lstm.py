"""The crafted LSTM: a log-pool of refitted evidence, corrected by an LSTM; it starts at the tempered log-pool."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from sharedlabel.aggregators import residual_lstm
from sharedlabel.aggregators._base import check_fraction, instance_features, last_prefix_weights
from sharedlabel.types import SetShape


@dataclass(frozen=True)
class Config:
    """Options of the crafted LSTM; each ingredient is a switch.

    Args:
        hidden: width of the state, units.
        projection: width that embeddings are projected to, units.
        dropout: fraction of the LSTM's inputs and outputs dropped in training, in [0, 1).
        forget_bias: bias of the forget gate at the start (Jozefowicz et al. 2015).
        bound: largest correction of a label's score, nats.
        correction: `posterior` corrects the pooled log-posterior at each step, `evidence` that of each instance.
        base: what the LSTM corrects: `refit` is the tempered log-pool of evidence that a linear head on embedding and
            log-probabilities corrects, `pool` the tempered log-pool alone, `none` nothing (ours).
        refit_dropout: fraction of the head's inputs dropped in training, in [0, 1) (ours).
        loss: `prefixes` trains on the likelihood after every instance, `last` after the last alone.
    """

    hidden: int = 64
    projection: int = 64
    dropout: float = 0.2
    forget_bias: float = 1.0
    bound: float = 8.0
    correction: Literal["evidence", "posterior"] = "posterior"
    base: Literal["none", "pool", "refit"] = "refit"
    refit_dropout: float = 0.1
    loss: Literal["last", "prefixes"] = "prefixes"

    def __post_init__(self) -> None:
        self.residual()
        check_fraction(refit_dropout=self.refit_dropout)

    def residual(self) -> residual_lstm.Config:
        """Return the options of the correction, checked."""
        return residual_lstm.Config(
            self.hidden, self.projection, self.dropout, self.forget_bias, self.bound, self.correction
        )


class CraftedLstm(residual_lstm.ResidualLstm):
    """Log-posterior log p(y) + b(k) sum_i [log p(y | x_i) - log p(y) + phi(h_i, log p_i)(y)] + LSTM(x_1..x_k)(y).

    For instances that are independent given the label the sum is all that the best posterior needs, so the head phi
    does the work; the LSTM's bounded correction is for what instances say together. Both start at zero, so training
    starts at the tempered log-pool, and early stopping keeps what held-out images confirm. Cost: O(n).

    Args:
        config: widths, dropout and the switches.
        shape: statistics of the embeddings, and the prior.

    Reference:
        Hochreiter & Schmidhuber, "Long Short-Term Memory" (1997); the set gadget of Leibovitch & Ailon (2020); the
        combination is ours.
    """

    def __init__(self, config: Config, shape: SetShape) -> None:
        super().__init__(config.residual(), shape)
        self.base, self.loss = config.base, config.loss
        self.refit: nn.Module | None = None
        if config.base == "refit":
            head = nn.Linear(shape.embedding_dim + shape.num_classes, shape.num_classes)
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)
            self.refit = nn.Sequential(nn.Dropout(config.refit_dropout), head)
        if config.base == "none":
            self.pool.coefficients.requires_grad_(False)

    def evidence(self, embeddings: Float[Tensor, "t n d"], logits: Float[Tensor, "t n c"]) -> Float[Tensor, "t n c"]:
        """Return what each instance adds to the pool, in nats: nothing without a base."""
        evidence = super().evidence(embeddings, logits)
        if self.base == "none":
            return torch.zeros_like(evidence)
        if self.refit is None:
            return evidence
        correction: Tensor = self.refit(instance_features(self.standardize(embeddings), logits))
        return evidence + correction.to(evidence.dtype)

    def fit(
        self,
        embeddings: Float[Tensor, "t n d"],
        logits: Float[Tensor, "t n c"],
        labels: Int64[Tensor, "t"],
        weights: Float[Tensor, "t"],
    ) -> bool:
        """Start at the tempered log-pool, or at the prior without a base; gradient descent does the rest."""
        return False if self.base == "none" else super().fit(embeddings, logits, labels, weights)

    def prefix_weights(self, prefixes: int) -> Float[Tensor, "n"]:
        """Return the weight of each prefix in the training loss."""
        return last_prefix_weights(prefixes) if self.loss == "last" else super().prefix_weights(prefixes)


def build(config: Config, shape: SetShape) -> CraftedLstm:
    """Build a crafted LSTM."""
    return CraftedLstm(config, shape)
