"""Who stands where on a protocol: intervals, ranks, costs and the Pareto front, from stored scores of every tuple."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float64
from torch import Tensor

from sharedlabel.errors import StoreError
from sharedlabel.leaderboard.board import facts, records
from sharedlabel.leaderboard.board.facts import Event, Result
from sharedlabel.leaderboard.folder import Board
from sharedlabel.leaderboard.protocol import Protocol, uniform
from sharedlabel.leaderboard.submission import reading
from sharedlabel.leaderboard.submission.reading import Submission
from sharedlabel.metrics.information import label_entropy
from sharedlabel.metrics.moderation import moderate
from sharedlabel.metrics.paired import all_pairs
from sharedlabel.metrics.uncertainty import independent, seed_average
from sharedlabel.records import Verdict
from sharedlabel.scoring.scores import relative_information_ends
from sharedlabel.summary.ranks import rank_intervals
from sharedlabel.summary.verdicts import Differences
from sharedlabel.types import Tuples

ROUNDING = 1e-3  # bits: predictions and scores are float16, and smaller mean differences are none
MARGIN = 0.002  # RI within which two entries are equivalent


@dataclass(frozen=True)
class Listed:
    """An entry as it was read from the board.

    Attributes:
        submission: its files.
        result: what it reached.
        history: from the first run on; the last line says its status.
        scores: of every tuple.
    """

    submission: Submission
    result: Result
    history: tuple[Event, ...]
    scores: Mapping[str, Tensor]

    @property
    def ranked(self) -> bool:
        """Whether it takes part in the ranking."""
        return self.history[-1].status == facts.RANKED


@dataclass(frozen=True)
class Standing:
    """A row of the table.

    Attributes:
        entry: what it stands for.
        ri: primary score: mean over networks, seeds and n.
        low: end of its 95% interval over images and seeds.
        high: likewise.
        accuracy: mean n-accuracy.
        macs: of a tuple of the largest n.
        best: 1 + those shown to be better; None where it is not ranked.
        worst: all but those shown to be worse; None where it is not ranked.
        alike: names of those that it is not shown to differ from.
        front: whether no other ranked entry has at least its mean for at most its MACs, and more of it or fewer MACs.
    """

    entry: Listed
    ri: float
    low: float
    high: float
    accuracy: float
    macs: int
    best: int | None
    worst: int | None
    alike: tuple[str, ...]
    front: bool


def entries(board: Board, protocol: Protocol) -> list[Listed]:
    """Read every entry of a protocol; all checksums have to hold.

    Raises:
        SharedLabelError: a submission or a result is missing or was altered.
    """
    listed = []
    for folder in sorted((board.root / "results" / protocol.id).glob("[!.]*")):
        reading.check_name(folder.name)
        place = records.Entry(board.root, protocol, folder.name)
        result = place.result()
        own = reading.named(board.root, folder.name)
        if own.sha256 != result.submission:
            raise StoreError(f"submission {folder.name} changed after its run on {protocol.id}; restore its files")
        listed.append(Listed(own, result, place.history(), place.scores(result)))
    return listed


def standings(listed: Sequence[Listed], protocol: Protocol, answers: Mapping[str, Tuples]) -> list[Standing]:
    """Rank verified entries, best mean first; the others follow without a rank.

    Args:
        listed: all entries of the protocol.
        protocol: what they were scored on.
        answers: the tuples, for their weights.
    """
    ranked = [one for one in listed if one.ranked]
    others = [one for one in listed if not one.ranked]
    drawn, size = answers["test"], protocol.source.test.count
    names = [one.result.name for one in ranked]
    entropy = label_entropy(uniform(protocol).log())
    columns = [_columns(one) for one in ranked]
    places = rank_intervals(names, verdicts(names, columns, drawn, protocol.n, size, entropy)) if ranked else {}
    rows = []
    for one in (*ranked, *others):
        ri, low, high = _mean(one, protocol, drawn, size)
        macs = one.result.cost.macs[max(protocol.n)]
        best, worst, alike = places[one.result.name] if one.ranked else (None, None, ())
        accuracy = statistics.fmean(cell.n_accuracy for cell in one.result.cells)
        rows.append(Standing(one, ri, low, high, accuracy, macs, best, worst, alike, False))
    kept = [row for row in rows if row.best is not None]
    front = {row.entry.result.name for row in kept if not any(_dominates(other, row) for other in kept)}
    rows = [replace(row, front=row.best is not None and row.entry.result.name in front) for row in rows]
    return sorted(rows, key=lambda row: (row.best is None, -row.ri))


def _dominates(other: Standing, row: Standing) -> bool:
    no_worse = other.macs <= row.macs and other.ri >= row.ri
    return no_worse and (other.macs < row.macs or other.ri > row.ri)


def _columns(one: Listed) -> Float64[Tensor, "s p t k"]:
    """Return the score that is ranked of every seed and tuple: mean bits over networks and n."""
    bits = one.scores["information"].double().mean(dim=(0, 3))
    return bits[:, None, :, None]


def verdicts(
    names: Sequence[str],
    columns: Sequence[Float64[Tensor, "s p t 1"]],
    drawn: Tuples,
    n: Sequence[int],
    instances: int,
    entropy: float,
) -> dict[tuple[str, str], Verdict]:
    """Compare every two entries on the same tuples and seeds; Bonferroni over all pairs.

    Args:
        names: of the entries.
        columns: the score that is ranked of every seed and tuple, bits.
        drawn: the tuples.
        n: tuple sizes that the score is averaged over.
        instances: images in the split.
        entropy: H(Y) in bits.
    """
    pairs = [(a, b) for a in range(len(names)) for b in range(a)]
    if not pairs:
        return {}
    scores = torch.stack(list(columns))
    compared, seeds, averaged = all_pairs(scores, drawn, [max(n)], instances), scores.shape[1], statistics.fmean(n)
    first, second = torch.tensor(pairs).T
    spread = compared.spread[first, second]
    if seeds > 1:
        of_seeds, freedom = moderate(spread.of_seeds[:, None], seeds - 1)
        spread = replace(spread, of_seeds=of_seeds[:, 0], seed_freedom=freedom.expand_as(spread.seed_freedom))
    value = compared.difference[first, second]
    value = torch.where(value.abs() < ROUNDING, 0.0, value)
    unit = torch.tensor([entropy], dtype=torch.float64)
    differences = Differences(value, spread, unit, independent([averaged], instances), seeds)
    judged = differences.judged(torch.full((len(pairs), 1), float(len(pairs)), dtype=torch.float64), MARGIN)
    return {(names[a], names[b]): line[0].verdict for (a, b), line in zip(pairs, judged, strict=True)}


def _mean(one: Listed, protocol: Protocol, drawn: Tuples, size: int) -> tuple[float, float, float]:
    entropy, averaged = label_entropy(uniform(protocol).log()), statistics.fmean(protocol.n)
    average = seed_average(_columns(one), drawn, [max(protocol.n)], size, None)
    mean, low, high = relative_information_ends(average, independent([averaged], size), entropy)
    return float(mean), float(low), float(high)
