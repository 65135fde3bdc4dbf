"""Where the recommended method goes wrong: which labels it takes for which, and examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sharedlabel.config.names import network_name
from sharedlabel.records.answers import Confusion, Mistake
from sharedlabel.records.written import percent
from sharedlabel.report.views import View, method

_SQUARE = 12  # labels, at most, of a table of all pairs
_PAIRS = 10  # of labels that are confused most, where they are more
_PICTURE = "data:image/"


@dataclass(frozen=True)
class Wrong:
    """What is said of one view.

    Attributes:
        of: data set, backbone and protocol.
        caption: what it is about.
        labels: of the rows and columns of the table; empty where there are too many.
        rows: by label, the share of its tuples that each label was given to, and how many these are.
        pairs: the most frequent confusions, in words.
        mistakes: examples, each in words, and with pictures and what these are of.
    """

    of: str
    caption: str
    labels: tuple[str, ...]
    rows: tuple[tuple[tuple[float, int], ...], ...]
    pairs: tuple[str, ...]
    mistakes: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]


def wrong(view: View, names: Sequence[str]) -> Wrong | None:
    """Arrange confusions and mistakes; None where none are stored.

    Args:
        view: whose.
        names: of the labels, in their order.
    """
    if not view.confusions:
        return None
    some = view.confusions[0]
    counts = {(c.label, c.predicted): c.tuples for c in view.confusions}
    totals = {name: sum(counts.get((name, other), 0) for other in names) for name in names}
    rows = [[counts.get((name, other), 0) for other in names] for name in names] if len(names) <= _SQUARE else []
    return Wrong(
        f"{view.data}, {view.backbone}, {view.protocol} tuples",
        f"{method(some)} on {network_name(some.pruner, some.ratio)}, n = {some.n}; {view.data}, {view.protocol} "
        "tuples, test, all seeds and partitions",
        tuple(names) if rows else (),
        tuple(
            tuple((count / max(1, totals[name]), count) for count in row)
            for name, row in zip(names, rows, strict=False)
        ),
        tuple(_pairs(view.confusions, totals)),
        tuple(map(_example, view.mistakes)),
    )


def _pairs(confusions: Sequence[Confusion], totals: dict[str, int]) -> list[str]:
    """Say which labels are taken for which, the largest shares first."""
    missed = [c for c in confusions if c.label != c.predicted]
    missed.sort(key=lambda c: -c.tuples / max(1, totals.get(c.label, 0)))
    return [
        f"{c.label} taken for {c.predicted}: {percent(c.tuples / max(1, totals.get(c.label, 0)))} of its tuples "
        f"({c.tuples:,})"
        for c in missed[:_PAIRS]
    ]


def _example(mistake: Mistake) -> tuple[str, tuple[tuple[str, str], ...]]:
    taken = f"{mistake.label}, taken for {mistake.predicted}"
    own = [picture for picture in mistake.pictures if picture.startswith(_PICTURE)]
    pictures = tuple((picture, f"{taken}, image {place} of {len(own)}") for place, picture in enumerate(own, start=1))
    return f"{taken}; its own probability was {percent(mistake.probability)}", pictures
