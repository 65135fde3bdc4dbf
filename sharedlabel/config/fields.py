"""Marks on options: which ones were added after results had been stored, and which ones hold a plugin."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import field
from typing import Any

ADDED = "added"
KIND = "kind"


def added(before: Any, *, default: Any = dataclasses.MISSING) -> Any:
    """Return a field for an option that did not exist when artifacts were first stored.

    Args:
        before: the value that computes what was computed before; while the option has it, keys leave it out, so that
            what is stored stays in use.
        default: if another one; `before` unless given.
    """
    return field(default=before if default is dataclasses.MISSING else default, metadata={ADDED: before})


def nested(kind: str, name: str) -> Any:
    """Return a field for an option that holds a plugin, as its name or as a mapping with its options.

    In keys it stands as that plugin does: without the options `added` that change nothing, and with its code.

    Args:
        kind: plugin folder.
        name: the default.
    """
    return field(default_factory=lambda: name, metadata={KIND: kind})


@functools.cache
def before(config_class: type[Any]) -> dict[str, Any]:
    """Return the options that were `added`, with the values that compute what was computed before."""
    return {entry.name: entry.metadata[ADDED] for entry in dataclasses.fields(config_class) if ADDED in entry.metadata}
