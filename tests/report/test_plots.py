"""Figures: content, safety, determinism."""

from __future__ import annotations

import dataclasses
import itertools
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharedlabel.machine import forks
from sharedlabel.report import DRAW, plots, views
from sharedlabel.report._panels import heading, panel_ns, panels, spread
from sharedlabel.report._theme import SERIES, Palette
from sharedlabel.report.figures.calibration import reliability_place
from sharedlabel.report.figures.cost import front
from sharedlabel.report.figures.speedup import speedups

SVG = "{http://www.w3.org/2000/svg}"


def words(svg):
    return [text.text for text in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_every_kind_pruner_and_protocol_has_its_figure(figures):
    assert set(figures) == {
        *(f"{kind}-{p}-{q}" for kind in ("ratio", "instances", "stopping", "efficiency", "calibration")
          for p in ("magnitude", "random") for q in ("iid", "grouped")),
        "cost-iid", "cost-grouped", "pruning", "speedup", "standing-frozen-iid", "standing-frozen-grouped",
    }  # fmt: skip


def test_a_long_heading_stays_inside_the_figure():
    figure, _ = panels(1, 1, height=2.9)
    heading(figure, "Measured", ", ".join(["measured on a busy machine"] * 8))
    figure.draw_without_rendering()
    assert figure._suptitle.get_window_extent().x1 < figure.bbox.x1


def test_panels_titles_and_direct_labels(figures):
    text = words(figures["ratio-magnitude-iid"])
    assert {"n = 1", "n = 2", "n = 4", "n = 8"} <= set(text)
    assert {"mean_vote", "log_pool", "attention", "lstm", "residual_lstm"} <= set(text)
    assert "cifar10-small, resnet_cifar-8, pruned by magnitude, iid tuples, 2 seeds" in " ".join(text)
    assert [word for word in text if word in {"1", "2", "4", "8", "16", "32"}] == ["1", "2", "4", "8", "16", "32"] * 8


def test_no_figure_loads_anything_or_shares_an_id(figures):
    ids = []
    for svg in figures.values():
        assert re.findall(r'https?://[^"]+', svg) == ["http://www.w3.org/1999/xlink", "http://www.w3.org/2000/svg"]
        assert not re.search(r"<script|<style|<image|<!DOCTYPE|url\((?!#)", svg)
        own = re.findall(r' id="([^"]+)"', svg)
        assert set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', svg)) <= {(i, "") for i in own} | {
            ("", i) for i in own
        }
        ids += own
    assert len(ids) == len(set(ids))


def test_two_runs_are_equal(small, small_figures):
    assert plots.figures(small) == small_figures


def test_several_processes_draw_the_same(small, small_figures):
    forks.warm(DRAW, 0)
    drawn = plots.figures(small, processes=2)
    assert (drawn, list(drawn)) == (small_figures, list(small_figures))
    assert not forks.is_warm(DRAW, 0)


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
    assert {"cost-iid", "ratio-none-iid", "pruning", "speedup"} <= names
    assert not any(name.startswith("calibration") for name in names)


def test_speedup_has_a_panel_per_device_mode_and_batch(figures):
    text = words(figures["speedup"])
    assert [word for word in text if word and word.startswith("batch")] == ["batch 1", "batch 32", "batch 256"] * 2
    assert {"cpu, eager", "cpu, compiled", "magnitude", "random", "measured = theoretical"} <= set(text)
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
    assert "-1" in [word.replace("\u2212", "-") for word in words(svg) if word]


def test_the_exact_posterior_is_a_level_without_efficiency(small, kinds):
    kinds("ratio", "efficiency", "cost")
    oracle = tuple(
        dataclasses.replace(s, aggregator="exact", ri=0.99, efficiency=0.0)
        for s in small.summaries
        if (s.pruner, s.aggregator) == ("none", "lstm")
    )
    figures = plots.figures(dataclasses.replace(small, summaries=small.summaries + oracle))
    assert "exact" in words(figures["ratio-magnitude-iid"])
    assert not {"exact"} & {*words(figures["efficiency-magnitude-iid"]), *words(figures["cost-iid"])}


def test_colours_are_the_same_in_every_figure(figures):
    palette = Palette(["mean_vote", "log_pool", "attention", "lstm", "residual_lstm"])
    for name in ("cost-iid", "ratio-random-grouped", "efficiency-magnitude-iid", "calibration-random-iid"):
        for aggregator in ("lstm", "mean_vote"):
            assert palette[aggregator].color in figures[name]
    assert len({palette[name].color for name in ("mean_vote", "log_pool", "attention", "lstm", "residual_lstm")}) == 5
    assert set(SERIES).isdisjoint({"#000000", "#f0e442"})


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


@given(st.lists(st.floats(0, 1), min_size=1, max_size=7), st.floats(0.01, 0.16))
def test_spread_labels_never_overlap_or_leave(heights, gap):
    placed = spread(sorted(heights), gap)
    assert all(b - a >= gap - 1e-9 for a, b in itertools.pairwise(placed))
    assert placed[0] >= -1e-9
    assert placed[-1] <= 1 + 1e-9


@given(st.sets(st.integers(1, 64), min_size=1, max_size=30))
def test_panels_are_few_and_from_the_grid(ns):
    chosen = panel_ns(sorted(ns))
    assert set(chosen) <= ns
    assert 1 <= len(chosen) <= 5
    assert len(ns) > 5 or set(chosen) == ns
