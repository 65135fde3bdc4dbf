"""What an aggregator must do, a function for each property; they are those of `tests/conformance`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sharedlabel.aggregators import _contract
from sharedlabel.aggregators._base import Aggregator
from sharedlabel.aggregators._contract import TOLERANCE

TUPLES, INSTANCES = 6, 5


class Violation(Exception):  # noqa: N818 - says what it is
    """A property that does not hold."""


def drawn(width: int, classes: int, instances: int = INSTANCES, tuples: int = TUPLES) -> tuple[Tensor, Tensor]:
    """Draw embeddings and logits of tuples."""
    return torch.randn(tuples, instances, width), (2 * torch.randn(tuples, instances, classes)).log_softmax(-1)


def _normalised(aggregator: Aggregator, width: int, classes: int) -> None:
    for instances in (1, 2, INSTANCES, 64):
        _contract.posterior(aggregator, *drawn(width, classes, instances), TOLERANCE)


def _extreme(aggregator: Aggregator, width: int, classes: int) -> None:
    for instances in (1, 64):
        embeddings, logits = drawn(width, classes, instances)
        _contract.posterior(aggregator, 1e6 * embeddings, (1e4 * logits).clamp(-1e4, 1e4), TOLERANCE)


def _causal(aggregator: Aggregator, width: int, classes: int) -> None:
    _contract.check_causal(aggregator, *drawn(width, classes), TOLERANCE)


def _anytime(aggregator: Aggregator, width: int, classes: int) -> None:
    embeddings, logits = drawn(width, classes, 17)
    _contract.check_causal(aggregator, embeddings, logits, TOLERANCE)
    for k in (1, 2, 9, 17):
        _contract.check_some(aggregator, embeddings[:, :k], logits[:, :k], TOLERANCE)


def _separate(aggregator: Aggregator, width: int, classes: int) -> None:
    _contract.check_separate(aggregator, *drawn(width, classes), TOLERANCE)


def _repeatable(aggregator: Aggregator, width: int, classes: int) -> None:
    inputs = drawn(width, classes)
    first, second = (_contract.posterior(aggregator, *inputs, TOLERANCE) for _ in range(2))
    if not torch.equal(first, second):
        raise Violation("expected the same posterior from the same tuples, got another the second time")


def _stored(aggregator: Aggregator, width: int, classes: int) -> None:
    inputs = drawn(width, classes)
    before = _contract.posterior(aggregator, *inputs, TOLERANCE)
    aggregator.load_state_dict({name: value.clone() for name, value in aggregator.state_dict().items()})
    after = _contract.posterior(aggregator, *inputs, TOLERANCE)
    texts = "after loading its own state", "before"
    _contract.check_same(aggregator, (after, texts[0]), (before, texts[1]), TOLERANCE, "keep all of it in the state")


def _ordered(aggregator: Aggregator, width: int, classes: int) -> None:
    embeddings, logits = drawn(width, classes)
    if not isinstance(getattr(aggregator, "permutation_invariant", None), bool):
        raise Violation("expected a class constant permutation_invariant, True or False, got none")
    if aggregator.permutation_invariant:
        turned = _contract.posterior(aggregator, embeddings.flip(1), logits.flip(1), TOLERANCE)[:, -1:]
        given = _contract.posterior(aggregator, embeddings, logits, TOLERANCE)[:, -1:]
        texts, advice = ("with the instances turned round", "as given"), "declare permutation_invariant = False"
        _contract.check_same(aggregator, (turned, texts[0]), (given, texts[1]), TOLERANCE, advice, [INSTANCES])


PROPERTIES: dict[str, Callable[[Aggregator, int, int], None]] = {
    "normalised": _normalised,
    "extreme values": _extreme,
    "causal": _causal,
    "anytime": _anytime,
    "independent of the batch": _separate,
    "deterministic": _repeatable,
    "state": _stored,
    "order": _ordered,
}
