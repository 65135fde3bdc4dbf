"""Figures: content, safety, determinism."""

from __future__ import annotations

import dataclasses
import json
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharedlabel.report import plots, views
from sharedlabel.report.charts.marks import Palette
from sharedlabel.report.figures import difference
from sharedlabel.report.figures._parts import panel_ns, ratios
from sharedlabel.report.figures.calibration import reliability_place
from sharedlabel.report.figures.cost import front
from sharedlabel.report.figures.speedup import speedups

SVG = "{http://www.w3.org/2000/svg}"


def words(svg):
    return [text.text for text in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_every_kind_pruner_and_protocol_has_its_figure(figures):
    kinds = ("ratio", "accuracy", "instances", "difference", "stopping", "efficiency", "calibration", "cost")
    assert set(figures) == {
        *(f"{kind}-{p}-{q}" for kind in kinds for p in ("magnitude", "random") for q in ("iid", "grouped")),
        "pruning", "speedup", "standing-frozen-iid", "standing-frozen-grouped", "training-iid", "training-grouped",
        "classes-iid", "classes-grouped",
    }  # fmt: skip


def test_panels_titles_and_direct_labels(figures):
    text = words(figures["ratio-magnitude-iid"])
    assert {"n = 1", "n = 2", "n = 4", "n = 8"} <= set(text)
    assert {"mean_vote", "log_pool", "attention", "lstm", "residual_lstm"} <= set(text)
    assert "cifar10-small, resnet_cifar-8, pruned by magnitude, iid tuples, 2 seeds" in " ".join(text)
    assert [word for word in text if re.fullmatch(r"\d+x", word or "")] == ["1x", "2x", "4x", "8x", "16x", "32x"] * 4


def test_no_figure_loads_anything_or_has_an_id(figures):
    for svg in figures.values():
        assert re.findall(r'https?://[^"]+', svg) == ["http://www.w3.org/2000/svg"]
        assert not re.search(r"<script|<image|<!DOCTYPE|url|@import", svg)
        assert " id=" not in svg


def test_two_runs_are_equal(small, small_figures):
    assert plots.figures(small) == small_figures


def test_names_of_users_stay_text(hostile):
    for name, svg in plots.figures(hostile).items():
        assert any("</script><script>[bold]$x$" in (word or "") for word in words(svg))
        assert re.fullmatch(r"[a-z0-9_-]+", name)


def test_the_dense_network_alone_can_be_drawn(small):
    dense = dataclasses.replace(
        small,
        rows=tuple(r for r in small.rows if r.pruner == "none"),
        summaries=tuple(s for s in small.summaries if s.pruner == "none"),
        latencies=tuple(r for r in small.latencies if r.pruner == "none"),
        sweet_spots=(),
        reliability=(),
        comparisons=(),
        ranks=(),
        wins=(),
    )
    names = set(plots.figures(dense))
    assert {"cost-none-iid", "ratio-none-iid", "pruning", "speedup"} <= names
    assert not any(name.startswith("calibration") for name in names)


def test_speedup_has_a_panel_per_device_mode_and_batch(figures):
    text = words(figures["speedup"])
    titles = [f"batch {batch}, cpu, {mode}" for mode in ("eager", "compiled") for batch in (1, 32, 256)]
    assert [word for word in text if word and word.startswith("batch")] == titles
    assert {"magnitude", "random"} <= set(text)
    assert "2 CPU threads" in " ".join(text)


def test_speedups_are_medians_over_seeds(results):
    own = [r for r in results.latencies if (r.pruner, r.ratio, r.mode, r.batch) == ("random", 8, "eager", 32)]
    low, middle, high = speedups(own)
    assert middle == pytest.approx((own[0].measured_speedup + own[1].measured_speedup) / 2)
    assert low == pytest.approx(middle / 1.2)
    assert high == pytest.approx(middle / 0.9)


def test_without_measurements_there_is_no_speedup_figure(small, kinds):
    kinds("ratio", "speedup")
    assert "speedup" not in plots.figures(dataclasses.replace(small, latencies=()))


def test_intervals_that_go_on_beyond_an_axis_are_said_to_be_cut(small, kinds):
    kinds("ratio", "instances", "standing")
    said = "intervals are cut where the axis ends"
    assert not any(said in svg for svg in plots.figures(small).values())
    wide = tuple(dataclasses.replace(s, ri_low=-11.672) for s in small.summaries)
    ranks = tuple(dataclasses.replace(r, low=-11.672) for r in small.ranks)
    figures = plots.figures(dataclasses.replace(small, summaries=wide, ranks=ranks))
    assert all(said in svg for svg in figures.values())
    assert "-8" not in words(figures["ratio-magnitude-iid"])


def test_perfect_and_negative_information_can_be_drawn(small, kinds):
    kinds("ratio")
    changed = tuple(
        dataclasses.replace(s, ri=-0.7, ri_low=-0.9, ri_high=-0.5, efficiency=-1.0)
        if s.ratio == 32
        else dataclasses.replace(s, n_accuracy=1.0, n_accuracy_high=1.0, ri=1.0, ri_high=1.0)
        for s in small.summaries
    )
    svg = plots.figures(dataclasses.replace(small, summaries=changed))["ratio-magnitude-iid"]
    assert not re.search(r"\bnan\b", svg)
    assert "-1" in words(svg)


def test_the_exact_posterior_is_a_level_without_efficiency(small, kinds):
    kinds("ratio", "efficiency", "cost")
    oracle = tuple(
        dataclasses.replace(s, aggregator="exact", ri=0.99, efficiency=0.0)
        for s in small.summaries
        if (s.pruner, s.aggregator) == ("none", "lstm")
    )
    figures = plots.figures(dataclasses.replace(small, summaries=small.summaries + oracle))
    assert "exact" in words(figures["ratio-magnitude-iid"])
    assert not {"exact"} & {*words(figures["efficiency-magnitude-iid"]), *words(figures["cost-magnitude-iid"])}


def test_colours_are_the_same_in_every_figure(figures):
    palette = Palette(sorted(["mean_vote", "log_pool", "attention", "lstm", "residual_lstm"]))
    for name in ("cost-magnitude-iid", "ratio-random-grouped", "efficiency-magnitude-iid", "calibration-random-iid"):
        for aggregator in ("lstm", "mean_vote"):
            own = re.findall(rf'data-m="{aggregator}(?:, before)?" style="--c:([^"]+)"', figures[name])
            assert set(own) == {palette[aggregator].color}
    assert len({palette[name].color for name in ("mean_vote", "log_pool", "attention", "lstm", "residual_lstm")}) == 5


def test_front_is_what_brute_force_finds(results):
    points = views.split(results)[0].tests("magnitude")
    expected = [
        p
        for p in points
        if not any(
            (q.cost_dense_passes <= p.cost_dense_passes and q.ri > p.ri)
            or (q.cost_dense_passes < p.cost_dense_passes and q.ri >= p.ri)
            for q in points
        )
    ]
    assert front(points) == sorted(expected, key=lambda p: p.cost_dense_passes)


def test_reliability_is_shown_where_the_headline_is(results):
    view = views.split(results)[0]
    spot = views.headline(view)
    assert reliability_place(view, "magnitude") == (spot.ratio, spot.n)
    assert reliability_place(dataclasses.replace(view, sweet_spots=()), "magnitude") == (8.0, 8)
    assert reliability_place(view, "absent") is None


@given(st.sets(st.integers(1, 64), min_size=1, max_size=30))
def test_panels_are_few_and_from_the_grid(ns):
    chosen = panel_ns(sorted(ns))
    assert set(chosen) <= ns
    assert 1 <= len(chosen) <= 5
    assert len(ns) > 5 or set(chosen) == ns


def test_differences_are_those_of_the_comparisons_whichever_is_the_baseline(results):
    view = views.split(results)[0]
    palette = Palette(sorted({s.aggregator for s in view.summaries}))
    figure = difference.draw(view, "magnitude", palette)
    told = json.loads(figure.baseline)
    assert told["baseline"] == "log_pool"
    names = [name for name, _, _ in told["methods"]]
    own = [c for c in view.comparisons if c.metric == "ri" and c.pruner in {"magnitude", "none"}]
    known = {(c.n, c.ratio, c.method, c.reference): c for c in own}
    for panel, packed in zip(figure.panels, told["panels"], strict=True):
        for series in panel.series:
            for point in series.points:
                c = known.get((packed["n"], point.x, series.name, "log_pool"))
                expected = (0.0, 0.0, 0.0) if c is None else (c.difference, c.low, c.high)
                assert (c is None) == (series.name == "log_pool")
                assert (point.y, point.low, point.high) == expected
        assert len(packed["pairs"]) == 10
        for a, b, values in packed["pairs"]:
            for ratio, value in zip(packed["ratios"], values, strict=True):
                c = known[packed["n"], ratio, names[a], names[b]]
                assert value == pytest.approx([c.difference, c.low, c.high], abs=1e-5)


def test_the_usual_baseline_is_what_most_are_compared_with(results):
    chosen = [c for c in results.comparisons if c.axis == "aggregator"]
    assert difference.usual_baseline(chosen) == "log_pool"
    some = [c for c in chosen if c.reference != "log_pool" and c.method != "lstm"]
    assert difference.usual_baseline([*some, *(c for c in chosen if c.reference == "lstm")]) == "lstm"


def test_ratios_that_are_recommended_are_shown_and_those_that_are_left_out_are_named(results, figures):
    view = views.split(results)[0]
    chosen = {spot.ratio for spot in views.winners(view, ("budget",))}
    kept, missing = ratios(view, view.ratios)
    assert chosen <= set(kept)
    assert {view.ratios[0], view.ratios[-1]} <= set(kept)
    left_out = [f"{ratio:g}x" for ratio in view.ratios if ratio not in kept]
    assert missing == f"; {', '.join(left_out)} left out"
    assert len(left_out) == 1
    for kind in ("instances", "stopping"):
        assert missing.removeprefix("; ") in " ".join(words(figures[f"{kind}-magnitude-iid"]))
    moved = tuple(dataclasses.replace(spot, ratio=4.0 if spot.ratio == 8 else 8.0) for spot in view.sweet_spots)
    assert 8.0 in ratios(dataclasses.replace(view, sweet_spots=moved), view.ratios)[0]
    assert ratios(view, view.ratios[:3]) == (list(view.ratios[:3]), "")


def test_of_many_classes_the_hardest_and_the_easiest_are_shown_and_their_spread_is_said(small, kinds):
    kinds("classes")
    some = small.confusions[0]
    many = tuple(
        dataclasses.replace(some, label=f"sign {label:02}", predicted=f"sign {predicted:02}", tuples=count)
        for label in range(41)
        for predicted, count in ((label, label), (41, 40 - label))
    )
    text = words(plots.figures(dataclasses.replace(small, confusions=many))["classes-iid"])
    assert {"sign 00", "sign 09", "sign 31", "sign 40"} <= set(text)
    assert not {"sign 10", "sign 30"} & set(text)
    said = "10 hardest and the 10 easiest of 41 classes, of which a quarter is at most 25.0% right, half at most 50.0%"
    assert said in " ".join(text)
