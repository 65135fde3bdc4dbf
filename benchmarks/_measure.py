"""What every benchmark shares: a result with its bound, timing side by side, and running a command."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Result:
    """One measured number.

    Attributes:
        what: what was measured.
        measured: the value that the verdict is about.
        unit: printed behind the value, such as `s`, `x` or `MiB`.
        low: smallest value of any round.
        high: largest value of any round.
        bound: the limit, in the same unit; None for information only.
        better: whether the value should be at least or at most the bound.
        note: sizes, method and absolute values.
    """

    what: str
    measured: float
    unit: str
    low: float
    high: float
    bound: float | None = None
    better: Literal["at least", "at most"] = "at most"
    note: str = ""

    @property
    def verdict(self) -> str:
        """`met`, `missed`, or `none` where there is no bound."""
        if self.bound is None:
            return "none"
        holds = self.measured >= self.bound if self.better == "at least" else self.measured <= self.bound
        return "met" if holds else "missed"

    def record(self) -> dict[str, Any]:
        """Return the result as JSON-able facts."""
        return {**asdict(self), "verdict": self.verdict}


def summarize(what: str, unit: str, values: Sequence[float], **rest: Any) -> Result:
    """Return a result whose value is the median of the rounds."""
    return Result(what, statistics.median(values), unit, min(values), max(values), **rest)


def seconds(call: Callable[[], object]) -> float:
    """Return the wall-clock seconds of one call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def interleaved(
    first: Callable[[], object], second: Callable[[], object], rounds: int
) -> tuple[list[float], list[float]]:
    """Time two calls side by side, after one call of each that is not counted.

    The order changes from round to round, so that neither always runs on the warmer machine.

    Returns:
        Seconds of the first and of the second call, one entry per round.
    """
    first()
    second()
    times: tuple[list[float], list[float]] = ([], [])
    for index in range(rounds):
        order = (0, 1) if index % 2 == 0 else (1, 0)
        for which in order:
            times[which].append(seconds((first, second)[which]))
    return times


def ratios(numerators: Sequence[float], denominators: Sequence[float]) -> list[float]:
    """Return the ratio of each round."""
    return [top / bottom for top, bottom in zip(numerators, denominators, strict=True)]


def python(arguments: Sequence[str], folder: Path) -> tuple[float, str]:
    """Run Python in a fresh process and return its seconds, start-up included, and its output.

    Args:
        arguments: what follows `python`.
        folder: working directory of the process.

    Raises:
        RuntimeError: the process failed; its output is in the message.
    """
    search = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": search},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    elapsed = time.perf_counter() - started
    if done.returncode:
        raise RuntimeError(f"python {' '.join(arguments)} ended with code {done.returncode}:\n{done.stdout[-4000:]}")
    return elapsed, done.stdout
