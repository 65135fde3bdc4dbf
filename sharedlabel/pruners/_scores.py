"""From scores of single weights to masks: the lowest go, as many as the ratio says, over all layers or in each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from sharedlabel.backbones._base import Backbone
from sharedlabel.errors import CompressionError
from sharedlabel.pruners._masks import count, kept, masked_copy, prunable, removed, weights_to_remove
from sharedlabel.pruners._select import keep_highest_of, layer_quotas

Scope: TypeAlias = Literal["global", "layer"]


def prune_by_scores(
    backbone: Backbone, ratio: float, compute: Callable[[], Mapping[str, Tensor]], scope: Scope
) -> Backbone:
    """Return a copy of a network whose lowest-scored weights are masked.

    Args:
        backbone: the network; weights that it masks already stay masked.
        ratio: compression ratio over all parameters.
        compute: returns the scores, as for `keep_by_scores`; called only where weights are to be removed.
        scope: as for `keep_by_scores`.

    Raises:
        CompressionError: the ratio cannot be reached, or a score is not finite.
    """
    if weights_to_remove(backbone, ratio) == removed(backbone):
        return masked_copy(backbone, kept(backbone))
    # Scores need as much memory as the network: they are gone when its copy is made.
    keep = keep_by_scores(backbone, ratio, compute(), scope)
    return masked_copy(backbone, keep)


def keep_by_scores(backbone: Backbone, ratio: float, scores: Mapping[str, Tensor], scope: Scope) -> dict[str, Tensor]:
    """Mark the highest-scored weights.

    Args:
        backbone: the network; weights that it masks already are not marked.
        ratio: compression ratio over all parameters.
        scores: of every prunable layer, in its weight's shape; higher is kept. Equal ones: the first is kept. They are
            read several times, one layer at a time.
        scope: `global` ranks all weights together, `layer` removes the same share of every layer.

    Returns:
        By layer, `bool` in the weight's shape.

    Raises:
        CompressionError: the ratio cannot be reached, or a score is not finite.
    """
    number, places = weights_to_remove(backbone, ratio), prunable(backbone)
    check_scores(scores)
    remaining = LazyScores(places, lambda name: _without_masked(scores[name].detach(), places[name].mask))
    if scope == "global":
        return keep_highest_of(remaining, count(backbone)[0] - number)
    budgets = layer_budgets(backbone, ratio)
    return {name: keep_highest_of({name: remaining[name]}, budget)[name] for name, budget in budgets.items()}


def _without_masked(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Put the scores of masked weights below all others."""
    return scores if mask is None else scores.masked_fill(mask == 0, -torch.inf)


def layer_budgets(backbone: Backbone, ratio: float) -> dict[str, int]:
    """Return how many weights each prunable layer keeps when all lose the same share.

    Args:
        backbone: the network; weights that it masks already count as lost.
        ratio: compression ratio over all parameters.

    Raises:
        CompressionError: the ratio is out of range, or the network is compressed further already.
    """
    keep = {name: int(mask.count_nonzero()) for name, mask in kept(backbone).items()}
    sizes = [layer.weight.numel() for layer in prunable(backbone).values()]
    quotas = layer_quotas(sizes, list(keep.values()), sum(sizes) - weights_to_remove(backbone, ratio))
    return dict(zip(keep, quotas, strict=True))


def check_scores(scores: Mapping[str, Tensor]) -> None:
    """Refuse scores that cannot be ordered.

    Raises:
        CompressionError: a score is NaN or infinite; names the layer.
    """
    for name, score in scores.items():
        if bad := score.numel() - int(score.isfinite().sum()):
            raise CompressionError(
                f"expected finite pruning scores, got {bad} NaN or infinite of {score.numel()} in layer {name!r}; "
                "train the network again, with a smaller learning rate if its weights are not finite"
            )


def check_weights(backbone: Backbone) -> None:
    """Refuse a network whose prunable weights are not all finite.

    Raises:
        CompressionError: a weight is NaN or infinite; names the layer.
    """
    for name, layer in prunable(backbone).items():
        weight = layer.weight.detach()
        if bad := weight.numel() - int(weight.isfinite().sum()):
            raise CompressionError(
                f"expected finite weights, got {bad} NaN or infinite of {weight.numel()} in layer {name!r}; train the "
                "network again, with a smaller learning rate"
            )


class LazyScores(Mapping[str, Tensor]):
    """Scores that are computed whenever a layer's are read, so that those of all layers are never in memory.

    Args:
        names: of the layers.
        compute: returns the scores of a layer, by name.
    """

    def __init__(self, names: Iterable[str], compute: Callable[[str], Tensor]) -> None:
        self._names, self._compute = tuple(names), compute

    def __getitem__(self, name: str) -> Tensor:
        return self._compute(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def magnitudes(backbone: Backbone) -> Mapping[str, Tensor]:
    """Return the absolute weights of every prunable layer."""
    places = prunable(backbone)
    return LazyScores(places, lambda name: places[name].weight.detach().abs())
