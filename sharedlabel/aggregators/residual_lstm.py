"""The residual LSTM corrects the tempered log-pool, where it starts.

aggregators: [{name: residual_lstm, correction: evidence}]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sharedlabel.aggregators import _recurrence
from sharedlabel.aggregators._base import Standardize, instance_features, normalize
from sharedlabel.aggregators._pool import TemperedPool
from sharedlabel.aggregators._tempered_start import TemperedStart
from sharedlabel.config.schema import Dropout, PositiveFloat, Width
from sharedlabel.types import SetShape


@dataclass(frozen=True)
class Config:
    """Options of the residual LSTM.

    Args:
        hidden: width of the state, units; small, since tuples are endless but images are not (ours).
        projection: width that embeddings are projected to, units (ours).
        dropout: fraction of the LSTM's inputs and outputs dropped in training, in [0, 1) (ours).
        forget_bias: bias of the forget gate at the start (Jozefowicz et al. 2015).
        bound: largest correction of a label's score, nats; e^8 is about 3000 to 1 (ours).
        correction: `posterior` corrects the pooled log-posterior by the output at each step alone, by `bound` at most
            however many instances there are; `evidence` corrects the evidence of each instance before the pool sums and
            tempers it, so that corrections add up (both ours).
    """

    hidden: Width = 64
    projection: Width = 64
    dropout: Dropout = 0.2
    forget_bias: float = 1.0
    bound: PositiveFloat = 8.0
    correction: Literal["evidence", "posterior"] = "posterior"


SPACE = {"hidden": (16, 32, 64), "projection": (32, 64), "dropout": (0.0, 0.2, 0.4)}


class ResidualLstm(TemperedStart):
    """Correct the tempered log-pool by an LSTM with a bounded read-out that is zero at the start.

    The bound keeps the correction from running away for more instances than in training.

    Args:
        config: widths, dropout and the form of the correction.
        shape: statistics of the embeddings, and the prior.
    """

    permutation_invariant = False

    def __init__(self, config: Config, shape: SetShape) -> None:
        super().__init__()
        self.config = config
        self.pool = TemperedPool(shape.log_prior)
        self.standardize = Standardize(shape)
        self.project = nn.Linear(shape.embedding_dim, config.projection)
        width = config.projection + shape.num_classes + 2
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.dropout)
        self.lstm: nn.Module = nn.LSTM(width, config.hidden, batch_first=True)
        self.read_out = nn.Linear(config.hidden, shape.num_classes)
        self._initialize()

    def _initialize(self) -> None:
        nn.init.zeros_(self.read_out.weight)
        nn.init.zeros_(self.read_out.bias)
        biases = dict(self.lstm.named_parameters())
        for name, value in (("bias_ih_l0", self.config.forget_bias), ("bias_hh_l0", 0.0)):
            forget = biases[name].chunk(4)[1]  # torch orders the gates input, forget, cell, output
            nn.init.constant_(forget, value)

    def forward(self, embeddings: Float[Tensor, "t n d"], logits: Float[Tensor, "t n c"]) -> Float[Tensor, "t n c"]:
        """Return the log-posterior after every prefix."""
        evidence = self.evidence(embeddings, logits)
        return self._corrected(evidence, self.recur(self.dropout(self.features(embeddings, logits))))

    def each(self, embeddings: Float[Tensor, "*b d"], logits: Float[Tensor, "*b c"]) -> tuple[Tensor, Tensor]:
        """Return the evidence, and what the LSTM's steps are driven by."""
        features = self.features(embeddings, logits)
        return self.evidence(embeddings, logits), _recurrence.driven(self.lstm, features)

    def together(self, evidence: Float[Tensor, "t n c"], drive: Float[Tensor, "t n g"]) -> Float[Tensor, "t n c"]:
        """Return the log-posterior after every prefix."""
        return self._corrected(evidence, self.driven(drive))

    def driven(self, drive: Float[Tensor, "t n g"]) -> Float[Tensor, "t n h"]:
        """Return the LSTM's output at every step, of what it is driven by."""
        return _recurrence.outputs(self.lstm, drive)

    def _corrected(self, evidence: Float[Tensor, "t n c"], outputs: Float[Tensor, "t n h"]) -> Float[Tensor, "t n c"]:
        correction = self._bounded(self.read_out(self.dropout(outputs))).to(evidence.dtype)
        if self.config.correction == "evidence":
            return normalize(self.pool(evidence + correction))
        return normalize(self.pool(evidence) + correction)

    def evidence(self, embeddings: Float[Tensor, "*b d"], logits: Float[Tensor, "*b c"]) -> Float[Tensor, "*b c"]:
        """Return what each instance adds to the pool, in nats."""
        del embeddings
        return self.pool.evidence(logits)

    def recur(self, features: Float[Tensor, "t n f"]) -> Float[Tensor, "t n h"]:
        """Return the LSTM's output at every step."""
        outputs: Tensor = self.lstm(features)[0]
        return outputs

    def features(self, embeddings: Float[Tensor, "*b d"], logits: Float[Tensor, "*b c"]) -> Float[Tensor, "*b f"]:
        """Return what the LSTM reads of each instance: projection, log-probabilities, entropy, confidence; normed."""
        projected = self.project(self.standardize(embeddings))
        features = instance_features(projected, logits)
        log_probabilities = features[..., projected.shape[-1] :]
        entropy = -(log_probabilities.exp() * log_probabilities).sum(-1, keepdim=True)
        confidence = log_probabilities.amax(-1, keepdim=True)
        normed: Tensor = self.norm(torch.cat([features, entropy, confidence], dim=-1))
        return normed

    def _bounded(self, scores: Float[Tensor, "t n c"]) -> Float[Tensor, "t n c"]:
        return self.config.bound * (scores / self.config.bound).tanh()


def build(config: Config, shape: SetShape) -> ResidualLstm:
    """Build a residual LSTM."""
    return ResidualLstm(config, shape)
