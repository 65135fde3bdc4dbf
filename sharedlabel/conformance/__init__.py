"""What every plugin of a kind promises, as functions that try it: one file a kind.

The package's own tests run them over all of its plugins, `sharedlabel check FILE` over one from outside, and the pytest
plugin in the tests of whoever writes one:

    python -m pytest -p sharedlabel.conformance.pytest_plugin --sharedlabel-plugin=./my_pool.py

A promise is a function of a subject. Its first line is a sentence; it raises where it is broken.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

from sharedlabel import plugins
from sharedlabel.config import Plugin, resolve
from sharedlabel.conformance._promise import Inapplicable as Inapplicable
from sharedlabel.conformance._promise import Outcome as Outcome
from sharedlabel.conformance._promise import Promise as Promise
from sharedlabel.conformance._promise import sentence as sentence
from sharedlabel.conformance._promise import tried
from sharedlabel.errors import ConfigError
from sharedlabel.files.plain import read_yaml


def named(given: str) -> Plugin:
    """Return the plugin that is given, whose kind is told by what it defines.

    Args:
        given: `./file.py`, `package.module` or an entry point, or a mapping with `name` and options in YAML.

    Raises:
        ConfigError: there is none, or it is none.
    """
    spec = {"name": given}
    if given.lstrip().startswith("{"):
        try:
            spec = read_yaml(given)
        except ValueError as error:
            raise ConfigError(f"expected a mapping such as {{name: ./my_pool.py}}, got {given!r}: {error}") from error
    if not isinstance(spec.get("name"), str):
        raise ConfigError(f"expected a plugin, or a mapping with 'name', got {given!r}; write ./FILE.py")
    kind, _ = plugins.take_any(spec["name"])
    return resolve(kind, spec)


def promises(kind: str) -> tuple[Promise, ...]:
    """Return what plugins of a kind promise.

    >>> sentence(promises("aggregators")[0])
    'The posterior is normalised after every prefix, in both precisions'
    """
    return tuple(_module(kind).PROMISES)


def subject(plugin: Plugin) -> Any:
    """Return what the promises of a plugin are tried on."""
    return _module(plugin.kind).Subject(plugin)


def examine(plugin: Plugin) -> Iterator[Outcome]:
    """Try what a plugin promises, one promise after the other."""
    tried_on = subject(plugin)
    for promise in promises(plugin.kind):
        yield tried(promise, tried_on)


def _module(kind: str) -> Any:
    return importlib.import_module(f"{__name__}.{kind}")
