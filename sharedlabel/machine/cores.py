"""How many processor cores this process may use."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path

from sharedlabel.errors import ConfigError

WORKERS = "SHAREDLABEL_WORKERS"
SHARE = "SHAREDLABEL_CORES"  # of a worker, set by who starts it
_CGROUP = Path("/sys/fs/cgroup")


def workers(asked: int | str) -> int | None:
    """Return how many workers are asked for, here or in the environment; None if that is left to us.

    Args:
        asked: by the configuration; `auto` leaves it to the environment variable SHAREDLABEL_WORKERS, if there is one.

    Raises:
        ConfigError: the variable holds no number above 0.
    """
    said = os.environ.get(WORKERS, "") if asked == "auto" else str(asked)
    if not said:
        return None
    if not (said.isascii() and said.isdigit() and int(said)):
        raise ConfigError(f"expected a number above 0 in the environment variable {WORKERS}, got {said!r}; correct it")
    return int(said)


def processes(asked: int | str) -> int:
    """Return how many processes may share what is no stage call; the argument is that of `workers`."""
    return min(workers(asked) or available(), available())


@contextlib.contextmanager
def using(threads: int) -> Iterator[None]:
    """Compute with so many threads in the block."""
    import torch  # noqa: PLC0415 -- who asks for cores alone need not wait for it

    former = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(former)


def available(cgroup: Path = _CGROUP) -> int:
    """Return the cores that the machine, the scheduler, the container and its run leave to this process, 1 at least.

    Args:
        cgroup: where the limits of the container lie.

    >>> available() >= 1
    True
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):  # version 2: "max 100000" or "150000 100000", in microseconds
        quota, period = (cgroup / "cpu.max").read_text().split()
        cores = min(cores, math.ceil(int(quota) / int(period)))
    with contextlib.suppress(OSError, ValueError):  # version 1: -1 is no limit
        quota, period = ((cgroup / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        if int(quota) > 0:
            cores = min(cores, math.ceil(int(quota) / int(period)))
    with contextlib.suppress(ValueError):
        cores = min(cores, int(os.environ.get(SHARE, "")))
    return max(cores, 1)
