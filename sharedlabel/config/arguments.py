"""The arguments of a command, with the standard library's parser and this package's errors.

`commandline.py` reads the options of an experiment; the other commands have few arguments, and declare them here:

>>> parser = Parser("sharedlabel choose", "Recommend a network.")
>>> _ = parser.add_argument("--budget", type=number)
>>> parser.parse_args(["--budget", "0.5"]).budget
0.5
"""

from __future__ import annotations

import argparse
import itertools
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from sharedlabel.errors import ConfigError, nearest, printable

Value = TypeVar("Value")
_SHOWN = 60  # letters of what a message shows of an argument
# What the standard library says, and what we say instead; all else is handed on as it is.
_REPHRASED = (
    (r"argument ([^ ]+): expected one argument", "{0}: expected a value, got none; write {0}=VALUE"),
    (r"argument ([^ ]+): expected at least one argument", "{0}: expected a value or more, got none; add one"),
    (r"argument -h/--help: ignored explicit argument '?(.*?)'?", "--help: expected nothing after it, got {0!r}"),
    (
        r"argument ([^ ]+): ignored explicit argument '?(.*?)'?",
        "{0}: expected nothing after it, got {1!r}; leave that out",
    ),
    (r"argument ([^ ]+): not allowed with argument (.*)", "expected {1} or {0}, got both; leave one out"),
    (r"argument ([^ ]+): (.*)", "{0}: {1}"),
)


class Parser(argparse.ArgumentParser):
    """A parser that raises a `ConfigError` where it cannot read an argument.

    Names of options are never abbreviated: an option that comes later could make an abbreviation mean something else.

    Args:
        prog: the command, as it is started.
        description: what it does.
    """

    def __init__(self, prog: str | None = None, description: str | None = None, **options: Any) -> None:
        super().__init__(prog, description=description, allow_abbrev=False, exit_on_error=False, **options)

    # argparse declares overloads for what it returns, and sub-commands come here, too.
    def parse_known_args(self, args: Iterable[str] | None = None, namespace: Any = None) -> Any:
        """Parse arguments, all of which have to be known.

        Raises:
            ConfigError: an argument is unknown (the nearest option is named), missing, or has a value that it cannot
                have.
            SystemExit: help was asked for, and printed.
        """
        given = list(sys.argv[1:] if args is None else args)
        # Before anything else: the value of an unknown option would be taken for what should follow.
        leading = list(itertools.takewhile(lambda one: one.startswith("--") and one != "--", given))
        unknown = [one for one in leading if one.partition("=")[0] not in self._options()]
        if not unknown:
            try:
                parsed, unknown = super().parse_known_args(given, namespace)
            except argparse.ArgumentError as error:
                self.error(str(error))
        if unknown:
            raise ConfigError(f"{self._unknown(unknown)}; {self.prog} --help explains every argument")
        return parsed, unknown

    def error(self, message: str) -> Any:
        """Raise what the standard library would print."""
        raise ConfigError(self._sentence(" ".join(message.split())))

    def _options(self) -> list[str]:
        return [option for action in self._actions for option in action.option_strings]

    def _unknown(self, unknown: Sequence[str]) -> str:
        """Name the first option that there is not, or the first argument too many."""
        first = next((one for one in unknown if one.startswith("-")), unknown[0])
        name = first.partition("=")[0]
        if not first.startswith("-"):
            return f"expected nothing more, got {_shown(first)}; leave it out"
        options = [option for option in self._options() if option.startswith("--")]
        return f"unknown option {_shown(name)}; {nearest(name, options)}"

    def _sentence(self, message: str) -> str:
        if lacking := re.fullmatch(r"the following arguments are required: (.*)", message):
            return f"expected {lacking[1]} after {self.prog}, got none; {self.prog} --help explains every argument"
        if choice := re.fullmatch(r"argument (.+?): invalid choice: '?(.*?)'? \(choose from (.*)\)", message):
            known = [word.strip(" '") for word in choice[3].split(",")]
            return f"unknown {choice[1].lower()} {_shown(choice[2])}; {nearest(choice[2], known)}"
        for pattern, ours in _REPHRASED:
            if told := re.fullmatch(pattern, message):
                message = ours.format(*told.groups())
                break
        return message if ";" in message else f"{message}; {self.prog} --help explains every argument"


def number(text: str) -> float:
    """Read a number, which may be infinite but has to be one."""
    return _read(float, text, "a number")


def whole(text: str) -> int:
    """Read a whole number."""
    return _read(int, text, "a whole number")


def positive(text: str) -> int:
    """Read a whole number from 1."""
    if not (text.isascii() and text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, got {_shown(text)}")
    return int(text)


def one_of(*choices: str) -> Callable[[str], str]:
    """Return what reads one of some words.

    >>> one_of("error", "skip")("skip")
    'skip'
    """

    def read(text: str) -> str:
        if text not in choices:
            raise argparse.ArgumentTypeError(f"unknown value {_shown(text)}; {nearest(text, choices)}")
        return text

    read.choices = choices  # type: ignore[attr-defined]  # what a shell may complete
    return read


def _read(kind: Callable[[str], Value], text: str, expected: str) -> Value:
    try:
        return kind(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected {expected}, got {_shown(text)}") from None


def _shown(text: str) -> str:
    return f"'{printable(text, _SHOWN)}'"
