"""The crafted LSTM corrects a log-pool of refitted evidence; untrained, it is the tempered log-pool.

aggregators: [{name: crafted_lstm, base: pool, hidden: 32}]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from sharedlabel.aggregators import _recurrence, residual_lstm
from sharedlabel.aggregators._base import (
    instance_features,
    last_prefix_weights,
)
from sharedlabel.aggregators._recurrence import Recurrence
from sharedlabel.aggregators._space import Space
from sharedlabel.config import added
from sharedlabel.config.schema import Dropout, OptionalWidth, PositiveFloat, Width
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
        base: what the LSTM corrects: `refit` is the tempered log-pool of evidence that a head on embedding and
            log-probabilities corrects, `pool` the tempered log-pool alone, `none` nothing (ours).
        refit_dropout: fraction of what the head's last layer reads that is dropped in training, in [0, 1) (ours).
        loss: `prefixes` trains on the likelihood after every instance, `last` after the last alone.
        refit_hidden: width of a hidden layer of the head, units; 0 keeps it linear (ours).
        inputs: what head and LSTM read: `all`, the `embedding` alone, or the `posterior` of each instance alone.
        initial: the LSTM's state before the first instance: `zero`, or `learned`: that after a learned input.
        activation: of cell and output: `tanh`, or `b2bsqrt`, sign(x) (sqrt(1 + |x|) - 1), which does not saturate
            (Ebihara et al. 2023).
    """

    hidden: Width = 64
    projection: Width = 64
    dropout: Dropout = 0.2
    forget_bias: float = 1.0
    bound: PositiveFloat = 8.0
    correction: Literal["evidence", "posterior"] = "posterior"
    base: Literal["none", "pool", "refit"] = "refit"
    refit_dropout: Dropout = 0.2
    loss: Literal["last", "prefixes"] = "prefixes"
    refit_hidden: OptionalWidth = added(0, default=64)
    inputs: Literal["all", "embedding", "posterior"] = added("all")
    initial: Literal["zero", "learned"] = added("zero")
    activation: Literal["tanh", "b2bsqrt"] = added("tanh")

    def residual(self) -> residual_lstm.Config:
        """Return the options of the correction."""
        return residual_lstm.Config(
            self.hidden, self.projection, self.dropout, self.forget_bias, self.bound, self.correction
        )


def space(config: Config) -> Space:
    """Return what a search may change: the sizes of the correction, and that of the head where there is one."""
    return residual_lstm.SPACE | ({"refit_hidden": (0, 32, 64)} if config.base == "refit" else {})


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
        self.base, self.loss, self.inputs, self.activation = config.base, config.loss, config.inputs, config.activation
        self.refit: nn.Module | None = None
        if config.base == "refit":
            self.refit = _head(config, shape)
        if config.base == "none":
            self.pool.coefficients.requires_grad_(False)
        width = self.norm.normalized_shape[0]
        if config.activation == "b2bsqrt":
            self.lstm = UnsaturatedLstm(width, config.hidden, config.forget_bias)
        self.initial: nn.Parameter | None = None
        if config.initial == "learned":
            self.initial = nn.Parameter(torch.zeros(1, 1, width))

    def evidence(self, embeddings: Float[Tensor, "*b d"], logits: Float[Tensor, "*b c"]) -> Float[Tensor, "*b c"]:
        """Return what each instance adds to the pool, in nats: nothing without a base."""
        evidence = super().evidence(embeddings, logits)
        if self.base == "none":
            return torch.zeros_like(evidence)
        if self.refit is None:
            return evidence
        embeddings, logits = self._seen(embeddings, logits)
        correction: Tensor = self.refit(instance_features(self.standardize(embeddings), logits))
        return evidence + correction.to(evidence.dtype)

    def features(self, embeddings: Float[Tensor, "*b d"], logits: Float[Tensor, "*b c"]) -> Float[Tensor, "*b f"]:
        """Return what the LSTM reads of each instance."""
        return super().features(*self._seen(embeddings, logits))

    def recur(self, features: Float[Tensor, "t n f"]) -> Float[Tensor, "t n h"]:
        """Return the LSTM's output at every step."""
        if self.initial is not None:
            features = torch.cat([self.initial.expand(features.shape[0], -1, -1), features], dim=1)
        outputs: Tensor = self.lstm(features) if self.activation == "b2bsqrt" else super().recur(features)
        return outputs if self.initial is None else outputs[:, 1:]

    def driven(self, drive: Float[Tensor, "t n g"]) -> Float[Tensor, "t n h"]:
        """Return the LSTM's output at every step, of what it is driven by."""
        if self.initial is None:
            return super().driven(drive)
        first = _recurrence.driven(self.lstm, self.initial).expand(drive.shape[0], -1, -1)
        return super().driven(torch.cat([first, drive], dim=1))[:, 1:]

    def _seen(
        self, embeddings: Float[Tensor, "*b d"], logits: Float[Tensor, "*b c"]
    ) -> tuple[Float[Tensor, "*b d"], Float[Tensor, "*b c"]]:
        """Return both inputs, the one that is not to be read replaced by its mean or by the prior."""
        if self.inputs == "posterior":
            return self.standardize.mean.expand_as(embeddings), logits
        if self.inputs == "embedding":
            return embeddings, self.pool.log_prior.to(logits.dtype).expand_as(logits)
        return embeddings, logits

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


