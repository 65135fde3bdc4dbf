"""The rows of a table as they can be downloaded."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from sharedlabel.errors import StoreError
from sharedlabel.leaderboard.board.facts import Result
from sharedlabel.leaderboard.board.standings import Standing


@dataclass(frozen=True)
class Line:
    """A row of the downloads.

    Attributes:
        rank_best: 1 + those shown to be better; empty where it is not ranked.
        rank_worst: all but those shown to be worse; empty where it is not ranked.
        name: of the submission.
        title: as its authors call it.
        status: self-reported, verified, disputed or withdrawn.
        ri: primary score: mean relative information over networks, seeds and n.
        ri_low: end of its 95% interval over images and seeds.
        ri_high: likewise.
        n_accuracy: mean over the same cells, in [0, 1].
        macs: of a tuple of the largest n.
        parameters: of the aggregator.
        seconds: to train and predict with one network and seed, median; of the run that made the result.
        front: whether no other ranked entry has at least its mean for at most its MACs, and more of it or fewer MACs.
        alike: entries that it is not shown to differ from.
        authors: names.
        license: of the code.
        external_data: whether it learnt from other data.
        trials: settings that were tried.
        updated: of the last line of its history, UTC.
    """

    rank_best: int | None
    rank_worst: int | None
    name: str
    title: str
    status: str
    ri: float
    ri_low: float
    ri_high: float
    n_accuracy: float
    macs: int
    parameters: int
    seconds: float
    front: bool
    alike: str
    authors: str
    license: str
    external_data: bool
    trials: int
    updated: str


def line_of(row: Standing) -> Line:
    """Write a row of the table as it is downloaded."""
    result, metadata = row.entry.result, row.entry.submission.metadata
    return Line(
        row.best,
        row.worst,
        result.name,
        metadata.title,
        row.entry.history[-1].status,
        row.ri,
        row.low,
        row.high,
        row.accuracy,
        row.macs,
        result.cost.parameters,
        seconds(result)["both"],
        row.front,
        ",".join(row.alike),
        ", ".join(author.name for author in metadata.authors),
        metadata.license,
        metadata.external_data,
        metadata.tuning.trials,
        row.entry.history[-1].time,
    )


def seconds(result: Result) -> dict[str, float]:
    """Return medians over processes of the time of `training`, `prediction` and `both`, in seconds.

    Args:
        result: of an entry.

    Raises:
        StoreError: it holds no times.
    """
    if not result.seconds:
        raise StoreError(
            f"expected seconds in the result of {result.name}, got none; it was altered: run and score again"
        )
    training, prediction = zip(*result.seconds.values(), strict=True)
    return {
        "training": statistics.median(training),
        "prediction": statistics.median(prediction),
        "both": statistics.median(map(sum, result.seconds.values())),
    }
