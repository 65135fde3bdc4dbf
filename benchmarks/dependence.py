"""Relative information by strength of dependence: a grid for every value of one option, one table and one plot of all.

`python -m benchmarks.dependence --config FILE --option data.nuisance --values '[0, 0.5, 1]'` runs what
`sharedlabel.train` does with the same further arguments, once for each value and in one store. `dependence.csv` and
`dependence.svg` land in the folder that the configuration names.
"""

from __future__ import annotations

import argparse
import csv
import math
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import yaml

from benchmarks import evidence
from benchmarks._measure import Result, python
from sharedlabel import train
from sharedlabel.config import parse
from sharedlabel.config.names import EXACT
from sharedlabel.errors import ConfigError, TrainingError, guarded
from sharedlabel.files import together
from sharedlabel.grid import Grid, prepare
from sharedlabel.grid.plan import print_plan
from sharedlabel.records import Results, to_csv
from sharedlabel.report.charts import axes
from sharedlabel.report.charts.figure import Figure, Panel, Series
from sharedlabel.report.charts.figure import Point as Dot
from sharedlabel.report.charts.marks import Palette
from sharedlabel.report.charts.svg import file_svg
from sharedlabel.report.figures._parts import panel_ns
from sharedlabel.report.terminal import open_console
from sharedlabel.report.views import shortfall
from sharedlabel.store import Store, of

FILES = ("dependence.csv", "dependence.svg")
QUICK = ("--data.instances_per_class=96", "--aggregators=[log_pool]", "--dense.epochs=1", "--retrain.epochs=1")
GRID = (
    "--name=dependence",
    "--data={name: gaussian, dim: 8, separation: 2.5, instances_per_class: 480, group_size: 8}",
    "--backbones=[{name: mlp, label: mlp, widths: [64]}]",
    "--ratios=[1]",
    "--aggregators=[log_pool, tempered_log_pool, residual_lstm]",
    "--evaluation={n: [1, 4], protocols: [iid, grouped], partitions: 5}",
    "--tracking=none",
)
_APART = {"name", "output", "data_root", "tracking", "project"}  # sections that no number depends on
Place = tuple[str, str, float, str]  # backbone, pruner, ratio, protocol


@dataclass(frozen=True)
class Point:
    """One method at one value of the option, on test, over its seeds; the columns are those of `results.Summary`."""

    value: float
    backbone: str
    pruner: str
    ratio: float
    aggregator: str
    training: str
    protocol: str
    n: int
    n_accuracy: float
    n_accuracy_low: float
    n_accuracy_high: float
    ri: float
    ri_low: float
    ri_high: float
    seeds: int

    @property
    def method(self) -> str:
        """The aggregator and, when it is not the default, its training."""
        return self.aggregator if self.training == "frozen" else f"{self.aggregator} ({self.training})"

    @property
    def place(self) -> Place:
        """The network and the protocol."""
        return self.backbone, self.pruner, self.ratio, self.protocol


