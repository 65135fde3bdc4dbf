"""Run cells one after the other in this process."""

from __future__ import annotations

from collections.abc import Callable

from sharedlabel.grid import Cell


class Local:
    """Executes each cell as it is submitted; all state is in the store.

    Args:
        run: computes a cell.
    """

    def __init__(self, run: Callable[[Cell], None]) -> None:
        self._run = run

    def submit(self, cell: Cell) -> None:
        """Compute a cell and return when it is stored."""
        self._run(cell)
