"""A table of groups: a CSV with the columns group and path, as spreadsheets and scripts write it.

A column position, if there is one, says where in its group an image stands, such as the number or the time of a frame.
"""

from __future__ import annotations

import csv
import io
import math
import posixpath
from collections.abc import Iterator
from typing import NamedTuple

from sharedlabel.errors import DataError

COLUMNS = ("group", "path")
POSITION = "position"
TABLE_BYTES = 1 << 30
_DELIMITERS = (",", ";", "\t", "|")
_LISTED = 8


class Line(NamedTuple):
    """A row of a table.

    Attributes:
        number: of its last line in the file, counted from 1.
        group: its group.
        path: of its image, without `.` and doubled slashes.
        position: of the image in its group; None where the table has no such column.
    """

    number: int
    group: str
    path: str
    position: float | None = None


def read_table(data: bytes, name: str, encoding: str) -> Iterator[Line]:
    """Read the rows of a CSV; commas, semicolons, tabs or bars separate the columns, and further ones are left alone.

    Args:
        data: the bytes of the file.
        name: what messages call it.
        encoding: how its text is encoded, as Python calls it.

    Raises:
        DataError: no text in this encoding, no such columns, a row without a group or a path, or no CSV.
    """
    text = _decoded(data, name, encoding)
    if text[:4].lower() == "sep=":  # which Excel writes above the header
        text = text.partition("\n")[2]
    header = next(iter(text.splitlines()), "")
    delimiter = max(_DELIMITERS, key=lambda one: len({*COLUMNS} & {*_names(header, one)}))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    try:
        names = [column.strip().lower() for column in next(reader, [])]
        columns = [*_columns(names, name), *([names.index(POSITION)] if POSITION in names else [])]
        for row in reader:
            cells = [row[column].strip() if column < len(row) else "" for column in columns]
            if any(cell.strip() for cell in row):
                yield _line(reader.line_num, cells, name)
    except csv.Error as error:
        raise DataError(
            f"expected a CSV with the columns group and path at {name}, got in row {reader.line_num}: {error}; "
            "check its quotes and its separators"
        ) from error


def _line(number: int, cells: list[str], name: str) -> Line:
    group, path, *position = cells
    for column, cell, other in (("group", group, path), ("path", path, group)):
        if not cell:
            raise DataError(
                f"expected a {column} in every row of {name}, got none for {other!r} in row {number}; fill it in or "
                "remove the row"
            )
    if not group.isprintable():
        raise DataError(f"expected names of groups in {name}, got {group!r} in row {number}; rename it")
    return Line(number, group, posixpath.normpath(path), *(_position(cell, path, number, name) for cell in position))


def _position(cell: str, path: str, number: int, name: str) -> float:
    try:
        position = float(cell)
    except ValueError:
        position = math.nan
    if not math.isfinite(position):
        raise DataError(
            f"expected a number as the position of {path!r} in row {number} of {name}, got {cell!r}; write the number "
            "or the time of its frame, or call the column otherwise"
        )
    return position


def _names(header: str, delimiter: str) -> list[str]:
    return [cell.strip().strip('"').strip().lower() for cell in header.split(delimiter)]


def _columns(header: list[str], name: str) -> list[int]:
    """Return the positions of the columns group and path."""
    if missing := [column for column in COLUMNS if column not in header]:
        some = ", ".join(map(repr, header[:_LISTED])) + (", ..." if len(header) > _LISTED else "")
        raise DataError(
            f"expected the columns group and path in {name}, got {some or 'none'}; add {' and '.join(missing)}, and "
            "separate columns by commas, semicolons, tabs or bars"
        )
    if twice := [column for column in COLUMNS if header.count(column) > 1]:
        raise DataError(f"expected the columns group and path once each in {name}, got {twice[0]} twice; remove one")
    return [header.index(column) for column in COLUMNS]


def _decoded(data: bytes, name: str, encoding: str) -> str:
    try:
        return data.decode("utf-8-sig" if encoding.lower().replace("_", "-") in ("utf-8", "utf8") else encoding)
    except LookupError as error:
        raise DataError(
            f"encoding: expected the name of a text encoding such as utf-8, latin-1 or cp1252, got {encoding!r}; "
            "correct it"
        ) from error
    except UnicodeError as error:
        start = getattr(error, "start", 0)
        row, bad = data.count(b"\n", 0, start) + 1, data[start : start + 4].hex(" ")
        raise DataError(
            f"expected text in {encoding} in {name}, got the bytes {bad} in row {row}; state its encoding, such as "
            "latin-1, cp1252 or utf-16, or save it as UTF-8"
        ) from error
