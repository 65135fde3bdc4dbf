"""Long tables for a page: columns that a script reads, and the first rows as they are."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from sharedlabel.records import TABLES, Results, meanings

LETTERS = 160_000  # of a table that a page holds; browsers and mailboxes choke on more
PAGE = 20  # rows
_LEAD = (
    "aggregator",
    "method",
    "reference",
    "ratio",
    "n",
    "pruner",
    "protocol",
    "split",
    "seed",
    "rule",
    "value",
    "metric",
)


@dataclass(frozen=True)
class LongTable:
    """A table of records.

    Attributes:
        name: of the table and its CSV file.
        heading: what it is called.
        about: what is in it.
        columns: names with what they mean.
        rows: those of the first page.
        json: of all rows that the page holds, safe inside a script element.
        held: how many these are.
        count: how many there are.
    """

    name: str
    heading: str
    about: str
    columns: tuple[tuple[str, str], ...]
    rows: tuple[tuple[Any, ...], ...]
    json: Markup
    held: int
    count: int


def long_tables(results: Results) -> list[LongTable]:
    """Arrange the tables that `Results` describes for readers: failures first, and the longest one last."""
    described = {item.name: item.metadata for item in dataclasses.fields(results) if "heading" in item.metadata}
    order = sorted(described, key=lambda name: (name != "failures", name == "rows"))
    return [_table(name, getattr(results, name), **described[name]) for name in order if getattr(results, name)]


def _table(name: str, lines: Sequence[Any], heading: str, about: str) -> LongTable:
    names = [field.name for field in dataclasses.fields(TABLES[name])]
    names.sort(key=lambda name: _LEAD.index(name) if name in _LEAD else len(_LEAD))
    glossary = meanings(TABLES[name])
    columns = tuple((column, glossary.get(column, "")) for column in names)
    held = len(lines)
    text = _json(columns, lines)
    while len(text) > LETTERS and held > PAGE:
        held = max(PAGE, int(0.98 * held * LETTERS / len(text)))
        text = _json(columns, lines[:held])
    first = tuple(tuple(_short(getattr(line, column)) for column in names) for line in lines[:PAGE])
    return LongTable(name, heading, about, columns, first, Markup(text), held, len(lines))  # noqa: S704


def _json(columns: Sequence[tuple[str, str]], lines: Sequence[Any]) -> str:
    """Write records column by column; what repeats is written once."""
    packed = [_packed([_short(getattr(line, name)) for line in lines]) for name, _ in columns]
    told = {"count": len(lines), "columns": packed}
    return json.dumps(told, separators=(",", ":")).replace("<", "\\u003c")


def _packed(values: Sequence[Any]) -> dict[str, Any]:
    """Return values as they are, or as places in a list of different ones where that is shorter."""
    words = list(dict.fromkeys(values))
    if len(words) == 1:
        return {"words": words}
    if len(words) > len(values) / 2 or all(isinstance(word, int) for word in words):
        return {"values": list(values)}
    places = {word: place for place, word in enumerate(words)}
    return {"words": words, "places": [places[value] for value in values]}


def _short(value: Any) -> Any:
    """Return a value as it is shown: floats with five digits.

    >>> _short(0.123456789), _short(3), _short(None)
    (0.12346, 3, None)
    """
    return float(f"{value:.5g}") if isinstance(value, float) else value
