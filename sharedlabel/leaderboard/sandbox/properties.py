"""What a submitted aggregator must do: the checks of `aggregators/_contract.py`, on tuples of a protocol's sizes.

The conformance suite tries the same and more, such as gradients and searches, on tuples of its own; it imports what a
sandbox need not show.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from sharedlabel.aggregators import _contract
from sharedlabel.aggregators._base import Aggregator
from sharedlabel.aggregators._contract import TOLERANCE

Build: TypeAlias = Callable[[], Aggregator]
TUPLES, INSTANCES = 6, 5


class Violation(Exception):  # noqa: N818 - says what it is
    """A property that does not hold."""


def drawn(width: int, classes: int, instances: int = INSTANCES, tuples: int = TUPLES) -> tuple[Tensor, Tensor]:
    """Draw embeddings and logits of tuples."""
    return torch.randn(tuples, instances, width), (2 * torch.randn(tuples, instances, classes)).log_softmax(-1)


def _normalised(build: Build, width: int, classes: int) -> None:
    aggregator = build()
    for instances in (1, 2, INSTANCES, 64):
        _contract.posterior(aggregator, *drawn(width, classes, instances), TOLERANCE)


def _extreme(build: Build, width: int, classes: int) -> None:
    aggregator = build()
    for instances in (1, 64):
        embeddings, logits = drawn(width, classes, instances)
        _contract.posterior(aggregator, 1e6 * embeddings, (1e4 * logits).clamp(-1e4, 1e4), TOLERANCE)


def _causal(build: Build, width: int, classes: int) -> None:
    _contract.check_causal(build(), *drawn(width, classes), TOLERANCE)


def _anytime(build: Build, width: int, classes: int) -> None:
    aggregator, (embeddings, logits) = build(), drawn(width, classes, 17)
    _contract.check_causal(aggregator, embeddings, logits, TOLERANCE)
    for k in (1, 2, 9, 17):
        _contract.check_some(aggregator, embeddings[:, :k], logits[:, :k], TOLERANCE)


def _separate(build: Build, width: int, classes: int) -> None:
    _contract.check_separate(build(), *drawn(width, classes), TOLERANCE)


def _repeatable(build: Build, width: int, classes: int) -> None:
    _contract.check_repeatable(build(), *drawn(width, classes), TOLERANCE)


def _stored(build: Build, width: int, classes: int) -> None:
    _contract.check_state(build(), build(), *drawn(width, classes), TOLERANCE)


def _ordered(build: Build, width: int, classes: int) -> None:
    _contract.check_order(build(), *drawn(width, classes), TOLERANCE)


PROPERTIES: dict[str, Callable[[Build, int, int], None]] = {
    "normalised": _normalised,
    "extreme values": _extreme,
    "causal": _causal,
    "anytime": _anytime,
    "independent of the batch": _separate,
    "deterministic": _repeatable,
    "state": _stored,
    "order": _ordered,
}
