"""What may stand where in a command line of `sharedlabel`, taken from the parsers of its commands."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from sharedlabel import plugins
from sharedlabel.cli import COMMANDS
from sharedlabel.config import Experiment, command_line, named, schema

_OF_EXPERIMENTS = ("train", "evaluate")  # their options are those of a dataclass


@dataclass(frozen=True)
class Slot:
    """A place for a value.

    Attributes:
        values: words that may stand there, if there is a list.
        files: names of files that may stand there, as a pattern of shells; empty for none.
    """

    values: tuple[str, ...] = ()
    files: str = ""


@dataclass(frozen=True)
class Option:
    """An option of a command.

    Attributes:
        name: with its dashes.
        about: what it is for, in a few words.
        value: what follows it; None for a switch.
    """

    name: str
    about: str
    value: Slot | None


@dataclass(frozen=True)
class Place:
    """A command, and what may follow it.

    Attributes:
        path: the words that lead to it, `("leaderboard", "check")`; none for `sharedlabel` itself.
        commands: commands within it, with what they do.
        options: that it takes.
        value: its arguments that are no options.
    """

    path: tuple[str, ...]
    commands: Mapping[str, str]
    options: tuple[Option, ...]
    value: Slot


def places() -> list[Place]:
    """List `sharedlabel`, its commands, and the commands within them."""
    abouts = {name: command.about for name, command in COMMANDS.items()}
    top = Place((), abouts, (Option("--help", "explain", None), Option("--version", "print the version", None)), Slot())
    return [top, *(place for name in COMMANDS for place in _walk((name,), _parser(name)))]


def _parser(name: str) -> argparse.ArgumentParser:
    """Return the parser of a command; an empty one where it keeps its own to itself."""
    if name in _OF_EXPERIMENTS:
        return command_line(name).parser()
    module = COMMANDS[name].module
    make = getattr(importlib.import_module(module), "parser", None) if importlib.util.find_spec(module) else None
    built: argparse.ArgumentParser = make() if make else argparse.ArgumentParser()
    return built


def _walk(path: tuple[str, ...], parser: argparse.ArgumentParser) -> Iterator[Place]:
    """Yield a command and those within it."""
    known = _experiment() if path[0] in _OF_EXPERIMENTS else {}
    options, commands, inner, value = [], {}, {}, Slot()
    for action in parser._actions:  # what shtab and argcomplete read, too: there is no other way to them
        if isinstance(action, argparse._SubParsersAction):
            commands = {one.dest: one.help or "" for one in action._choices_actions}
            inner = dict(action.choices)
        elif action.option_strings:
            name = action.option_strings[-1]
            taken = None if action.nargs == 0 else known.get(name.removeprefix("--"), _slot(action))
            options.append(Option(name, _brief(action.help or ""), taken))
        elif _slot(action) != Slot():
            value = _slot(action)
    yield Place(path, commands, tuple(options), value)
    for name, nested in inner.items():
        yield from _walk((*path, name), nested)


def _slot(action: argparse.Action) -> Slot:
    """Return what an argument of a parser takes."""
    if action.option_strings == ["--config"]:
        return Slot(named.names(), "*.y*ml")
    return Slot(tuple(getattr(action.type, "choices", ())), "*" if action.type is Path else "")


def _brief(text: str) -> str:
    """Cut an explanation to what stands before its first stop or bracket."""
    for mark in (" (", "; ", ". "):
        text = text.partition(mark)[0]
    return text.replace("%%", "%").replace("`", "")


def _experiment() -> dict[str, Slot]:
    """Return the values that options of an experiment take, by dotted name, where there is a list of them."""
    slots = {name: Slot(_values(_schema(annotation))) for name, annotation in schema.leaves(Experiment)}
    for kind in plugins.KINDS:
        listed = _schema(dict(schema.leaves(Experiment))[kind]).get("type") == "array"
        slots[kind] = Slot(tuple(f"[{name}]" if listed else name for name in plugins.available(kind)))
    return slots


def _schema(annotation: Any) -> dict[str, Any]:
    described: dict[str, Any] = TypeAdapter(annotation).json_schema()
    return described


def _values(wanted: Mapping[str, Any]) -> tuple[str, ...]:
    """List the values that a JSON schema names."""
    if "anyOf" in wanted:
        return tuple(value for one in wanted["anyOf"] for value in _values(one))
    if wanted.get("type") == "array":
        return tuple(f"[{value}]" for value in _values(wanted.get("items", {})))
    if wanted.get("type") == "boolean":
        return ("true", "false")
    return tuple(map(str, wanted.get("enum", [wanted["const"]] if "const" in wanted else [])))
