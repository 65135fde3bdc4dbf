"""The results of a run as pandas DataFrames."""

from __future__ import annotations

import dataclasses
import os
import types
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sharedlabel import records
from sharedlabel.api import _arguments
from sharedlabel.errors import ConfigError, printable

if TYPE_CHECKING:
    from pandas import DataFrame

# What columns are in pandas, by annotation; with `| None` those that know a missing value.
_PLAIN = {int: "int64", float: "float64", bool: "bool", str: "object"}
_WITH_GAPS = {int: "Int64", float: "float64", bool: "boolean", str: "object"}


class Results:
    """What a grid gave: its tables as DataFrames, and the facts behind them.

    Every table of `sharedlabel.records.Results`, which says what is in each, is an attribute: `rows`, `summaries`,
    `comparisons`, `sweet_spots`, `latencies` and all others that `tables` lists. A table is made when it is first asked
    for; pandas is needed for that alone. What its columns mean is said by the class of its records, such as
    `sharedlabel.records.TABLES["rows"]`.

    Args:
        records: everything as records; `sharedlabel.api.plot` draws from them.
        folder: where the files of the run lie, if they were written.

    Example::

        results = sharedlabel.load_results("runs/digits")
        test = results.summaries.query("split == 'test'")
        test.pivot_table(index="ratio", columns=["aggregator", "n"], values="ri")
    """

    def __init__(self, records: records.Results, folder: Path | None = None) -> None:
        self.records, self.folder = records, folder

    @property
    def config(self) -> dict[str, Any]:
        """The configuration that was run, all defaults included, as plain data."""
        return self.records.config

    @property
    def provenance(self) -> dict[str, Any]:
        """Commit, versions, device, date, and the seconds that the results took."""
        return self.records.provenance

    @property
    def tables(self) -> tuple[str, ...]:
        """Names of the tables."""
        return tuple(records.TABLES)

    def __getattr__(self, name: str) -> DataFrame:
        if name not in records.TABLES:
            raise AttributeError(
                f"results have no table {name!r}; available: {', '.join(records.TABLES)}", name=name, obj=self
            )
        made = frame(records.TABLES[name], getattr(self.records, name))
        self.__dict__[name] = made  # the next access does not come here
        return made

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *records.TABLES})

    def __repr__(self) -> str:
        filled = {table: len(getattr(self.records, table)) for table in records.TABLES}
        listed = ", ".join(f"{table} ({count})" for table, count in filled.items() if count)
        where = "" if self.folder is None else f" in {self.folder}"
        return printable(f"Results of {self.records.experiment!r}{where}: {listed or 'no tables'}")


def load_results(path: str | os.PathLike[str]) -> Results:
    """Read the results of a run.

    Args:
        path: the folder of the run, such as `runs/digits`, or its `results.json`.

    Raises:
        StoreError: there are none, or they are of another version.
        ConfigError: it is no path, or one that begins with the home of nobody.
    """
    place = _arguments.path(path, "a run")
    return Results(records.read(place), place if place.is_dir() else place.parent)


def frame(kind: type[Any], lines: Iterable[Any]) -> DataFrame:
    """Return records as a DataFrame, a column per field; columns have their types even where there are no lines.

    Args:
        kind: the dataclass of the records.
        lines: the records.

    Raises:
        ConfigError: pandas is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise ConfigError(
            'expected pandas, which tables are made with, got none; pip install "sharedlabel[pandas]", '
            "or read the records in `results.records` and the CSV files of the run"
        ) from error
    kept = list(lines)
    return pandas.DataFrame(
        {
            name: pandas.Series([getattr(line, name) for line in kept], dtype=dtype)
            for name, dtype in _columns(kind).items()
        }
    )


def _columns(kind: type[Any]) -> dict[str, str]:
    """Return the pandas type of every column."""
    annotations = typing.get_type_hints(kind)
    return {entry.name: _dtype(annotations[entry.name]) for entry in dataclasses.fields(kind)}


def _dtype(annotation: Any) -> str:
    parts = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    plain, gaps = [part for part in parts if part is not type(None)], type(None) in parts
    known = _WITH_GAPS if gaps else _PLAIN
    return known.get(plain[0], "object") if len(plain) == 1 else "object"
