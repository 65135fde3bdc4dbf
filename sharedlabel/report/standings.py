"""Which aggregators are shown to be better than which: rank intervals, groups that do not differ, wins and losses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sharedlabel.config.names import FROZEN
from sharedlabel.records import Rank
from sharedlabel.report.views import View, method


@dataclass(frozen=True)
class Tally:
    """Networks and n on which a method is better, equivalent, undecided or worse."""

    wins: int
    equivalent: int
    undecided: int
    losses: int

    def __str__(self) -> str:
        """Write the four counts, best first."""
        return f"{self.wins}/{self.equivalent}/{self.undecided}/{self.losses}"


@dataclass(frozen=True)
class Matrix:
    """Counts of the verdicts on RI for n >= 2, over all networks of one training.

    Attributes:
        names: methods, those with the most wins first.
        cells: by method and reference.
    """

    names: tuple[str, ...]
    cells: Mapping[tuple[str, str], Tally]

    @property
    def titles(self) -> dict[str, str]:
        """What the columns are called, by method."""
        return {name: name for name in self.names}


def trainings(view: View) -> list[str]:
    """List the kinds of training that have ranks, `frozen` first."""
    return sorted({rank.training for rank in view.ranks}, key=lambda training: (training != FROZEN, training))


def standing(view: View, training: str, n: int) -> list[Rank]:
    """List the ranks on RI at one n, by descending mean."""
    own = [r for r in view.ranks if (r.metric, r.training, r.n, r.endpoint) == ("ri", training, n, False)]
    return sorted(own, key=lambda r: -r.mean)


def sizes(view: View, training: str) -> list[int]:
    """List the n >= 2 that have ranks: with one instance there is nothing to fuse."""
    own = (r.n for r in view.ranks if r.training == training and not r.endpoint)
    return sorted({n for n in own if n is not None and n > 1})


def span(rank: Rank) -> str:
    """Write a rank as an interval."""
    return str(rank.rank_best) if rank.rank_best == rank.rank_worst else f"{rank.rank_best}-{rank.rank_worst}"


def matrix(view: View, training: str) -> Matrix | None:
    """Count the verdicts on RI for n >= 2; None if nothing was compared."""
    cells: dict[tuple[str, str], Tally] = {}
    for w in view.wins:
        if w.metric == "ri" and w.n > 1 and w.training == training:
            so_far = cells.get((w.method, w.reference), Tally(0, 0, 0, 0))
            cells[w.method, w.reference] = Tally(
                so_far.wins + w.wins,
                so_far.equivalent + w.equivalent,
                so_far.undecided + w.undecided,
                so_far.losses + w.losses,
            )
    if not cells:
        return None
    names = sorted({name for name, _ in cells})
    balance = {name: sum(t.wins - t.losses for (own, _), t in cells.items() if own == name) for name in names}
    return Matrix(tuple(sorted(names, key=lambda name: -balance[name])), cells)


def leaders(view: View, training: str, n: int) -> str:
    """Name the methods that may be first, with their rank intervals."""
    return ", ".join(f"{method(r)} {span(r)}" for r in standing(view, training, n) if r.rank_best == 1)
