"""More machines, more cells, more calls: what each costs a run besides the calls themselves."""

from __future__ import annotations

import importlib.util
import json
import statistics
import tempfile
from typing import Any

from benchmarks._measure import ROOT, Result, Times, python, summarize

STRONG, WEAK = 0.8, 0.8  # efficiency at the most machines
START, MORE = 2.0, 5.0  # seconds of a second run beyond `import torch`; and more where there are thousands of cells
WORKER, GROWTH = 256.0, 32.0  # MiB
PUBLISHING = 0.1  # seconds a cell
# Every stage of the default experiment, and as many cells; what its networks have learned does not count here.
DEFAULT = ("--evaluation.partitions=2", "--dense.epochs=1", "--retrain.epochs=1", "--fit.epochs=1", "--tracking=none")
SMALL = (
    "--pruners=[magnitude]",
    "--ratios=[1, 8]",
    "--aggregators=[mean_vote, log_pool, lstm]",
    "--comparison.reference=log_pool",
    "--dense.epochs=1",
    "--retrain.epochs=1",
    "--fit.epochs=2",
    "--tracking=offline",
)
STEPS = ("import torch", "laying out", "looking", "collecting")


def run(quick: bool) -> list[Result]:
    """Scale to several machines, resume a small and a large grid, and watch the memory of a small one."""
    results = []
    if importlib.util.find_spec("ray") is not None:
        results += _machines(0.05 if quick else 0.5, 2 if quick else 8, (1, 2) if quick else (1, 2, 4))
    return [*results, *_resumed(2 if quick else 90, 1 if quick else 3), *_small(2 if quick else 8)]


def _machines(seconds: float, each: int, machines: tuple[int, ...]) -> list[Result]:
    """Give calls that wait to simulated machines with room for one each: so two cores can show four of them."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["-m", "benchmarks._sleeping_child", folder, str(seconds), str(each), *map(str, machines)]
        taken = _told(arguments, folder)
    one, most = taken["1"], machines[-1]
    results = []
    for at, kind, bound, calls in (
        (0, "strong", STRONG, f"{each * most} calls"),
        (1, "weak", WEAK, f"{each} calls for each machine"),
    ):
        shares = {count: one[at] / taken[str(count)][at] / (count if at == 0 else 1) for count in machines}
        measured = ", ".join(f"{shares[count]:.2f} at {count} ({taken[str(count)][at]:.1f} s)" for count in machines)
        what = f"scaling: {kind}, efficiency on {most} machines of Ray"
        note = f"{calls} that wait {seconds:g} s and store an empty output: {measured}; machines are simulated"
        results.append(summarize(what, "", [shares[most]], bound=bound, better="at least", note=note))
    return results


def _resumed(seeds: int, rounds: int) -> list[Result]:
    """Time second runs of the default grid with one seed and with many, whose artifacts are copies of the first's."""
    with tempfile.TemporaryDirectory() as folder:
        options = [*DEFAULT, f"--output={folder}", f"--data_root={folder}"]
        many = [*options, f"--seeds={list(range(seeds))}"]
        _run(["-m", "sharedlabel.train", *options], folder)
        few = [_told(["-m", "benchmarks._resume_child", *options], folder) for _ in range(rounds)]
        _, calls = _run(["-m", "benchmarks._copied", *many], folder)
        first, _ = _run(["-m", "sharedlabel.train", *many], folder)
        thousands = [_told(["-m", "benchmarks._resume_child", *many], folder) for _ in range(rounds)]
    cells = thousands[0]["cells"]
    small = f"scaling: a run of {few[0]['cells']:,.0f} finished cells, beyond import torch"
    large = f"scaling: a run of {cells:,.0f} finished cells, beyond that"
    beyond = [one["in all"] - one["import torch"] for one in few]
    more = [one["in all"] - one["import torch"] - statistics.median(beyond) for one in thousands]
    report = f"{int(calls):,} calls, those of all seeds but one copies; one run, time on the wall"
    return [
        summarize(small, "s", _times(beyond, few), bound=START, note=_steps(few)),
        summarize(large, "s", _times(more, thousands), bound=MORE, note=_steps(thousands)),
        summarize(f"scaling: first report of {cells:,.0f} finished cells", "s", [first], note=report),
    ]


def _times(values: list[float], runs: list[dict[str, Any]]) -> Times:
    return Times(values, statistics.median(one["wall"] / one["in all"] for one in runs))


def _steps(runs: list[dict[str, Any]]) -> str:
    """Say what the steps of a second run took."""
    medians = {step: statistics.median(one.get(step, 0.0) for one in runs) for step in (*STEPS, "in all")}
    rest = medians["in all"] - sum(medians[step] for step in STEPS)
    parts = ", ".join(f"{step} {medians[step]:.2f} s" for step in STEPS)
    return f"processor time; {medians['in all']:.1f} s in all: {parts}, other imports and printing {rest:.2f} s"


def _small(seeds: int) -> list[Result]:
    """Watch the memory of two workers and of the driver over the calls of a small grid, and publish its cells."""
    with tempfile.TemporaryDirectory() as folder:
        facts = _told(["-m", "benchmarks._grid_child", folder, str(seeds), *SMALL], folder)
    workers, driver = facts["workers"], facts["driver"]
    of = f"{len(driver)} calls of {facts['cells']} cells"
    late = [max(one[len(one) // 2 :]) - one[len(one) // 2] for one in workers]
    grown = max(driver[len(driver) // 2 :]) - driver[len(driver) // 2]
    halves = f"in the second half of {of}"
    return [
        summarize(
            "scaling: private memory of a worker after the last call",
            "MiB",
            [one[-1] for one in workers],
            bound=WORKER,
            note=f"two workers, {of}; {statistics.median(one[0] for one in workers):.0f} MiB after the first",
        ),
        summarize("scaling: growth of a worker", "MiB", late, bound=GROWTH, note=halves),
        summarize(
            "scaling: growth of the driver",
            "MiB",
            [grown],
            bound=GROWTH,
            note=f"{halves}; {driver[0]:.0f} MiB after the first, {driver[-1]:.0f} after the last",
        ),
        summarize(
            "scaling: a cell's offline run of W&B",
            "s",
            [facts["publishing"]],
            bound=PUBLISHING,
            note=f"median of {facts['cells']} cells but the first; reading their rows included",
        ),
    ]


def _run(arguments: list[str], folder: str) -> tuple[float, str]:
    """Run Python with a cache of its own: what it notes of a store has to be gone with it."""
    return python(arguments, ROOT, {"SHAREDLABEL_CACHE": f"{folder}/cache"})


def _told(arguments: list[str], folder: str) -> dict[str, Any]:
    """Run Python and return what its last line says."""
    seconds, output = _run(arguments, folder)
    told: dict[str, Any] = json.loads(output.strip().splitlines()[-1])
    return {**told, "wall": seconds}
