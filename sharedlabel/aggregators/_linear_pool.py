"""Pools that map the evidence of every instance linearly before they add it up, fitted to all prefixes at once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor, nn
from torch.nn.functional import one_hot

from sharedlabel.aggregators._base import normalize, prefix_counts, prefix_loss, widen
from sharedlabel.aggregators._pool import check_finite, log_evidence
from sharedlabel.aggregators._shared import SharingAggregator
from sharedlabel.logs import log_normalize

SEARCH = {"maxiter": 500, "ftol": 1e-10, "gtol": 1e-6}


class LinearPool(SharingAggregator):
    """Scores log p(y) + sum_i (W evidence_i + b), W a matrix or its diagonal; it starts as the log-pool.

    The fit minimises the weighted mean negative log-likelihood over all prefixes plus sum s (theta - theta_0)^2 / 2,
    theta_0 the log-pool. It is convex: a multinomial regression on the summed evidence and on k.

    Args:
        log_prior: `[c]`, natural log.
        weight: W at the start, `[c]` for a diagonal or `[c c]`.
        strengths: `[w + c]`, by value of W and of b, how strongly it is held at the start, in nats; `fit` adds the
            weight of one tuple, which keeps W finite on tuples that are all labelled correctly.
    """

    permutation_invariant = True
    log_prior: Tensor
    strengths: Tensor

    def __init__(
        self, log_prior: Float[Tensor, "c"], weight: Float[Tensor, "*w"], strengths: Float64[Tensor, "p"]
    ) -> None:
        super().__init__()
        self.register_buffer("log_prior", log_prior.clone())
        self.register_buffer("strengths", strengths, persistent=False)
        self.weight = nn.Parameter(weight.clone())
        self.bias = nn.Parameter(torch.zeros_like(log_prior))

    def each(self, embeddings: Float[Tensor, "*b d"], logits: Float[Tensor, "*b c"]) -> tuple[Tensor]:
        """Return W evidence + b of each instance."""
        del embeddings
        evidence = log_evidence(logits, self.log_prior)
        mapped = self.weight * evidence if self.weight.ndim == 1 else evidence @ self.weight.T.to(evidence.dtype)
        return (widen(mapped) + self.bias,)

    def together(self, mapped: Float[Tensor, "t n c"]) -> Float[Tensor, "t n c"]:
        """Return the log-posterior after every prefix."""
        return normalize(self.log_prior + mapped.cumsum(1))

    def fit(
        self,
        embeddings: Float[Tensor, "t n d"],
        logits: Float[Tensor, "t n c"],
        labels: Int64[Tensor, "t"],
        weights: Float[Tensor, "t"],
    ) -> bool:
        """Fit W and b by L-BFGS in float64; there is nothing left to train.

        Raises:
            TrainingError: the evidence is not finite.
        """
        from scipy.optimize import minimize

        del embeddings
        log_prior = self.log_prior.double()
        with torch.no_grad():
            sums = log_evidence(logits.double(), log_prior).cumsum(1)
            check_finite(sums)
            start = torch.cat([self.weight.flatten(), self.bias]).double()
            scales = _scales(sums, self.weight.ndim)
            objective = _objective(sums, log_prior, labels, weights.double(), start, scales, self.strengths.double())
            optimum = minimize(objective, np.zeros(len(start)), jac=True, method="L-BFGS-B", options=SEARCH)
            values = start + torch.from_numpy(optimum.x).to(start.device) / scales
            weight, bias = values.split([self.weight.numel(), self.bias.numel()])
            self.weight.copy_(weight.view_as(self.weight))
            self.bias.copy_(bias)
        return True


def _scales(sums: Float64[Tensor, "t n c"], ndim: int) -> Float64[Tensor, "p"]:
    """Return the size of what each value of W and b multiplies: in its units, the search takes far fewer steps."""
    sizes = sums.square().mean((0, 1)).sqrt().clamp_min(1e-6)
    counts = prefix_counts(sums).square().mean().sqrt().expand_as(sizes)
    return torch.cat([sizes if ndim == 1 else sizes.repeat(len(sizes)), counts])


def _objective(
    sums: Float64[Tensor, "t n c"],
    log_prior: Float64[Tensor, "c"],
    labels: Int64[Tensor, "t"],
    weights: Float64[Tensor, "t"],
    start: Float64[Tensor, "p"],
    scales: Float64[Tensor, "p"],
    strengths: Float64[Tensor, "p"],
) -> Callable[[Float64[np.ndarray, "p"]], tuple[float, Float64[np.ndarray, "p"]]]:
    """Return the loss, and its gradient, of how far flattened W and b are from the start, in units of 1 / scales."""
    counts = prefix_counts(sums)
    shares = (weights / weights.sum())[:, None, None] / len(counts)
    targets = one_hot(labels, len(log_prior))[:, None]
    diagonal = len(start) == 2 * len(log_prior)
    held = strengths + 1 / len(labels)

    def objective(point: Float64[np.ndarray, "p"]) -> tuple[float, Float64[np.ndarray, "p"]]:
        moved = torch.from_numpy(point).to(sums.device) / scales
        values = start + moved
        weight, bias = values.split([len(values) - len(log_prior), len(log_prior)])
        mapped = sums * weight if diagonal else sums @ weight.view(len(log_prior), -1).T
        log_posterior = log_normalize(log_prior + mapped + counts * bias)
        excess = shares * (log_posterior.exp() - targets)  # gradient of the loss by the scores
        loss = (shares[..., 0] * prefix_loss(log_posterior, labels)).sum() + (held * moved.square()).sum() / 2
        slope = (excess * sums).sum((0, 1)) if diagonal else (excess.flatten(0, 1).T @ sums.flatten(0, 1)).flatten()
        gradient = torch.cat([slope, (excess * counts).sum((0, 1))]) + held * moved
        return float(loss), (gradient / scales).cpu().numpy()

    return objective
