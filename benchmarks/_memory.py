"""Peak memory of a process, watched from outside."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks._measure import ROOT


def growth(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> float:
    """Return the peak of a fresh process's anonymous memory above its value when it says that it is ready, in MiB.

    Anonymous memory (RssAnon) is what the process holds itself. Mapped pages of files are left out: they also count as
    resident, but the kernel drops them whenever memory is short.

    Args:
        arguments: what follows `python`; the process prints `ready`, waits for a line, works and ends.
        environment: variables to set besides those of this process.

    Raises:
        RuntimeError: the process failed, or the system does not tell its memory.
    """
    if not Path("/proc/self/status").exists():
        raise RuntimeError("expected /proc/self/status to read memory from, got none; run this benchmark on Linux")
    with subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        ready = child.stdout.readline()
        if ready != "ready\n":
            raise RuntimeError(f"expected the child to get ready, got {ready!r}; its error is above")
        start = peak = _anonymous(child.pid)
        child.stdin.write("go\n")
        child.stdin.flush()
        while child.poll() is None:
            peak = max(peak, _anonymous(child.pid))
            time.sleep(0.002)
    if child.returncode:
        raise RuntimeError(f"python {' '.join(arguments)} ended with code {child.returncode}; its error is above")
    return peak - start


def _anonymous(process: int) -> float:
    """Return the anonymous memory of a process in MiB; 0 once it has ended."""
    match = re.search(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    return int(match.group(1)) / 1024 if match else 0.0


def peak() -> float:
    """Return the most resident memory that this process has had since its program began, in MiB.

    `ru_maxrss` would count what the process that started it had, too.

    Raises:
        OSError: the system does not tell.
    """
    (kilobytes,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(kilobytes) / 1024


def private(process: int | str = "self") -> float:
    """Return the memory of a process that it shares with no other, in MiB: what ending it would give back.

    Args:
        process: its id.

    Raises:
        OSError: there is no such process, or the system does not tell its memory.
    """
    told = Path(f"/proc/{process}/smaps_rollup").read_text()
    return sum(int(kilobytes) for kilobytes in re.findall(r"Private_\w+:\s+(\d+) kB", told)) / 1024
