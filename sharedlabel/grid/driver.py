"""Compute what is missing of a grid: gives calls to the workers of an executor, and notes how they end.

All state is in the store. Any number of drivers may work on one store, in any number of processes and machines: a call
is claimed there before it is computed, and looked for once more when it is claimed. A driver that was killed is gone
for the others, and the next run goes on where it was.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from sharedlabel.config.sections import TrainerConfig
from sharedlabel.errors import WriteError
from sharedlabel.grid.calls import calls, grouped, ordered
from sharedlabel.grid.executors.base import Ended, Executor
from sharedlabel.grid.failures import Failed
from sharedlabel.grid.jobs import Outcome, release
from sharedlabel.grid.nodes import Grid, Node
from sharedlabel.grid.schedule import Schedule
from sharedlabel.store import Store

_POLL = 0.5  # seconds between two looks at what other drivers compute
_DEATHS = 3  # of workers by one call, after which it has failed


@runtime_checkable
class Progress(Protocol):
    """What is told how far a run is."""

    def __call__(self, node: Node, seconds: float | None, worker: int = 0) -> None:
        """Tell that a worker starts a call (None), or that a call took so many seconds."""

    def failed(self, failed: Failed, worker: int = 0) -> None:
        """Tell that a call failed; the run goes on without it."""

    def lost(self, node: Node) -> None:
        """Tell that a call is not tried, since what it needs has failed."""

    def elsewhere(self, node: Node) -> None:
        """Tell that another run has computed a call."""

    def waiting(self, reason: str) -> None:
        """Tell that the run waits, and until when."""


def finish(
    grid: Grid, store: Store, executor: Executor, progress: Progress, fail_fast: bool = False
) -> dict[str, Failed]:
    """Compute what is missing of a grid, measured times last, while no run with the same store is at work here.

    A call that fails does not stop the others. Nothing of it is stored, so the next run tries it again.

    Args:
        grid: whose cells are to be stored.
        store: where they are stored.
        executor: computes.
        progress: told of every call, and of every wait for other runs.
        fail_fast: stop at the first call that fails.

    Returns:
        The calls that failed, by their keys.

    Raises:
        WriteError: the store cannot be written.
    """
    every, timed = calls(grid)
    with Run(store, executor, progress, fail_fast, grid.experiment.trainer) as run:
        with store.at_work(False, lambda: progress.waiting("until another run has measured its times")):
            run.compute(every)
        untimed = [node for node in timed if not store.has(node.stage, node.key)]
        if untimed and not run.stopped:
            with store.at_work(True, lambda: progress.waiting("until other runs are done, to measure times alone")):
                for node in untimed:
                    run.compute(ordered((node,)))
    return run.failed


class Run(contextlib.ExitStack):
    """Computes calls, each once: one that fails is not tried again, and neither is what needs it.

    Args:
        store: where outputs are stored.
        executor: computes.
        progress: told of every call.
        fail_fast: try nothing more after the first failure.
        runtime: says how many calls are computed together.

    Attributes:
        failed: the calls that failed, by their keys.
    """

    def __init__(
        self,
        store: Store,
        executor: Executor,
        progress: Progress,
        fail_fast: bool = False,
        runtime: TrainerConfig = TrainerConfig(),  # noqa: B008 -- it is frozen
    ) -> None:
        super().__init__()
        self.store, self.executor, self.progress, self.fail_fast = store, executor, progress, fail_fast
        self.runtime = runtime
        self.failed: dict[str, Failed] = {}
        self._deaths: Counter[str] = Counter()  # of workers, by the key of the call that they had
        self._claims = store.claims()
        self._told = ""  # what the run waits for

    def __enter__(self) -> Run:
        with self.store.writing("claims"):
            self.enter_context(self._claims.owned())
        self.enter_context(self.executor)
        return self

    @property
    def stopped(self) -> bool:
        """Whether nothing more is tried."""
        return self.fail_fast and bool(self.failed)

    def compute(self, nodes: Sequence[Node]) -> None:
        """Compute some calls.

        Args:
            nodes: each with all that it needs before it.

        Raises:
            WriteError: the store cannot be written, which no later call could change.
        """
        number = {node.key: at for at, node in enumerate(nodes)}
        needs = [[number[needed.key] for _, needed in node.inputs] for node in nodes]
        groups = grouped(nodes, self.runtime) if self.runtime.networks > 1 else ()
        schedule = Schedule(needs, {at for at, node in enumerate(nodes) if node.trains_network}, groups)
        stored = self.store.among((node.stage, node.key) for node in nodes)
        for at, node in enumerate(nodes):
            if node.key in self.failed:
                schedule.lose(at)
            elif (node.stage, node.key) in stored:
                schedule.done(at)
        elsewhere: set[int] = set()  # calls that other drivers compute
        under_way = 0
        while schedule.open and not (self.stopped and not under_way):
            under_way += self._start(nodes, schedule, elsewhere)
            if not schedule.open:  # the last calls had been stored meanwhile, by other drivers
                break
            if not under_way:
                self._wait(f"for calls that {'other runs compute' if elsewhere else 'no machine has room for'}")
            for ended in self.executor.ended(_POLL if elsewhere else None):
                under_way, self._told = under_way - 1, ""
                self._note(ended, nodes, number[ended.call.key], schedule)
            for at in list(elsewhere):
                self._look(nodes[at], at, schedule, elsewhere)

    def _wait(self, reason: str) -> None:
        """Tell that nothing can be done now, once."""
        if reason != self._told:
            self._told = reason
            self.progress.waiting(reason)

    def _start(self, nodes: Sequence[Node], schedule: Schedule, elsewhere: set[int]) -> int:
        """Give every free worker a call, or several together; return how many calls have been given."""
        given, free = 0, tuple(self.executor.free())
        for number, worker in enumerate(free):
            taken = self._next(nodes, schedule, elsewhere, worker, len(free) - number)
            for at in taken:
                self.progress(nodes[at], None, worker)
            if taken:
                self.executor.start(worker, tuple(nodes[at].call for at in taken))
            given += len(taken)
        return given

    def _next(
        self, nodes: Sequence[Node], schedule: Schedule, elsewhere: set[int], worker: int, free: int
    ) -> list[int]:
        """Return a call for a worker, if there is one, and those that it computes together with it.

        Each of so many free workers gets an equal share of the calls that can be computed together.
        """
        while not self.stopped and (first := schedule.take(self.executor.place(worker))) is not None:
            if not self._claim(nodes[first], first, schedule, elsewhere):
                continue
            taken, alike = [first], [] if self._deaths[nodes[first].key] else schedule.alike(first)
            share = -(-(1 + len(alike)) // free)
            for at in alike:
                if len(taken) >= min(self.runtime.networks, share):
                    break
                if not self._deaths[nodes[at].key]:  # it may be too large together with others
                    schedule.take_this(at)
                    if self._claim(nodes[at], at, schedule, elsewhere):
                        taken.append(at)
            return taken
        return []

    def _claim(self, node: Node, at: int, schedule: Schedule, elsewhere: set[int]) -> bool:
        """Claim a call that was taken; tell whether it is to be computed here: nobody has claimed or stored it.

        One that has been stored is done, and one that another driver has claimed is waited for.
        """
        with self.store.writing("claims"):
            claimed = self._claims.take(node.call.name)
        if not claimed:
            elsewhere.add(at)
        elif self.store.has(node.stage, node.key):
            self._claims.give_up(node.call.name)
            self._done_elsewhere(node, at, schedule)
        else:
            return True
        return False

    def _look(self, node: Node, at: int, schedule: Schedule, elsewhere: set[int]) -> None:
        """See whether another driver is done with a call, or gone."""
        if self.store.has(node.stage, node.key):
            self._done_elsewhere(node, at, schedule)
        elif self._claims.is_free(node.call.name):
            schedule.put_back(at)
        else:
            return
        elsewhere.remove(at)

    def _done_elsewhere(self, node: Node, at: int, schedule: Schedule) -> None:
        schedule.done(at)
        self.progress.elsewhere(node)

    def _note(self, ended: Ended, nodes: Sequence[Node], at: int, schedule: Schedule) -> None:
        """Note how a call has ended."""
        node, outcome = nodes[at], ended.outcome
        self._claims.give_up(node.call.name)
        if outcome is None:
            self._deaths[node.key] += 1
            if self._deaths[node.key] < _DEATHS:
                schedule.put_back(at)
                return
            outcome = Outcome(None, f"{_DEATHS} processes that computed it died, as they do when memory runs out")
        if outcome.unwritable:
            raise WriteError(outcome.reason)
        if outcome.seconds is not None:
            schedule.done(at, self.executor.place(ended.worker))
            self.progress(node, outcome.seconds, ended.worker)
            return
        self.failed[node.key] = Failed(node, outcome.reason, outcome.details)
        lost = schedule.lose(at)
        release()
        self.progress.failed(self.failed[node.key], ended.worker)
        for other in lost[1:]:
            self.progress.lost(nodes[other])
