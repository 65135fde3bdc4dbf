"""A job whose calls wait; in a file of its own, by whose name workers on other machines find it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from sharedlabel.grid.jobs import Call, Outcome
from sharedlabel.store import Output, Store


@dataclass(frozen=True)
class Sleeping:
    """A job whose calls wait in the place of computing, and store an output without a tensor.

    Args:
        seconds: that a call waits.
    """

    seconds: float

    def attempt(self, calls: Sequence[Call], store: Store) -> tuple[Outcome, ...]:
        """Wait for each, and store that it is done."""
        return tuple(self._waited(call, store) for call in calls)

    def _waited(self, call: Call, store: Store) -> Outcome:
        began = time.perf_counter()
        time.sleep(self.seconds)
        store.save(call.stage, call.key, Output({}), {}, began)
        return Outcome(time.perf_counter() - began)
