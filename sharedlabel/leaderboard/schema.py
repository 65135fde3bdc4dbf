"""What is read from files and other processes: strictly, and with one line to say what is not as it has to be."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sharedlabel.errors import DataError, printable

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
_NAME = "[a-z0-9][a-z0-9._-]{0,63}"
Name = Annotated[str, Field(pattern=f"^{_NAME}$")]
NAMES = "a name of small letters, digits, '.', '_' and '-', 64 at most"
Read = TypeVar("Read", bound=BaseModel)


class Strict(BaseModel):
    """What is read from a file: unknown keys are refused, and nothing is changed afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def is_name(text: str) -> bool:
    """Whether a text can name a submission or a protocol, and so a folder."""
    return re.fullmatch(_NAME, text) is not None


def read_toml(path: Path, model: type[Read]) -> Read:
    """Read a TOML file into a model.

    Raises:
        DataError: the file is missing, is no TOML or does not fit; the message names the key.
    """
    try:
        text = path.read_bytes().decode()
    except FileNotFoundError as error:
        raise DataError(f"expected the file {path}, found none; add it") from error
    except UnicodeDecodeError as error:
        raise DataError(f"expected text in UTF-8 in {path}, got other bytes at {error.start}; save it so") from error
    return parse_toml(text, path, model)


def parse_toml(text: str, path: Path, model: type[Read]) -> Read:
    """Parse TOML that was read from a file.

    Raises:
        DataError: it is no TOML or does not fit; the message names the key.
    """
    try:
        return model.model_validate(tomllib.loads(text))
    except ValidationError as error:
        raise DataError(f"{path}: {explain(error)}") from error
    except RecursionError as error:
        raise DataError(f"expected TOML that is nested less in {path}, got too deep a table; correct it") from error
    except ValueError as error:  # no TOML, or a number of thousands of digits
        raise DataError(f"expected TOML in {path}, got: {printable(str(error), 200)}; correct the file") from error


def explain(error: ValidationError) -> str:
    """Say what is wrong with a file, key by key: the first ten, in characters that print, keys and values cut."""
    parts = []
    for entry in error.errors(include_url=False)[:10]:
        where = printable(".".join(map(str, entry["loc"])), 60) or "the file"
        try:
            shown = json.dumps(entry["input"], default=str)
        except (RecursionError, ValueError):  # nested too deep, or a number of thousands of digits
            shown = type(entry["input"]).__name__
        got = "" if entry["type"] == "missing" else f", got {printable(shown, 60)}"
        what = entry["msg"].removeprefix("Value error, ")
        parts.append(f"{where}: {what[:1].lower()}{what[1:]}{got}")
    return "; ".join(parts) + ("; and more" if error.error_count() > len(parts) else "")


def to_toml(tables: Mapping[str, Any]) -> str:
    """Write what a protocol or a submission holds: values first, then tables, then lists of tables."""
    lines: list[str] = []
    nested = {key: value for key, value in tables.items() if isinstance(value, Mapping)}
    listed = {
        key: value
        for key, value in tables.items()
        if isinstance(value, list | tuple) and value and isinstance(value[0], Mapping)
    }
    lines += [f"{key} = {_value(value)}" for key, value in tables.items() if key not in nested and key not in listed]
    for key, table in nested.items():
        lines += ["", f"[{key}]", *(f"{name} = {_value(value)}" for name, value in table.items())]
    for key, rows in listed.items():
        for row in rows:
            lines += ["", f"[[{key}]]", *(f"{name} = {_value(value)}" for name, value in row.items())]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name} = {_value(inner)}" for name, inner in value.items()) + "}"
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)
