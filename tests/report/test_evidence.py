"""The tables of evidence: read from a run's records alone."""

from __future__ import annotations

import csv
import dataclasses

import pytest

from benchmarks import evidence
from sharedlabel.records import OPPOSITE

METHOD, OTHER = "lstm", "log_pool"


def rows(table):
    """The cells of a Markdown table's body."""
    lines = [line for line in table if line.startswith("|")]
    return [line.strip("| ").split(" | ") for line in lines[2:]]


def test_comparisons_are_turned_to_method_minus_other(results):
    forward = [c for c in evidence.oriented(results.comparisons, METHOD) if c.reference == OTHER]
    backward = [c for c in evidence.oriented(results.comparisons, OTHER) if c.reference == METHOD]
    assert forward
    assert all(c.method == METHOD for c in forward)
    for one, other in zip(forward, backward, strict=True):
        assert (one.difference, one.low, one.high) == (-other.difference, -other.high, -other.low)
        assert one.verdict == OPPOSITE[other.verdict]


@pytest.mark.parametrize("table", ["comparisons", "pooled"])
def test_planned_comparisons_are_of_one_method_with_several_instances(results, table):
    protocol = results.summaries[0].protocol
    planned = evidence.planned(getattr(results, table), protocol, METHOD)
    assert {c.method for c in planned} == {METHOD}
    assert len({c.reference for c in planned}) > 1
    assert all(c.metric == "ri" and c.n > 1 and c.protocol == protocol for c in planned)


def test_counts_are_of_verdicts_and_of_means_ahead(results):
    some = next(c for c in results.comparisons if c.axis == "aggregator")
    own = [
        dataclasses.replace(some, difference=difference, verdict=verdict)
        for difference, verdict in (
            (0.2, "better"),
            (0.1, "better"),
            (0.001, "equivalent"),
            (-0.01, "undecided"),
            (-0.2, "worse"),
        )
    ]
    assert evidence.count(own) == "2 / 1 / 1 / 1 / 0 (3 of 5)"


def test_verdicts_are_counted_per_n_and_over_all_networks(results):
    protocol = results.summaries[0].protocol
    certain = [
        dataclasses.replace(c, verdict="better", difference=0.25, low=0.125, high=0.375, method=METHOD, reference=OTHER)
        for c in (*results.comparisons, *results.pooled)
        if (c.method, c.reference, c.protocol, c.metric) == (METHOD, OTHER, protocol, "ri")
    ]
    kept = dataclasses.replace(
        results,
        comparisons=tuple(c for c in certain if not hasattr(c, "endpoint")),
        pooled=tuple(c for c in certain if hasattr(c, "endpoint")),
    )
    (row,) = rows(evidence.verdicts(kept, protocol, METHOD, [METHOD, OTHER]))
    networks = len({(s.pruner, s.ratio) for s in results.summaries if s.aggregator == METHOD})
    one = f"{networks} / 0 / 0 / 0 / 0 ({networks} of {networks})"
    every = f"{3 * networks} / 0 / 0 / 0 / 0 ({3 * networks} of {3 * networks})"
    whole = "**+0.2500 [+0.1250, +0.3750]**"
    assert row == [OTHER, one, one, one, every, whole, whole, whole]  # n = 2, 4, 8; smallest, largest, mean


def test_ranks_are_intervals(results):
    protocol = results.summaries[0].protocol
    table = {row[0]: row[1:] for row in rows(evidence.standing(results, protocol))}
    for rank in results.ranks:
        if (rank.protocol, rank.metric, rank.n) == (protocol, "ri", 8):
            interval = str(rank.rank_best) + (f" to {rank.rank_worst}" if rank.rank_worst > rank.rank_best else "")
            assert table[rank.aggregator][-1] == f"{rank.mean:.4f}, {interval}"


