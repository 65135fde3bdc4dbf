"""`sharedlabel COMMAND ...`: one command for everything; `python -m sharedlabel.train` is `sharedlabel train`.

A command is a module with a function `main(arguments)` that returns an exit code. It is imported when it is asked for,
so the help waits for nothing.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

from sharedlabel import __version__
from sharedlabel.errors import ConfigError, guarded, nearest, printable

_SHOWN = 60  # letters of what a message shows of an argument


class Command(NamedTuple):
    """A command: the module that runs it, and what it does in one line."""

    module: str
    about: str


COMMANDS = {
    "train": Command("sharedlabel.train", "run a grid, or what is missing of it, and report"),
    "evaluate": Command("sharedlabel.evaluate", "report the finished cells of a grid, compute nothing else"),
    "report": Command("sharedlabel.report.__main__", "render the report of a run again from its stored results"),
    "dashboards": Command(
        "sharedlabel.tracking.dashboards.__main__", "compare the methods of a run at W&B: a workspace and a report"
    ),
    "choose": Command("sharedlabel.choose.__main__", "recommend a ratio, n and aggregator, with cost and loss"),
    "export": Command("sharedlabel.export", "write a cell's backbone and aggregator as programs with a card"),
    "predict": Command("sharedlabel.predict", "predict the shared label of tuples of images with an exported model"),
    "verify": Command("sharedlabel.verify", "read every byte of a store and say what is damaged"),
    "leaderboard": Command("sharedlabel.leaderboard.__main__", "make, check, run and rank submitted aggregators"),
    "new": Command("sharedlabel.cli.new.__main__", "write a plugin file that works, to be changed"),
    "check": Command("sharedlabel.conformance.__main__", "run the conformance suite on a plugin"),
    "completion": Command("sharedlabel.cli.completion.__main__", "print a script that completes commands in a shell"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    Args:
        arguments: the command line without the name of the program; that of this process if None.

    Returns:
        What the command returns; 2 if there is no such command.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["help"]:
        given = [*given[1:2], "--help"]
    if given and given[0] in COMMANDS:
        code: int = importlib.import_module(COMMANDS[given[0]].module).main(given[1:])
        return code
    return guarded(lambda: _answer(given))


def _answer(given: Sequence[str]) -> None:
    """Print the help or the version.

    Raises:
        ConfigError: something else is asked for.
    """
    if not given or given[0] in {"-h", "--help"}:
        print(_help(), end="")
    elif given[0] == "--version":
        print(f"sharedlabel {__version__}")
    else:
        name = printable(given[0], _SHOWN)
        if name.startswith("-"):
            raise ConfigError(
                f"expected a command before {name}, got none; write sharedlabel COMMAND {name}, or --help"
            )
        raise ConfigError(f"unknown command '{name}'; {nearest(name, COMMANDS)}")


def _help() -> str:
    width = max(map(len, COMMANDS))
    listed = "".join(f"  {name:{width}}  {command.about}\n" for name, command in COMMANDS.items())
    return (
        "usage: sharedlabel COMMAND ...\n\n"
        "Shared-label prediction under compression: train, compare, choose and deploy.\n\n"
        f"commands:\n{listed}\n"
        "`sharedlabel COMMAND --help` explains a command, `sharedlabel --version` prints the version.\n"
    )


if __name__ == "__main__":
    sys.exit(main())
