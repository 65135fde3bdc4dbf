"""Pools with a few numbers, which are fitted to the likelihood of all prefixes; no group of images can be learned."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from sharedlabel.aggregators._base import prefix_loss
from sharedlabel.aggregators._pool import check_finite
from sharedlabel.logs import log_normalize

Bounds = Sequence[tuple[float, float]]


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
    weights: Float64[Tensor, "t"],
) -> Float64[Tensor, "p"]:
    """Return the numbers of least weighted mean negative log-likelihood over all prefixes, by L-BFGS-B.

    A normal prior of deviation 1 around the start, which weighs as much as one tuple, keeps them finite on tuples that
    are all labelled correctly.

    Args:
        scores: returns unnormalised log-posteriors of the tuples, given the numbers; nats.
        start: where the search begins.
        bounds: lowest and highest value of each.
        labels: label of each tuple.
        weights: relative weight of each tuple.

    Raises:
        TrainingError: the scores are not finite.
    """
    from scipy.optimize import minimize

    with plainly():
        center = torch.tensor(start, dtype=torch.float64, device=labels.device)
        shares, labels = weights / weights.sum(), labels.clone()
        check_finite(scores(center))

    def objective(point: Float64[np.ndarray, "p"]) -> tuple[float, Float64[np.ndarray, "p"]]:
        with torch.inference_mode(False), torch.enable_grad():
            values = torch.from_numpy(point).to(center.device).requires_grad_()
            loss = (shares @ prefix_loss(log_normalize(scores(values)), labels)).mean()
            loss = loss + (values - center).square().sum() / (2 * len(labels))
            (gradient,) = torch.autograd.grad(loss, values)
        return float(loss.detach()), gradient.cpu().numpy()

    optimum = minimize(objective, center.cpu().numpy(), jac=True, method="L-BFGS-B", bounds=list(bounds))
    return torch.from_numpy(np.asarray(optimum.x, dtype=np.float64))
