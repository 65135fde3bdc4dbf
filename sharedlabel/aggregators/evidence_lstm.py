"""The evidence LSTM decides how much each instance adds to a log-pool; untrained, it is the tempered log-pool.

aggregators: [{name: evidence_lstm, gate: false, hidden: 64}]
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sharedlabel.aggregators import _recurrence
from sharedlabel.aggregators._base import Standardize, instance_features, normalize, prefix_counts, widen
from sharedlabel.aggregators._layers import CountedReadOut, scores_at
from sharedlabel.aggregators._pool import TemperedPool
from sharedlabel.aggregators._tempered_start import TemperedStart
from sharedlabel.config.schema import Dropout, OptionalWidth, PositiveFloat, Width
from sharedlabel.types import SetShape

_CHANGES = 3  # what is said of an instance beside the one before and those before: two distances, and log k


@dataclass(frozen=True)
class Config:
    """Options of the evidence LSTM; each ingredient is a switch.

    Args:
        hidden: width of the state, units (ours).
        projection: width that embeddings are projected to, units (ours).
        dropout: fraction of the LSTM's inputs and outputs, and of hidden units, dropped in training, in [0, 1) (ours).
        forget_bias: bias of the forget gate at the start (Jozefowicz et al. 2015).
        bound: largest correction of a label's score, nats (ours).
        refit: width of the hidden layer of the head that corrects the evidence of an instance, units; 0 is no head.
        gate: let the LSTM weigh what each instance adds, by a factor between 0 and 2 that starts at 1 (ours).
        change: let the LSTM read how far an embedding is from the one before and from the mean of those before, and how
            many there are (ours).
        attention: add the scores of a network that reads an attention-pooled vector (ours).
    """

    hidden: Width = 32
    projection: Width = 32
    dropout: Dropout = 0.2
    forget_bias: float = 1.0
    bound: PositiveFloat = 8.0
    refit: OptionalWidth = 32
    gate: bool = True
    change: bool = True
    attention: bool = True


SPACE = {"hidden": (16, 32, 48), "refit": (0, 32, 64), "dropout": (0.0, 0.2, 0.4)}


class EvidenceLstm(TemperedStart):
    """Log-posterior log p(y) + b(k) sum_i g_i [log p(y | x_i) - log p(y) + phi(x_i)] + LSTM(x_1..x_k) + rho(pooled).

    The gates g_i in (0, 2) are read from the LSTM after instance i, which sees embedding, log-probabilities and how
    much of it is new: so an instance that shows nothing new can add nothing. phi, the LSTM's bounded correction and
    rho, which reads what gated attention pools, start at zero and g at 1: training starts at the tempered log-pool,
    and early stopping keeps what other images confirm. Cost: O(n), and O(n^2) for the sums of attention.

    Args:
        config: widths, dropout and the switches.
        shape: statistics of the embeddings, and the prior.

    Reference:
        Hochreiter & Schmidhuber, "Long Short-Term Memory" (1997); the set gadget of Leibovitch & Ailon (2020); gated
        attention of Ilse, Tomczak & Welling (2018). The combination is ours.
    """

    permutation_invariant = False

    def __init__(self, config: Config, shape: SetShape) -> None:
        super().__init__()
        self.config, classes = config, shape.num_classes
        width = shape.embedding_dim + classes
        self.pool = TemperedPool(shape.log_prior)
        self.standardize = Standardize(shape)
        self.project = nn.Linear(shape.embedding_dim, config.projection)
        entered = config.projection + classes + 2 + (_CHANGES if config.change else 0)
        self.norm, self.dropout = nn.LayerNorm(entered), nn.Dropout(config.dropout)
        self.lstm = nn.LSTM(entered, config.hidden, batch_first=True)
        self.read_out = _zeroed(nn.Linear(config.hidden, classes))
        self.weigh = _zeroed(nn.Linear(config.hidden, 1)) if config.gate else None
        self.refit = _head(width, config.refit, classes, config.dropout) if config.refit else None
        self.score: nn.Module | None = None
        if config.attention:
            self.content = nn.Linear(width, config.hidden, bias=False)
            self.open = nn.Linear(width, config.hidden, bias=False)
            self.score = nn.Linear(config.hidden, 1, bias=False)
            self.pooled = CountedReadOut(width, config.hidden, classes, config.dropout)
            _zeroed(self.pooled.last)
        biases = dict(self.lstm.named_parameters())
        for name, value in (("bias_ih_l0", config.forget_bias), ("bias_hh_l0", 0.0)):
            nn.init.constant_(biases[name].chunk(4)[1], value)  # torch orders the gates input, forget, cell, output

    def each(self, embeddings: Float[Tensor, "*b d"], logits: Float[Tensor, "*b c"]) -> tuple[Tensor, ...]:
        """Return evidence, features, for attention the score, and last the projection of each instance."""
        seen = self.standardize(embeddings)
        features, evidence = instance_features(seen, logits), self.pool.evidence(logits)
        if self.refit is not None:
            evidence = evidence + self.refit(features).to(evidence.dtype)
        parts = [evidence, features]
        if self.score is not None:
            parts.append(self.score(self.content(features).tanh() * self.open(features).sigmoid()))
        return (*parts, self.project(seen))

    def forward(self, embeddings: Float[Tensor, "t n d"], logits: Float[Tensor, "t n c"]) -> Float[Tensor, "t n c"]:
        """Return the log-posterior after every prefix."""
        parts = self.each(embeddings, logits)
        outputs: Tensor = self.lstm(self._inputs(parts[1], parts[-1]))[0]
        return self._fused(outputs, *parts[:-1])

    def together(self, evidence: Float[Tensor, "t n c"], features: Float[Tensor, "t n f"], *more: Tensor) -> Tensor:
        """Return the log-posterior after every prefix."""
        *score, projected = more
        drive = _recurrence.driven(self.lstm, self._inputs(features, projected))
        return self._fused(_recurrence.outputs(self.lstm, drive), evidence, features, *score)

    def _fused(
        self,
        outputs: Float[Tensor, "t n h"],
        evidence: Float[Tensor, "t n c"],
        features: Float[Tensor, "t n f"],
        *score: Tensor,
    ) -> Float[Tensor, "t n c"]:
        """Return the log-posterior after every prefix, of what the LSTM puts out and of the parts of each instance."""
        outputs = self.dropout(outputs)
        if self.weigh is not None:
            evidence = 2 * self.weigh(outputs).sigmoid().to(evidence.dtype) * evidence
        scores = self.read_out(outputs)
        if self.score is not None:
            weights = scores_at(score[0]).softmax(-1).to(features.dtype)
            scores = scores + self.pooled.scores(weights @ features, prefix_counts(features))
        bounded = self.config.bound * (scores / self.config.bound).tanh()
        return normalize(self.pool(evidence) + bounded.to(evidence.dtype))

    def _inputs(self, features: Float[Tensor, "t n f"], projected: Float[Tensor, "t n p"]) -> Float[Tensor, "t n e"]:
        """Return what the LSTM reads: projection, log-probabilities, entropy, confidence and what is new; normed."""
        log_probabilities = features[..., -self.pool.log_prior.numel() :]
        entropy = -(log_probabilities.exp() * log_probabilities).sum(-1, keepdim=True)
        parts = [projected, log_probabilities, entropy, log_probabilities.amax(-1, keepdim=True)]
        if self.config.change:
            parts.append(_changes(projected))
        entered: Tensor = self.dropout(self.norm(torch.cat(parts, dim=-1)))
        return entered


def _changes(projected: Float[Tensor, "t n p"]) -> Float[Tensor, "t n 3"]:
    """Return the distance from the instance before and from the mean of those before, 0 for the first, and log k."""
    wide = widen(projected)
    counts = prefix_counts(wide)
    before = (counts == counts.T + 1).to(wide.dtype) @ wide  # nothing for the first
    means = (wide.cumsum(1) - wide) / (counts - 1).clamp_min(1)
    apart = [(wide - other).square().mean(-1, keepdim=True) for other in (before, means)]
    distances = (counts > 1) * (torch.cat(apart, dim=-1) + 1e-6).sqrt()
    return torch.cat([distances, counts.log().expand(len(wide), -1, 1)], dim=-1).to(projected.dtype)


def _head(width: int, hidden: int, classes: int, dropout: float) -> nn.Sequential:
    """Return the head that corrects the evidence of an instance; its last layer starts at zero."""
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout), _zeroed(nn.Linear(hidden, classes)))


def _zeroed(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def build(config: Config, shape: SetShape) -> EvidenceLstm:
    """Build an evidence LSTM."""
    return EvidenceLstm(config, shape)
