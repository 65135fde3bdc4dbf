"""Tables of Markdown pages and CSV files, read for pages that are made of them, and written."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

_BAR = re.compile(r"(?<!\\)\|")


def rows(page: Path, *columns: str) -> dict[str, dict[str, str]]:
    """Return the rows of a page's first table that begins with these columns, by the code in their first cell.

    Args:
        page: Markdown.
        columns: names of the table's first columns.

    Returns:
        By name, such as `log_pool`, the cells by their column's name.

    Raises:
        LookupError: the page has no such table.
    """
    lines = page.read_text(encoding="utf-8").splitlines()
    starts = [place for place, line in enumerate(lines) if tuple(_cells(line)[: len(columns)]) == columns]
    if not starts:
        raise LookupError(f"expected a table that begins with {' | '.join(columns)} in {page}, got none")
    header, _, *cells = map(_cells, itertools.takewhile(lambda line: line.startswith("|"), lines[starts[0] :]))
    named = [(re.match(r"`(\w+)`", row[0]), row) for row in cells]
    return {name[1]: dict(zip(header, row, strict=True)) for name, row in named if name}


def records(path: Path) -> list[dict[str, str]]:
    """Return the lines of a CSV file as texts by column."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Write a Markdown table.

    >>> print(table(["n", "RI"], [["1", "0.5"]]))
    | n | RI |
    | --- | --- |
    | 1 | 0.5 |
    """
    written = [header, ["---"] * len(header), *lines]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in written)


def facts(row: Mapping[str, str]) -> str:
    """Write a table of two columns, without the first entry of the row and those that say nothing."""
    return table(["", "here"], [[name, cell] for name, cell in list(row.items())[1:] if cell not in {"", "-"}])


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in _BAR.split(line.strip().strip("|"))] if line.startswith("|") else []
