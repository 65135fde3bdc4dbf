"""What tells series apart: a colour of the page, a shape and a dash, the same in every figure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sharedlabel.config.names import EXACT

COLORS = 9  # of the style sheet, told apart with every common colour blindness
INK, RING = -1, -2  # numbers of marks that no series of names has
_DASHES = ("", "5 2", "1.5 1.5", "7 2 1.5 2")
# Shapes around a point, as the end of a path that has moved there.
SHAPES = (
    "m-3 0a3 3 0 1 0 6 0a3 3 0 1 0-6 0",
    "m-2.6-2.6h5.2v5.2h-5.2z",
    "m0-3.4l3.2 5.6h-6.4z",
    "m0-3.7l3.7 3.7l-3.7 3.7l-3.7-3.7z",
    "m0 3.4l3.2-5.6h-6.4z",
    "m-1.1-3.2h2.2v2.1h2.1v2.2h-2.1v2.1h-2.2v-2.1h-2.1v-2.2h2.1z",
    "m-3-3h2.2l.8 1.6l.8-1.6h2.2l-1.6 3l1.6 3h-2.2l-.8-1.6l-.8 1.6h-2.2l1.6-3z",
    "m-3.4 0l5.6-3.2v6.4z",
    "m3.4 0l-5.6-3.2v6.4z",
)
_RING = "m-7 0a7 7 0 1 0 14 0a7 7 0 1 0-14 0"


@dataclass(frozen=True)
class Mark:
    """How one series is drawn.

    Attributes:
        number: among all of its kind, `INK`, or `RING` for a ring around other marks.
    """

    number: int

    @property
    def color(self) -> str:
        """Its colour, as a style sheet takes it."""
        return "var(--ink)" if self.number < 0 else f"var(--series-{self.number % COLORS})"

    @property
    def shape(self) -> str:
        """Its shape."""
        return _RING if self.number == RING else SHAPES[max(self.number, 0) % len(SHAPES)]

    @property
    def dash(self) -> str:
        """Lengths of dashes and gaps; empty for a solid line."""
        return _DASHES[max(self.number, 0) // COLORS % len(_DASHES)]


class Palette:
    """The mark of every name, the same in all figures.

    Args:
        names: aggregators, pruners or ratios; the exact posterior is drawn in ink.
    """

    def __init__(self, names: Iterable[str]) -> None:
        ordered = list(dict.fromkeys(names))
        self._marks = {name: Mark(place) for place, name in enumerate(name for name in ordered if name != EXACT)}
        self._marks[EXACT] = Mark(INK)

    def __getitem__(self, name: str) -> Mark:
        """Return the mark of a name."""
        return self._marks[name]
