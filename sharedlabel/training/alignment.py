"""Cross-fitting: embeddings of the networks of the folds, as the deployed network would have made them.

Networks that were trained apart have other axes in the space of their embeddings, and pruning may leave them other
widths. An aggregator that learns from the networks of all folds and then reads the deployed one needs one space.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

_SMALLEST = 1e-300
_ROUNDING = torch.finfo(torch.float32).eps


@dataclass(frozen=True)
class Alignment:
    """An affine map between the embeddings of two networks.

    Attributes:
        weight: `[e d]`.
        offset: `[d]`.
        strength: the ridge penalty that was chosen, in units of the mean variance of the source's principal components.
        r2: share of the target's variance that the map explains in images left out of its fit; 1 is a perfect map, at
            most 0 a useless one.
    """

    weight: Float[Tensor, "e d"]
    offset: Float[Tensor, "d"]
    strength: float
    r2: float

    def __call__(self, embeddings: Float[Tensor, "m e"]) -> Float[Tensor, "m d"]:
        """Map embeddings of the source into the target's space."""
        return (embeddings.to(self.weight) @ self.weight + self.offset).to(embeddings)


def align(source: Float[Tensor, "m e"], target: Float[Tensor, "m d"], strengths: Sequence[float]) -> Alignment:
    """Fit the affine map from one network's embeddings to another's by ridge regression, the offset unpenalised.

    The penalty is the one with the smallest squared error over images left out one at a time, which needs no refitting:
    an image's error is its residual over 1 less its leverage. What two networks do not share is lost: mapped embeddings
    vary less than the target's, by about the share that `r2` lacks.

    Args:
        source: embeddings of the images by the network to map from.
        target: embeddings of the same images by the network to map to.
        strengths: penalties to choose from, positive, in units of the mean variance of the source's principal
            components.

    Reference:
        Allen, "The Relationship between Variable Selection and Data Augmentation and a Method for Prediction" (1974).
    """
    x, y = source.double(), target.double()
    x_mean, y_mean = x.mean(0), y.mean(0)
    left, singular, right = torch.linalg.svd(x - x_mean, full_matrices=False)
    rotated = left.T @ (y - y_mean)
    power = singular.square()
    # Where all embeddings are equal but for rounding, there is nothing to map from.
    scale = power.mean().clamp(min=float(_ROUNDING**2 * x.square().sum()) + _SMALLEST)
    errors = []
    for strength in strengths:
        kept = power / (power + strength * scale)
        leverage = 1 / len(x) + left.square() @ kept
        residual = (y - y_mean) - left @ (kept[:, None] * rotated)
        errors.append(float((residual / (1 - leverage)[:, None]).square().sum()))
    # Images that are met exactly have no leverage left, and their 0/0 tells nothing.
    best = min(range(len(errors)), key=lambda index: errors[index] if math.isfinite(errors[index]) else math.inf)
    strength = float(strengths[best])
    weight = right.T @ ((singular / (power + strength * scale))[:, None] * rotated)
    total = float((y - y_mean).square().sum())
    return Alignment(weight, y_mean - x_mean @ weight, strength, 1 - errors[best] / max(total, _SMALLEST))
