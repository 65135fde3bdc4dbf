"""Which call comes next: the bookkeeping of a run, which knows no store, no clock and no process.

Calls are numbers from 0, and each needs only calls of smaller numbers. First come those with the longest chain of heavy
calls after them, such as the dense networks, on which all pruned ones wait, and the first rounds of iterative pruning.
Among equals a worker gets one whose inputs were made where it is, the one with the smallest number, so that what is
near is done together and a run that is stopped has finished what stands first. A worker that has none takes what
another one would come to last.
"""

from __future__ import annotations

import enum
import heapq
from array import array
from collections.abc import Container, Iterator, Sequence

NOBODY = -1  # in the place of a place: what lies in the store already, or as near to everybody

_STALE = 10_000  # entries of a heap that are not worth tidying up


class State(enum.IntEnum):
    """Where a call stands."""

    WAITING = 0  # for what it needs
    READY = 1
    TAKEN = 2
    DONE = 3
    LOST = 4  # it failed, or what it needs has


class Schedule:
    """The calls of a run.

    Memory is a few dozen bytes a call and a few entries of heaps for each that is ready.

    Args:
        needs: for each call, the calls that it reads; each of a smaller number than itself.
        heavy: the calls that take long; none if left out.
        groups: for each call, the number of those that it can be computed together with, `NOBODY` if it is computed
            alone; all are if left out.

    Raises:
        ValueError: a call that needs itself or a later one.

    >>> schedule = Schedule([(), (0,), (0,), (2,)], heavy={3})
    >>> schedule.take(), schedule.take()
    (0, None)
    >>> schedule.done(0)
    >>> schedule.take(), schedule.take()
    (2, 1)
    """

    def __init__(self, needs: Sequence[Sequence[int]], heavy: Container[int] = (), groups: Sequence[int] = ()) -> None:
        count = len(needs)
        self._groups = array("l", groups)
        self._alike: dict[int, list[int]] = {}  # what is ready of each group; what is taken is left in it
        self._open = count  # neither done nor lost
        self._waiting = 0  # for a worker
        self._state = bytearray(count)
        self._waits = array("l", map(len, needs))
        self._rank = array("l", bytes(array("l").itemsize * count))
        self._place = array("l", [NOBODY]) * count  # where the last input was made
        self._first, self._readers = _transposed(needs)
        for call in range(count - 1, -1, -1):
            for needed in needs[call]:
                self._rank[needed] = max(self._rank[needed], self._rank[call] + (call in heavy))
        # Heaps of what is ready: of all, and of each place from either end; what is taken is left in the others.
        self._ready: dict[int, list[tuple[int, int]]] = {NOBODY: []}
        self._last: dict[int, list[tuple[int, int]]] = {}
        for call in range(count):
            if not self._waits[call]:
                self._push(call)

    @property
    def open(self) -> int:
        """Number of calls that are neither done nor lost."""
        return self._open

    def state(self, call: int) -> State:
        """Return where a call stands."""
        return State(self._state[call])

    def take(self, place: int = NOBODY) -> int | None:
        """Return the next call for a worker, which it has from now on; None if none is ready.

        Args:
            place: where the worker is, any number from 0; it is preferred for what reads what was made there.
        """
        first, own = self._top(self._ready, NOBODY), self._top(self._ready, place)
        if own is None:
            self._last.pop(place, None)  # which has no more than that
        if first is None:
            return None
        rank, call = first
        if own is not None and own[0] == rank:
            call = own[1]
        elif self._place[call] != NOBODY:
            last = self._top(self._last, self._place[call])
            call = -last[1] if last is not None and last[0] == rank else call
        self.take_this(call)
        return call

    def alike(self, call: int) -> list[int]:
        """Return what is ready and can be computed together with a call; what others wait for longest comes first."""
        group = self._groups[call] if self._groups else NOBODY
        if group == NOBODY:
            return []
        ready = {one for one in self._alike[group] if self._state[one] == State.READY}
        self._alike[group] = sorted(ready, key=lambda one: (-self._rank[one], one))
        return self._alike[group].copy()

    def take_this(self, call: int) -> None:
        """Let a worker have a call that is ready."""
        self._state[call] = State.TAKEN
        self._waiting -= 1

    def put_back(self, call: int) -> None:
        """Let a call that was taken be taken again."""
        self._push(call)

    def done(self, call: int, place: int = NOBODY) -> None:
        """Note that the output of a call is stored; what needs no more becomes ready.

        Args:
            call: whatever its state, unless it is lost.
            place: where the output was made.
        """
        if self._state[call] == State.DONE:
            return
        self._waiting -= self._state[call] == State.READY
        self._state[call] = State.DONE
        self._open -= 1
        for reader in self._read_by(call):
            self._waits[reader] -= 1
            self._place[reader] = place
            if not self._waits[reader] and self._state[reader] == State.WAITING:
                self._push(reader)

    def lose(self, call: int) -> list[int]:
        """Note that a call has failed, and with it all that needs it, however far away; return what is lost by it."""
        lost, found = [], [call]
        while found:
            call = found.pop()
            if self._state[call] < State.DONE:
                self._waiting -= self._state[call] == State.READY
                self._state[call] = State.LOST
                self._open -= 1
                lost.append(call)
                found.extend(self._read_by(call))
        return lost

    def _push(self, call: int) -> None:
        self._state[call] = State.READY
        self._waiting += 1
        if self._groups and self._groups[call] != NOBODY:
            self._alike.setdefault(self._groups[call], []).append(call)
        if len(self._ready[NOBODY]) > _STALE + 4 * self._waiting:
            self._ready[NOBODY] = sorted({one for one in self._ready[NOBODY] if self._state[one[1]] == State.READY})
        rank, place = -self._rank[call], self._place[call]
        heapq.heappush(self._ready[NOBODY], (rank, call))
        if place != NOBODY:
            heapq.heappush(self._ready.setdefault(place, []), (rank, call))
            heapq.heappush(self._last.setdefault(place, []), (rank, -call))

    def _top(self, heaps: dict[int, list[tuple[int, int]]], place: int) -> tuple[int, int] | None:
        """Return what comes first in a heap of those that are still ready."""
        heap = heaps.get(place, [])
        while heap and self._state[abs(heap[0][1])] != State.READY:
            heapq.heappop(heap)
        return heap[0] if heap else None

    def _read_by(self, call: int) -> Iterator[int]:
        return iter(self._readers[self._first[call] : self._first[call + 1]])


def _transposed(needs: Sequence[Sequence[int]]) -> tuple[array[int], array[int]]:
    """Return where the readers of each call begin in the list of all, and that list."""
    first = array("l", bytes(array("l").itemsize * (len(needs) + 1)))
    for call, needed in enumerate(needs):
        for one in needed:
            if not 0 <= one < call:
                raise ValueError(f"expected call {call} to need calls of smaller numbers, got {one}")
            first[one + 1] += 1
    for call in range(len(needs)):
        first[call + 1] += first[call]
    place, readers = array("l", first), array("l", bytes(array("l").itemsize * first[-1]))
    for call, needed in enumerate(needs):
        for one in needed:
            readers[place[one]] = call
            place[one] += 1
    return first, readers
