"""Magnitude pruning in which weights are compared by their size among those of their layer."""

from dataclasses import dataclass

from sharedlabel.pruners import prunable

STRUCTURED = False  # masks weights; True removes channels
NESTED = True  # what is kept at 4x is kept at 2x, too
NEEDS = frozenset()  # needs no images and no labels


@dataclass(frozen=True)
class Config:
    """Options.

    Args:
        power: 0 compares weights as they are, 1 divides them by the largest of their layer.
    """

    power: float = 0.5


def scores(backbone, config, context):
    """Return how much each weight is worth, by layer; the lowest of all layers are masked, down to the ratio."""
    del context
    weights = {name: layer.weight.detach().abs() for name, layer in prunable(backbone).items()}
    return {name: size / size.max() ** config.power for name, size in weights.items()}
