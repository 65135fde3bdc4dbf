"""A Dockerfile read into its stages: what each starts from, and what it does."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Stage:
    """One image, or a step on the way to one.

    Attributes:
        name: after `AS`.
        base: another stage, or the image that it starts from.
        steps: instructions in order, such as `("RUN", "make")`.
    """

    name: str
    base: str
    steps: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Copy:
    """A COPY instruction.

    Attributes:
        stage: from which stage; empty for the folder that the image is built from.
        sources: files and folders there.
        target: a file, or a folder if it ends with a slash or there are several sources.
    """

    stage: str
    sources: tuple[str, ...]
    target: str


def instructions(text: str) -> list[tuple[str, str]]:
    r"""Return the instructions of a Dockerfile, continued lines joined, comments left out.

    >>> instructions("# first\nRUN a \\\n  && b\nUSER 1")
    [('RUN', 'a && b'), ('USER', '1')]
    """
    bare = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE)
    lines = re.sub(r"\s*\\\n\s*", " ", bare).splitlines()
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in lines if line.strip())]


def stages(path: Path) -> dict[str, Stage]:
    """Return the stages of a Dockerfile by name, in order.

    Raises:
        ValueError: a stage has no name, or something stands before the first.
    """
    found: dict[str, Stage] = {}
    for name, rest in instructions(path.read_text()):
        if name == "FROM":
            base, middle, called = (*rest.split(), "", "")[:3]
            if middle != "AS" or called in found:
                raise ValueError(f"{path}: expected FROM BASE AS NAME, each name once, got FROM {rest}")
            found[called] = Stage(called, base)
        elif not found:
            raise ValueError(f"{path}: expected FROM first, got {name}")
        else:
            found[list(found)[-1]].steps.append((name, rest))
    return found


def chain(found: Mapping[str, Stage], name: str) -> list[Stage]:
    """Return a stage with those that it starts from, the first of them first."""
    stage = found[name]
    return [*(chain(found, stage.base) if stage.base in found else []), stage]


def last(found: Mapping[str, Stage], name: str, instruction: str) -> str:
    """Return what the last instruction of a kind says, those of the bases counted; empty if there is none."""
    given = [rest for stage in chain(found, name) for kind, rest in stage.steps if kind == instruction]
    return given[-1] if given else ""


def copied(rest: str) -> Copy:
    """Read what follows COPY.

    >>> copied("--from=tools /a /b")
    Copy(stage='tools', sources=('/a',), target='/b')
    """
    words = shlex.split(rest)
    options = dict(word.removeprefix("--").split("=", 1) for word in words if word.startswith("--"))
    *sources, target = (word for word in words if not word.startswith("--"))
    return Copy(options.get("from", ""), tuple(sources), target)


def variables(rest: str, known: Mapping[str, str]) -> dict[str, str]:
    """Return variables with those that ENV sets.

    >>> variables("A=1 PATH=/opt/bin:$PATH", {"PATH": "/bin"})
    {'PATH': '/opt/bin:/bin', 'A': '1'}
    """
    set_here = dict(word.split("=", 1) for word in shlex.split(rest))
    return {**known, **{name: _filled(text, known) for name, text in set_here.items()}}


def started(found: Mapping[str, Stage], name: str) -> list[str]:
    """Return the command line that a container starts: ENTRYPOINT and CMD, both as JSON."""
    parts: Sequence[str] = (last(found, name, "ENTRYPOINT"), last(found, name, "CMD"))
    return [word for part in parts if part for word in json.loads(part)]


def _filled(text: str, known: Mapping[str, str]) -> str:
    return re.sub(r"\$(\w+)", lambda match: known.get(match[1], ""), text)
