"""Errors that are the user's to fix: what was expected, what came, what to do.

The entry points print them without a traceback and exit with code 2; everything else is a bug and keeps its traceback.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import io
import os
import select
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import Any

_LISTED = 30
_READER_GONE = 141  # what shells show of a program that ends by SIGPIPE: 128 + 13
# What the system answers when a disk is full or a place cannot be used; other errors of the system are bugs.
_PLACE = {
    getattr(errno, name)
    for name in ("EACCES", "EDQUOT", "EEXIST", "EFBIG", "EISDIR", "ENOSPC", "ENOTDIR", "EPERM", "EROFS")
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


class StoreError(SharedLabelError):
    """Stored artifacts that cannot be read or written."""


def nearest(name: str, available: Iterable[str]) -> str:
    """Phrase the valid names, the nearest first, for an error message.

    >>> nearest("magntude", ["random", "magnitude"])
    "did you mean 'magnitude'? available: magnitude, random"
    """
    names = sorted(available)
    if not names:
        return "there are none"
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    if len(names) > _LISTED:
        return f"{hint}nearest: {', '.join(close)}" if close else f"there are {len(names)}; see --help"
    return f"{hint}available: {', '.join(names)}"


def printable(text: str, limit: int = 4000) -> str:
    r"""Escape what could steer a terminal or begin a line, and cut what is too long: texts come from files, too.

    >>> printable("red\x1b[31m")
    'red\\x1b[31m'
    """
    shown = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text[:limit])
    return shown + (" ..." if len(text) > limit else "")


STOPPED = "everything finished so far is stored; run the same command again to go on"


def guarded(main: Callable[[], None], stopped: str = STOPPED) -> int:
    """Run an entry point and return its exit code: 0, or 2 with one line on stderr for what the user can fix.

    141 instead of 0 if whoever reads the output has stopped, as `head` does when it has its lines.

    Args:
        main: the entry point.
        stopped: what an interrupt leaves. Finished artifacts are on disk before the next call starts, so it loses only
            the call under way.
    """
    _encode_all()
    with _interrupts() as interrupts, _plain_warnings():
        try:
            return _guarded(main)
        except Exception:
            if not interrupts:
                raise
        except KeyboardInterrupt:
            pass
    # Python notes an interrupt that left an exec of a text, as in dataclasses, and would die of it at exit although it
    # was caught; the next exec takes the note away.
    exec("")  # noqa: S102
    print(f"stopped: {stopped}", file=sys.stderr)
    return 2


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
def _interrupts() -> Iterator[list[int]]:
    """Collect the interrupts that come: extension modules may turn KeyboardInterrupt into an error of their own."""
    seen: list[int] = []
    former = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(former):  # nothing there to be noted
        yield seen
        return

    def note(number: int, frame: FrameType | None) -> Any:
        seen.append(number)
        return former(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield seen
    finally:
        signal.signal(signal.SIGINT, former)


def _guarded(main: Callable[[], None]) -> int:
    try:
        code = _told(main)
    except (BrokenPipeError, SystemExit) as error:  # of print, of rich, which turns one into the other, of argparse
        if _unread() or isinstance(error.__context__, BrokenPipeError):
            return _READER_GONE
        raise
    return _READER_GONE if _unread() and code == 0 else code


def _told(main: Callable[[], None]) -> int:
    try:
        main()
        if sys.stdout is not None:  # as where there is no terminal and no file
            sys.stdout.flush()
    except SharedLabelError as error:
        print("error:", printable(" ".join(str(error).split())), file=sys.stderr)  # libraries break lines in theirs
        return 2
    except OSError as error:
        if error.errno not in _PLACE:
            raise
        print(
            f"error: expected to read and write {error.filename or 'files or the output'}, got: {error.strerror}; free "
            "some space, fix the permissions or choose another folder, and run the same command again",
            file=sys.stderr,
        )
        return 2
    return 0


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
