"""What the report says about adaptive numbers of instances."""

from __future__ import annotations

import dataclasses
import re
import statistics
from typing import Any
from xml.etree import ElementTree

import pytest

from sharedlabel.report import adaptive, html, plots, views
from sharedlabel.report.figures._parts import some

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def view(results: Any) -> views.View:
    return views.split(results)[0]


def test_the_method_that_is_best_on_validation_is_shown(view):
    scores = {
        name: statistics.fmean(s.ri for s in view.summaries if (s.split, s.aggregator) == ("validation", name))
        for name in {s.aggregator for s in view.summaries}
    }
    assert adaptive.shown(view) == (max(scores, key=scores.__getitem__), "frozen")
    without = dataclasses.replace(view, adaptive=tuple(p for p in view.adaptive if p.aggregator == "mean_vote"))
    assert adaptive.shown(without) == ("mean_vote", "frozen")
    assert adaptive.shown(dataclasses.replace(view, adaptive=())) is None


def test_a_stop_is_a_line_with_the_numbers_of_its_record(view):
    table = adaptive.table(view)
    assert [line[:3] for line in table.lines][:4] == [
        ("dense", "threshold", "5.0%"),
        ("dense", "threshold", "2.5%"),
        ("dense", "threshold", "1.2%"),
        ("magnitude 2x", "threshold", "5.0%"),
    ]
    assert len(table.lines) == 11 * 3
    point = next(p for p in adaptive.points(view, "random") if (p.ratio, p.aim, p.value) == (8, "error", 0.025))
    line = next(line for line in table.lines if line[:3] == ("random 8x", "threshold", "2.5%"))
    line = dict(zip(table.header, line, strict=True))
    assert line["wrong when sure"] == "2.3% [1.5, 3.4]"
    assert line["never sure"] == "8.0%"
    assert line["mean n"] == "3.00 [2.95, 3.05]"
    assert line["dense passes"] == f"{point.cost_dense_passes:.2f}"
    assert line["RI"] == f"{point.ri:.3f}"
    assert line["gain in RI"] == "+0.013 [+0.008, +0.018]"
    assert table.caption == "cifar10-small, resnet_cifar-8, iid tuples, residual_lstm, 2 seeds"


def test_a_rule_that_never_decides_leaves_its_error_empty(view):
    never = tuple(
        dataclasses.replace(p, error=None, error_low=None, error_high=None, truncated=1.0) for p in view.adaptive
    )
    table = adaptive.table(dataclasses.replace(view, adaptive=never))
    assert {line[3] for line in table.lines} == {""}


def test_the_sentence_is_about_the_network_of_the_headline(view):
    spot = views.headline(view)
    text = adaptive.sentence(view)
    assert text.startswith(
        f"residual_lstm on {spot.pruner} {spot.ratio:g}x, stopped by its threshold rule for 2.5% errors"
    )
    assert "looks at 3.0 images on average, of at most 8. It is sure of 92.0% of the labels and wrong in 2.3%" in text
    assert "Gain in RI over fixed n at the same mean cost: +0.013 [+0.008, +0.018]." in text
    assert adaptive.sentence(dataclasses.replace(view, adaptive=())) == ""
    assert adaptive.sentence(dataclasses.replace(view, sweet_spots=())) == ""


def test_the_figure_names_ratios_and_both_ways(figures):
    text = [word.text for word in ElementTree.fromstring(figures["stopping-magnitude-iid"]).iter(f"{SVG}text")]
    assert {"1x", "2x", "8x", "16x", "32x"} <= set(text)
    assert "4x" not in text  # five lines at most
    assert "mean number of images" in text
    assert "residual_lstm, threshold rule, at most 8 images" in " ".join(text)
    assert 'stroke-dasharray="4 2"' in figures["stopping-magnitude-iid"]


def test_an_error_of_zero_and_none_can_be_drawn(small, kinds):
    kinds("stopping")
    changed = tuple(dataclasses.replace(p, error=p.error and 0.0, error_low=p.error and 0.0) for p in small.adaptive)
    svg = plots.figures(dataclasses.replace(small, adaptive=changed))["stopping-magnitude-iid"]
    assert not re.search(r"\b(nan|inf)\b", svg)
    only = tuple(p for p in small.adaptive if p.aim == "instances")
    assert "stopping-magnitude-iid" in plots.figures(dataclasses.replace(small, adaptive=only))


def test_without_adaptive_n_there_is_neither_figure_nor_table(small, kinds):
    kinds("ratio", "stopping")
    without = dataclasses.replace(small, adaptive=(), thresholds=())
    assert not any(name.startswith("stopping") for name in plots.figures(without))
    assert adaptive.table(views.split(without)[0]) is None


def test_at_most_five_ratios_are_drawn():
    assert some([1.0, 2.0, 4.0]) == [1, 2, 4]
    assert some([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0]) == [1, 4, 8, 16, 64]


def test_where_no_threshold_could_be_fitted_the_page_says_so(small, view):
    assert adaptive.unfitted(view) == ""
    assert adaptive.unfitted(dataclasses.replace(view, adaptive=(), thresholds=())) == ""
    only = tuple(p for p in small.adaptive if p.aim == "instances")
    page = html.render(dataclasses.replace(small, adaptive=only), [])
    assert "When to stop looking?" in page
    assert "iid tuples: no threshold could be fitted. However sure" in page
    assert "Adaptive n on every network" not in page
