"""A page for every data set, backbone, pruner and aggregator of the package, made from its file and from results.

What it does and its options come from the docstrings of the plugin's module, `Config` and class; its formula from the
tables of `docs/aggregation.md` and `docs/compression.md`; advice from `docs/methods/index.md`; numbers from the CSV
files of `docs/results`. A new plugin file has a page without a line here.
"""

from __future__ import annotations

import functools
import inspect
import re
from pathlib import Path
from types import ModuleType

import docstring_parser
import yaml

from sharedlabel import plugins
from sharedlabel.config import schema
from website import DOCS, ROOT, measured, tables

_TITLES = {"data": "data set", "backbones": "backbone", "pruners": "pruner", "aggregators": "aggregator"}
_YAML = re.compile(rf"({'|'.join(plugins.KINDS)}): ")
_SECTIONS = re.compile(r"^(Args|Returns|Raises|Attributes|Yields):$", re.MULTILINE)
_GUIDE = DOCS / "methods" / "index.md"


def pages() -> dict[str, str]:
    """Return the text of every page by its place in the site."""
    return {f"methods/{kind}/{name}.md": page(kind, name) for kind in plugins.KINDS for name in plugins.available(kind)}


def place(name: str) -> str | None:
    """Return where the page of a plugin stands in the site; None if there is no plugin of that name."""
    return next((f"methods/{kind}/{name}.md" for kind in plugins.KINDS if name in plugins.available(kind)), None)


def page(kind: str, name: str) -> str:
    """Return the page of a plugin.

    Args:
        kind: its folder in the package.
        name: its file without the ending.
    """
    module = plugins.load(kind, name)
    lead, _, rest = (module.__doc__ or "").strip().partition("\n\n")
    parts = [f"# `{name}`", f"*{_TITLES[kind].capitalize()}.* {_joined(lead)}"]
    for title, text in (
        ("At a glance", _glance(kind, name)),
        ("When to use it", _advice(name)),
        ("What it does", "\n\n".join(filter(None, (_text(inspect.cleandoc(rest)), _class_text(kind, module))))),
        ("Options", _options(kind, module.Config)),
        ("Where it differs from its source", _departure(kind, name)),
        ("Measured", measured.text(kind, name)),
        ("Configurations that use it", _used(kind, name)),
    ):
        if text:
            parts.append(f"## {title}\n\n{text}")
    return "\n\n".join([*parts, _source(module)]) + "\n"


def _glance(kind: str, name: str) -> str:
    """Return the plugin's row of the table of formulas."""
    if kind == "aggregators":
        found = tables.rows(DOCS / "aggregation.md", "name", "log-posterior after k instances")
    elif kind == "pruners":
        found = tables.rows(DOCS / "compression.md", "pruner", "what stays")
    else:
        return ""
    page = "aggregation" if kind == "aggregators" else "compression"
    return f"{tables.facts(found[name])}\n\nNotation: [{page}](../../{page}.md)." if name in found else ""


def _advice(name: str) -> str:
    """Return what the guide says of the plugin."""
    for first in ("aggregator", "pruner", "backbone", "data set"):
        row = tables.rows(_GUIDE, first, "use it").get(name)
        if row:
            best = row.get("measured")
            measured_best = f"\n\nMeasured: {best}." if best else ""
            return f"Use it {row['use it']}.{measured_best}\n\nBeside the others: [methods](../index.md)."
    return ""


def _departure(kind: str, name: str) -> str:
    """Return where a pruner differs from its source."""
    if kind != "pruners":
        return ""
    row = tables.rows(DOCS / "compression.md", "pruner", "source", "here, and why").get(name)
    if row is None:
        return ""
    return tables.table(["source", "here, and why"], [[row["source"], row["here, and why"]]])


def _class_text(kind: str, module: ModuleType) -> str:
    """Return what the class of an aggregator says of itself."""
    if kind != "aggregators":
        return ""
    from sharedlabel.aggregators import Aggregator

    own = [
        one
        for one in vars(module).values()
        if inspect.isclass(one) and issubclass(one, Aggregator) and one.__module__ == module.__name__
    ]
    texts = [inspect.cleandoc(one.__doc__ or "") for one in own]
    return "\n\n".join(_text(_without_sections(text)) for text in texts)


def _without_sections(text: str) -> str:
    r"""Leave out the sections of a docstring that list arguments; a reference stays.

    >>> _without_sections("Fuse.\n\nArgs:\n    x: it.\n\nReference:\n    Me.")
    'Fuse.\n\nReference:\n    Me.'
    """
    blocks = re.split(r"\n\n(?=\S)", text)
    return "\n\n".join(block for block in blocks if not _SECTIONS.match(block))


def _text(text: str) -> str:
    """Return a docstring as Markdown: examples in fences, references in a line of their own."""
    parts = []
    for block in filter(None, re.split(r"\n\n+", text)):
        lines = block.splitlines()
        reference = re.match(r"References?:$", lines[0])
        if reference:
            parts.append(f"{lines[0]} {_joined(inspect.cleandoc(chr(10).join(lines[1:])))}")
        elif _YAML.match(block.lstrip()):
            parts.append(f"```yaml\n{inspect.cleandoc(block)}\n```")
        elif block.startswith("    "):
            parts.append(f"```text\n{inspect.cleandoc(block)}\n```")
        else:
            parts.append(block if block.startswith("|") else _joined(block))
    return "\n\n".join(parts)


def _options(kind: str, config: type) -> str:
    """Return the table of a plugin's options."""
    explained = {one.arg_name: one.description or "" for one in docstring_parser.parse(config.__doc__ or "").params}
    defaults = config()
    lines = [
        [
            f"`{name}`",
            schema.wanted(annotation),
            f"`{_value(getattr(defaults, name))}`",
            _joined(explained.get(name, "")),
        ]
        for name, annotation in schema.leaves(config)
    ]
    common = "`label` says what tables call it"
    if kind == "pruners":
        common += "; `schedule` says [when it prunes](../../recipes.md#when-a-network-is-pruned)"
    listed = tables.table(["option", "takes", "default", "what it does"], lines) if lines else "It has no options."
    return f"{listed}\n\nLike every plugin's, its entry may have more: {common}." if kind != "data" else listed


def _value(value: object) -> str:
    """Write a default as it would stand in YAML."""
    plain: str = yaml.safe_dump(list(value) if isinstance(value, tuple) else value, default_flow_style=True, width=1000)
    return plain.removesuffix("\n...\n").strip()


@functools.cache
def _configurations() -> dict[Path, str]:
    return {path: path.read_text(encoding="utf-8") for path in sorted((ROOT / "configs").glob("*.yaml"))}


def _used(kind: str, name: str) -> str:
    """Link the committed configurations that name a plugin."""
    using = [path for path, text in _configurations().items() if name in _named(yaml.safe_load(text).get(kind, []))]
    return ", ".join(f"[{path.stem}](../../source/configs/{path.name}.md)" for path in using)


def _named(specs: object) -> set[str]:
    """Return the names in a list of plugins, or of one."""
    listed = specs if isinstance(specs, list) else [specs]
    return {one["name"] if isinstance(one, dict) else str(one) for one in listed}


def _source(module: ModuleType) -> str:
    shown = f"{module.__name__.replace('.', '/')}.py"
    lines = Path(str(module.__file__)).read_text(encoding="utf-8").splitlines()
    body = "".join(f"    {line}".rstrip() + "\n" for line in lines)
    return f'??? example "The file: {shown}"\n\n    ````python\n{body}    ````'


def _joined(text: str) -> str:
    return " ".join(text.split())
