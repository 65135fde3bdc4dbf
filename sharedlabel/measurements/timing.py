"""Time calls side by side: by the clock of the processor and by the one on the wall, in blocks that take turns.

A busy machine makes the wall clock run on while a thread waits for a core; the processor's clock stands still then.
How far the two are apart says how busy the machine was. Two calls that take turns pass by pass would evict each other's
data from the caches, as no deployed network does, so each runs in blocks and the first passes of a block do not count.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

BUSY = 1.1
COLD_PASSES = 2
_COLD_SECONDS = 0.05
_BLOCK = 6
_FEWEST_BLOCKS = 3


class Seconds(NamedTuple):
    """A moment or a duration.

    Attributes:
        wall: seconds on the wall.
        cpu: seconds that a processor worked for the calling thread.
    """

    wall: float
    cpu: float

    def since(self, start: Seconds) -> Seconds:
        """Return what has gone by."""
        return Seconds(self.wall - start.wall, self.cpu - start.cpu)


Clock: TypeAlias = Callable[[], Seconds]


def now() -> Seconds:
    """Read both clocks.

    The processor's is that of the calling thread. With several threads it is no measure of the work, which the others
    share, but of waiting: by OpenMP's default a thread spins before it sleeps when it waits for the others, so the two
    clocks part only where a wait is long, as when one of the threads has no core.
    """
    return Seconds(time.perf_counter(), time.thread_time())


def contention(passes: Sequence[Seconds]) -> float | None:
    """Return seconds on the wall / processor seconds; None if the processor's clock did not move."""
    wall, cpu = (sum(each) for each in zip(*passes, strict=True))
    return wall / cpu if cpu > 0 else None


def contended(ratio: float | None) -> bool:
    """Tell whether others used the machine: a tenth was added by waiting or more; False where it is unknown."""
    return ratio is not None and ratio > BUSY


def load() -> float | None:
    """Return how many threads of the machine ran or waited for a core, mean of the last minute; None if unknown."""
    try:
        return round(os.getloadavg()[0], 2)
    except OSError:
        return None


def in_turns(
    calls: Sequence[Callable[[], object]], passes: int, seconds: float, clock: Clock = now
) -> list[list[Seconds]]:
    """Time calls in blocks of passes that take turns; which call comes first alternates.

    At the start of a block a call finds the data of another one in the caches: two passes do not count, or one where
    passes are slow. A call that is timed alone loses none.

    Args:
        calls: what to time; each has run before.
        passes: passes of each call that count, at most; there are at least three.
        seconds: once a call has spent this long on the wall and has had three blocks, no further block starts.
        clock: read before and after every pass.

    Returns:
        What every pass took, by call.
    """
    passes = max(passes, _FEWEST_BLOCKS)
    size = min(_BLOCK, math.ceil(passes / _FEWEST_BLOCKS))
    blocks = math.ceil(passes / size)
    taken: list[list[Seconds]] = [[] for _ in calls]
    spent = [0.0] * len(calls)
    turns = range(len(calls))
    for done in range(blocks):
        if done >= _FEWEST_BLOCKS and max(spent) > seconds:
            break
        for which in turns if done % 2 == 0 else reversed(turns):
            cold = COLD_PASSES if len(calls) > 1 else 0
            some, took = block(calls[which], min(size, passes - done * size), cold, seconds / blocks, clock)
            taken[which] += some
            spent[which] += took
    return taken


def block(
    call: Callable[[], object], passes: int, cold: int, seconds: float = math.inf, clock: Clock = now
) -> tuple[list[Seconds], float]:
    """Time passes in a row.

    Args:
        call: what to time.
        passes: passes that count, at most; there is at least one.
        cold: passes at the start that do not count; one is enough where passes are slow.
        seconds: once the block has taken this long on the wall, no further pass starts.
        clock: read before and after every pass.

    Returns:
        What every pass that counts took, and the seconds on the wall of all.
    """
    taken: list[Seconds] = []
    took = 0.0
    for done in range(cold):
        if done and took > _COLD_SECONDS:
            break
        took += one_pass(call, clock).wall
    while len(taken) < passes and (not taken or took <= seconds):
        taken.append(one_pass(call, clock))
        took += taken[-1].wall
    return taken, took


def one_pass(call: Callable[[], object], clock: Clock = now) -> Seconds:
    """Time one call."""
    start = clock()
    call()
    return clock().since(start)
