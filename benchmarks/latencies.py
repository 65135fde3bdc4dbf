"""`python -m benchmarks.latencies --data FOLDER`: measure the speed of the published networks again.

Speed depends on the shapes of layers, not on values, and nothing but removal chooses shapes by what training found. So
the dense network of every published grid is trained as published (same configuration, seeds and images), pruned by the
methods below, and not retrained, which changes no shape. Of the masks one is measured: none of them changes what dense
kernels compute. For butterfly layers and masks that are drawn before training, nothing is trained at all.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from sharedlabel.config import parse
from sharedlabel.errors import ConfigError, guarded
from sharedlabel.files import together
from sharedlabel.grid import Cell, Grid, Node, prepare, run_node
from sharedlabel.grid.words import describe
from sharedlabel.machine import provenance
from sharedlabel.records import AXES, to_csv
from sharedlabel.records.measurements import Latency
from sharedlabel.report.charts.marks import Palette
from sharedlabel.report.charts.svg import file_svg
from sharedlabel.report.figures import speedup
from sharedlabel.report.views import View
from sharedlabel.stages import STAGES, Finished
from sharedlabel.store import Store, of

ROOT = Path(__file__).resolve().parent.parent
MASKS = " (masks)"
MASK = f"{{name: magnitude, label: magnitude{MASKS}}}"
INITIAL = f"{{name: magnitude, label: magnitude at init{MASKS}, schedule: initial}}"
REMOVAL = "unit, filter_l1, apoz, pfp, greedy_forward"
DIGITS = 5  # significant ones


@dataclass(frozen=True)
class Published:
    """A part of a published grid, and what of it is measured.

    Attributes:
        data: file of its images below the given folder; empty for data that comes with the package.
        arguments: what differs from its configuration.
    """

    data: str
    arguments: tuple[str, ...]


UNTRAINED = "--dense.epochs=0"  # for what is drawn before any training
GRIDS = {
    "compressors-mnist": (
        Published("mnist-png.zip", (f"--pruners=[{MASK}, {REMOVAL}]",)),
        Published("mnist-png.zip", ("--pruners=[butterfly]", UNTRAINED)),
    ),
    "compressors-cifar10": (Published("cifar10-jpeg.zip", (f"--pruners=[{MASK}, {REMOVAL}]",)),),
    "compressors-cifar10-mlp": (
        Published("cifar10-jpeg.zip", (f"--pruners=[{MASK}, unit]",)),
        Published("cifar10-jpeg.zip", ("--pruners=[butterfly]", UNTRAINED)),
    ),
    "compressors-init": (Published("", (f"--pruners=[{INITIAL}]", "--ratios=[1, 10]", UNTRAINED)),),
}
QUICK = {
    "quick": (
        Published(
            "", ("--pruners=[unit]", "--ratios=[1, 4]", "--seeds=[0]", "--dense.epochs=1", "--latency.repeats=3")
        ),
    )
}
# Aggregators and margins take no part in it.
_ALWAYS = ("--aggregators=[log_pool]", "--retrain.epochs=0", "--margin.epsilons=[]", "--tracking=none")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 0, or 2 for what the user can fix."""
    return guarded(lambda: _main(arguments))


