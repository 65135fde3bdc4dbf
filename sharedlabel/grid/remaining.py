"""How long a run has still to go, from what calls alike have taken so far."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TypeAlias

from sharedlabel.grid.nodes import Node

Kind: TypeAlias = tuple[str, ...]


def kind(node: Node) -> Kind:
    """Return what decides how long a unit of a call's work takes: stage, backbone, and the plugins of its own."""
    names = [getattr(getattr(node.config, part, None), "label", "") for part in ("backbone", "pruner", "aggregator")]
    network = next((call.config for call in node.chain() if hasattr(call.config, "backbone")), node.config)
    return node.stage, getattr(getattr(network, "backbone", None), "label", ""), *names


class Remaining:
    """What is left of some calls.

    A kind of call that has not been computed yet is expected to take what others of its stage take, or, until one of
    these is known, what a call takes on average.

    Args:
        nodes: the calls.
    """

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._kinds = {node.key: kind(node) for node in nodes}
        self._left = Counter(self._kinds.values())
        self._seconds: Counter[Kind] = Counter()
        self._done: Counter[Kind] = Counter()

    def took(self, node: Node, seconds: float) -> None:
        """Note that a call took so many seconds."""
        own = kind(node)
        for one in (own, own[:1], ()):
            self._seconds[one] += seconds  # type: ignore[assignment]
            self._done[one] += 1
        self.lose(node)

    def lose(self, node: Node) -> None:
        """Note that a call is not to be computed any more."""
        one = self._kinds.pop(node.key, None)
        if one is not None:
            self._left[one] -= 1

    def seconds(self) -> float | None:
        """Return the seconds of processing that are left; None until a call has been computed."""
        if not self._done:
            return None
        return sum(count * self._expected(one) for one, count in self._left.items() if count)

    def _expected(self, one: Kind) -> float:
        known = next(like for like in (one, one[:1], ()) if self._done[like])
        return self._seconds[known] / self._done[known]
