"""For the API reference: doctests that stand in a docstring become code blocks, and `Example::` a heading."""

from __future__ import annotations

import re
from typing import Any

import griffe

_DOCTEST = re.compile(r"(?:^>>> .*\n(?:^(?!\s*$).*\n?)*\n?)+", re.MULTILINE)


class Doctests(griffe.Extension):
    """Put doctests into fences, since docstrings here have no section of examples."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Change the docstring of what was read."""
        del kwargs
        if obj.docstring is not None:
            obj.docstring.value = fenced(obj.docstring.value)


def fenced(text: str) -> str:
    r"""Return a docstring in which doctests are code blocks.

    >>> fenced("Add.\n\n>>> 1 + 1\n2\n").splitlines()
    ['Add.', '', '```pycon', '>>> 1 + 1', '2', '```']
    """
    return _DOCTEST.sub(lambda found: f"```pycon\n{found[0].rstrip()}\n```\n", text).replace(
        "Example::\n", "Example:\n"
    )
