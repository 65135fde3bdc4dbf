"""What a dashboard of an experiment shows, as plain data that is checked against what its runs hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from sharedlabel.errors import TrackingError
from sharedlabel.records import Results, Row, SweetSpot
from sharedlabel.tracking import methods, runs
from sharedlabel.tracking.about import About, part
from sharedlabel.tracking.methods import BY_RATIO, rule_of
from sharedlabel.tracking.runs import STEP, Kind

# What a run of a training is asked for; Lightning and `training/loggers.py` log it.
TRAINING = (
    "train/loss",
    "validation/loss",
    "train/accuracy",
    "validation/accuracy",
    "train/learning_rate",
    "train/gradient_norm",
    "train/images_per_second",
)
_TITLES = {"ri": "Relative information", "n_accuracy": "N-accuracy"}


@dataclass(frozen=True)
class Panel:
    """One plot.

    Attributes:
        title: above it.
        kind: `line` draws the history of runs, `points` and `bars` single values of their summaries.
        of: the kind of runs that it draws.
        x: metric on the x-axis; of `points` a value of the summary, or of the configuration (`config.ratio`); of `bars`
            none.
        y: metrics that are drawn.
        ends: metrics that are the ends of intervals, drawn dotted in the colour of the method.
        log_x: whether the x-axis is logarithmic.
        group: the value of the configuration that runs are averaged by; empty for none.
    """

    title: str
    kind: Literal["line", "points", "bars"]
    of: Kind
    x: str
    y: tuple[str, ...]
    ends: tuple[str, ...] = ()
    log_x: bool = False
    group: str = ""

    def metrics(self) -> set[str]:
        """Return the names of all metrics that it asks for."""
        named = {self.x} if self.x and not self.x.startswith("config.") else set()
        return {*named, *self.y, *self.ends}


@dataclass(frozen=True)
class Section:
    """Plots that answer one question.

    Attributes:
        title: of the section.
        about: what it shows, in a sentence or two.
        of: the kind of runs that most of its plots draw.
        panels: the plots.
    """

    title: str
    about: str
    of: Kind
    panels: tuple[Panel, ...]


def sections(results: Results) -> list[Section]:
    """Return the dashboard of an experiment.

    Args:
        results: of the whole grid.
    """
    ns = sorted({one.n for one in results.summaries if one.split == "test"})
    found = [_of_ratio("ri", ns), _of_ratio("n_accuracy", ns)]
    if any(one.axis == "aggregator" for one in results.comparisons):
        found += _differences(results, ns)
    found += [_costs(results, ns), _sweet_spots(results.sweet_spots), _of_n()]
    if results.adaptive:
        found.append(_adaptive(results))
    if results.config.get("trainer", {}).get("logger") == "wandb":
        found.append(_trainings())
    return [section for section in found if section.panels]


def _of_ratio(metric: str, ns: Sequence[int]) -> Section:
    name = _TITLES[metric]
    panels = (
        Panel(f"{name} at n = {n}", "line", "method", "ratio", (f"{BY_RATIO}/{metric}@{n}",), log_x=True) for n in ns
    )
    about = f"A line is a method, on test, over all seeds. {name} of {_about(ns)} instances per label."
    return Section(f"{name} against compression", about, "method", tuple(panels))


def _about(ns: Sequence[int]) -> str:
    return ", ".join(map(str, ns))


def _differences(results: Results, ns: Sequence[int]) -> list[Section]:
    reference = results.config.get("comparison", {}).get("reference")
    compared = {(one.metric, one.n) for one in results.comparisons if one.reference == reference}
    panels = []
    for metric, name in _TITLES.items():
        for n in (n for n in ns if (metric, n) in compared):
            start = f"{BY_RATIO}/{metric}_difference"
            ends = (f"{start}_low@{n}", f"{start}_high@{n}")
            panels.append(Panel(f"{name} at n = {n}", "line", "method", "ratio", (f"{start}@{n}",), ends, log_x=True))
    about = (
        f"Method minus {reference} on the same tuples of test. Dotted: the interval that the verdict is read off, "
        "which holds together with those of all pairs; where it holds 0, no difference is shown."
    )
    return [Section(f"Differences to {reference}", about, "method", tuple(panels))]


def _costs(results: Results, ns: Sequence[int]) -> Section:
    largest = ns[-1]
    measured = any(row.measured_latency_ms is not None for row in results.rows)
    cost, pareto = "test/cost_dense_passes", "pareto/cost_dense_passes"
    single = (f"test/ri@{largest}",)
    breakdown = tuple(f"cost/{what}_passes@{largest}" for what in ("network", "aggregator"))
    panels = [
        Panel("Pareto front of all methods, ratios and n", "line", "summary", pareto, ("pareto/ri",), log_x=True),
        Panel("Each cell over n", "line", "cell", cost, ("test/ri",), log_x=True),
        Panel(f"Each cell at n = {largest}", "points", "cell", f"{cost}@{largest}", single, log_x=True),
        Panel(f"Dense passes at n = {largest}: network, aggregator", "bars", "cell", "", breakdown, group="method"),
        Panel("Parameters left", "points", "cell", "config.ratio", ("network/parameters",), log_x=True),
    ]
    if measured:
        latency = ("network/measured_latency_ms",)
        panels.append(Panel("Measured time of a batch, ms", "points", "cell", "config.ratio", latency, log_x=True))
    about = (
        "Relative information on test against the cost of a tuple, in passes of the dense network. The front is chosen "
        "on validation."
    )
    return Section("Relative information against cost", about, "cell", tuple(panels))


def _sweet_spots(spots: Sequence[SweetSpot]) -> Section:
    rules = {rule_of(spot): spot for spot in spots}  # of one that is asked for every n, only what it chooses
    panels = [
        Panel(f"{spot.asked}: {said}", "bars", "method", "", (f"{rule}/{name}",), group="method")
        for rule, spot in rules.items()
        for name, said in (("ri", "relative information"), ("ratio", "ratio"), ("n", "instances"))
        if spot.rule_n is None or name == "ratio"
    ]
    about = "What each rule chooses of a method, on validation, and what that gives on test."
    return Section("Sweet spots", about, "method", tuple(panels))


def _of_n() -> Section:
    panels = tuple(
        Panel(f"{name} of each method", "line", "cell", "n", (f"test/{metric}",), group="method")
        for metric, name in _TITLES.items()
    )
    about = "Against instances per label, on test: the mean over the ratios and seeds of a method, and their range."
    return Section("More instances", about, "cell", panels)


def _adaptive(results: Results) -> Section:
    places = dict.fromkeys((one.rule, one.ratio) for one in sorted(results.adaptive, key=lambda one: one.ratio))
    panels = []
    for rule, ratio in places:
        metric = f"adaptive/{rule}@{part(f'{ratio:g}x')}/ri"
        panels.append(Panel(f"{rule} at {ratio:g}x", "line", "method", "adaptive/instances", (metric,)))
    about = "Relative information on test against the mean number of instances looked at, for thresholds of each rule."
    return Section("Adaptive numbers of instances", about, "method", tuple(panels))


def _trainings() -> Section:
    panels = tuple(Panel(metric, "line", "training", STEP, (metric,)) for metric in TRAINING)
    about = "A run for each network while it trains; the machine is watched beside it (system metrics)."
    return Section("Trainings", about, "training", panels)


def published(results: Results) -> dict[Kind, set[str]]:
    """Return the metrics that runs hold, by their kind, as results alone tell.

    Args:
        results: of the whole grid.
    """
    about, grid = About.of(results), methods.extent(results)
    by_cell: dict[str, list[Row]] = {}
    for row in results.rows:
        by_cell.setdefault(row.cell, []).append(row)
    held: dict[Kind, set[str]] = {"training": {STEP, *TRAINING}}
    for run in _runs(results, about, grid, by_cell):
        held.setdefault(run.kind, set()).update(run.keys())
    return held


def _runs(results: Results, about: About, grid: str, by_cell: Mapping[str, Sequence[Row]]) -> Iterator[runs.Run]:
    yield from (runs.of_cell(rows, {}, about) for rows in by_cell.values())
    yield from methods.of_methods(results, about, grid)
    yield methods.of_grid(results, {}, None, about, grid)


def check(shown: Sequence[Section], held: Mapping[Kind, set[str]]) -> None:
    """Refuse a dashboard that asks for what no run holds.

    Raises:
        TrackingError: there is such a metric; it is named.
    """
    for panel in (panel for section in shown for panel in section.panels):
        absent = sorted(panel.metrics() - held.get(panel.of, set()))
        if absent:
            raise TrackingError(
                f"expected {panel.of} runs with {', '.join(absent)} for the plot {panel.title!r}, got none; run the "
                "grid again with this version"
            )
