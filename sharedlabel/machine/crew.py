"""One function for many things in order, shared out to processes where that is worth their start.

Results come in the order of the things, and errors at their place among them, so nobody can tell how many processes
there were. A process that dies, as in a damaged image that a library cannot bear or where memory is short, leaves what
it had to this one.
"""

from __future__ import annotations

import contextlib
import pickle
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar, cast

from sharedlabel.machine import forks

ALONE = 1.0  # seconds after which this process asks for help
WORTH = 3.0  # seconds that it would still take alone, at least, to ask for help: processes take one to start
PIECE = 0.05  # seconds of work that a process is given at once
PATIENCE = 0.0  # seconds that this process waits for the others, between two things that it does itself
_AHEAD = 2  # pieces under way for each process
_DO = f"{__name__}:do"

Task = TypeVar("Task")
Result = TypeVar("Result")


def ordered(function: Callable[[Task], Result], tasks: Sequence[Task], processes: int) -> Generator[Result, None, None]:
    """Yield what a function returns for each task, in order.

    Args:
        function: can be pickled; what it raises is raised here.
        tasks: its arguments.
        processes: that share the work, if it takes long; 1 for none but this.


    >>> list(ordered(str, [1, 2, 3], processes=2))
    ['1', '2', '3']
    """
    began = time.monotonic()
    with contextlib.ExitStack() as left:
        crew: _Crew[Task, Result] | None = None
        worth = False
        for done, task in enumerate(tasks, start=1):
            if crew is None and processes > 1 and worth:
                crew = left.enter_context(contextlib.closing(_Crew(function, processes)))
            yield function(task)
            spent = time.monotonic() - began
            if crew is not None and crew.is_ready():
                yield from crew.results(tasks[done:], max(1, int(PIECE * done / spent)))
                return
            worth = spent >= ALONE and spent / done * (len(tasks) - done) >= WORTH


@dataclass
class _Piece(Generic[Task, Result]):
    """Some of the tasks.

    Attributes:
        tasks: in order.
        given: to a process.
        results: of the tasks up to the first error; None as long as there are none.
        error: of the task after these.
    """

    tasks: Sequence[Task]
    given: bool = False
    results: list[Result] | None = None
    error: Exception | None = None


@dataclass
class _Crew(Generic[Task, Result]):
    """Processes that do the same.

    Attributes:
        function: what they do.
        processes: how many there are.
    """

    function: Callable[[Task], Result]
    processes: int
    _at: dict[Connection, _Piece[Task, Result] | None] = field(default_factory=dict)  # of those that are ready

    def __post_init__(self) -> None:
        self._forks = forks.taken(_DO, 0)
        self._coming = []
        for _ in range(self.processes):
            with contextlib.suppress(OSError):  # it has died
                self._coming.append(self._forks.fork())
                self._coming[-1].send(self.function)

    def close(self) -> None:
        """End the processes."""
        for connection in (*self._coming, *self._at):
            connection.close()
        self._forks.close()

    def is_ready(self) -> bool:
        """Tell whether any process is there."""
        self._listen(self._coming, PATIENCE)
        return bool(self._at)

    def results(self, tasks: Sequence[Task], size: int) -> Iterator[Result]:
        """Yield results in order; processes have so many tasks at once."""
        starts = iter(range(0, len(tasks), size))
        pieces: deque[_Piece[Task, Result]] = deque()
        while True:
            while len(pieces) < _AHEAD * self.processes and (start := next(starts, None)) is not None:
                pieces.append(_Piece(tasks[start : start + size]))
            if not pieces:
                return
            while pieces and pieces[0].results is not None:
                yield from self._taken(pieces.popleft())
            self._give(pieces)
            if pieces and pieces[0].results is None:
                self._listen([*self._coming, *self._at], None)

    def _taken(self, piece: _Piece[Task, Result]) -> Iterator[Result]:
        yield from piece.results or ()
        if piece.error is not None:
            raise piece.error
        yield from map(self.function, piece.tasks[len(piece.results or ()) :])  # what a dead process had

    def _give(self, pieces: deque[_Piece[Task, Result]]) -> None:
        free = [connection for connection, piece in self._at.items() if piece is None]
        for piece in pieces:
            if piece.given:
                continue
            if not self._at:
                piece.given, piece.results = True, []  # all have died
            elif free:
                connection = free.pop()
                piece.given, self._at[connection] = True, piece
                with contextlib.suppress(OSError):  # it has died, which is heard
                    connection.send(piece.tasks)

    def _listen(self, connections: Sequence[Connection], seconds: float | None) -> None:
        """Wait until a process is ready, or has done its piece."""
        for connection in cast("list[Connection]", wait(connections, seconds) if connections else []):
            told = _heard(connection)
            piece = self._at.pop(connection, None)
            if connection in self._coming:
                self._coming.remove(connection)
            if piece is not None:
                piece.results, piece.error = ([], None) if told is None else told
            if told is None:
                connection.close()
            else:
                self._at[connection] = None


def _heard(connection: Connection) -> Any:
    """Return what a process says; None if it has died."""
    try:
        return connection.recv()
    except (EOFError, OSError):
        return None


class Ahead:
    """A call in a process beside this one, so that what it leaves, in a store, is there when this one asks for it.

    Args:
        process: that forks it.
        function: can be pickled.
        task: its argument.
    """

    def __init__(self, process: forks.Forks, function: Callable[[Task], object], task: Task) -> None:
        self._connection = process.fork(_DO)
        threading.Thread(target=self._send, args=(function, task), daemon=True).start()

    def _send(self, function: Callable[[Task], object], task: Task) -> None:
        with contextlib.suppress(OSError):  # it has died
            for told in (function, [task]):  # by bytes: torch's own way of sending tensors shares their memory
                self._connection.send_bytes(pickle.dumps(told, pickle.HIGHEST_PROTOCOL))

    def wait(self) -> None:
        """Wait until it has ended, with an error or without: whoever misses what it should have left does it again."""
        with contextlib.closing(self._connection) as connection:
            if _heard(connection) is not None:  # it is ready
                _heard(connection)


def do(connection: Connection) -> None:
    """Do what comes, in a process of a crew.

    Raises:
        EOFError: nobody is there any more.
    """
    function: Callable[[Any], Any] = connection.recv()
    connection.send(True)
    while True:
        results: list[Any] = []
        error = None
        for task in connection.recv():
            try:
                results.append(function(task))
            except Exception as raised:
                error = raised
                break
        connection.send((results, error))
