"""Plain data from text that anybody may have written: JSON and YAML, of bounded size, and nothing that could run.

Values are null, booleans, numbers, text, lists, and mappings of text in which every key stands once. YAML is read by
the rules of its version 1.2 (https://yaml.org/spec/1.2.2/#103-core-schema), so that `1e-3` is a number and `no` a word.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import yaml

FILE_BYTES = 2**31  # of what is read at once
DEPTH = 64  # levels of lists and mappings
_DIGITS = 100
VALUES = 100_000  # of a YAML file, with what its aliases stand for


def read_file(path: Path, limit: int = FILE_BYTES) -> bytes:
    """Read a plain file: never a pipe, which would wait for a writer, and no device, which may not end.

    Args:
        path: of the file; links are followed.
        limit: bytes that it may have.

    Raises:
        OSError: there is none, it cannot be read, is something else or is longer.
    """
    _check_plain(path, os.stat(path).st_mode)  # before it is opened: to open a device may act
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        _check_plain(path, os.fstat(file.fileno()).st_mode)
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"more than {limit:,} bytes", str(path))
    return content


def read_json(text: str | bytes) -> Any:
    """Read a JSON text.

    Args:
        text: UTF-8 if it is bytes.

    Raises:
        ValueError: no JSON, a key that stands twice in a mapping, NaN or infinity, or lists and mappings nested deeper
            than `DEPTH`.

    >>> read_json('{"format": 1}')
    {'format': 1}
    """
    try:
        value = json.loads(
            text, object_pairs_hook=_mapping, parse_constant=_constant, parse_int=_integer, parse_float=_real
        )
    except RecursionError:
        raise ValueError(f"lists and mappings nested deeper than {DEPTH} levels") from None
    _check(value)
    return value


def read_yaml(text: str) -> Any:
    """Read a YAML text of one document.

    Raises:
        ValueError: no YAML, a tag, a key that is no text or stands twice in a mapping, several documents, or more than
            `DEPTH` levels or `VALUES` values; the message names the line.

    >>> read_yaml("ratios: [1, 2e0]  # compression")
    {'ratios': [1, 2.0]}
    """
    builder = _Builder()
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            builder.take(event)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).replace('"<unicode string>"', "it").split())) from error
    return builder.document


def _check_plain(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "no plain file but a folder, pipe or device", str(path))


def _mapping(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    for key, value in pairs:
        if key in mapping:
            raise ValueError(f"the key {key!r} stands twice in one mapping; leave one out")
        mapping[key] = value
    return mapping


def _constant(name: str) -> Any:
    raise ValueError(f"{name}, which is no number of JSON")


def _real(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text[:_DIGITS]}, a number too large to be one")
    return value


def _check(value: Any) -> None:
    level = [value]
    for _ in range(DEPTH + 1):
        for one in level:
            if isinstance(one, str):
                _text(one)
        level = [one for one in level if isinstance(one, list | dict)]
        if not level:
            return
        level = [item for one in level for item in ((*one, *one.values()) if isinstance(one, dict) else one)]
    raise ValueError(f"lists and mappings nested deeper than {DEPTH} levels")


def _text(escaped: str) -> str:
    r"""Join the two halves that `\ud83d\ude00` writes a letter in; a half alone cannot be printed or stored."""
    try:
        return escaped.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        raise ValueError(f"half a letter in {escaped!r}; write letters as themselves, in UTF-8") from None


class _Builder:
    """Makes a document from the events of a YAML parser, without recursion."""

    def __init__(self) -> None:
        self.document: Any = None
        self._documents = self._values = 0
        # Open lists and mappings: container, key that waits for its value, anchor, values before it.
        self._open: list[tuple[Any, list[str], str | None, int]] = []
        self._anchored: dict[str, tuple[Any, int]] = {}

    def take(self, event: Any) -> None:
        """Take the next event."""
        if getattr(event, "tag", None) is not None:
            raise ValueError(f"the tag {event.tag!r} in line {_line(event)}; write plain values, without tags")
        match event:
            case yaml.DocumentStartEvent():
                self._documents += 1
                if self._documents > 1:
                    raise ValueError(f"a second document in line {_line(event)}; leave one out")
            case yaml.SequenceStartEvent():
                self._begin(event, [])
            case yaml.MappingStartEvent():
                self._begin(event, {})
            case yaml.SequenceEndEvent() | yaml.MappingEndEvent():
                container, _, anchor, before = self._open.pop()
                self._place(event, container, anchor, self._values - before)
            case yaml.ScalarEvent():
                self._scalar(event)
            case yaml.AliasEvent():
                if event.anchor not in self._anchored:
                    raise ValueError(f"the alias *{event.anchor} in line {_line(event)} of nothing before it")
                value, size = self._anchored[event.anchor]
                self._count(event, size)
                self._place(event, value, None, size)

    def _scalar(self, event: Any) -> None:
        text = _text(event.value)
        if self._waits_for_key():
            mapping, keys, _, _ = self._open[-1]
            if text in mapping:
                raise ValueError(f"the key {text!r} stands twice, again in line {_line(event)}; leave one out")
            keys.append(text)
            return
        self._count(event, 1)
        self._place(event, _scalar(text) if event.implicit[0] else text, event.anchor, 1)

    def _waits_for_key(self) -> bool:
        return bool(self._open) and isinstance(self._open[-1][0], dict) and not self._open[-1][1]

    def _begin(self, event: Any, container: Any) -> None:
        if len(self._open) == DEPTH:
            raise ValueError(f"lists and mappings nested deeper than {DEPTH} levels in line {_line(event)}")
        if self._waits_for_key():
            raise ValueError(f"a list or mapping as a key in line {_line(event)}; keys are text")
        self._open.append((container, [], event.anchor, self._values))
        self._count(event, 1)

    def _place(self, event: Any, value: Any, anchor: str | None, size: int) -> None:
        if anchor is not None:
            self._anchored[anchor] = value, size
        if not self._open:
            self.document = value
        elif self._waits_for_key():
            raise ValueError(f"an alias as a key in line {_line(event)}; write it out")
        elif isinstance(self._open[-1][0], dict):
            self._open[-1][0][self._open[-1][1].pop()] = value
        else:
            self._open[-1][0].append(value)

    def _count(self, event: Any, size: int) -> None:
        self._values += size
        if self._values > VALUES:
            raise ValueError(f"more than {VALUES} values, reached in line {_line(event)}")


def _integer(text: str, base: int = 10) -> int:
    if len(text) > _DIGITS:
        raise ValueError(f"a whole number of {len(text)} digits; {_DIGITS} are read")
    return int(text, base)


_SCALARS: tuple[tuple[re.Pattern[str], Callable[[str], Any]], ...] = (
    (re.compile(r"|~|null|Null|NULL"), lambda text: None),  # noqa: ARG005
    (re.compile(r"true|True|TRUE"), lambda text: True),  # noqa: ARG005
    (re.compile(r"false|False|FALSE"), lambda text: False),  # noqa: ARG005
    (re.compile(r"[-+]?[0-9]+"), _integer),
    (re.compile(r"0o[0-7]+"), lambda text: _integer(text[2:], 8)),
    (re.compile(r"0x[0-9a-fA-F]+"), lambda text: _integer(text[2:], 16)),
    (re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"), float),
    (re.compile(r"[-+]?\.(inf|Inf|INF)"), lambda text: float(text.replace(".", ""))),
    (re.compile(r"\.(nan|NaN|NAN)"), lambda text: float(text[1:])),
)


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _scalar(text: str) -> Any:
    for pattern, value in _SCALARS:
        if pattern.fullmatch(text):
            return value(text)
    return text
