"""What every benchmark shares: a result with its bound, timing side by side, and running a command."""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from sharedlabel.measurements import timing

ROOT = Path(__file__).resolve().parent.parent


class Times(list[float]):
    """A number for every round, and how busy the machine was meanwhile.

    Args:
        values: seconds, or ratios of them.
        contention: time on the wall / processor time of the calling thread; None if it is unknown.
    """

    def __init__(self, values: Iterable[float], contention: float | None = None) -> None:
        super().__init__(values)
        self.contention = contention


def bytecode() -> bool:
    """Tell whether Python finds this package compiled; else every start of it compiles first, which takes seconds."""
    spec = importlib.util.find_spec("sharedlabel.config")
    return spec is not None and spec.cached is not None and Path(spec.cached).exists()


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
        contention: time on the wall / processor time while it was measured; None if it is unknown.
        load: load average of the machine over the minute before the result was there, the benchmark itself included.
        bytecode: whether the package lay there compiled.
    """

    what: str
    measured: float
    unit: str
    low: float
    high: float
    bound: float | None = None
    better: Literal["at least", "at most"] = "at most"
    note: str = ""
    contention: float | None = None
    load: float | None = field(default_factory=timing.load)
    bytecode: bool = field(default_factory=bytecode)

    @property
    def verdict(self) -> str:
        """`met`, `missed`, or `none` where there is no bound."""
        if self.bound is None:
            return "none"
        holds = self.measured >= self.bound if self.better == "at least" else self.measured <= self.bound
        return "met" if holds else "missed"

    @property
    def conditions(self) -> str:
        """Under which conditions it was measured."""
        parts = ["load unknown" if self.load is None else f"load {self.load:.2f}"]
        parts.append("byte code there" if self.bytecode else "no byte code")
        if self.contention is not None:
            busy = ": busy" if timing.contended(self.contention) else ""
            parts.append(f"{self.contention:.2f} times as long on the wall as on the processor{busy}")
        return ", ".join(parts)

    def record(self) -> dict[str, Any]:
        """Return the result as JSON-able facts."""
        return {**asdict(self), "verdict": self.verdict, "contended": timing.contended(self.contention)}


def summarize(what: str, unit: str, values: Sequence[float], **rest: Any) -> Result:
    """Return a result whose value is the median of the rounds."""
    if isinstance(values, Times):
        rest = {"contention": values.contention, **rest}
    return Result(what, statistics.median(values), unit, min(values), max(values), **rest)


def seconds(call: Callable[[], object], rounds: int = 1, clock: timing.Clock = timing.now) -> Times:
    """Return the wall-clock seconds of a call, one entry per round."""
    passes, _ = timing.block(call, rounds, cold=0, clock=clock)
    return _times([[one] for one in passes], "wall")


def interleaved(
    first: Callable[[], object],
    second: Callable[[], object],
    rounds: int,
    passes: int = 1,
    clock: timing.Clock = timing.now,
) -> tuple[Times, Times]:
    """Time two calls side by side, after one call of each that is not counted.

    The order changes from round to round, so that neither always runs on the warmer machine. Processor time is counted
    where one thread of a CPU does the work, time on the wall otherwise.

    Args:
        first: a call.
        second: another one.
        rounds: turns of each.
        passes: passes in a turn, of which the median counts; for short calls, which would find each other's data in the
            caches, so the first passes of a turn are left out then.
        clock: what the time is read from.

    Returns:
        Seconds of the first and of the second call, one entry per round.
    """
    calls = first, second
    for call in calls:
        call()
    cold = timing.COLD_PASSES if passes > 1 else 0
    taken: tuple[list[list[timing.Seconds]], ...] = ([], [])
    for index in range(rounds):
        order = (0, 1) if index % 2 == 0 else (1, 0)
        for which in order:
            taken[which].append(timing.block(calls[which], passes, cold, clock=clock)[0])
    kind = "cpu" if _one_thread() else "wall"
    return _times(taken[0], kind), _times(taken[1], kind)


def _times(turns: Sequence[Sequence[timing.Seconds]], kind: str) -> Times:
    """Return the median of every turn by one of the clocks."""
    medians = (statistics.median(getattr(one, kind) for one in turn) for turn in turns)
    return Times(medians, timing.contention(list(itertools.chain.from_iterable(turns))))


def _one_thread() -> bool:
    import torch  # noqa: PLC0415 - it takes seconds, and help should not wait for it

    return torch.get_num_threads() == 1 and not torch.cuda.is_available()


def ratios(numerators: Times, denominators: Times, scale: float = 1.0) -> Times:
    """Return the ratio of each round, times a constant."""
    known = [each.contention for each in (numerators, denominators) if each.contention is not None]
    values = (scale * top / bottom for top, bottom in zip(numerators, denominators, strict=True))
    return Times(values, max(known, default=None))


def results(name: str, quick: bool) -> list[Result]:
    """Run a benchmark and return what it measures.

    Args:
        name: of its module.
        quick: in a tiny size, to try the benchmark itself.
    """
    measured: list[Result] = importlib.import_module(f"benchmarks.{name}").run(quick)
    return measured


def python(arguments: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None) -> tuple[float, str]:
    """Run Python in a fresh process and return its seconds, start-up included, and what it printed.

    Args:
        arguments: what follows `python`.
        folder: working directory of the process.
        environment: variables to set besides those of this process.

    Raises:
        RuntimeError: the process failed; its output is in the message.
    """
    search = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, **(environment or {}), "PYTHONPATH": search},
        capture_output=True,  # apart: libraries have their say on stderr when a process ends
        text=True,
        check=False,
    )
    elapsed = time.perf_counter() - started
    if done.returncode:
        said = (done.stdout + done.stderr)[-4000:]
        raise RuntimeError(f"python {' '.join(arguments)} ended with code {done.returncode}:\n{said}")
    return elapsed, done.stdout
