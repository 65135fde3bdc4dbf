"""Run cells one after the other in this process, then measure times with nothing else at work."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, runtime_checkable

from sharedlabel.grid import Cell, Grid, Node, run_node
from sharedlabel.store import Store


@runtime_checkable
class Progress(Protocol):
    """What is told how far a run is."""

    def __call__(self, node: Node, seconds: float | None) -> None:
        """Tell that a call starts (None) or took so many seconds."""

    def waiting(self, reason: str) -> None:
        """Tell that the run waits, and until when."""


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


def finish(grid: Grid, store: Store, progress: Progress) -> None:
    """Compute what is missing of a grid, measured times last, while no run with the same store is at work here.

    Args:
        grid: whose cells are to be stored.
        store: where they are stored.
        progress: told of every call, and of every wait for other runs.
    """

    def compute(calls: Iterable[Node]) -> None:
        for call in calls:
            for node in call.chain():  # all of it: a damaged artifact may lie behind an intact one
                run_node(node, grid, store, progress)

    with store.at_work(False, lambda: progress.waiting("until another run has measured its times")):
        executor = Local(lambda cell: compute(cell.calls()))
        for cell in grid.cells:
            executor.submit(cell)
    if any(not store.has(cell.latency.stage, cell.latency.key) for cell in grid.cells):
        with store.at_work(True, lambda: progress.waiting("until other runs are done, to measure times alone")):
            compute(cell.latency for cell in grid.cells)
