"""Which of several runs that share a folder does a piece of work: each piece is claimed by one of them at a time.

A claim is a file that one process alone can create, with the name of its owner. An owner is what a run keeps alive
while it lives (`places`). Whoever finds a claim whose owner is gone takes the next turn, a file that again one process
alone can create, so two never take over from a third. What is claimed twice after all, by an owner that was slow and
thought gone, is done twice, which costs time and changes nothing: what is stored depends on its key alone.
"""

from __future__ import annotations

import contextlib
import itertools
import uuid
from collections.abc import Iterator
from pathlib import Path

from sharedlabel.files.places import Folder, Place

LEASE = 120.0  # seconds without a sign of life after which an owner that cannot be seen is gone


class Claims:
    """Claims on pieces of work by their names.

    Args:
        place: where claims lie, a folder or another place that runs share.
    """

    def __init__(self, place: Place | Path) -> None:
        self._place = Folder(place) if isinstance(place, Path) else place
        self._owner = ""
        self._turns: dict[str, int] = {}  # of the claims that we have

    @contextlib.contextmanager
    def owned(self) -> Iterator[None]:
        """Be an owner in the block, at whose end all claims of it are given up.

        Raises:
            OSError: the place cannot be written.
        """
        self._place.make("claims")
        with self._place.owner("owners") as owner:
            self._owner = owner
            try:
                yield
            finally:
                for name in list(self._turns):
                    self.give_up(name)
                self._owner = ""

    def take(self, name: str) -> bool:
        """Claim a piece of work; False if a living owner has it.

        Args:
            name: of the work, as a file may be called.

        Raises:
            OSError: the place cannot be written.
        """
        turn = 0
        while not self._place.create(_claim(name, turn), f"{self._owner} {uuid.uuid4().hex}"):
            held = self._is_held(_claim(name, turn))
            if held:
                return False
            turn += held is not None  # one that was given up just now is tried again
        self._turns[name] = turn
        return True

    def is_free(self, name: str) -> bool:
        """Tell whether nobody who lives has claimed a piece of work."""
        states = (self._is_held(_claim(name, turn)) for turn in itertools.count())
        return next(state for state in states if state is not False) is None

    def give_up(self, name: str) -> None:
        """Let others claim a piece of work, once it is done or has failed."""
        for turn in range(self._turns.pop(name) + 1):
            self._place.remove(_claim(name, turn))

    def _is_held(self, claim: str) -> bool | None:
        """Tell whether the owner of a claim lives; None if there is no such claim.

        One that has just been created may not name its owner yet.
        """
        try:
            owner, _, _ = self._place.read(claim).partition(" ")
            if owner:
                return not self._place.is_left(f"owners/{owner}", LEASE)
            return not self._place.expired(claim, LEASE)
        except FileNotFoundError:
            return None


def _claim(name: str, turn: int) -> str:
    return f"claims/{name}.{turn}"
