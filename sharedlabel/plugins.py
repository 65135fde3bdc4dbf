"""Plugins: a module's name in one of the plugin folders is its registry entry.

A plugin is one file `sharedlabel/<kind>/<name>.py` with a frozen dataclass `Config` and the function of its kind
(`load` for data, `build` for backbones and aggregators, `prune` for pruners). Modules whose name starts with an
underscore are helpers. Listing imports nothing; only loading does.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable
from types import ModuleType

from sharedlabel import sources
from sharedlabel.errors import ConfigError, nearest

KINDS = ("data", "backbones", "pruners", "aggregators")
_NOT_PLUGINS = {"splits", "tuples"}


def available(kind: str) -> tuple[str, ...]:
    """List the plugin names of a kind, sorted, without importing them.

    Args:
        kind: one of `KINDS`.
    """
    if kind not in KINDS:
        raise ConfigError(f"unknown plugin kind {kind!r}; available: {', '.join(KINDS)}")
    package = importlib.import_module(f"sharedlabel.{kind}")
    names = (module.name for module in pkgutil.iter_modules(package.__path__))
    return tuple(sorted(n for n in names if not n.startswith("_") and n not in _NOT_PLUGINS))


def load(kind: str, name: str) -> ModuleType:
    """Import the plugin `name` of a kind.

    Raises:
        ConfigError: no such plugin; the message names the nearest one and lists all.
    """
    names = available(kind)
    if name not in names:
        raise ConfigError(f"unknown {kind.removesuffix('s')} {name!r}; {nearest(name, names)}")
    return importlib.import_module(f"sharedlabel.{kind}.{name}")


def code(named: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the digests of plugins' code, by `kind.name`, of those named by kind and name."""
    return {f"{kind}.{name}": sources.digest(f"sharedlabel.{kind}.{name}") for kind, name in sorted(named)}
