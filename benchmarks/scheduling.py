"""The scheduler at a million calls, and what a call costs besides its own work."""

from __future__ import annotations

import contextlib
import heapq
import importlib.util
import itertools
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from benchmarks._measure import Result, summarize
from benchmarks._silent import Silent
from sharedlabel import grid
from sharedlabel.config import parse
from sharedlabel.files.claims import Claims
from sharedlabel.grid.calls import job
from sharedlabel.grid.driver import Run
from sharedlabel.grid.executors.base import Ended
from sharedlabel.grid.executors.local import Local
from sharedlabel.grid.executors.ray import Ray
from sharedlabel.grid.jobs import Call, Outcome
from sharedlabel.grid.nodes import Node
from sharedlabel.store import Store

CALL, MEMORY, IDLE = 1.0, 64.0, 1.05  # ms a call; MiB; time of a run, in shares of the least possible
LOCAL, RAY = 20.0, 50.0  # ms besides its own work
MACHINES, WORKERS = 125, 8  # of the simulated cluster, and of each machine
SECONDS = {"dense": 1000.0, "prune": 600.0, "features": 20.0, "calibrate": 1.0, "aggregate": 60.0, "evaluate": 5.0}
TINY = (
    "--data={name: gaussian, classes: 3, dim: 4, instances_per_class: 48, label: tiny}",
    "--backbones=[{name: mlp, label: mlp, widths: [8]}]",
    "--pruners=[magnitude]",
    "--ratios=[1, 2]",
    "--aggregators=[mean_vote, log_pool, max_vote, majority_vote]",
    "--comparison.reference=log_pool",
    "--dense.epochs=0",
    "--retrain.epochs=0",
    "--evaluation.n=[1]",
    "--evaluation.partitions=1",
    "--margin.epsilons=[]",
    "--adaptive.rules=[]",
    "--latency.repeats=1",
    "--latency.batches=[1]",
    "--tracking=none",
)


def run(quick: bool) -> list[Result]:
    """Simulate a large grid on a large cluster, then compute a small one for real, on a worker and on Ray."""
    results = list(_simulated(2 if quick else 90))
    results.append(_overhead("a worker process", LOCAL, 1 if quick else 8, "local"))
    if importlib.util.find_spec("ray") is not None:
        results.append(_overhead("a worker of Ray", RAY, 1 if quick else 8, "ray"))
    return results


def _nodes(chains: int) -> Iterator[Any]:
    """Yield calls as a grid of so many dense networks has them: 100 pruned networks each, 18 aggregators on each."""
    numbers = itertools.count()

    def node(stage: str, *inputs: Node) -> Node:
        config = SimpleNamespace(epochs=float(stage in ("dense", "prune")))
        made = Node(stage, config, tuple((str(at), one) for at, one in enumerate(inputs)), "data")
        key = f"{next(numbers):064x}"
        made.__dict__.update(key=key, call=Call(stage, key, config, {}, "data", {}))
        return made

    for _ in range(chains):
        yield (dense := node("dense"))
        for _ in range(100):
            yield (pruned := node("prune", dense))
            yield (features := node("features", pruned))
            yield (calibrated := node("calibrate", features))
            for _ in range(54):  # 18 aggregators, three protocols
                yield (fitted := node("aggregate", features, calibrated))
                yield node("evaluate", fitted)


