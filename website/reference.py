"""Pages of the Python API, by mkdocstrings, and of the commands, by their own parsers."""

from __future__ import annotations

import argparse
import importlib

import sharedlabel as sl
from sharedlabel.cli import COMMANDS
from sharedlabel.config import command_line

_GROUPS = {
    "Run and read": ("run", "load_results", "Results", "Experiment"),
    "Compress": ("prune", "finalize", "compression_ratio", "KeepPruned"),
    "Fuse": ("aggregator", "Fusion"),
    "Train": (
        "SharedLabelModule", "BackboneModule", "AggregatorModule", "SharedLabelDataModule", "backbone",
        "SharedLabelClassifier",
    ),
    "Choose and deploy": ("sweet_spot", "load_model"),
}  # fmt: skip
_INTRODUCTION = (
    "Every public name with its arguments, shapes and errors, as `help()` says them. [The Python API](api.md) shows "
    "the same by examples that run."
)


def pages() -> dict[str, str]:
    """Return the text of every page by its place in the site."""
    return {"reference.md": _api(), "commands.md": _commands()}


def _api() -> str:
    """Return the page of all public names.

    Raises:
        LookupError: a public name is in no group.
    """
    grouped = [name for names in _GROUPS.values() for name in names]
    missing = {*sl.__all__} - {*grouped, "metrics", "plot", "__version__"}
    if missing:
        raise LookupError(f"expected every public name in a group of website/reference.py, got none for {missing}")
    parts = ["# API reference", _INTRODUCTION]
    for title, names in _GROUPS.items():
        parts += [f"## {title}", *(_entry("sl", getattr(sl, name)) for name in names)]
    for module in (sl.metrics, sl.plot):
        short = module.__name__.rpartition(".")[2]
        parts += [f"## `sl.{short}`", *(_entry(f"sl.{short}", getattr(module, name)) for name in module.__all__)]
    return "\n\n".join(parts) + "\n"


def _entry(prefix: str, thing: type) -> str:
    where = f"{thing.__module__}.{thing.__qualname__}"
    return f"::: {where}\n    options:\n      heading: {prefix}.{thing.__name__}"


def _commands() -> str:
    """Return the page of all commands."""
    parts = [
        "# Commands",
        "What `sharedlabel COMMAND --help` prints. `--plan` shows what `train` would do; exit codes are 0, 2 for what "
        "you can fix, 3 if a part of what was asked for is missing.",
    ]
    for name, command in COMMANDS.items():
        parts += [f"## {name}", f"{command.about[0].upper()}{command.about[1:]}.", f"```text\n{_help(name)}```"]
    return "\n\n".join(parts) + "\n"


def _help(name: str) -> str:
    """Return the help of a command, in lines of at most a hundred letters."""
    if name in {"train", "evaluate"}:
        parser = command_line(name).parser()
    else:
        parser = importlib.import_module(COMMANDS[name].module).parser()
    parser.formatter_class = _Formatter
    return parser.format_help()


class _Formatter(argparse.HelpFormatter):
    """The same lines on every terminal."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28, width=100)
