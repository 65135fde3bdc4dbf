r"""Results as a person is shown them: names of one line, of bounded length, without letters that steer what shows them.

Names come from folders, files and configurations that anybody may have written. What reads results goes on with the
names as they are; terminal, pages and figures show these. Each exit has its own way with what is left: markup is off in
the terminal, pages escape, figures parse no mathematics, and cells of a CSV are quoted (`records.to_csv`).
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter
from typing import Any

from sharedlabel.errors import printable
from sharedlabel.machine import memory
from sharedlabel.records import TABLES, Results

LONGEST = 200  # letters of a name
_NESTED = ("experiment", "config", "provenance", "dataset")


def name(text: str) -> str:
    r"""Return a single name as it is shown.

    >>> name("a\nb")
    'a\\nb'
    """
    return printable(text, LONGEST)


@memory.uncollected()
def shown(results: Results, write: Callable[[str], str] = printable) -> Results:
    """Return results with names to be shown; those that differ stay different.

    Args:
        results: what a grid found.
        write: how a name is written.

    Returns:
        The same results where every name is written as it is.
    """
    fields = {table: _texts(kind) for table, kind in TABLES.items()}
    columns = (map(attrgetter(name), getattr(results, table)) for table, names in fields.items() for name in names)
    written = _apart(sorted(set().union(*columns) - {None}), write)
    changed: dict[str, Any] = {part: _plain(getattr(results, part)) for part in _NESTED}
    if any(text != own for text, own in written.items()):
        for table, names in fields.items():
            changed[table] = tuple(_renamed(record, names, written) for record in getattr(results, table))
    return dataclasses.replace(results, **changed)


def _texts(kind: type[Any]) -> tuple[str, ...]:
    """Return the names of a record's columns of text; the few words of literal ones are ours."""
    return tuple(
        item.name for item in dataclasses.fields(kind) if "str" in str(item.type) and "tuple" not in str(item.type)
    )


def _apart(texts: Iterable[str], write: Callable[[str], str]) -> dict[str, str]:
    """Write names so that no two become one, those first that are written as they are."""
    pairs = sorted(((text, write(text)) for text in texts), key=lambda pair: pair[0] != pair[1])
    taken: set[str] = set()
    written = {}
    for text, own in pairs:
        others = (f"{own} ~{i}" for i in itertools.count(2))
        free = next(one for one in itertools.chain([own], others) if one not in taken)
        taken.add(free)
        written[text] = free
    return written


def _renamed(record: Any, names: Iterable[str], written: Mapping[str, str]) -> Any:
    old = {name: getattr(record, name) for name in names}
    return dataclasses.replace(record, **{name: written[text] for name, text in old.items() if text is not None})


def _plain(value: Any) -> Any:
    """Return a tree of plain values with all its texts on one line."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Mapping):
        return {_plain(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain(inner) for inner in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [item.name for item in dataclasses.fields(value)]
        return dataclasses.replace(value, **{name: _plain(getattr(value, name)) for name in names})
    return value
