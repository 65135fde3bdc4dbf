"""The tables of evidence: read from a run's records alone."""

from __future__ import annotations

import csv
import dataclasses

import pytest

from benchmarks import evidence
from sharedlabel.results import OPPOSITE

METHOD, OTHER = "lstm", "log_pool"


def test_comparisons_are_turned_to_method_minus_other(results):
    forward = list(evidence.oriented(results.comparisons, METHOD, OTHER))
    backward = list(evidence.oriented(results.comparisons, OTHER, METHOD))
    assert forward
    assert all((c.method, c.reference) == (METHOD, OTHER) for c in forward)
    for one, other in zip(forward, backward, strict=True):
        assert (one.difference, one.low, one.high) == (-other.difference, -other.high, -other.low)
        assert one.verdict == OPPOSITE[other.verdict]


def test_planned_comparisons_are_adjusted_among_themselves(results):
    protocol = results.summaries[0].protocol
    planned = evidence.adjusted(results, protocol, METHOD)
    assert {c.method for c in planned} == {METHOD}
    assert all(c.metric == "ri" and c.n > 1 and c.protocol == protocol for c in planned)
    smallest = min(planned, key=lambda c: c.p_value)
    assert smallest.p_holm == pytest.approx(min(1.0, smallest.p_value * len(planned)))
    assert all((c.verdict == "tied") == (c.p_holm >= 0.05) for c in planned)


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
        dataclasses.replace(c, axis="training", training="joint", method="joint", reference="frozen", verdict="tied")
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


def test_the_command_prints_the_tables(results, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(evidence.records, "read", lambda path: dataclasses.replace(results))
    assert evidence.main([str(tmp_path), "--method", METHOD, "--reference", OTHER]) == 0
    printed = capsys.readouterr().out
    assert f"**{METHOD} against each" in printed
    assert f"Gap above {OTHER}" in printed
    assert "Sweet spot of one dense pass" in printed
