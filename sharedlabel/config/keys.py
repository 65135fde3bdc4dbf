"""Canonical JSON and its digests, of which the keys of stored results are made."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

from sharedlabel.config.plugins import Plugin, key_options


def canonical(value: Any) -> str:
    """Serialise a value to canonical JSON: sorted keys, no white space, dataclasses with all their defaults.

    Options that are `added` are left out while they compute what was computed without them.

    >>> canonical({"b": 1, "a": (1.0, None)})
    '{"a":[1.0,null],"b":1}'
    """

    def encode(item: Any) -> Any:
        if isinstance(item, Plugin):
            return item.key()
        if dataclasses.is_dataclass(item) and not isinstance(item, type):
            return key_options(item)
        raise TypeError(f"cannot serialise {type(item).__name__} into a key")

    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, default=encode)


def digest(value: Any) -> str:
    """Return the sha256 of a value's canonical JSON."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()