def run(quick: bool) -> list[Result]:
    """Sweep the offset that instances of a group share; tell what it costs the log-pool on tuples of one group."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = [*GRID, *(QUICK if quick else ()), f"--output={folder}/runs", f"--data_root={folder}/data"]
        sweep = ["-m", "benchmarks.dependence", "--option=data.nuisance", "--values=[0, 1]", *arguments]
        taken, _ = python(sweep, Path(folder))
        with (Path(folder) / "runs" / "dependence" / FILES[0]).open() as file:
            rows = [row for row in csv.DictReader(file) if (row["aggregator"], row["n"]) == ("log_pool", "4")]
    ri = {float(row["value"]): float(row["ri"]) for row in rows if row["protocol"] == "grouped"}
    lost = ri[0.0] - ri[1.0]
    note = f"Gaussian classes, n = 4, log-pool; RI {ri[0.0]:.3f} without and {ri[1.0]:.3f} with it; {taken:.0f} s"
    return [Result("dependence: RI lost when instances of a tuple share an offset", lost, "", lost, lost, note=note)]


def grids(option: str, values: Sequence[float], arguments: Sequence[str]) -> Iterator[tuple[float, Grid, Store]]:
    """Yield the grid of every value of an option, and the store that all of them share.

    Args:
        option: its dotted name.
        values: in the order of their runs.
        arguments: those of `sharedlabel.train`.

    Raises:
        ConfigError: an option or a value that a grid cannot have.
    """
    if option.partition(".")[0] in _APART:
        raise ConfigError(f"--option: {option} changes no result; choose an option of the data, such as data.nuisance")
    for value in values:
        suffix = re.sub(r"[^A-Za-z0-9.-]", "", f"{option.rpartition('.')[2]}-{value!r}")
        given = [*arguments, f"--{option}={value!r}", f"--name={parse(arguments)[0].name}-{suffix}"]
        experiment = parse(given)[0]
        yield value, prepare(experiment), of(experiment)


def sweep(option: str, values: Sequence[float], arguments: Sequence[str]) -> list[Point]:
    """Run a grid for every value of an option; the arguments are those of `grids`.

    Raises:
        SharedLabelError: a run that fails.
    """
    points: list[Point] = []
    for value, grid, store in grids(option, values, arguments):
        console = open_console()
        console.print(f"{grid.experiment.name}: {option} = {value!r}", highlight=False)
        results = train.run(grid, store, console)
        if results.failures:
            raise TrainingError(f"{option} = {value!r}: {shortfall(results)}")
        points += _points(value, results)
    return points


def tables(option: str, points: Sequence[Point]) -> Iterator[str]:
    """Yield RI by value of the option as Markdown, a table per network and protocol at the largest n."""
    n, values = max(point.n for point in points), sorted({point.value for point in points})
    for place in dict.fromkeys(point.place for point in points if point.aggregator != EXACT):
        own = {(point.method, point.value): point for point in points if point.n == n and _shown(point, place)}
        lines = [f"**RI at n = {n}, {_title(place)}**", ""]
        lines += evidence.header([f"{option} =", *(f"{value:g}" for value in values)])
        for method in sorted({method for method, _ in own}):
            lines.append(evidence.line([method, *(_interval(own.get((method, value))) for value in values)]))
        yield "\n".join(lines)


def _interval(point: Point | None) -> str:
    return "" if point is None else f"{point.ri:.3f} [{point.ri_low:.3f}, {point.ri_high:.3f}]"


def _points(value: float, results: Results) -> Iterator[Point]:
    columns = [item.name for item in fields(Point) if item.name != "value"]
    for summary in results.summaries:
        if summary.split == "test":
            yield Point(value, **{column: getattr(summary, column) for column in columns})


def plot(option: str, points: Sequence[Point]) -> str:
    """Draw RI against the option as SVG: a panel per network, protocol and n, a line per method.

    The exact posterior of synthetic data uses no network and is drawn for all.
    """
    return file_svg(_figure(option, points), f"Relative information against {option}")


def _figure(option: str, points: Sequence[Point]) -> Figure:
    palette = Palette(sorted({point.aggregator for point in points}))
    ns, values = panel_ns(sorted({point.n for point in points})), sorted({point.value for point in points})
    growing = values[0] > 0 and values[-1] >= 4 * values[0]  # by factors
    x = axes.powers(option, values) if growing else axes.linear(option, values)
    panels = []
    for place in dict.fromkeys(point.place for point in points):
        for n in ns:
            own = [point for point in points if point.n == n and _shown(point, place)]
            y = axes.stretched("RI", [end for p in own for end in (p.ri, p.ri_low, p.ri_high)])
            panels.append(Panel(f"n = {n}, {_title(place)}", x, y, tuple(_lines(own, palette)), width=300))
    seeds = max(point.seeds for point in points)
    legend = {series.name: series.mark for panel in panels for series in panel.series}
    about = f"test, {seeds} seed{'s' * (seeds > 1)}, bands: 95% intervals"
    return Figure(about, tuple(panels), tuple(sorted(legend.items(), key=lambda one: one[0])))


def _title(place: Place) -> str:
    backbone, pruner, ratio, protocol = place
    return f"{backbone}, {evidence.network(pruner, ratio)}, {protocol}"


def _shown(point: Point, place: Place) -> bool:
    return point.place == place or (point.aggregator == EXACT and point.protocol == place[-1])


def _lines(points: Sequence[Point], palette: Palette) -> Iterator[Series]:
    """Yield a line per method."""
    lines: dict[str, list[Point]] = {}
    for point in sorted(points, key=lambda point: point.value):
        lines.setdefault(point.method, []).append(point)
    for name in sorted(lines):
        drawn = (
            Dot(p.value, p.ri, f"{name}, {p.value:g}: RI {_interval(p)}", p.ri_low, p.ri_high) for p in lines[name]
        )
        yield Series(name, palette[lines[name][0].aggregator], tuple(drawn), spread="band")


def _numbers(text: str) -> list[float]:
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError:
        values = None
    numbers = isinstance(values, list) and all(
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) for value in values
    )
    if not numbers or not values or len(set(values)) < len(values):
        raise ConfigError(f"--values: expected a list of different numbers such as '[0, 0.5, 1]', got {text!r}")
    return list(values)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 0, or 2 for what the user can fix."""
    return guarded(lambda: _main(arguments))


def _main(arguments: Sequence[str] | None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dependence", description=__doc__, allow_abbrev=False)
    parser.add_argument("--option", required=True, help="dotted name of the option that sets the strength")
    parser.add_argument("--values", required=True, help="its values, such as '[0, 0.5, 1]'")
    chosen, passed = parser.parse_known_args(arguments)
    values = _numbers(chosen.values)
    experiment, switches = parse(passed)
    if switches.plan:
        for _, grid, store in grids(chosen.option, values, passed):
            print_plan(grid, store, open_console())
        return
    points = sweep(chosen.option, values, passed)
    for text in tables(chosen.option, points):
        print(text, end="\n\n")
    folder = Path(experiment.output).expanduser() / experiment.name
    made = (to_csv(Point, points), plot(chosen.option, points))
    together.replace(folder, dict(zip(FILES, made, strict=True)))
    for name in FILES:
        print(folder / name)


if __name__ == "__main__":
    sys.exit(main())
