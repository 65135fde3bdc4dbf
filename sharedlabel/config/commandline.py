"""The command line of a dataclass of options: `--config FILE`, and every option by its dotted name.

Arguments are taken from left to right, so that later ones win. Files and values are YAML, read as plain data.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import docstring_parser
import yaml

from sharedlabel.config import named, schema
from sharedlabel.errors import ConfigError, printable
from sharedlabel.files.plain import read_yaml

_CONFIG = "config"
_PRINT = "print_config"
_LARGEST = 2**20  # bytes of a file
_DESCRIPTORS = ("/dev/fd/", "/proc/self/fd/", "/dev/stdin")  # what shells put in the place of a file


class CommandLine:
    """What a program takes.

    Args:
        kind: the dataclass of options; sections are dataclasses themselves, one level deep.
        extensible: options that name something with options of its own, which may be given by dotted name, too.
        switches: arguments without a value, with what they do.
        program: as it is started.
        about: what it does, one sentence.
    """

    def __init__(
        self, kind: type[Any], extensible: Sequence[str], switches: Mapping[str, str], program: str, about: str
    ) -> None:
        self._kind, self._extensible = kind, tuple(extensible)
        self._switches = {**switches, _PRINT: "print all options as a YAML file and run nothing"}
        self._program, self._about = program, about
        self._options = dict(schema.leaves(kind))

    def parse(self, arguments: Sequence[str] | None) -> tuple[dict[str, Any], argparse.Namespace]:
        """Return the values of all options as plain data, and which switches are on.

        Args:
            arguments: the command line, or None for that of this process.

        Raises:
            ConfigError: an option that does not exist, or a file or value that cannot be read.
            SystemExit: help was asked for, and printed.
        """
        values: dict[str, Any] = plain(self._kind())
        switches = argparse.Namespace(**{name.replace("-", "_"): False for name in self._switches})
        tokens = iter(sys.argv[1:] if arguments is None else arguments)
        for token in tokens:
            if token in {"-h", "--help"}:
                self.parser().print_help()
                raise SystemExit(0)
            name, given, text = token.removeprefix("--").partition("=")
            if not token.startswith("--") or not self._known(name, _CONFIG, *self._switches):
                raise ConfigError(f"{self._unknown(name, _CONFIG, *self._switches)}; --help explains every option")
            if name in self._switches:
                if given:
                    raise ConfigError(
                        f"{name}: expected nothing after --{name}, got {schema.shown(text)}; leave it out"
                    )
                setattr(switches, name.replace("-", "_"), True)
                continue
            if not given:
                text = self._next(name, tokens)
            if name == _CONFIG:
                self._merge(values, read_file(Path(text)))
            else:
                self._set(values, name, self._read(name, text))
        return values, switches

    def merged(self, *sources: Path | Mapping[str, Any]) -> dict[str, Any]:
        """Return the values of all options as plain data, from sources of which later ones win.

        Args:
            sources: YAML files, and mappings from dotted names to plain data.

        Raises:
            ConfigError: an option that does not exist, or a file that cannot be read.
        """
        values: dict[str, Any] = plain(self._kind())
        for source in sources:
            if isinstance(source, Path):
                self._merge(values, read_file(source))
                continue
            for name, value in source.items():
                if not self._known(name):
                    raise ConfigError(self._unknown(name))
                self._set(values, name, value)
        return values

    def parser(self) -> argparse.ArgumentParser:
        """Return a parser of the standard library that describes every option; it prints the help."""
        listed = "".join(f" [--{name}]" for name in self._switches)
        built = argparse.ArgumentParser(
            prog=self._program,
            description=self._about,
            usage=f"{self._program} [--{_CONFIG} FILE]{listed} [--OPTION VALUE ...]",
        )
        about = "YAML file with any of the options below, or the name of one that comes with the package, such as mnist"
        built.add_argument(f"--{_CONFIG}", metavar="FILE", help=about)
        for name, about in self._switches.items():
            built.add_argument(f"--{name}", action="store_true", help=about)
        defaults = plain(self._kind())
        _describe(built.add_argument_group("options"), self._kind, defaults, "")
        explained = _explained(self._kind)
        for name, section in schema.sections(self._kind).items():
            group = built.add_argument_group(f"{name}: {explained[name]}", _summary(section))
            _describe(group, section, defaults[name], f"{name}.")
        return built

    def _known(self, name: str, *others: str) -> bool:
        """Tell whether there is an option, a section or another argument of this name."""
        listed = name in self._options or name in schema.sections(self._kind) or name in others
        return listed or name.startswith(tuple(f"{one}." for one in self._extensible))

    def _unknown(self, name: str, *others: str) -> str:
        """Say that there is no such option, and which is nearest."""
        known = [*self._options, *schema.sections(self._kind), *others]
        same_section = [one for one in known if "." in name and one.rpartition(".")[0] == name.rpartition(".")[0]]
        return schema.unknown(name, same_section or known)

    def _next(self, name: str, tokens: Iterator[str]) -> str:
        text = next(tokens, None)
        if text is None or text.startswith("--"):
            expected = "a YAML file" if name == _CONFIG else self._wanted(name)
            got = "nothing" if text is None else schema.shown(text)
            raise ConfigError(f"{name}: expected {expected} after --{name}, got {got}; add it, or write --{name}=...")
        return text

    def _wanted(self, name: str) -> str:
        return schema.wanted(self._options[name]) if name in self._options else "a value"

    def _set(self, values: dict[str, Any], name: str, value: Any) -> None:
        """Take one option."""
        if name in schema.sections(self._kind):
            self._merge(values, {name: value})
            return
        *parents, last = name.split(".")
        inside = values
        for depth, parent in enumerate(parents, start=1):
            if isinstance(inside[parent], str):  # a plugin without options
                inside[parent] = {"name": inside[parent]}
            if not isinstance(inside[parent], dict):
                raise ConfigError(
                    f"{name}: expected a mapping at {'.'.join(parents[:depth])}, got {schema.shown(inside[parent])}; "
                    "give its name first"
                )
            inside = inside[parent]
            if depth < len(parents):
                inside.setdefault(parents[depth], "")
        inside[last] = value

    def _read(self, name: str, text: str) -> Any:
        """Read the value of an option from the command line."""
        if name in self._options and schema.takes_text_alone(self._options[name]) and text not in {"null", "~"}:
            return text
        try:
            return read_yaml(text)
        except ValueError as error:
            if text.lstrip().startswith(("{", "[", "!", "&", "*")):
                raise ConfigError(
                    f"{name}: expected {self._wanted(name)}, got {schema.shown(text)}: {error}; --help explains it"
                ) from error
            return text

    def _merge(self, values: dict[str, Any], update: Any) -> None:
        """Put what a file says over what is there; sections are filled up, all else is replaced."""
        for name, value in update.items():
            section = schema.sections(self._kind).get(name)
            if section is not None and isinstance(value, dict):
                values[name] = {**values[name], **value}
            else:
                values[name] = value


def read_file(path: Path) -> dict[str, Any]:
    """Read a YAML file of options, or one that comes with the package, by its name.

    Raises:
        ConfigError: there is none, it is no YAML in UTF-8, or no mapping.
    """
    path = named.file_of(path)
    try:
        if not stat.S_ISREG(path.stat().st_mode) and not str(path).startswith(_DESCRIPTORS):
            raise ConfigError(f"{_CONFIG}: expected a YAML file at {printable(str(path))}, got none; check the path")
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise ConfigError(
            f"{_CONFIG}: expected a YAML file at {printable(str(path))}, got: {reason}; check the path{named.own(path)}"
        ) from error
    if len(content) > _LARGEST:
        raise ConfigError(f"{path}: expected at most {_LARGEST} bytes, got more; this is no file of options")
    try:
        options = read_yaml(content.decode())
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: expected UTF-8 text, got: {error}; save it as that") from error
    except ValueError as error:
        raise ConfigError(f"{path}: expected YAML, got: {error}; correct that line") from error
    if not isinstance(options, dict):
        got = "nothing" if options is None else schema.shown(options)
        raise ConfigError(f"{path}: expected a mapping of options, got {got}; write `option: value` lines")
    return options


def plain(config: Any) -> Any:
    """Return a dataclass of options as plain data."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def to_yaml(config: Any) -> str:
    """Write a dataclass of options as a YAML file that `--config` reads."""
    return str(yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True, width=120, default_flow_style=None))


def _describe(group: Any, kind: type[Any], defaults: Mapping[str, Any], prefix: str) -> None:
    """Add the options of a dataclass, but not its sections, to a group of the help."""
    explained = _explained(kind)
    for name, annotation in schema.leaves(kind):
        if "." not in name:
            about = f"{explained[name]} ({schema.wanted(annotation)}; default {schema.shown(defaults[name])})"
            group.add_argument(f"--{prefix}{name}", metavar="VALUE", help=about.replace("%", "%%"))


def _explained(kind: type[Any]) -> dict[str, str]:
    """Return what the docstring of a dataclass says of each option."""
    documented = docstring_parser.parse(kind.__doc__ or "").params
    meanings = {one.arg_name: " ".join((one.description or "").split()).rstrip(".") for one in documented}
    return {name: meanings.get(name, "") for name in (leaf.partition(".")[0] for leaf, _ in schema.leaves(kind))}


def _summary(kind: type[Any]) -> str:
    return docstring_parser.parse(kind.__doc__ or "").short_description or ""
