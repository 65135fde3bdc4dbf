"""What authors say of their submission in `submission.toml`."""

from __future__ import annotations

import json
import unicodedata
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from sharedlabel.leaderboard.schema import Strict


class _Printed(Strict):
    """What tables and pages show: every text is one line without control or format characters."""

    @field_validator("*")
    @classmethod
    def _one_line(cls, value: Any) -> Any:
        hidden = unprinted(value) if isinstance(value, str) else None
        if hidden:
            raise ValueError(f"expected one line of printable text; remove {hidden}")
        return value


class Author(_Printed):
    """Who wrote it.

    Attributes:
        name: as it should be shown.
        affiliation: may be empty.
        url: of a home page or profile; may be empty.
    """

    name: Annotated[str, Field(min_length=1, max_length=100)]
    affiliation: Annotated[str, Field(max_length=200)] = ""
    url: Annotated[str, Field(max_length=300, pattern="^(https://[^ ]+)?$")] = ""


class Tuning(_Printed):
    """What was spent on choosing the options.

    Attributes:
        trials: settings that were tried, 0 for none.
        selected_on: where they were compared.
        note: in words; may be empty.
    """

    trials: Annotated[int, Field(ge=0, le=1_000_000_000)]
    selected_on: Literal["nothing", "validation", "other data"]
    note: Annotated[str, Field(max_length=1000)] = ""


class Metadata(_Printed):
    """`submission.toml`.

    Attributes:
        title: what the table calls it.
        description: what it does, in one paragraph.
        license: SPDX identifier of the code's licence.
        source: address of the paper or the code; may be empty.
        external_data: whether anything was learnt from data that the protocol does not hold.
        external_data_note: what, if so.
        tuning: what was spent on choosing the options.
        authors: at least one.
    """

    title: Annotated[str, Field(min_length=1, max_length=80)]
    description: Annotated[str, Field(min_length=20, max_length=2000)]
    license: Annotated[str, Field(pattern=r"^[A-Za-z0-9.+-]{2,40}$")]
    source: Annotated[str, Field(max_length=300, pattern="^(https://[^ ]+)?$")] = ""
    external_data: bool
    external_data_note: Annotated[str, Field(max_length=1000)] = ""
    tuning: Tuning
    authors: Annotated[tuple[Author, ...], Field(min_length=1, max_length=50)]


def unprinted(text: str, allowed: str = "") -> str | None:
    """Name the first control, format or unassigned character or separator of lines: U+202E or the like."""
    for letter in text:
        category = unicodedata.category(letter)
        if letter not in allowed and (category.startswith("C") or category in ("Zl", "Zp")):
            return f"U+{ord(letter):04X}"
    return None


def schema() -> str:
    """Return the JSON Schema of `submission.toml`."""
    return json.dumps(Metadata.model_json_schema(), indent=2, ensure_ascii=False) + "\n"
