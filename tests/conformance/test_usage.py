"""The line of YAML that a plugin's docstring opens with names this plugin, and options that exist and change it."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import re

import pytest
import yaml

from sharedlabel import plugins
from sharedlabel.config import canonical, resolve

PLUGINS = [(kind, name) for kind in plugins.KINDS for name in plugins.available(kind)]


def documented(kind: str, name: str) -> str:
    """Return the docstring of a plugin's file."""
    spec = importlib.util.find_spec(f"sharedlabel.{kind}.{name}")
    assert spec is not None
    assert spec.origin is not None
    with open(spec.origin, encoding="utf-8") as file:
        return ast.get_docstring(ast.parse(file.read())) or ""


@pytest.mark.parametrize(("kind", "name"), PLUGINS)
def test_the_usage_line_works(kind: str, name: str) -> None:
    summary, *rest = documented(kind, name).split("\n\n")
    assert re.fullmatch(r"[^\n]+\.", summary)
    if not dataclasses.fields(plugins.load(kind, name).Config):
        assert not any(part.startswith(f"    {kind}:") for part in rest)
        return
    ((option, entries),) = yaml.safe_load(rest[0]).items()
    assert option == kind
    (entry,) = entries if kind != "data" else [entries]
    plugin = resolve(kind, entry)
    assert plugin.name == name
    assert canonical(plugin) != canonical(resolve(kind, name))
