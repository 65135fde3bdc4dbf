"""`sl.plot`: each plot shows the numbers of the results, on the axes that it is given, and says what it shows."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from matplotlib.axes import Axes

import sharedlabel as sl
from sharedlabel.api import plot
from sharedlabel.errors import DataError

ALL = [getattr(plot, name) for name in plot.__all__]


@pytest.fixture(scope="module")
def loaded(results) -> sl.Results:
    return sl.Results(results, Path("runs/synthetic"))


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def _line(ax: Axes, name: str) -> dict[float, float]:
    [line] = [line for line in ax.lines if line.get_label() == name]
    return dict(zip(map(float, line.get_xdata()), map(float, line.get_ydata()), strict=True))


def _names(ax: Axes) -> set[str]:
    return {text.get_text() for text in ax.get_legend().get_texts()}


@pytest.mark.parametrize("draw", ALL, ids=plot.__all__)
def test_each_draws_where_it_is_told_or_on_a_figure_of_its_own(loaded, draw) -> None:
    _, own = plt.subplots()
    assert draw(loaded, ax=own) is own
    own.figure.canvas.draw()
    made = draw(loaded)
    assert made is not own
    assert made.get_title() == own.get_title()
    assert made.get_title().endswith("test")
    assert made.get_xlabel()
    assert made.get_ylabel()
    assert _names(made)


@pytest.mark.parametrize(
    ("metric", "draw"), [("ri", plot.ri_against_ratio), ("n_accuracy", plot.n_accuracy_against_ratio)]
)
def test_curves_over_the_ratio_are_those_of_the_summaries(loaded, metric, draw) -> None:
    ax = draw(loaded, n=4, pruner="random", protocol="grouped", aggregators=["log_pool", "lstm"])
    assert _names(ax) == {"log_pool", "lstm"}
    first = loaded.records.summaries[0]
    expected = {
        point.ratio: getattr(point, metric)
        for point in loaded.records.summaries
        if (point.data, point.protocol, point.split, point.n, point.aggregator)
        == (first.data, "grouped", "test", 4, "log_pool")
        and point.pruner in {"random", "none"}
    }
    assert len(expected) == 6
    assert _line(ax, "log_pool") == expected
    assert "pruned by random, grouped tuples" in ax.get_title()
    assert "n = 4" in ax.get_title()


@pytest.mark.parametrize(("metric", "draw"), [("ri", plot.ri_against_n), ("n_accuracy", plot.n_accuracy_against_n)])
def test_curves_over_n_are_those_of_the_summaries(loaded, metric, draw) -> None:
    ax = draw(loaded, ratio=8, pruner="magnitude")
    expected = {
        float(point.n): getattr(point, metric)
        for point in loaded.records.summaries
        if (point.protocol, point.split, point.ratio, point.pruner, point.aggregator)
        == ("iid", "test", 8, "magnitude", "lstm")
        and point.data == loaded.records.summaries[0].data
    }
    assert _line(ax, "lstm") == expected
    assert list(expected) == [1, 2, 4, 8]


def test_the_front_is_above_all_points(loaded) -> None:
    ax = plot.pareto(loaded, pruner="magnitude")
    best = _line(ax, "Pareto front")
    points = [place for name in _names(ax) - {"Pareto front"} for place in _line(ax, name).items()]
    assert len(points) > 20
    assert set(best.items()) <= set(points)
    for cost, value in points:
        assert value <= max(height for at, height in best.items() if at <= cost)


def test_reliability_shows_the_bins_before_and_after(loaded) -> None:
    bins = [b for b in loaded.records.reliability if b.data == loaded.records.summaries[0].data and b.protocol == "iid"]
    some = bins[0]
    place = {"ratio": some.ratio, "n": some.n, "pruner": some.pruner}
    for calibrated in (True, False):
        ax = plot.reliability(loaded, calibrated=calibrated, aggregators=some.aggregator, **place)
        expected = {
            one.confidence: one.accuracy
            for one in bins
            if (one.ratio, one.n, one.pruner, one.aggregator, one.calibrated)
            == (some.ratio, some.n, some.pruner, some.aggregator, calibrated)
        }
        assert _line(ax, some.aggregator) == expected
        assert _names(ax) == {some.aggregator}


def test_adaptive_shows_a_line_for_every_ratio(loaded) -> None:
    ax = plot.adaptive(loaded, metric="n_accuracy", pruner="magnitude")
    points = {float(name.removesuffix("x")) for name in _names(ax)}
    assert points == {p.ratio for p in loaded.records.adaptive if p.pruner in {"magnitude", "none"}}
    heights = {p.n_accuracy for p in loaded.records.adaptive}
    assert all(set(_line(ax, name).values()) <= heights for name in _names(ax))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda r: plot.ri_against_ratio(r, n=3), "n: expected one of the results, got 3; available: 1, 2, 4, 8"),
        (lambda r: plot.ri_against_n(r, ratio=5), "ratio: expected one of the results, got 5; available: 1, 2, 4"),
        (lambda r: plot.pareto(r, pruner="magntude"), "pruner: expected .* got 'magntude'; did you mean 'magnitude'"),
        (lambda r: plot.pareto(r, aggregators=["x"]), "aggregator: expected one of the results, got 'x'; available: "),
        (lambda r: plot.pareto(r, data="x"), "data: expected one of the results, got 'x'"),
        (lambda r: plot.pareto(r, dat="x"), "pareto: .* got 'dat'; did you mean 'data'"),
        (lambda r: plot.ri_against_n(r, n=4), "ri_against_n: .* got 'n'; available: .* ax, backbone, data, .* ratio"),
        (
            lambda r: plot.adaptive(r, n=4),
            "adaptive: .* got 'n'; available: ax, backbone, data, metric, protocol, pruner",
        ),
        (lambda r: plot.adaptive(r, metric="x"), "metric: expected .* got 'x'; available: n_accuracy, ri"),
        (lambda r: plot.reliability(r, n=3), "n: expected one of the results, got 3"),
        (lambda r: plot.pareto("runs/digits"), "expected what sharedlabel.run or load_results returns, got a str"),
    ],
)
def test_mistakes_are_a_sentence(loaded, call, message) -> None:
    with pytest.raises(DataError, match=message):
        call(loaded)


def test_results_without_a_cell_or_without_adaptive_n_say_so(loaded, results) -> None:
    off = sl.Results(dataclasses.replace(results, adaptive=()))
    with pytest.raises(DataError, match="with adaptive numbers of instances, got none"):
        plot.adaptive(off)
