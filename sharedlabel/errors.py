"""Errors that are the user's to fix: what was expected, what came, what to do.

The entry points print them without a traceback and exit with code 2; everything else is a bug and keeps its traceback.
SIGTERM and SIGHUP stop them as Ctrl-C does.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import io
import multiprocessing
import os
import select
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

_LISTED = 30
_MISTAKE = 2
FAILED = 3  # exit code of a command that did a part of what was asked for, and has said what it did not
_READER_GONE = 141  # what shells show of a program that ends by SIGPIPE: 128 + 13
# What the system answers when a disk is full or a place cannot be used; other errors of the system are bugs.
_PLACE = {
    getattr(errno, name)
    for name in (
        "EACCES",
        "EDQUOT",
        "EEXIST",
        "EFBIG",
        "EISDIR",
        "ELOOP",
        "ENAMETOOLONG",
        "ENOENT",
        "ENOSPC",
        "ENOTDIR",
        "EPERM",
        "EROFS",
    )
}


class SharedLabelError(Exception):
    """Base of every error whose message is written for the user."""


class ConfigError(SharedLabelError):
    """A configuration that cannot be run."""


class DataError(SharedLabelError):
    """Data that cannot be used: missing, corrupt, mislabelled or too small."""


class CompressionError(SharedLabelError):
    """A compression ratio or method that this network cannot take."""


class TrainingError(SharedLabelError):
    """Training that cannot go on, such as a loss that is not finite."""


class ContractError(SharedLabelError):
    """A plugin that does something else than its kind promises."""


class DeploymentError(SharedLabelError):
    """A model that cannot be exported, or an exported one that cannot be used."""


class TrackingError(SharedLabelError):
    """Results that are stored, and that W&B does not take."""


class StoreError(SharedLabelError):
    """Stored artifacts that cannot be read or written."""


class WriteError(StoreError):
    """A place that cannot be written or reached, such as a full disk: whatever comes next would fail there, too."""


def nearest(name: str, available: Iterable[str]) -> str:
    """Phrase the valid names, the nearest first, for an error message.

    >>> nearest("magntude", ["random", "magnitude"])
    "did you mean 'magnitude'? available: magnitude, random"
    >>> nearest("nope", ["new", "train"])
    'available: new, train'
    """
    names = sorted(available)
    if not names:
        return "there are none"
    begun = [each for each in names if name and each.startswith(name)][:3]
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.6) or begun
    hint = f"did you mean {close[0]!r}? " if close else ""
    if len(names) > _LISTED:
        return f"{hint}nearest: {', '.join(close)}" if close else f"there are {len(names)}; see --help"
    return f"{hint}available: {', '.join(names)}"


def home(text: str) -> Path:
    """Return a path in which `~` stands for a home folder.

    Raises:
        ConfigError: for the home of nobody.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise ConfigError(
            f"expected a path, got {text!r}: nobody of that name has a home here; write it out"
        ) from error


def first_line(error: BaseException) -> str:
    r"""Return the first line of what an error of a library says, or its name if it says nothing.

    >>> first_line(RuntimeError("\n no memory\nCUDA error"))
    'no memory'
    """
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def printable(text: str, limit: int = 4000) -> str:
    r"""Escape what could steer a terminal or begin a line, and cut what is too long: texts come from files, too.

    >>> printable("red\x1b[31m")
    'red\\x1b[31m'
    """
    shown = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text[:limit])
    return shown + (" ..." if len(text) > limit else "")


STOPPED = "everything finished so far is stored; run the same command again to go on"
_TERMINATING = ("SIGTERM", "SIGHUP")  # of a scheduler that needs the machine, of a terminal that is closed
_seen: list[int] = []  # numbers of the signals that have asked the entry point to stop


