"""What a report says of aggregators that do not see the order of a sequence."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from sharedlabel import records
from sharedlabel.report import sentences, views
from sharedlabel.running import about


@pytest.fixture
def view(finished):
    """A view of the small grid, as if its tuples were sequences."""
    results = finished.results
    other = [dataclasses.replace(one, protocol="sequence") for one in results.summaries]
    return views.split(dataclasses.replace(results, summaries=tuple(other)))[0]


def test_a_run_knows_which_aggregators_see_no_order(finished):
    assert finished.results.order_free == about.order_free(finished.grid) == ("mean_vote", "log_pool")


def test_what_is_written_says_so(finished):
    folder = Path(finished.experiment.output) / finished.experiment.name
    assert records.read(folder).order_free == ("mean_vote", "log_pool")


def test_only_a_sequence_has_an_order(finished, view):
    said = "The order of the instances makes no difference to mean_vote, log_pool; in their order read them lstm."
    assert sentences.order(view) == said
    assert sentences.order(views.split(finished.results)[0]) == ""
    assert sentences.order(dataclasses.replace(view, order_free=())) == ""  # of an older version
    every = dataclasses.replace(view, order_free=("mean_vote", "log_pool", "lstm"))
    assert sentences.order(every).endswith("to mean_vote, log_pool, lstm.")
