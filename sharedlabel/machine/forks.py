"""Processes that are ready at once: one imports everything and computes nothing, and every worker is a fork of it.

It has no threads, no GPU and no locks, so that forks are safe, whatever the process does that asks for them: a notebook
may hold all of these. It needs no guarded main module either, as processes that Python's `multiprocessing` starts do.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, NoReturn

_BLAS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_NAME = 256  # bytes of the name of what a fork is to do, one message each
STAGE_CALLS = "sharedlabel.grid.executors.work:work"  # named here, where that takes no seconds to import
_warm: dict[tuple[str, int], Forks] = {}  # processes that somebody has started early, by their arguments


@dataclass(frozen=True)
class Surroundings:
    """What a worker takes over from the process that it works for, which is not the one that it is a fork of.

    Attributes:
        environment: variables to set.
        folder: where relative paths start.
        path: where modules are looked for.
    """

    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    folder: str = field(default_factory=os.getcwd)
    path: tuple[str, ...] = field(default_factory=lambda: tuple(_path()))

    def take_over(self) -> None:
        """Make them those of this process, which keeps what it has besides; another machine may lack the folder."""
        with contextlib.suppress(FileNotFoundError):
            os.chdir(self.folder)
        sys.path[:] = [*self.path, *(path for path in sys.path if path not in self.path)]
        os.environ.update(self.environment)


_shown: dict[Any, Any] = {}  # what this process has warned of for others


@dataclass(frozen=True)
class Warned:
    """A warning, for whoever shows them; the arguments of `warnings.warn_explicit`."""

    message: str
    category: type[Warning]
    filename: str
    lineno: int

    def warn(self) -> None:
        """Warn in this process; what several workers say in the same words is shown once, as one process shows it."""
        warnings.warn_explicit(**vars(self), registry=_shown)


def tell_warnings(tell: Callable[[Warned], object]) -> None:
    """Hand the warnings of this process to a function, such as one that sends them to another process."""

    def told(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any, **__: Any) -> None:
        tell(Warned(str(message), _known(category), filename, lineno))

    warnings.showwarning = told


def _known(category: type[Warning]) -> type[Warning]:
    """Return a category of warnings as other processes know it: one that is made in a function they do not."""

    def known(one: type[Warning]) -> bool:
        return one.__module__ != "__main__" and getattr(sys.modules.get(one.__module__), one.__name__, None) is one

    while not known(category):
        category = next(base for base in category.__bases__ if issubclass(base, Warning))
    return category


class Forks:
    """A process that forks workers.

    Args:
        work: what a worker does with its connection: a function, as `module:name`; the module is imported at once.
        threads: that a worker computes with; 0 for work without torch, which is ready sooner.
    """

    def __init__(self, work: str, threads: int) -> None:
        self.work, self.threads = work, threads
        self._socket, other = socket.socketpair()
        with other:
            self._process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-c", _program(), str(other.fileno()), work, str(threads)],
                env={**os.environ, **dict.fromkeys(_BLAS, str(max(threads, 1)))},
                pass_fds=[other.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is ours to handle
            )

    def fork(self, work: str = "") -> Connection:
        """Return the connection to a new worker, which is there when the process has imported what it needs.

        Args:
            work: what it does, if that is something else than most do.

        Raises:
            OSError: the process has died.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(self._socket, [(work or self.work).encode().ljust(_NAME)], [theirs.fileno()])
        return Connection(ours.detach())

    def close(self) -> None:
        """End the process; its forks go on until their connections are closed."""
        self._socket.close()
        self._process.kill()
        self._process.wait()


def warm(work: str, threads: int) -> None:
    """Start a process now whose forks will be needed soon; the arguments are those of `Forks`."""
    if (work, threads) not in _warm:
        _warm[work, threads] = Forks(work, threads)


def taken(work: str, threads: int) -> Forks:
    """Return the process that was started early, which is the caller's from now on, or a new one."""
    return _warm.pop((work, threads), None) or Forks(work, threads)


def keep(process: Forks) -> None:
    """Give a process back, for whoever needs its forks next."""
    if _warm.setdefault((process.work, process.threads), process) is not process:
        process.close()


def is_warm(work: str, threads: int) -> bool:
    """Tell whether a process was started early that nobody has taken; the arguments are those of `Forks`."""
    return (work, threads) in _warm


def cool() -> None:
    """End the processes that were started early, or kept, and that nobody has taken."""
    while _warm:
        _warm.popitem()[1].close()


@contextlib.contextmanager
def cooled() -> Iterator[None]:
    """Leave none of them behind, however the block ends."""
    try:
        yield
    finally:
        cool()


def serve(descriptor: int, work: str, threads: int) -> None:
    """Fork a worker for each connection that comes, until nobody can ask for one any more.

    Args:
        descriptor: of the socket that connections come through.
        work: as for `Forks`.
        threads: likewise.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how a worker ended
    if threads:
        import torch  # noqa: PLC0415 -- only here: whoever wants forks may need no torch

        torch.set_num_threads(threads)
    importlib.import_module(work.partition(":")[0])
    gc.freeze()  # what is there stays: forks need not look through it for garbage, which would copy all of it
    asked = socket.socket(fileno=descriptor)
    while True:
        told, descriptors, _, _ = socket.recv_fds(asked, _NAME, 1)
        if not told:
            return
        os.set_inheritable(descriptors[0], False)  # or programs that the worker starts would hold it beyond its end
        if os.fork() == 0:
            asked.close()
            _be_worker(descriptors[0], told.decode().rstrip())
        os.close(descriptors[0])


def _be_worker(descriptor: int, work: str) -> NoReturn:
    """Work, in a group of processes that ends with the connection, whatever is under way."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setpgid(0, 0)
    threading.Thread(target=_end_with, args=(descriptor,), daemon=True).start()
    code = 1
    try:
        module, _, name = work.partition(":")
        getattr(importlib.import_module(module), name)(Connection(descriptor))
        code = 0
    except (EOFError, BrokenPipeError):  # nobody waits for us
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _end_with(descriptor: int) -> None:
    hung_up = select.poll()
    hung_up.register(descriptor, 0)  # POLLHUP is told whatever is asked
    hung_up.poll()
    os.killpg(0, signal.SIGKILL)


def _path() -> list[str]:
    """Return where modules are looked for; Python passes over whatever else somebody has put there."""
    return [place for place in sys.path if isinstance(place, str)]


def _program() -> str:
    """Return the program of the process, which looks for modules where we do."""
    return (
        f"import sys; sys.path[:] = {_path()!r}; from {__name__} import serve; "
        "serve(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))"
    )
