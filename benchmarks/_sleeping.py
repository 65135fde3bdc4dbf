"""A job whose calls wait; in a file of its own, by whose name workers on other machines find it."""

from __future__ import annotations

import time
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

    def attempt(self, call: Call, store: Store) -> Outcome:
        """Wait, and store that it is done."""
        began = time.perf_counter()
        time.sleep(self.seconds)
        store.save(call.stage, call.key, Output({}), {}, began)
        return Outcome(time.perf_counter() - began)