def guarded(main: Callable[[], int | None], stopped: str = STOPPED) -> int:
    """Run an entry point and return its exit code: its own, 0 if it says nothing, or 2 for what the user can fix.

    Then one line on stderr says what that is. SIGTERM and SIGHUP are Ctrl-C. 141 instead of what `main` returns if
    whoever reads the output has stopped, as `head` does when it has its lines.

    Args:
        main: the entry point.
        stopped: what an interrupt leaves. Finished artifacts are on disk before the next call starts, so it loses only
            the call under way.
    """
    _encode_all()
    with _interrupts(), _plain_warnings():
        others = set(multiprocessing.active_children())
        try:
            return _guarded(main)
        except Exception:
            if not interrupted():
                raise
        except KeyboardInterrupt:
            pass
        for process in set(multiprocessing.active_children()) - others:  # at our end we would wait for theirs
            process.kill()
            process.join()
    # Python notes an interrupt that left an exec of a text, as in dataclasses, and would die of it at exit although it
    # was caught; the next exec takes the note away.
    exec("")  # noqa: S102
    _say(f"stopped: {stopped}")
    return _MISTAKE


def _say(text: str) -> None:
    """Print a line on stderr, where there is one that takes it: a terminal may be closed, a disk full."""
    if sys.stderr is None:
        return
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        with contextlib.suppress(OSError, ValueError, AttributeError):  # the interpreter would complain when it ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def interrupted() -> bool:
    """Tell whether the entry point was asked to stop: extension modules may turn that into an error of their own."""
    return bool(_seen)


def _encode_all() -> None:
    """Write as escapes what the encoding of the output has no letters for, as Python does on stderr."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def _plain_warnings() -> Iterator[None]:
    """Print warnings on one line, without the letters that steer a terminal and without a line of code."""
    former = warnings.formatwarning

    def plain(message: Warning | str, category: type[Warning], *place: Any, **_: Any) -> str:
        return printable(f"{place[0]}:{place[1]}: {category.__name__}: {message}") + "\n"

    warnings.formatwarning = plain
    try:
        yield
    finally:
        warnings.formatwarning = former


@contextlib.contextmanager
def _interrupts() -> Iterator[None]:
    """Note the signals that ask to stop, and let each raise KeyboardInterrupt."""
    _seen.clear()
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former, process = _stopping(), os.getpid()

    def note(number: int, frame: FrameType | None) -> Any:
        if os.getpid() != process:  # a worker that was forked: it ends as it would have done without us
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return None
        _seen.append(number)
        handler = former[number]
        if callable(handler):
            return handler(number, frame)
        raise KeyboardInterrupt

    for number in former:
        signal.signal(number, note)
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
        _seen.clear()


def _stopping() -> dict[int, Any]:
    """Return the signals that stop us, with what handles them: not those that are ignored, as `nohup` wants it."""
    handlers: dict[int, Any] = {signal.SIGINT: signal.getsignal(signal.SIGINT)}
    handlers |= {
        number: signal.getsignal(number)
        for number in (getattr(signal, name, None) for name in _TERMINATING)
        if number is not None and signal.getsignal(number) == signal.SIG_DFL
    }
    return {number: handler for number, handler in handlers.items() if callable(handler) or number != signal.SIGINT}


def _guarded(main: Callable[[], int | None]) -> int:
    try:
        code = _told(main)
    except (BrokenPipeError, SystemExit) as error:  # of print, of rich, which turns one into the other, of argparse
        if _unread() or isinstance(error.__context__, BrokenPipeError):
            return _READER_GONE
        raise
    return _READER_GONE if _unread() and code != _MISTAKE else code


def _told(main: Callable[[], int | None]) -> int:
    try:
        code = main() or 0
        if sys.stdout is not None:  # as where there is no terminal and no file
            sys.stdout.flush()
    except SharedLabelError as error:
        _say("error: " + printable(" ".join(str(error).split())))  # libraries break lines in theirs
        return _MISTAKE
    except OSError as error:
        if error.errno not in _PLACE:
            raise
        _say(
            f"error: expected to read and write {error.filename or 'files or the output'}, got: {error.strerror}; free "
            "some space, fix the permissions or choose another folder, and run the same command again"
        )
        return _MISTAKE
    return code


def _unread() -> bool:
    """Write out what is left, and tell whether nobody reads the output any more; what cannot be written is dropped."""
    if sys.stdout is None:
        return False
    lost = gone = False
    try:
        sys.stdout.flush()
    except OSError:
        lost = True
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), select.POLLOUT)
        gone = any(event & select.POLLERR for _, event in poll.poll(0))
        if lost or gone:  # the interpreter writes once more when it ends, and would complain
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):  # no file, as where a caller collects the output
        return False
    return gone
