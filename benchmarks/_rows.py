"""Rows of results that were not measured, for simulations and for tests of size."""

from __future__ import annotations

import dataclasses
from typing import Any

from sharedlabel.records import Row

_BLANK = {"int": 1, "float": 1.0, "str": "", "bool": False}  # what may be None is


def made_row(**given: Any) -> Row:
    """Return a row with the given values; all others say nothing.

    >>> made_row(seed=3).seed, made_row().data, made_row().measured_latency_ms
    (3, '', None)
    """
    blank = {item.name: _BLANK.get(str(item.type)) for item in dataclasses.fields(Row)}
    return Row(**{**blank, "protocol": "iid", "split": "test", **given})
