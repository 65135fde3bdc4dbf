"""Results on disk: `results.json` holds one `Results`; each table is also written as CSV."""

from __future__ import annotations

import csv
import dataclasses
import functools
import io
import json
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from sharedlabel.errors import StoreError, printable
from sharedlabel.files import together
from sharedlabel.files.plain import read_file, read_json
from sharedlabel.records.identity import AXES, Identity
from sharedlabel.records.results import FORMAT, TABLES, Results
from sharedlabel.records.rows import Row
from sharedlabel.records.summaries import Summary

NAME = "results.json"
# What makes a spreadsheet compute a cell, letters of full width included, and the apostrophe that makes it a text.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20", "'")


def write(results: Results, folder: Path) -> None:
    """Write `results.json` and one CSV per table into a folder, together or not at all.

    Raises:
        WriteError: a file cannot be written; the message names it.
    """
    together.replace(folder, files(results))


def files(results: Results) -> dict[str, str]:
    """Return the content of `results.json` and of one CSV per table, by file name."""
    values = {item.name: getattr(results, item.name) for item in dataclasses.fields(results)}
    parts = {name: _table(TABLES[name], it) if name in TABLES else _nested(it) for name, it in values.items()}
    page = "{\n " + ",\n ".join(f'"{name}": {text}' for name, text in parts.items()) + "\n}\n"
    return {NAME: page} | {f"{table}.csv": to_csv(kind, getattr(results, table)) for table, kind in TABLES.items()}


def only(content: bytes, tables: Collection[str]) -> bytes:
    """Empty the other tables of a `results.json` that is laid out as we write it: most of it is rows.

    Args:
        content: of the file.
        tables: those to keep.

    Returns:
        The content, with every table that could not be told from its lines as it is.
    """
    parts, taken = [], 0
    for table in TABLES:  # in the order in which they stand there
        name = f'\n "{table}": ['.encode()
        begin = -1 if table in tables else content.find(name + b"\n", taken)
        end = -1 if begin < 0 else content.find(b"\n ]", begin)  # lists inside a table are further to the right
        if end > 0:
            parts += [content[taken:begin], name]
            taken = end + 2
    return b"".join([*parts, content[taken:]])


def _nested(value: Any) -> str:
    """Write a value of `results.json`, one level down."""
    plain = dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value
    return json.dumps(plain, indent=1, allow_nan=False).replace("\n", "\n ")


def _table(kind: type[Any], records: Iterable[Any]) -> str:
    """Write a table of `results.json`; as `json.dumps` with an indent does, but that takes ten times as long."""
    names = [item.name for item in dataclasses.fields(kind)]
    encode = json.JSONEncoder(allow_nan=False, separators=(",\n   ", ": ")).encode
    lines = [_line({name: getattr(record, name) for name in names}, encode) for record in records]
    return "[" + ",".join(f"\n  {line}" for line in lines) + "\n ]" if lines else "[]"


def _line(values: dict[str, Any], encode: Callable[[Any], str]) -> str:
    flat = encode(values)
    if "[" in flat or "{" in flat[1:]:  # a list in it, or such a letter in a name
        return json.dumps(values, indent=1, allow_nan=False).replace("\n", "\n  ")
    return f"{{\n   {flat[1:-1]}\n  }}"


def to_csv(kind: type[Any], records: Iterable[Any], digits: int | None = None) -> str:
    """Write records as CSV, a column per field.

    A text that a spreadsheet would compute (`=1+1`) has an apostrophe in front, which makes it a text there too;
    `from_cell` takes it away.

    Args:
        kind: their dataclass; it names the columns.
        records: the lines.
        digits: significant digits of floats; None for all.
    """
    names = [item.name for item in dataclasses.fields(kind)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    for record in records:
        writer.writerow([_cell(getattr(record, name), digits) for name in names])
    return text.getvalue()


def from_cell(text: str) -> str:
    r"""Return the text that a cell of a CSV stands for, with what is not printable still escaped.

    >>> [from_cell(cell) for cell in ("log_pool", "'=1+1", "''quoted'")]
    ['log_pool', '=1+1', "'quoted'"]
    """
    return text.removeprefix("'")


def _cell(value: Any, digits: int | None) -> Any:
    r"""Return what a cell holds: numbers as they are, lists as JSON, texts on one line that no spreadsheet computes.

    >>> [_cell(value, None) for value in ("=1+1", "-1", -1.5, "red\x1b[31m")]
    ["'=1+1", "'-1", -1.5, 'red\\x1b[31m']
    """
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, tuple):
        return json.dumps(value)
    return f"{value:.{digits}g}" if digits and isinstance(value, float) else value


@functools.lru_cache(maxsize=4096)  # tables repeat the names of methods and networks
def _text(value: str) -> str:
    return "'" * value.startswith(_FORMULA) + printable(value, len(value))


def read(path: Path, tables: Collection[str] | None = None) -> Results:
    """Read `results.json`, or the folder that holds it.

    Args:
        path: the file or the folder.
        tables: those that are needed; the others come back empty and are not checked. None for all.

    Raises:
        StoreError: it is absent, not readable, of another format or not what this version writes.
    """
    file = path / NAME if path.is_dir() else path
    try:
        content = together.read(file.parent, NAME) if file.name == NAME else read_file(file)
        payload = read_json(content if tables is None else only(content, tables))
    except (OSError, ValueError) as error:
        raise StoreError(f"expected a results.json at {file}, got: {error}; run `sharedlabel train` first") from error
    if not isinstance(payload, dict) or payload.get("format") != FORMAT:
        version = payload.get("format") if isinstance(payload, dict) else type(payload).__name__
        raise StoreError(
            f"{file} has format {version!r}, this version reads {FORMAT}; run the grid again to rewrite it"
        )
    if tables is not None:
        payload |= {table: [] for table in TABLES if table not in tables}
    try:
        results = TypeAdapter(Results).validate_python(payload)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise StoreError(
            f"{file} is not a results file of this version: expected what `sharedlabel train` writes, got "
            f"{where} = {printable(repr(first['input']), 60)} ({first['msg']}); run the grid again to rewrite it"
        ) from error
    apart = _places(results.rows) ^ _places(results.summaries)
    if apart and (tables is None or {"rows", "summaries"} <= set(tables)):
        raise StoreError(
            f"{file} is not a results file of this version: expected rows and summaries of the same methods, got one "
            f"of them alone for {printable(', '.join(map(str, min(apart, key=str))))}; run the grid again to rewrite it"
        )
    if tables is None:
        _check_names(results, file)
    return results


def _check_names(results: Results, file: Path) -> None:
    """Refuse tables that speak of methods and data without a row.

    Raises:
        StoreError: such a table.
    """
    for column in ("data", *(axis for axis in AXES if axis not in {"ratio", "seed"})):
        known = {getattr(row, column) for row in results.rows}
        for table in TABLES.keys() - {"failures"}:  # what failed has no rows
            for record in getattr(results, table):
                name = getattr(record, column, None)
                if name is not None and name not in known:
                    raise StoreError(
                        f"{file} is not a results file of this version: expected rows of every {column}, got none of "
                        f"{printable(repr(name), 60)}, which is in {table}; run the grid again to rewrite it"
                    )


def _places(records: Iterable[Row | Summary]) -> set[tuple[Any, ...]]:
    """Return what tells summaries apart."""
    return {(record.data, *Identity.of(record), record.split, record.n) for record in records}
