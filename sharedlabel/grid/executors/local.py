"""Run cells one after the other in this process, then measure times with nothing else at work."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch

from sharedlabel.errors import WriteError, interrupted
from sharedlabel.grid import Cell, Grid, Node, run_node
from sharedlabel.grid.failures import Failed
from sharedlabel.store import Store


@runtime_checkable
class Progress(Protocol):
    """What is told how far a run is."""

    def __call__(self, node: Node, seconds: float | None) -> None:
        """Tell that a call starts (None) or took so many seconds."""

    def failed(self, failed: Failed) -> None:
        """Tell that a call failed; the run goes on without it."""

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
        """Compute a cell and return when it is stored, or when a call that it needs has failed."""
        self._run(cell)


class Attempts:
    """Makes stage calls, each that fails once: what needs it is not tried.

    Args:
        grid: what the calls belong to.
        store: where their outputs are stored.
        progress: told of every call.
        fail_fast: try nothing more after the first failure.
    """

    def __init__(self, grid: Grid, store: Store, progress: Progress, fail_fast: bool = False) -> None:
        self.grid, self.store, self.progress, self.fail_fast = grid, store, progress, fail_fast
        self.failed: dict[str, Failed] = {}

    @property
    def stopped(self) -> bool:
        """Whether nothing more is tried."""
        return self.fail_fast and bool(self.failed)

    def make(self, call: Node) -> None:
        """Make a call and those that it needs, up to the first that fails.

        Raises:
            WriteError: the store cannot be written, which no later call could either.
        """
        for node in call.chain():  # all of it: a damaged artifact may lie behind an intact one
            if self.stopped or node.key in self.failed:
                return
            try:
                run_node(node, self.grid, self.store, self.progress)
            except WriteError:
                raise
            except Exception as error:
                if interrupted():
                    raise KeyboardInterrupt from error
                failed = Failed.of(node, error)
            else:
                continue
            self.failed[node.key] = failed
            _release()
            self.progress.failed(failed)
            return

    def possible(self, call: Node) -> bool:
        """Tell whether nothing that a call needs has failed, nor the call itself."""
        return not self.stopped and all(node.key not in self.failed for node in call.chain())


def finish(grid: Grid, store: Store, progress: Progress, fail_fast: bool = False) -> dict[str, Failed]:
    """Compute what is missing of a grid, measured times last, while no run with the same store is at work here.

    A call that fails does not stop the others. Nothing of it is stored, so the next run tries it again.

    Args:
        grid: whose cells are to be stored.
        store: where they are stored.
        progress: told of every call, and of every wait for other runs.
        fail_fast: stop at the first call that fails.

    Returns:
        The calls that failed, by their keys.

    Raises:
        WriteError: the store cannot be written.
    """
    attempts = Attempts(grid, store, progress, fail_fast)

    def run(cell: Cell) -> None:
        for call in cell.calls():
            attempts.make(call)

    with store.at_work(False, lambda: progress.waiting("until another run has measured its times")):
        executor = Local(run)
        for cell in grid.cells:
            executor.submit(cell)
    timed = {call.key: call for cell in grid.cells for call in cell.last()}.values()
    untimed = [call for call in timed if not store.has(call.stage, call.key) and attempts.possible(call)]
    if untimed:
        with store.at_work(True, lambda: progress.waiting("until other runs are done, to measure times alone")):
            for call in untimed:
                attempts.make(call)
    return attempts.failed


def _release() -> None:
    """Give back the memory of a call that failed: a network that was too large must not make the next one fail, too."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
