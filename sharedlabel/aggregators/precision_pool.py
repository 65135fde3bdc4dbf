"""The precision pool weighs instances by how good they seem, and knows that good ones may share their errors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sharedlabel.aggregators._base import MIN_LOG_PROBABILITY, Standardize, normalize, widen
from sharedlabel.aggregators._fitted import FittedPool, plainly
from sharedlabel.types import SetShape

_SIGNS = 4  # of quality
_MOST = 3.0  # of the logarithm of a precision


@dataclass(frozen=True)
class Config:
    """The precision pool has no options."""


class PrecisionPool(FittedPool):
    """Log-posterior log p(y) + a sum_i tau_i evidence_i / (1 + rho (sum_i tau_i - 1)), tau_i = exp(w . q_i).

    q_i holds four signs of quality: the entropy of the instance's posterior, its largest log-probability, how far that
    is ahead of the second, and the log length of the standardised embedding, each standardised. It is the estimate of
    a mean from measurements of precisions tau with a common error. Scale, rho and w are fitted on training tuples: six
    numbers, which few groups suffice for. Where tau adds up to less than 1 the denominator is 1. Cost: O(n c + n d),
    no products.

    Args:
        shape: statistics of the embeddings, and the prior.

    Reference:
        DerSimonian & Laird, "Meta-analysis in clinical trials" (1986), on means with a random effect; Liu, Yan &
        Ouyang, "Quality Aware Network for Set to Set Recognition" (2017), on weights by quality. The combination is
        ours.
    """

    permutation_invariant = True
    START = (0.0, -4.0, *[0.0] * _SIGNS)  # the log-pool, but for a fiftieth that is shared
    BOUNDS = ((-5.0, 5.0), (-12.0, 12.0), *[(-3.0, 3.0)] * _SIGNS)
    center: Tensor
    scale: Tensor

    def __init__(self, shape: SetShape) -> None:
        super().__init__(shape.log_prior)
        self.register_buffer("center", torch.zeros(_SIGNS, dtype=shape.log_prior.dtype))
        self.register_buffer("scale", torch.ones(_SIGNS, dtype=shape.log_prior.dtype))
        self.standardize = Standardize(shape)

    def each(self, embeddings: Float[Tensor, "*b d"], logits: Float[Tensor, "*b c"]) -> tuple[Tensor, ...]:
        """Return the evidence of each instance, and its signs of quality."""
        signs = (self._signs(embeddings, logits) - self.center) / self.scale
        return *super().each(embeddings, logits), signs

    def scores(
        self, coefficients: Float[Tensor, "p"], log_prior: Float[Tensor, "c"], *seen: Tensor
    ) -> Float[Tensor, "t n c"]:
        """Return unnormalised log-posteriors after every prefix."""
        evidence, signs = seen
        scale, correlation, weights = coefficients[0].exp(), coefficients[1].sigmoid(), coefficients[2:]
        precision = (_MOST * ((signs * weights).sum(-1) / _MOST).tanh()).exp()[..., None]  # [t, n, 1]
        whole = precision.cumsum(1)
        return log_prior + scale * (precision * evidence).cumsum(1) / (1 + correlation * (whole - 1).clamp_min(0))

    def fit(
        self,
        embeddings: Float[Tensor, "t n d"],
        logits: Float[Tensor, "t n c"],
        labels: Int64[Tensor, "t"],
        weights: Float[Tensor, "t"] | Float[Tensor, "t n"],
    ) -> bool:
        """Fit how the signs are standardised, then scale, correlation and the weights of the signs."""
        with plainly():
            deviation, mean = torch.std_mean(self._signs(embeddings, logits).flatten(0, -2), dim=0)
        with torch.no_grad():
            self.center.copy_(mean)
            self.scale.copy_(deviation.clamp_min(1e-3))
        return super().fit(embeddings, logits, labels, weights)

    def _signs(self, embeddings: Float[Tensor, "*b d"], logits: Float[Tensor, "*b c"]) -> Float[Tensor, "*b q"]:
        log_probabilities = normalize(logits).clamp_min(MIN_LOG_PROBABILITY)
        entropy = -(log_probabilities.exp() * log_probabilities).sum(-1)
        first, second = log_probabilities.topk(2, dim=-1).values.unbind(-1)
        length = widen(self.standardize(embeddings)).square().mean(-1).clamp_min(1e-6).log() / 2
        return torch.stack([entropy, first, first - second, length.to(first.dtype)], dim=-1)


def build(config: Config, shape: SetShape) -> PrecisionPool:
    """Build a precision pool."""
    del config
    return PrecisionPool(shape)
