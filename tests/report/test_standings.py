"""Rank intervals and win matrices of the report."""

from __future__ import annotations

import dataclasses

from sharedlabel.report import html, standings, views


def test_matrix_sums_the_wins_for_two_images_or_more(results):
    view = views.split(results)[0]
    matrix = standings.matrix(view, "frozen")
    own = [w for w in view.wins if (w.method, w.reference, w.metric) == ("lstm", "log_pool", "ri") and w.n > 1]
    assert matrix.cells["lstm", "log_pool"] == standings.Tally(
        *(sum(getattr(w, count) for w in own) for count in ("wins", "equivalent", "undecided", "losses"))
    )
    assert matrix.names[0] == "residual_lstm"
    assert matrix.names[-1] == "mean_vote"
    assert standings.matrix(dataclasses.replace(view, wins=()), "frozen") is None


def test_ranks_are_written_as_intervals(results):
    view = views.split(results)[0]
    order = standings.standing(view, "frozen", 8)
    assert [rank.mean for rank in order] == sorted((rank.mean for rank in order), reverse=True)
    assert standings.span(dataclasses.replace(order[0], rank_best=1, rank_worst=3)) == "1-3"
    assert standings.span(dataclasses.replace(order[0], rank_best=2, rank_worst=2)) == "2"
    assert standings.leaders(view, "frozen", 8).startswith("residual_lstm 1")
    assert standings.sizes(view, "frozen") == [2, 4, 8]
    page = html.render(results, [])
    assert f"<b>{standings.span(order[0])}</b> <small>RI {order[0].mean:.3f}" in page


def test_the_figure_names_every_method_with_its_rank(results, figures):
    text = figures["standing-frozen-iid"]
    for rank in standings.standing(views.split(results)[0], "frozen", 8):
        alike = ", ".join(sorted(rank.alike_names()))
        others = f"not shown to differ from {alike}" if alike else "shown to differ from all others"
        assert f"{rank.aggregator}: rank {standings.span(rank)}, mean RI {rank.mean:.3f}" in text
        assert f"{others}</title>" in text
    assert 'aria-label="Ranks of the aggregators: ' in text


def test_comparisons_of_pruners_settle_ties_between_networks(results):
    view = views.split(results)[0]
    best = next(b for b in views.best_methods(view) if (b.chosen.ratio, b.chosen.n) == (2.0, 8))
    other = next(s for s in view.tests("random", 8) if s.ratio == 2 and s.aggregator == best.chosen.aggregator)
    own = next(c for c in view.comparisons if c.metric == "ri")
    worse = dataclasses.replace(
        own, pruner="random", ratio=2.0, aggregator=other.aggregator, n=8, axis="pruner", method="random",
        reference=best.chosen.pruner, verdict="worse",
    )  # fmt: skip
    for verdict, expected in (("worse", False), ("undecided", True)):
        settled = dataclasses.replace(
            view, comparisons=(*view.comparisons, dataclasses.replace(worse, verdict=verdict))
        )
        again = next(b for b in views.best_methods(settled) if (b.chosen.ratio, b.chosen.n) == (2.0, 8))
        assert (other in again.others) is expected
