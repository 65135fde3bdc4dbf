"""The aggregator contract: anytime, causal, normalised."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from sharedlabel.logs import log_normalize
from sharedlabel.types import SetShape

# Floors and ceilings of what the networks read; posteriors of the pools are not touched.
MAX_DEVIATIONS = 10.0
LEAST_DEVIATION = 0.01  # of a unit, as a share of the layer's
MIN_LOG_PROBABILITY = -20.0
CHUNK = 512  # tuples per pass: small enough to stay in the cache, large enough to cost few calls


class Aggregator(nn.Module, abc.ABC):
    """Fuse the instances of a tuple into one posterior over labels, for every prefix of the tuple.

    `forward(embeddings, logits)[:, k]` depends on instances `0..k` of the same tuple only, and is a normalised
    natural-log posterior in float32 or wider. `logits` are calibrated per instance: `softmax(logits)` is the posterior
    of one instance under the prior.

    An aggregator with parameters is trained by gradient descent on the negative log-likelihood over all prefixes,
    weighted by its `prefix_weights`, unless its `fit` says that it is done.

    Attributes:
        permutation_invariant: whether the order of the instances leaves the posterior of the whole tuple as it is.
        fits_ragged: whether `fit` takes tuples of different sizes, which repeat their last instance up to n, with
            weights `[t n]` that are 0 from there on; it gets those of n instances alone otherwise.
    """

    permutation_invariant: ClassVar[bool]
    fits_ragged: ClassVar[bool] = False

    @abc.abstractmethod
    def forward(self, embeddings: Float[Tensor, "t n d"], logits: Float[Tensor, "t n c"]) -> Float[Tensor, "t n c"]:
        """Return the log-posterior after every prefix."""

    def last(self, embeddings: Float[Tensor, "t n d"], logits: Float[Tensor, "t n c"]) -> Float[Tensor, "t c"]:
        """Return the log-posterior after the last instance alone.

        What one tuple of n instances costs is counted here.
        """
        return self.at(embeddings, logits, [logits.shape[1]])[:, 0]

    def at(
        self, embeddings: Float[Tensor, "t n d"], logits: Float[Tensor, "t n c"], prefixes: Sequence[int]
    ) -> Float[Tensor, "t k c"]:
        """Return the log-posterior after some prefixes alone; overridden where every other prefix costs extra.

        Args:
            embeddings: `[t n d]`.
            logits: `[t n c]`, calibrated.
            prefixes: numbers of instances, each from 1 to n.
        """
        return pick(self(embeddings, logits), prefixes)

    def draft(
        self, embeddings: Float[Tensor, "t n d"], logits: Float[Tensor, "t n c"], prefixes: Sequence[int]
    ) -> Float[Tensor, "t k c"]:
        """Return what early stopping looks at: `at`, unless something cheaper tells the same."""
        return self.at(embeddings, logits, prefixes)

    @torch.no_grad()
    def over(
        self,
        embeddings: Float[Tensor, "m d"],
        logits: Float[Tensor, "m c"],
        tuples: Int64[Tensor, "t n"],
        prefixes: Sequence[int],
        draft: bool = False,
    ) -> Float[Tensor, "t k c"]:
        """Return the log-posterior of tuples of shared instances after some prefixes, in evaluation mode.

        Overridden where much is computed of each instance alone (`_shared.py`).

        Args:
            embeddings: `[m d]`, of instances.
            logits: `[m c]`, calibrated.
            tuples: positions of the instances of each tuple.
            prefixes: numbers of instances, each from 1 to n.
            draft: whether `draft` is asked in the place of `at`.
        """
        ask = self.draft if draft else self.at
        chunks = tuples.split(at_once(CHUNK, tuples.device))
        return torch.cat([ask(embeddings[rows], logits[rows], prefixes) for rows in chunks])

    def prefix_weights(self, prefixes: int) -> Float[Tensor, "n"]:
        """Return the weight of each prefix in the loss, summing to 1; all alike unless overridden.

        Prefixes without weight are not computed in training.

        Args:
            prefixes: instances per tuple, n.
        """
        return torch.full((prefixes,), 1 / prefixes)

    def fit(
        self,
        embeddings: Float[Tensor, "t n d"],
        logits: Float[Tensor, "t n c"],
        labels: Int64[Tensor, "t"],
        weights: Float[Tensor, "t"],
    ) -> bool:
        """Fit parameters directly on training tuples, before any gradient descent.

        Args:
            embeddings: `[t n d]`.
            logits: `[t n c]`, calibrated.
            labels: `[t]`.
            weights: `[t]`, relative weight of each tuple; any positive scale.

        Returns:
            True if that was all the training there is; False (the default) to be trained by gradient descent.
        """
        del embeddings, logits, labels, weights
        return False


def at_once(count: int, device: torch.device) -> int:
    """Return how much a pass takes of what a CPU takes so much of; elsewhere a launch costs more than a cache saves."""
    return count if device.type == "cpu" else 16 * count


def pick(posterior: Float[Tensor, "t n c"], prefixes: Sequence[int]) -> Float[Tensor, "t k c"]:
    """Return what is asked for of the log-posteriors after every prefix."""
    if list(prefixes) == list(range(1, posterior.shape[1] + 1)):  # nothing to pick, and no copy to make
        return posterior
    if posterior.device.type == "cpu":
        return posterior[:, torch.tensor(prefixes) - 1]
    return torch.stack([posterior[:, size - 1] for size in prefixes], dim=1)  # an index would have to be waited for


def statistics(
    embeddings: Float[Tensor, "m d"], least: float = LEAST_DEVIATION
) -> tuple[Float[Tensor, "d"], Float[Tensor, "d"]]:
    """Return the mean of each unit and the scale to standardise it by.

    That is its standard deviation, or the layer's typical one where a unit varies too little for its own: joint
    training may wake such a unit, and what is small for the layer must not be worth many deviations. Typical is the
    mean over units in which each weighs as much as it varies, so that dead units do not count.

    Args:
        embeddings: of images of the aggregator split.
        least: share of the typical standard deviation below which a unit counts as dead.
    """
    deviation, mean = torch.std_mean(embeddings, dim=0)
    if not bool((deviation > 0).any()):
        return mean, torch.ones_like(deviation)
    typical = deviation.square().sum() / deviation.sum()
    return mean, deviation.where(deviation > least * typical, typical)


class Standardize(nn.Module):
    """Shift and scale embeddings by the statistics of the aggregator split.

    Values beyond `MAX_DEVIATIONS` are cut there: of a unit that hardly varies on the aggregator split, one stray
    activation on other images would otherwise be worth many deviations.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, shape: SetShape) -> None:
        super().__init__()
        self.register_buffer("mean", shape.embedding_mean.clone())
        self.register_buffer("scale", shape.embedding_scale.clone())

    def forward(self, embeddings: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """Standardise embeddings, in the type of the statistics."""
        deviations: Tensor = (embeddings.to(self.mean.dtype) - self.mean) / self.scale
        return deviations.clamp(-MAX_DEVIATIONS, MAX_DEVIATIONS)


def widen(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return values in float32, or as they are when wider; bfloat16 cannot hold a sum of log-probabilities."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def normalize(scores: Float[Tensor, "*b c"]) -> Float[Tensor, "*b c"]:
    """Normalise natural-log scores over the classes, in float32 or wider."""
    return log_normalize(widen(scores))


def instance_features(standardized: Float[Tensor, "*b d"], logits: Float[Tensor, "*b c"]) -> Float[Tensor, "*b f"]:
    """Concatenate standardised embeddings with log-probabilities cut at `MIN_LOG_PROBABILITY`, `f = d + c`."""
    log_probabilities = normalize(logits).clamp_min(MIN_LOG_PROBABILITY)
    return torch.cat([standardized, log_probabilities.to(standardized.dtype)], dim=-1)


def prefix_counts(reference: Float[Tensor, "t n c"]) -> Float[Tensor, "n 1"]:
    """Return 1, 2, ..., n as a column, on the device and of the type of `reference`."""
    return torch.arange(1, reference.shape[1] + 1, device=reference.device, dtype=reference.dtype)[:, None]


def mean_loss(losses: Float[Tensor, "t n"], shares: Float[Tensor, "t"] | Float[Tensor, "t n"]) -> Float[Tensor, "n"]:
    """Return the mean loss of tuples at every prefix; their weights, or those at each prefix, sum to 1."""
    return shares @ losses if shares.ndim == 1 else (shares * losses).sum(0)


def prefix_loss(log_posterior: Float[Tensor, "t k c"], labels: Int64[Tensor, "t"]) -> Float[Tensor, "t k"]:
    """Return the negative log-likelihood (nats) of the label at every prefix."""
    index = labels[:, None, None].expand(-1, log_posterior.shape[1], 1)
    return -log_posterior.gather(2, index).squeeze(2)


def last_prefix_weights(prefixes: int) -> Float[Tensor, "n"]:
    """Return prefix weights that count the loss of the whole tuple alone."""
    weights = torch.zeros(prefixes)
    weights[-1] = 1
    return weights


def doubling_prefix_weights(prefixes: int) -> Float[Tensor, "n"]:
    """Return prefix weights that count 1, 2, 4, 8, ... instances and the whole tuple alike, and no other prefix."""
    weights = torch.zeros(prefixes)
    counted = {2**power for power in range(prefixes.bit_length())} & set(range(1, prefixes)) | {prefixes}
    weights[torch.tensor(sorted(counted)) - 1] = 1 / len(counted)
    return weights