class _Store:
    """What has been computed, a byte for each call; claims are made in a real folder."""

    def __init__(self, root: Path, calls: int) -> None:
        self.root, self.done = root, bytearray(calls)

    def has(self, stage: str, key: str) -> bool:
        """Tell whether a call is done."""
        del stage
        return bool(self.done[int(key, 16)])

    def among(self, calls: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
        """Return those of some calls that are done."""
        return {(stage, key) for stage, key in calls if self.has(stage, key)}

    def claims(self) -> Claims:
        """Return claims in the folder."""
        return Claims(self.root)

    def writing(self, what: str) -> contextlib.AbstractContextManager[None]:
        """Writing never fails."""
        del what
        return contextlib.nullcontext()


@dataclass
class _Cluster:
    """Workers whose calls take the time that is written above, on a clock of their own."""

    store: _Store
    now: float = 0.0
    worked: float = 0.0
    ends: int = 0
    memory: list[float] = field(default_factory=list)  # MiB, twenty times in a run

    def __post_init__(self) -> None:
        self._free = list(range(MACHINES * WORKERS))
        self._ends: list[tuple[float, int, Any]] = []

    def __enter__(self) -> _Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def free(self) -> Sequence[int]:
        """Return the idle workers."""
        return tuple(self._free)

    def place(self, worker: int) -> int:
        """Return the machine of a worker."""
        return worker // WORKERS

    def start(self, worker: int, calls: tuple[Any, ...]) -> None:
        """Let a worker be busy."""
        (call,) = calls
        self._free.remove(worker)
        self.worked += SECONDS[call.stage]
        heapq.heappush(self._ends, (self.now + SECONDS[call.stage], worker, call))

    def ended(self, seconds: float | None) -> list[Any]:
        """Advance the clock to the next end."""
        del seconds
        self.now, worker, call = heapq.heappop(self._ends)
        self._free.append(worker)
        self.store.done[int(call.key, 16)] = True
        self.ends += 1
        if self.ends % (len(self.store.done) // 20) == 0:
            self.memory.append(_resident())
        return [Ended(worker, call, Outcome(SECONDS[call.stage]))]


def _simulated(chains: int) -> Iterator[Result]:
    nodes = list(_nodes(chains))
    with tempfile.TemporaryDirectory() as folder:
        store = _Store(Path(folder), len(nodes))
        cluster = _Cluster(store)
        started = time.process_time()
        with Run(cast("Any", store), cast("Any", cluster), Silent()) as run:
            run.compute(nodes)
        spent = time.process_time() - started
    if not all(store.done):
        raise RuntimeError(f"expected {len(nodes)} calls to be computed, got {sum(store.done)}")
    of = f"{len(nodes):,} calls on {MACHINES * WORKERS:,} simulated workers of {MACHINES} machines"
    each = 1e3 * spent / len(nodes)
    yield summarize("scheduling: processor time of the driver, a call", "ms", [each], bound=CALL, note=of)
    first, *later = cluster.memory
    yield summarize(
        "scheduling: growth of memory after the first twentieth of the calls",
        "MiB",
        [max(later) - first],
        bound=MEMORY,
        note=f"{of}; {first:.0f} MiB with all calls then",
    )
    least = max(cluster.worked / (MACHINES * WORKERS), SECONDS["dense"] + SECONDS["prune"])
    yield summarize(
        "scheduling: time of the run / the least that so many workers need",
        "x",
        [cluster.now / least],
        bound=IDLE,
        note=f"{of}; {cluster.now / 3600:.1f} hours by the simulated clock",
    )


def _resident() -> float:
    """Return the MiB of memory that this process has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def _overhead(where: str, bound: float, seeds: int, executor: str) -> Result:
    """Return what a call costs on one worker besides what it takes itself, all stages of a small grid together."""
    each: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        options = [f"--output={folder}", f"--data_root={folder}", f"--seeds={list(range(seeds))}"]
        prepared = grid.prepare(parse([*TINY, *options])[0])
        store = Store(Path(folder) / "store")
        made = (
            Local(job(prepared), prepared.experiment, store.root, [{}], 1)
            if executor == "local"
            else Ray(job(prepared), prepared.experiment, store.root, {"CPU": float(os.cpu_count() or 1)})
        )
        calls = [node for node in grid.missing(prepared, store) if node.stage != "latency"]
        chains = [node for node in calls if node.stage in ("dense", "prune", "features", "calibrate")]
        times: list[float] = []

        class Noted(Silent):
            def __call__(self, node: Any, seconds: float | None, worker: int = 0) -> None:
                del node, worker
                if seconds is not None:
                    times.append(seconds)

        with Run(store, made, Noted()) as run:
            run.compute(chains)  # from here on the worker has imported everything
            times.clear()
            began = time.perf_counter()
            run.compute(calls)
            elapsed = time.perf_counter() - began
        each = [1e3 * (elapsed - sum(times)) / len(times)]
    note = f"{len(times)} calls, {1e3 * statistics.fmean(times):.0f} ms each besides; claims, pickles, progress"
    return summarize(f"scheduling: added to a call by {where}", "ms", each, bound=bound, note=note)