def _head(config: Config, shape: SetShape) -> nn.Sequential:
    """Return the head that corrects the evidence of an instance; its last layer starts at zero."""
    width = shape.embedding_dim + shape.num_classes
    layers: list[nn.Module] = [nn.Linear(width, config.refit_hidden), nn.ReLU()] if config.refit_hidden else []
    last = nn.Linear(config.refit_hidden or width, shape.num_classes)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(*layers, nn.Dropout(config.refit_dropout), last)


class UnsaturatedLstm(Recurrence):
    """An LSTM whose cell and output have B2Bsqrt for tanh: sign(x) (sqrt(1 + |x|) - 1).

    Args:
        width: of an input.
        hidden: of the state.
        forget_bias: bias of the forget gate at the start.

    Reference:
        Ebihara et al., "Toward Asymptotic Optimality: Sequential Unsupervised Regression of Density Ratio for Early
        Classification" (2023), where it stands in for tanh in the authors' LSTM.
    """

    def __init__(self, width: int, hidden: int, forget_bias: float) -> None:
        super().__init__()
        self.enter, self.recur = nn.Linear(width, 4 * hidden), nn.Linear(hidden, 4 * hidden, bias=False)
        with torch.no_grad():
            self.enter.bias.chunk(4)[1].fill_(forget_bias)

    def drive(self, inputs: Float[Tensor, "*b f"]) -> Float[Tensor, "*b g"]:
        """Return the inputs' part of the gates."""
        driven: Tensor = self.enter(inputs)
        return driven

    def start(self, driven: Float[Tensor, "t n g"]) -> list[Tensor]:
        """Return an output and a cell of zero."""
        zero = driven.new_zeros(driven.shape[0], self.recur.in_features)
        return [zero, zero.clone()]

    def step(self, state: list[Tensor], driven: Float[Tensor, "t g"]) -> tuple[list[Tensor], Float[Tensor, "t h"]]:
        """Update the cell and return the output."""
        enter, forget, candidate, leave = (driven + self.recur(state[0])).chunk(4, -1)
        # sign(x) (sqrt(1 + |x|) - 1) = x / (1 + sqrt(1 + |x|)), which has a gradient at zero
        cell = forget.sigmoid() * state[1] + enter.sigmoid() * candidate / (1 + (1 + candidate.abs()).sqrt())
        output = leave.sigmoid() * cell / (1 + (1 + cell.abs()).sqrt())
        return [output, cell], output


def build(config: Config, shape: SetShape) -> CraftedLstm:
    """Build a crafted LSTM."""
    return CraftedLstm(config, shape)
