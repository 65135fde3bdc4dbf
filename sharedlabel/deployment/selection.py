"""Choose one cell of a run by its id or by its labels; imports no torch, so mistakes are answered at once."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

from sharedlabel.config.names import EXACT, FROZEN
from sharedlabel.errors import DeploymentError, nearest
from sharedlabel.records import AXES, Results, Row

_LISTED = 8
_NEAREST = 3


def choose(results: Results, cell: str, wanted: Mapping[str, str | int | float]) -> tuple[Row, ...]:
    """Return the rows of the one cell with this id and these labels.

    Args:
        results: of a run.
        cell: the first digits of its id; empty for any.
        wanted: labels by axis; those left out may have any value.

    Raises:
        DeploymentError: there is no such cell, there are several, or it has no networks.
    """
    cells = {row.cell: row for row in results.rows}
    begun = {key: row for key, row in cells.items() if key.startswith(cell)}
    if not begun:
        raise DeploymentError(
            f"unknown cell {cell!r} in the run {results.experiment!r}; nearest: {_nearest(cell, cells)}; the column "
            "`cell` of rows.csv lists all, or choose by --aggregator, --pruner, --ratio, --seed"
        )
    matching = {key: row for key, row in begun.items() if all(getattr(row, a) == v for a, v in wanted.items())}
    if len(matching) != 1:
        raise DeploymentError(_several(matching) if matching else _none(list(begun.values()), wanted))
    key, row = next(iter(matching.items()))
    if row.aggregator == EXACT:
        raise DeploymentError(
            f"expected a cell with trained networks, got {key} ({describe(row)}): the exact posterior of synthetic "
            "data is a formula that knows how they were drawn; choose a cell of an aggregator"
        )
    return tuple(row for row in results.rows if row.cell == key)


def describe(row: Row) -> str:
    """Name a cell by its labels."""
    how = "" if row.training == FROZEN else f" {row.training}"
    return f"{row.backbone} {row.pruner} {row.ratio:g}x {row.aggregator}{how} {row.protocol} seed {row.seed}"


def _nearest(cell: str, cells: Mapping[str, Row]) -> str:
    """Name the ids most like this one."""
    close = difflib.get_close_matches(cell, cells, n=_NEAREST, cutoff=0)
    return "; ".join(f"{key} = {describe(cells[key])}" for key in close)


def _none(rows: Sequence[Row], wanted: Mapping[str, str | int | float]) -> str:
    """Say which of the wanted labels no cell has, or that no cell has all of them."""
    for axis, value in wanted.items():
        known = {getattr(row, axis) for row in rows}
        if value not in known and isinstance(value, str):
            return f"unknown {axis} {value!r} in this run; {nearest(value, known)}"
        if value not in known:
            available = ", ".join(f"{number:g}" for number in sorted(known))
            return f"unknown {axis} {value:g} in this run; available: {available}"
    asked = ", ".join(f"{axis}={value}" for axis, value in wanted.items())
    return f"expected a cell with {asked}, got none: the run has each, but not together; see rows.csv"


def _several(matching: Mapping[str, Row]) -> str:
    some = "; ".join(f"{key} = {describe(row)}" for key, row in list(matching.items())[:_LISTED])
    more = f"; and {len(matching) - _LISTED} more" if len(matching) > _LISTED else ""
    axes = ", ".join(f"--{axis}" for axis in AXES if len({getattr(row, axis) for row in matching.values()}) > 1)
    return f"expected one cell, got {len(matching)}: {some}{more}; give more digits of the id, or {axes}"