def test_the_gap_is_between_means_over_networks_and_its_share_is_of_the_exact_posterior(results):
    protocol = results.summaries[0].protocol
    test = [s for s in results.summaries if s.split == "test" and s.protocol == protocol]
    given = {
        (METHOD, 2.0): 0.6,
        (METHOD, 8.0): 0.7,
        (OTHER, 2.0): 0.5,
        (OTHER, 8.0): 0.6,
        (METHOD, 16.0): 0.2,
        (OTHER, 16.0): 0.3,
    }
    made = [
        dataclasses.replace(s, ri=given[s.aggregator, s.ratio])
        for s in test
        if s.pruner == "magnitude" and s.n == 4 and (s.aggregator, s.ratio) in given
    ]
    exact = dataclasses.replace(made[0], aggregator="exact", ri=0.75)
    changed = dataclasses.replace(results, summaries=(*made, exact))
    assert rows(evidence.ceiling(changed, protocol, OTHER, METHOD)) == [
        ["4", "below 16x", "0.5500", "0.6500", METHOD, "0.6500", "0.7500", "50%"],
        ["4", "16x and up", "0.3000", "0.3000", OTHER, "0.2000", "0.7500", "-22%"],
    ]


def test_budgets_are_of_one_dense_pass(results):
    protocol = results.summaries[0].protocol
    table = rows(evidence.budgets(results, protocol))
    spots = [s for s in results.sweet_spots if (s.rule, s.value, s.protocol) == ("budget", 1.0, protocol)]
    assert [row[:2] for row in table] == [[s.aggregator, s.pruner] for s in spots]
    for row, spot in zip(table, spots, strict=True):
        if spot.ratio is not None:
            assert row[2] == f"{spot.ratio:g}x, n = {spot.n}"
            assert row[3] == f"{spot.cost_dense_passes:.2f}"
            assert row[4].startswith(f"{100 * spot.n_accuracy:.1f} [{100 * spot.n_accuracy_low:.1f}, ")
            assert row[5] == f"{spot.ri:.3f}"


def test_every_table_names_every_aggregator_and_bold_is_the_best(results):
    protocol = results.summaries[0].protocol
    names = sorted({s.aggregator for s in results.summaries} - {"exact"})
    n = max(s.n for s in results.summaries)
    table = [row for row in evidence.by_ratio(results, protocol, n, names) if row.startswith("|")][2:]
    assert [row.split(" | ")[0].strip("| ") for row in table][: len(names)] == names
    columns = list(zip(*(row.strip("| ").split(" | ")[1:] for row in table[: len(names)]), strict=True))
    for column in columns:
        values = [float(cell.strip("*")) for cell in column]
        assert all(float(cell.strip("*")) == max(values) for cell in column if cell.startswith("**"))
        assert any(cell.startswith("**") for cell in column)


def test_files_hold_test_rows_and_the_comparisons_of_the_method(results, tmp_path):
    evidence.write(results, METHOD, OTHER, tmp_path)
    with (tmp_path / "comparisons.csv").open() as file:
        rows = list(csv.DictReader(file))
    kept = [c for c in results.comparisons if c.axis == "aggregator" and METHOD in {c.method, c.reference}]
    assert len(rows) == len(kept)
    assert float(rows[0]["difference"]) == pytest.approx(kept[0].difference, rel=1e-5, abs=1e-12)
    with (tmp_path / "summaries.csv").open() as file:
        assert {row["split"] for row in csv.DictReader(file)} == {"test"}


@pytest.fixture
def trained(results):
    """The results again as a second training, each of its numbers a little higher."""
    summaries = [dataclasses.replace(s, training="joint", ri=s.ri + 0.01) for s in results.summaries]
    comparisons = [
        dataclasses.replace(
            c, axis="training", training="joint", method="joint", reference="frozen", verdict="undecided"
        )
        for c in results.comparisons
        if (c.axis, c.metric, c.reference) == ("aggregator", "ri", OTHER)
    ]
    comparisons[0] = dataclasses.replace(comparisons[0], verdict="better")
    return dataclasses.replace(
        results, summaries=(*results.summaries, *summaries), comparisons=(*results.comparisons, *comparisons)
    )


