"""Which of several runs that share a folder does a piece of work: each piece is claimed by one of them at a time.

A claim is a file that one process alone can create, with the name of its owner. An owner is a folder that a run claims
while it lives (`leases`). Whoever finds a claim whose owner is gone takes the next turn, a file that again one process
alone can create, so two never take over from a third. What is claimed twice after all, by an owner that was slow and
thought gone, is done twice, which costs time and changes nothing: what is stored depends on its key alone.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path

from sharedlabel.files import leases

LEASE = 120.0  # seconds without a sign of life after which an owner that cannot be seen is gone


class Claims:
    """Claims on pieces of work by their names.

    Args:
        root: where claims lie; made by the first one.
    """

    def __init__(self, root: Path) -> None:
        self._claims, self._owners = root / "claims", root / "owners"
        self._owner = ""
        self._turns: dict[str, int] = {}  # of the claims that we have

    @contextlib.contextmanager
    def owned(self) -> Iterator[None]:
        """Be an owner in the block, at whose end all claims of it are given up.

        Raises:
            OSError: the folder cannot be written.
        """
        for folder in (self._claims, self._owners):
            folder.mkdir(parents=True, exist_ok=True)
        leases.sweep(self._owners)
        with leases.claimed(self._owners) as folder:
            self._owner = folder.name
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
            OSError: the folder cannot be written.
        """
        turn = 0
        while not self._create(self._path(name, turn)):
            if self._is_held(self._path(name, turn)):
                return False
            turn += 1
        self._turns[name] = turn
        return True

    def is_free(self, name: str) -> bool:
        """Tell whether nobody who lives has claimed a piece of work."""
        turns = itertools.takewhile(Path.exists, (self._path(name, turn) for turn in itertools.count()))
        return not any(map(self._is_held, turns))

    def give_up(self, name: str) -> None:
        """Let others claim a piece of work, once it is done or has failed."""
        for turn in range(self._turns.pop(name) + 1):
            self._path(name, turn).unlink(missing_ok=True)

    def _path(self, name: str, turn: int) -> Path:
        return self._claims / f"{name}.{turn}"

    def _create(self, path: Path) -> bool:
        try:
            with path.open("x") as file:
                file.write(self._owner)
        except FileExistsError:
            return False
        return True

    def _is_held(self, path: Path) -> bool:
        """Tell whether the owner of a claim lives; one that has just been created may not name its owner yet."""
        try:
            owner = path.read_text()
            return not (leases.is_left(self._owners / owner, LEASE) if owner else leases.expired(path, LEASE))
        except FileNotFoundError:
            return False
