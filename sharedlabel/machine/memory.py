"""How much memory there is, and refusing what cannot fit before anything is computed."""

from __future__ import annotations

import contextlib
import gc
import os
import re
import resource
from collections.abc import Iterator
from pathlib import Path

from sharedlabel.errors import ConfigError, first_line

_CGROUP = Path("/sys/fs/cgroup")
_LIMITS = ("memory.max", "memory/memory.limit_in_bytes")  # version 2 and version 1
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")
# What torch says when it gets no memory, or when the number of bytes cannot even be written down.
_REFUSED = re.compile(
    r"can't allocate memory|out of memory|Storage size calculation overflowed|numel: integer.*overflow"
)


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Look for no garbage in the block: each look walks over all that torch holds, which does not change.

    For what makes many objects and little garbage; as a decorator, too.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def total(cgroup: Path = _CGROUP) -> int:
    """Return the bytes of memory that this process may use at most: of the machine, its container, its limits."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for name in _LIMITS:
        with contextlib.suppress(OSError, ValueError):  # no such limit: "max", or no such file
            limits.append(int((cgroup / name).read_text()))
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return min(limits + [limit] * (limit != resource.RLIM_INFINITY))


def check(what: str, needed: int | float, advice: str) -> None:
    """Refuse what needs more memory than there is.

    Args:
        what: names the option or the work; it begins the message.
        needed: bytes.
        advice: what to do.

    Raises:
        ConfigError: it does not fit.
    """
    if needed > total():
        raise ConfigError(
            f"{what}: expected what fits into the {readable(total())} of memory, got about {readable(needed)}; {advice}"
        )


@contextlib.contextmanager
def fitting(what: str, advice: str) -> Iterator[None]:
    """Turn an allocation that fails inside the block into a message.

    Raises:
        ConfigError: there is not enough memory.
    """
    try:
        yield
    except (MemoryError, OverflowError) as error:
        raise ConfigError(f"{what}: expected what fits into memory, got: {first_line(error)}; {advice}") from error
    except RuntimeError as error:
        if not _REFUSED.search(str(error)):
            raise
        raise ConfigError(f"{what}: expected what fits into memory, got: {first_line(error)}; {advice}") from error


def readable(size: int | float) -> str:
    """Write a number of bytes with a unit.

    >>> readable(3 * 2**30)
    '3.0 GiB'
    """
    unit = 0
    while size >= 1024 and unit < len(_UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{size:.1f} {_UNITS[unit]}" if unit else f"{size:.0f} bytes"