def test_trainings_are_compared_with_frozen_features_and_kept_out_of_the_other_tables(results, trained):
    method = evidence.sections(results, METHOD, OTHER)
    with_both = list(evidence.sections(trained, METHOD, OTHER))
    tables = [text for text in with_both if text.startswith("**Each training minus frozen")]
    assert [text for text in with_both if text not in tables] == list(method)
    assert len(tables) == len({s.protocol for s in results.summaries})
    first = next(c for c in trained.comparisons if c.axis == "training")
    assert f"**{first.difference:+.3f} [{first.low:+.3f}, {first.high:+.3f}]**" in "".join(tables)
    assert all(line.startswith("| joint | ") for line in tables[0].splitlines()[4:])


def test_a_run_of_one_aggregator_and_several_trainings_has_their_table_alone(results, trained):
    alone = dataclasses.replace(
        trained,
        **{
            name: tuple(r for r in getattr(trained, name) if getattr(r, "aggregator", METHOD) == METHOD)
            for name in ("summaries", "comparisons", "sweet_spots")
        },
    )
    evidence.check(alone, METHOD, "absent", [])
    tables = list(evidence.sections(alone, METHOD, "absent"))
    protocols = list(dict.fromkeys(s.protocol for s in results.summaries))
    assert [text for text in tables if text.startswith("###")] == [f"### {protocol}" for protocol in protocols]
    assert sum(text.startswith("**Each training minus") for text in tables) == len(protocols)
    assert len(tables) == 2 * len(protocols)


def test_the_command_prints_the_tables(results, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(evidence.records, "read", lambda path: dataclasses.replace(results))
    assert evidence.main([str(tmp_path), "--method", METHOD, "--reference", OTHER]) == 0
    printed = capsys.readouterr().out
    assert f"**{METHOD} against each" in printed
    assert f"Gap above {OTHER}" in printed
    assert "Sweet spot of one dense pass" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method=nope"], "--method: this run has no aggregator 'nope'"),
        (["--reference=mean_vot"], "did you mean 'mean_vote'?"),
        (["--show", METHOD, "nope"], "--show: this run has no aggregator 'nope'"),
        (["--csv=/dev/null/folder"], "got: Not a directory"),
    ],
)
def test_mistakes_are_one_line(results, tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.setattr(evidence.records, "read", lambda path: results)
    given = [str(tmp_path), f"--method={METHOD}", f"--reference={OTHER}", *arguments]
    assert evidence.main(given) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_run_of_single_images_and_a_missing_run_are_refused(results, tmp_path, capsys, monkeypatch):
    assert evidence.main([str(tmp_path / "none")]) == 2
    assert "expected a results.json" in capsys.readouterr().err
    single = dataclasses.replace(results, summaries=tuple(s for s in results.summaries if s.n == 1))
    monkeypatch.setattr(evidence.records, "read", lambda path: single)
    assert evidence.main([str(tmp_path), f"--method={METHOD}", f"--reference={OTHER}"]) == 2
    assert "n above 1" in capsys.readouterr().err


def test_backbones_have_tables_of_their_own(results):
    def renamed(records_):
        return tuple(dataclasses.replace(r, backbone="other") for r in records_)

    both = dataclasses.replace(
        results, **{name: (*getattr(results, name), *renamed(getattr(results, name))) for name in evidence.TABLES}
    )
    alone = list(evidence.sections(results, METHOD, OTHER))
    sections = list(evidence.sections(both, METHOD, OTHER))
    bodies = [text for text in alone if not text.startswith("###")]
    assert [text for text in sections if not text.startswith("###")] == bodies * 2
    assert sections[0] == f"### {results.summaries[0].backbone}, {results.summaries[0].protocol}"
