"""Pools with a few numbers, which are fitted to the likelihood of all prefixes: too few to learn groups by heart."""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor, nn

from sharedlabel.aggregators._base import mean_loss, normalize, prefix_loss
from sharedlabel.aggregators._pool import check_finite, log_evidence
from sharedlabel.aggregators._shared import SharingAggregator
from sharedlabel.logs import log_normalize

Bounds = Sequence[tuple[float, float]]


class FittedPool(SharingAggregator):
    """A pool of evidence with a few coefficients.

    A subclass says what its scores are, and what it looks at of each instance besides its evidence (`each`).

    Args:
        log_prior: `[c]`, natural log.

    Attributes:
        START: coefficients where the fit begins: the log-pool, or near it.
        BOUNDS: lowest and highest value of each.
    """

    fits_ragged = True
    START: ClassVar[tuple[float, ...]]
    BOUNDS: ClassVar[Bounds]
    log_prior: Tensor

    def __init__(self, log_prior: Float[Tensor, "c"]) -> None:
        super().__init__()
        self.register_buffer("log_prior", log_prior.clone())
        self.coefficients = nn.Parameter(torch.tensor(self.START, dtype=log_prior.dtype))

    def each(self, embeddings: Float[Tensor, "*b d"], logits: Float[Tensor, "*b c"]) -> tuple[Tensor, ...]:
        """Return the evidence of each instance, and what else is looked at."""
        del embeddings
        return (log_evidence(logits, self.log_prior),)

    def seen(self, *parts: Tensor) -> tuple[Tensor, ...]:
        """Return what scores are made of, of the parts `[t n f]` of the instances of tuples; these themselves here."""
        return parts

    @abc.abstractmethod
    def scores(self, coefficients: Float[Tensor, "p"], log_prior: Float[Tensor, "c"], *seen: Tensor) -> Tensor:
        """Return unnormalised log-posteriors `[t n c]` after every prefix."""

    def together(self, *parts: Tensor) -> Float[Tensor, "t n c"]:
        """Return the log-posterior after every prefix."""
        return normalize(self.scores(self.coefficients, self.log_prior, *self.seen(*parts)))

    def fit(
        self,
        embeddings: Float[Tensor, "t n d"],
        logits: Float[Tensor, "t n c"],
        labels: Int64[Tensor, "t"],
        weights: Float[Tensor, "t"] | Float[Tensor, "t n"],
    ) -> bool:
        """Fit the coefficients on all prefixes; there is nothing left to train."""
        with plainly():
            log_prior = self.log_prior.double()
            seen = self.seen(*(part.double() for part in self.each(embeddings, logits.double())))
        found = fitted(
            lambda point: self.scores(point, log_prior, *seen), self.START, self.BOUNDS, labels, weights.double()
        )
        with torch.no_grad():
            self.coefficients.copy_(found)
        return True


@contextlib.contextmanager
def plainly() -> Iterator[None]:
    """Make tensors in the block that gradients may pass, whatever mode the block is in; none is recorded in it."""
    with torch.inference_mode(False), torch.no_grad():
        yield


def fitted(
    scores: Callable[[Float64[Tensor, "p"]], Float64[Tensor, "t n c"]],
    start: Sequence[float],
    bounds: Bounds,
    labels: Int64[Tensor, "t"],
    weights: Float64[Tensor, "t"] | Float64[Tensor, "t n"],
) -> Float64[Tensor, "p"]:
    """Return the numbers of least weighted mean negative log-likelihood over all prefixes, by L-BFGS-B.

    A normal prior of deviation 1 around the start, which weighs as much as one tuple, keeps them finite on tuples that
    are all labelled correctly.

    Args:
        scores: returns unnormalised log-posteriors of the tuples, given the numbers; nats.
        start: where the search begins.
        bounds: lowest and highest value of each.
        labels: label of each tuple.
        weights: relative weight of each tuple, or of each at every prefix.

    Raises:
        TrainingError: the scores are not finite.
    """
    from scipy.optimize import minimize

    with plainly():
        center = torch.tensor(start, dtype=torch.float64, device=labels.device)
        shares, labels = weights / weights.sum(0), labels.clone()
        check_finite(scores(center))

    def objective(point: Float64[np.ndarray, "p"]) -> tuple[float, Float64[np.ndarray, "p"]]:
        with torch.inference_mode(False), torch.enable_grad():
            values = torch.from_numpy(point).to(center.device).requires_grad_()
            loss = mean_loss(prefix_loss(log_normalize(scores(values)), labels), shares).mean()
            loss = loss + (values - center).square().sum() / (2 * len(labels))
            (gradient,) = torch.autograd.grad(loss, values)
        return float(loss.detach()), gradient.cpu().numpy()

    optimum = minimize(objective, center.cpu().numpy(), jac=True, method="L-BFGS-B", bounds=list(bounds))
    return torch.from_numpy(np.asarray(optimum.x, dtype=np.float64))
