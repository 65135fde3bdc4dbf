"""`sharedlabel new KIND NAME`: write a plugin that works, to be changed."""

from __future__ import annotations

import importlib.resources
import importlib.util
import keyword
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from sharedlabel import plugins
from sharedlabel.config.arguments import Parser, one_of
from sharedlabel.errors import ConfigError, guarded, nearest, printable

# By what the command is asked for: the kind of plugin, and how a YAML names it.
KINDS = {
    "data": ("data", "--data.name={file}"),
    "backbone": ("backbones", "--backbones='[{file}]'"),
    "pruner": ("pruners", "--pruners='[{file}]'"),
    "aggregator": ("aggregators", "--aggregators='[log_pool, {file}]'"),
}
_NAME = re.compile(r"[a-z][a-z0-9_]{0,79}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 0, or 2 for what the user can fix."""
    return guarded(lambda: _main(arguments))


def parser() -> Parser:
    """Return what the command takes."""
    made = Parser("sharedlabel new", "Write a plugin that works, to be changed.")
    made.add_argument("kind", type=one_of(*KINDS), metavar="{" + ",".join(KINDS) + "}", help="what it is to be")
    made.add_argument("name", metavar="NAME", help="what it is called: the file is NAME.py in this folder")
    return made


def _main(arguments: Sequence[str] | None) -> None:
    asked = parser().parse_args(arguments)
    path = write(asked.kind, asked.name)
    file, usage = f"./{path}", KINDS[asked.kind][1]
    print(printable(f"wrote {path}; next: sharedlabel check {file}"))
    print(printable(f"then run it: sharedlabel train {usage.format(file=file)}"))


def write(kind: str, name: str, folder: Path = Path()) -> Path:
    """Write a plugin and return its path.

    Args:
        kind: one of `KINDS`.
        name: what it is called.
        folder: where to write it.

    Raises:
        ConfigError: unknown kind, a name that no plugin can have, or one that is taken, by a module of Python's or of
            a package, too.
    """
    if kind not in KINDS:
        raise ConfigError(f"unknown kind {kind!r}; {nearest(kind, KINDS)}")
    name = name.removesuffix(".py")
    if not _NAME.fullmatch(name) or keyword.iskeyword(name):
        raise ConfigError(
            f"expected a name of small letters, digits and '_' that starts with a letter, got {name!r}; rename it"
        )
    if name in plugins.available(KINDS[kind][0]):
        raise ConfigError(f"expected a name that this package does not use, got {name!r}; choose another")
    path = folder / f"{name}.py"
    if path.exists():
        raise ConfigError(f"expected a new file, got {path}, which is there; choose another name")
    if module := _module(name):
        raise ConfigError(
            f"expected a name that no module has, got {name!r}, for which Python would then import this file instead "
            f"of {module}; choose another"
        )
    template = importlib.resources.files("sharedlabel.cli.new").joinpath(f"{kind}.txt").read_text("utf-8")
    # Each word of the name begins with a capital, as names of classes do.
    path.write_text(template.replace("@NAME@", name).replace("@CLASS@", name.title().replace("_", "")), "utf-8")
    return path


def _module(name: str) -> str | None:
    """Say where a module is imported from that a file of its name would hide; None where there is none."""
    spec = importlib.util.find_spec(name)
    return None if spec is None or spec.origin is None else spec.origin


if __name__ == "__main__":
    sys.exit(main())