def _main(arguments: Sequence[str] | None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.latencies", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path(), help="folder of mnist-png.zip and cifar10-jpeg.zip")
    parser.add_argument("--only", action="append", choices=GRIDS, help="one of the grids; repeatable")
    parser.add_argument("--work", type=Path, default=Path("runs"), help="folder that keeps trained networks")
    parser.add_argument("--out", type=Path, default=Path("docs/results/latencies"), help="folder of the results")
    parser.add_argument("--prepare", action="store_true", help="train and prune only; a later call then only measures")
    parser.add_argument("--quick", action="store_true", help="one tiny grid of handwritten digits, to try the command")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    wanted = QUICK if chosen.quick else {name: GRIDS[name] for name in chosen.only or GRIDS}
    with tempfile.TemporaryDirectory() as folder:
        work, out = (Path(folder), Path(folder)) if chosen.quick else (chosen.work, chosen.out)
        out.mkdir(parents=True, exist_ok=True)
        for name, parts in wanted.items():
            networks = [prepared(name, part, chosen.data, work) for part in parts]
            if chosen.prepare:
                continue
            records = list(itertools.chain.from_iterable(measured(*part) for part in networks))
            text = "\n".join(page(name, records, before(name)))
            made = {"csv": to_csv(Latency, records, DIGITS), "md": f"{text}\n", "svg": figure(records)}
            together.replace(out, {f"{name}.{kind}": content for kind, content in made.items()})
            print(text, end="\n\n")


def prepared(name: str, published: Published, data: Path, work: Path) -> tuple[Grid, Store]:
    """Train and prune the networks of a grid as far as they are not stored.

    Args:
        name: of its configuration.
        published: what of it is measured.
        data: folder of the images.
        work: folder of the store.

    Raises:
        SharedLabelError: images that are not there, or another mistake in the configuration.
    """
    grid = prepare(parse(_arguments(name, published, data, work))[0])
    store = of(grid.experiment)
    with store.at_work(False, _waiting):
        for cell in grid.cells:
            for _, needed in cell.latency.inputs:
                run_node(needed, grid, store, _told)
    return grid, store


def measured(grid: Grid, store: Store) -> list[Latency]:
    """Time every network of a grid that is prepared, while no run with the same store is at work on this machine."""
    with store.at_work(True, _waiting):
        cells = {cell.latency.key: cell for cell in grid.cells}.values()
        return [record for cell in cells for record in _timed(cell, grid, store)]


def _arguments(name: str, published: Published, data: Path, work: Path) -> list[str]:
    given = [] if name in QUICK else [f"--config={ROOT / 'configs' / name}.yaml"]
    if published.data:
        images = data / published.data
        if not images.exists():
            raise ConfigError(f"--data: expected {published.data} in {data}, got none; give the folder that holds it")
        given.append(f"--data={{name: imagefolder, path: {images}, label: {images.stem}}}")
    return [*given, *_ALWAYS, *published.arguments, f"--output={work / 'latencies'}"]


def _timed(cell: Cell, grid: Grid, store: Store) -> Iterator[Latency]:
    """Yield the times of one network, measured now, whatever is stored."""
    node = cell.latency
    inputs = {role: store.load(needed.stage, needed.key) for role, needed in node.inputs}
    _told(node, None)
    stage = STAGES[node.stage]
    output = stage.run(node.config, grid.data_by_key[node.data_key], inputs, grid.experiment.trainer)
    columns = {"data": grid.data.dataset.name, **{axis: getattr(cell, axis) for axis in AXES}}
    counted = run_node(cell.ends["counts"], grid, store, _told)
    facts = {"latency": output.meta, "counts": counted.meta}
    yield from stage.records(Finished(columns, node.config, node.key, facts, first_seed=True))


def _told(node: Node, seconds: float | None) -> None:
    if seconds is None:
        print(describe(node), file=sys.stderr, flush=True)


def _waiting() -> None:
    print("waiting for other runs of this store", file=sys.stderr, flush=True)


def before(name: str) -> dict[tuple[str, float, int], float]:
    """Return the published speedups by pruner, ratio and batch, means over seeds; empty where none were published."""
    path = ROOT / "docs" / "results" / name / "latencies.csv"
    speedups: dict[tuple[str, float, int], list[float]] = {}
    if path.exists():
        with path.open() as file:
            for row in csv.DictReader(file):
                key = row["pruner"].removesuffix(MASKS), float(row["ratio"]), int(row["batch"])
                speedups.setdefault(key, []).append(float(row["measured_speedup"]))
    return {key: statistics.fmean(values) for key, values in speedups.items()}


def page(name: str, records: Sequence[Latency], published: dict[tuple[str, float, int], float]) -> Iterator[str]:
    """Write the speedups of a grid as a table, with what was published before, and how they were measured."""
    batches = sorted({record.batch for record in records})
    networks = list(dict.fromkeys((record.pruner, record.ratio) for record in records))
    facts = provenance.collect("cpu")
    busy = [record for record in records if record.measured_contended]
    loads = [record.measured_load for record in records if record.measured_load is not None]
    yield f"**{name}**: speedup over the dense network, mean of {len({r.seed for r in records})} seeds"
    yield ""
    yield (
        f"{datetime.now(UTC):%Y-%m-%d}, commit {facts['commit'] or 'unknown'}, {facts['processor']}, {facts['cores']} "
        f"cores, {facts['threads']} thread, torch {facts['torch']}; processor time; load "
        f"{min(loads, default=0.0):.2f} to {max(loads, default=0.0):.2f}; {len(busy)} of {len(records)} measurements "
        "on a busy machine (marked *). In brackets: what was published before."
    )
    yield ""
    yield _line(["method", "ratio", "theoretical", *(f"batch {batch}" for batch in batches)])
    yield _line(["---"] * (3 + len(batches)))
    for pruner, ratio in networks:
        own = [record for record in records if (record.pruner, record.ratio) == (pruner, ratio)]
        theory = statistics.fmean(record.theoretical_speedup for record in own)
        label, old, value = ("dense, ms", {}, _milliseconds) if ratio == 1 else (pruner, published, _speedup)
        cells = (_cell([record for record in own if record.batch == batch], old, value) for batch in batches)
        yield _line([label, f"{ratio:g}x", f"{theory:.1f}", *cells])


def _speedup(record: Latency) -> float:
    return record.measured_speedup


def _milliseconds(record: Latency) -> float:
    return record.measured_median_ms


def _cell(
    records: Sequence[Latency],
    published: dict[tuple[str, float, int], float],
    value: Callable[[Latency], float],
) -> str:
    some = records[0]
    old = published.get((some.pruner.removesuffix(MASKS), some.ratio, some.batch))
    mark = "*" if any(record.measured_contended for record in records) else ""
    return f"{statistics.fmean(map(value, records)):.3g}{mark}" + ("" if old is None else f" ({old:.2f})")


def figure(records: Sequence[Latency]) -> str:
    """Draw the figure of a report for networks of one backbone, as SVG."""
    nothing: dict[str, Any] = dict.fromkeys(("rows", "summaries", "comparisons", "sweet_spots", "reliability"), ())
    some = records[0]
    view = View(data=some.data, backbone=some.backbone, protocol="iid", latencies=tuple(records), **nothing)
    drawn = speedup.draw(view, Palette(view.pruners))
    assert drawn is not None
    return file_svg(drawn, speedup.HEADING)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
