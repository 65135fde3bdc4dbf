"""Fenced code blocks of Markdown pages, with what is said of their tests.

The words after a block's language say how `tests/docs` treats it:

| first line | what the tests do |
| --- | --- |
| ```` ```python ```` | run it, after the page's blocks before it, in a folder of the page's own |
| ```` ```sh ```` | read each command with the parser of its program, and run `sharedlabel new` |
| ```` ```sh run ```` | run each command |
| ```` ```yaml ```` | read it as a configuration |
| ```` ```python file: my_pool.py ```` | write it into that file; the site shows the name above it |
| ```` ```sh notest: needs a GPU ```` | nothing, for the reason given |
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

_FENCE = re.compile(
    r"^(?P<indent> *)(?P<fence>`{3,})(?P<language>[\w+-]*)(?P<words> [^\n`]+)?\n(?P<text>.*?)^(?P=indent)(?P=fence) *$",
    re.DOTALL | re.MULTILINE,
)
_NOTEST, _FILE = "notest:", "file:"


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        line: of the page, where it begins.
        language: after the fence; empty if none is said.
        words: what follows the language.
        text: its lines, without the indentation of the fence.
    """

    line: int
    language: str
    words: str
    text: str

    @property
    def file(self) -> str:
        """The file that holds it; empty if none."""
        return self.words.removeprefix(_FILE).strip() if self.words.startswith(_FILE) else ""

    @property
    def untested(self) -> str:
        """Why it is not tested; empty if it is."""
        return self.words.removeprefix(_NOTEST).strip() if self.words.startswith(_NOTEST) else ""


def read(markdown: str) -> Iterator[Block]:
    r"""Yield the fenced blocks of a page, in order.

    >>> [(block.line, block.language, block.untested) for block in read("a\n```sh notest: needs a GPU\nls\n```\n")]
    [(2, 'sh', 'needs a GPU')]
    """
    for found in _FENCE.finditer(markdown):
        indent = len(found["indent"])
        text = "".join(line[min(indent, len(line) - 1) :] for line in found["text"].splitlines(keepends=True))
        words = (found["words"] or "").strip()
        yield Block(markdown.count("\n", 0, found.start()) + 1, found["language"], words, text)


def bare(markdown: str) -> str:
    r"""Return a page whose fences say what site generators read: their language, and a file as their title.

    >>> bare("```sh run\nls\n```\n```python file: a.py\nx = 1\n```\n")
    '```sh\nls\n```\n```python title="a.py"\nx = 1\n```\n'
    """

    def changed(found: re.Match[str]) -> str:
        words = (found["words"] or "").strip()
        title = f' title="{words.removeprefix(_FILE).strip()}"' if words.startswith(_FILE) else ""
        return found[0].replace(found["words"], title, 1) if words else found[0]

    return _FENCE.sub(changed, markdown)


def commands(text: str) -> Iterator[list[str]]:
    r"""Yield the commands of a shell block as words, without comments; continued lines are joined.

    >>> list(commands("ls -l  # all\nsharedlabel train \\\n  --plan\n"))
    [['ls', '-l'], ['sharedlabel', 'train', '--plan']]
    """
    for line in text.replace("\\\n", " ").splitlines():
        if words := shlex.split(line, comments=True):
            yield words
