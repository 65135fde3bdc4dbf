"""Picking what the report says."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from sharedlabel.errors import StoreError
from sharedlabel.report import views
from sharedlabel.report.sentences import edge, percent, sentence


def view_of(results: Any, protocol: str = "iid") -> views.View:
    return next(view for view in views.split(results) if view.protocol == protocol)


def budget(view: views.View, value: float) -> Any:
    return next(spot for spot in views.winners(view, ("budget",)) if spot.value == value)


def test_views_hold_every_record_once(results):
    parts = views.split(results)
    assert [part.protocol for part in parts] == ["iid", "grouped"]
    assert sum(len(part.rows) for part in parts) == len(results.rows)
    assert sum(len(part.sweet_spots) for part in parts) == len(results.sweet_spots)


def test_empty_results_are_a_user_error(results):
    with pytest.raises(StoreError, match="'cifar10-small sweep', got no summaries; run the grid"):
        views.split(dataclasses.replace(results, summaries=()))


def test_best_is_chosen_on_validation_and_shown_on_test(results):
    view = view_of(results)
    for best in views.best_methods(view):
        rivals = [s for s in view.summaries if (s.ratio, s.n) == (best.chosen.ratio, best.chosen.n)]
        top = max((s for s in rivals if s.split == "validation"), key=lambda s: s.ri)
        assert best.chosen.split == "test"
        assert (best.chosen.aggregator, best.chosen.pruner) == (top.aggregator, top.pruner)


def test_ties_follow_the_verdict_not_the_intervals(results):
    view = view_of(results)
    best = next(b for b in views.best_methods(view) if (b.chosen.ratio, b.chosen.n) == (8, 2))
    assert (best.chosen.aggregator, best.others) == ("residual_lstm", ())
    tied = tuple(
        dataclasses.replace(c, verdict="undecided") if {c.method, c.reference} == {"residual_lstm", "mean_vote"} else c
        for c in view.comparisons
    )
    again = views.best_methods(dataclasses.replace(view, comparisons=tied))
    best = next(b for b in again if (b.chosen.ratio, b.chosen.n) == (8, 2))
    assert best.named(2) == "mean_vote"
    without = views.best_methods(dataclasses.replace(view, comparisons=()))
    best = next(b for b in without if (b.chosen.ratio, b.chosen.n) == (8, 2))
    assert all(tie.ri_high >= best.chosen.ri_low for tie in best.others)


def test_other_networks_tie_by_overlapping_intervals_and_are_named(results):
    view = view_of(results)
    best = next(b for b in views.best_methods(view) if (b.chosen.ratio, b.chosen.n) == (8, 2))
    raised = tuple(
        dataclasses.replace(s, ri_high=1.0)
        if (s.pruner, s.ratio, s.n, s.aggregator, s.split) == ("random", 8, 2, "lstm", "test")
        else s
        for s in view.summaries
    )
    again = views.best_methods(dataclasses.replace(view, summaries=raised))
    assert best.others == ()
    assert next(b for b in again if (b.chosen.ratio, b.chosen.n) == (8, 2)).named(2) == "lstm on random"


def test_the_only_rival_is_named_with_its_network(results):
    view = view_of(results)
    best = next(b for b in views.best_methods(view) if (b.chosen.ratio, b.chosen.n) == (8, 2))
    rival = dataclasses.replace(best.chosen, pruner="random")
    assert dataclasses.replace(best, others=(rival,), rivals=1).named(2) == "residual_lstm on random"


def test_the_oracle_is_no_method(results):
    oracle = tuple(
        dataclasses.replace(s, aggregator="exact", ri=1.0) for s in results.summaries if s.aggregator == "lstm"
    )
    spots = tuple(
        dataclasses.replace(s, aggregator="exact", validation_ri=1.0)
        for s in results.sweet_spots
        if s.ratio is not None
    )
    view = view_of(
        dataclasses.replace(results, summaries=results.summaries + oracle, sweet_spots=results.sweet_spots + spots)
    )
    assert all(best.chosen.aggregator != "exact" for best in views.best_methods(view))
    assert all(spot.aggregator != "exact" for spot in views.winners(view))


def test_winner_of_a_budget_has_the_highest_validation_ri(results):
    view = view_of(results)
    own = [s for s in view.sweet_spots if s.rule == "budget" and s.value == 1]
    assert budget(view, 1) == max(own, key=lambda s: s.validation_ri)
    assert views.headline(view) == budget(view, 1)


def test_retain_prefers_cheap_but_not_methods_with_a_poor_dense_network(results):
    view = view_of(results)
    some = budget(view, 1)
    dense = max(s.ri for s in view.summaries if s.split == "validation" and (s.ratio, s.n) == (1, 4))
    retain = dataclasses.replace(some, rule="retain", value=0.9, rule_n=4, n=4)
    poor = dataclasses.replace(retain, aggregator="mean_vote", cost_dense_passes=0.1, validation_ri=0.8 * dense)
    good = dataclasses.replace(retain, cost_dense_passes=0.5, validation_ri=0.92 * dense)
    dear = dataclasses.replace(retain, aggregator="lstm", cost_dense_passes=0.9, validation_ri=0.99 * dense)
    assert views.winners(dataclasses.replace(view, sweet_spots=(poor, dear, good))) == [good]


def test_what_is_no_better_than_guessing_wins_where_there_is_no_other(results):
    some = budget(view_of(results), 1)
    better = dataclasses.replace(some, aggregator="lstm", guessing=True, validation_ri=some.validation_ri + 0.1)
    nothing = dataclasses.replace(some, ratio=None, n=None, validation_ri=None)
    view = view_of(results)
    assert views.winners(dataclasses.replace(view, sweet_spots=(better, some))) == [some]
    assert views.winners(dataclasses.replace(view, sweet_spots=(nothing, better))) == [better]


def test_target_prefers_the_cheapest(results):
    some = dataclasses.replace(budget(view_of(results), 1), rule="target", value=0.9)
    cheap = dataclasses.replace(some, aggregator="lstm", cost_dense_passes=0.2, validation_ri=0.1)
    assert views.winners(dataclasses.replace(view_of(results), sweet_spots=(some, cheap))) == [cheap]


def test_sentence_holds_the_numbers_of_the_rows(results):
    view = view_of(results)
    spot = budget(view, 1)
    single = next(
        s for s in view.summaries
        if (s.split, s.ratio, s.n, s.aggregator) == ("test", 1, 1, spot.aggregator)
    )  # fmt: skip
    assert sentence(spot, view) == (
        f"With {spot.n} images per object, compress {spot.ratio:g}x ({spot.aggregator} on {spot.pruner}): "
        f"{100 * spot.n_accuracy:.1f}% right [{100 * spot.n_accuracy_low:.1f}, {100 * spot.n_accuracy_high:.1f}], "
        f"for the cost of {spot.cost_dense_passes:.2f} dense passes; "
        f"the dense network on one image gets {100 * single.n_accuracy:.1f}%."
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"ratio": 32.0, "interior": False}, "This is the largest ratio of the grid: a larger one may do better."),
        ({"ratio": 1.0, "interior": False}, "smallest ratio of the grid: by this rule, compressing does not pay."),
        ({"modal_share": 0.31}, "Unstable: only 31.0% of 200 replicates choose the same."),
        ({"reason": "the front has two points"}, " The front has two points."),
        ({"ratio": None, "reason": "0.93 is the highest"}, "Nothing qualifies (residual_lstm on magnitude): 0.93 is"),
        ({"ratio": 1.0, "n": 1}, "With 1 image per object, keep the dense network (residual_lstm): "),
        ({"rule": "retain", "dense_n_accuracy": 0.9876}, "the dense network on the same 8 images gets 98.8%."),
        ({"training": "joint"}, "(residual_lstm (joint) on magnitude)"),
        ({"guessing": True}, "16x (residual_lstm on magnitude) is no better than guessing (RI"),
        ({"guessing": True, "ri": 0.01, "ri_low": -0.02}, "(RI 0.010 [-0.020, "),
    ],
)
def test_sentence_cautions(results, changes, expected):
    view = view_of(results)
    assert expected in sentence(dataclasses.replace(budget(view, 1), **changes), view)


def test_edges_and_titles(results):
    view = view_of(results)
    spot = budget(view, 0.5)
    assert (edge(spot, view), spot.asked) == ("largest", "0.5 dense passes")
    assert edge(budget(view, 1), view) == "inside"
    assert edge(dataclasses.replace(spot, ratio=3.0), view) == "edge"
    assert dataclasses.replace(spot, rule="retain", value=0.98, rule_n=4).asked == "98% of dense RI, n = 4"


@pytest.mark.parametrize(("share", "text"), [(0.99996, "99.99%"), (0.9994, "99.9%"), (1.0, "100.0%"), (0.0, "0.0%")])
def test_percent_says_100_only_for_all(share, text):
    assert percent(share) == text


def test_collapse_is_reported_once_per_network(results):
    (line,) = views.collapses(results)
    assert line.startswith("random at 32x left layers of resnet_cifar-8 on cifar10-small without a weight")
    assert line.endswith("stages.2.0.shortcut (seeds 0, 1)")
