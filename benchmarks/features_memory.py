"""Memory of the features stage at 1x and at 10x the images."""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks._measure import ROOT, Result, summarize

BOUND = 1.3
# MiB that may come on top: index arrays, labels, and the allocator's slack.
CONSTANT = 32.0
SHAPE = (3, 16, 16)
CHUNK = 10_000


def run(quick: bool) -> list[Result]:
    """Embed memory-mapped images in fresh processes and compare the growth of anonymous memory.

    The smaller set already fills several shards, so both sizes reach the stage's steady state. Anonymous memory
    (RssAnon) is what the process holds itself. Mapped pages of the image file are left out: they also count as
    resident, but the kernel drops them whenever memory is short.
    """
    if not Path("/proc/self/status").exists():
        raise RuntimeError("expected /proc/self/status to read memory from, got none; run this benchmark on Linux")
    images, rounds = (2_000, 1) if quick else (50_000, 5)
    small: list[float] = []
    large: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        files = [_images(Path(folder) / f"{times}.npy", times * images) for times in (1, 10)]
        for index in range(rounds):
            for growth, file in ((small, files[0]), (large, files[1])):
                growth.append(_growth(file, Path(folder) / f"{file.stem}-{index}"))
    note = (
        f"{images} and {10 * images} memory-mapped images of 16 x 16, MLP with 256-wide embeddings, real stage and "
        f"store: {statistics.median(small):.0f} and {statistics.median(large):.0f} MiB of anonymous memory above the "
        f"start of the stage (median of {rounds}); ratio is (10x growth - {CONSTANT:.0f} MiB) / 1x growth"
    )
    values = [(ten - CONSTANT) / one for one, ten in zip(small, large, strict=True)]
    return [summarize("features: memory at 10x the images", "x", values, bound=BOUND, note=note)]


def _images(path: Path, count: int) -> Path:
    """Write random images without holding them in memory."""
    random = np.random.default_rng(0)
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(count, *SHAPE))
    for start in range(0, count, CHUNK):
        part = array[start : start + CHUNK]
        part[:] = random.integers(0, 256, part.shape, dtype=np.uint8)
    array.flush()
    return path


def _growth(file: Path, store: Path) -> float:
    """Return the peak of a fresh process's anonymous memory above its value when the stage starts, in MiB."""
    arguments = [sys.executable, "-m", "benchmarks._features_child", str(file), str(store)]
    with subprocess.Popen(arguments, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
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
        raise RuntimeError(f"the features stage ended with code {child.returncode}; its error is above")
    return peak - start


def _anonymous(process: int) -> float:
    """Return the anonymous memory of a process in MiB; 0 once it has ended."""
    found = re.search(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    return int(found.group(1)) / 1024 if found else 0.0
