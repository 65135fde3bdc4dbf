"""Options: plain data become frozen dataclasses, strictly, or a sentence that says what was expected.

The annotations of a dataclass say everything: types, bounds, choices. They are checked by pydantic and put into words
here, for messages and for `--help`. Nothing in the data is ever looked up, imported or called.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import math
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, TypeAlias, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from sharedlabel.errors import ConfigError, nearest
from sharedlabel.files.plain import DEPTH

# Numbers with a bound, so that a digit too many is a message and no day of work.
Count: TypeAlias = Annotated[int, Field(ge=1, le=1_000_000)]  # of steps, images, passes
Many: TypeAlias = Annotated[int, Field(ge=0, le=1_000_000)]  # the same, where none is off
Width: TypeAlias = Annotated[int, Field(ge=1, le=65_536)]  # units of a layer
OptionalWidth: TypeAlias = Annotated[int, Field(ge=0, le=65_536)]  # the same, where 0 leaves the layer out
Depth: TypeAlias = Annotated[int, Field(ge=1, le=1_000)]  # layers, heads, orders
PositiveFloat: TypeAlias = Annotated[float, Field(gt=0, le=1_000_000)]
NonNegativeFloat: TypeAlias = Annotated[float, Field(ge=0, le=1_000_000)]
Fraction: TypeAlias = Annotated[float, Field(ge=0, le=1)]
PositiveFraction: TypeAlias = Annotated[float, Field(gt=0, le=1)]
Dropout: TypeAlias = Annotated[float, Field(ge=0, lt=1)]  # share of units dropped in training, never all
Read = TypeVar("Read")
Path = tuple[str | int, ...]
_LARGEST = 2**63 - 1  # what files, torch and numpy hold
_LONGEST = 1000  # letters of a text
_SHOWN = 120  # letters of what a message shows of a value
_WORDS = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}
_KINDS = {
    "any": "plain data",
    "boolean": "true or false",
    "integer": "a whole number",
    "null": "null",
    "number": "a number",
    "object": "a mapping of options",
    "string": "text",
}
_PLURAL = {"a whole number": "whole numbers", "a number": "numbers", "text": "texts", "a name,": "names,"}


def read(kind: type[Read], values: Mapping[str, Any]) -> Read:
    """Build a frozen dataclass from plain data.

    Args:
        kind: the dataclass; sections may be dataclasses themselves.
        values: by option; options that are left out have their defaults.

    Raises:
        ConfigError: an unknown option (the nearest one is named), or a value of another type or out of bounds; the
            message gives its dotted name, what was expected, what came, and what to do.

    >>> read(dataclasses.make_dataclass("Pool", [("hidden", int, 64)]), {"hidden": 8})
    Pool(hidden=8)
    """
    known: Any = kind
    _check_names(known, values, ())
    _check_plain(values, ())
    try:
        return typing.cast("Read", _adapter(known).validate_json(json.dumps(values), strict=True))
    except ValidationError as error:
        raise ConfigError(_explain(kind, values, error)) from error


def leaves(kind: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted name and the annotation of every option, those of sections included.

    Args:
        kind: the dataclass.
        prefix: what names begin with.
    """
    for name, annotation in _annotations(kind).items():
        if dataclasses.is_dataclass(annotation):
            yield from leaves(annotation, f"{prefix}{name}.")
        else:
            yield prefix + name, annotation


def sections(kind: Any) -> dict[str, Any]:
    """Return the options of a dataclass that are sections, by name."""
    return {name: annotation for name, annotation in _annotations(kind).items() if dataclasses.is_dataclass(annotation)}


@functools.cache
def wanted(annotation: Any) -> str:
    """Say in words what an annotation takes.

    >>> wanted(tuple[float, ...] | None)
    'a list of numbers or null'
    """
    return _phrase(_adapter(annotation).json_schema())


def takes_text_alone(annotation: Any) -> bool:
    """Tell whether all that an annotation takes, but null, is text as it is written."""
    schema = _adapter(annotation).json_schema()
    kinds = {one.get("type") for one in schema.get("anyOf", [schema])}
    return kinds <= {"string", "null"} and "string" in kinds and "enum" not in schema


def shown(value: Any) -> str:
    """Write a value into a message: as it stands in YAML, cut where it is long."""
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]} ..."


def _check_names(kind: Any, values: Any, path: Path) -> None:
    """Refuse options that do not exist, and sections that are no mapping."""
    if not isinstance(values, Mapping):
        raise ConfigError(
            f"{_dotted(path)}: expected a mapping of options, got {shown(values)}; write its options below it"
        )
    known = _annotations(kind)
    for name in values:
        if name not in known:
            raise ConfigError(unknown(_dotted((*path, name)), [_dotted((*path, other)) for other in known]))
    for name, section in sections(kind).items():
        if name in values:
            _check_names(section, values[name], (*path, name))


def unknown(name: str, known: Iterable[str]) -> str:
    """Say that there is no such option, and which is nearest."""
    return f"unknown option {shown(name)}; {nearest(name, known)}"


def _check_plain(value: Any, path: Path) -> None:
    """Refuse what files cannot hold: objects, letters that steer terminals, numbers without a value or an end."""
    if isinstance(value, Mapping | list | tuple):
        if len(path) > DEPTH:
            raise ConfigError(f"{path[0]}: expected at most {DEPTH} levels of lists and mappings, got more; flatten it")
        for name, item in value.items() if isinstance(value, Mapping) else enumerate(value):
            if isinstance(value, Mapping):
                _check_key(name, path)
            _check_plain(item, (*path, name))
    elif isinstance(value, str):
        _check_text(value, path)
    elif isinstance(value, float) and not math.isfinite(value):
        _refuse(path, "a finite number", value, "choose one")
    elif isinstance(value, int) and not -_LARGEST <= value <= _LARGEST:
        _refuse(path, f"a number of at most {_LARGEST}", value, "choose a smaller one")
    elif not isinstance(value, int | float | None):
        _refuse(path, "plain data: text, numbers, lists and mappings", value, "write it as such")


def _check_key(name: Any, path: Path) -> None:
    if not isinstance(name, str):
        _refuse(path, "names as keys", name, "put it in quotes")
    _check_text(name, path)


def _check_text(text: str, path: Path) -> None:
    if len(text) > _LONGEST:
        _refuse(path, f"at most {_LONGEST} letters", text, "shorten it")
    if not text.isprintable():
        _refuse(path, "text of one line, without control characters", text, "remove them")


def _refuse(path: Path, expected: str, value: Any, advice: str) -> typing.NoReturn:
    where = f"{_dotted(path)}: " if path else ""
    raise ConfigError(f"{where}expected {expected}, got {shown(value)}; {advice}")


def _explain(kind: type[Any], values: Mapping[str, Any], error: ValidationError) -> str:
    """Put the first thing that is wrong into a sentence."""
    first = error.errors()[0]
    if first["type"] == "value_error":  # of a check of the dataclass itself, which says everything
        return str(first["ctx"]["error"])
    path, annotation = _place(kind, first["loc"])
    if first["type"] in {"missing", "missing_argument"}:
        return f"{_dotted(path)}: expected {wanted(annotation)}, got nothing; add it"
    value = functools.reduce(lambda held, part: held[part], path, typing.cast("Any", values))
    return (
        f"{_dotted(path)}: expected {wanted(annotation)}, got {shown(value)}; {_advice(kind, path, annotation, value)}"
    )


def _place(kind: type[Any], location: Iterable[str | int]) -> tuple[Path, Any]:
    """Follow a place in the data as far as annotations lead one way, and return what stands there."""
    path: Path = ()
    annotation: Any = kind
    for part in location:
        inner = _inside(annotation, part)
        if inner is None:
            break
        path, annotation = (*path, part), inner
    return path, annotation


def _inside(annotation: Any, part: str | int) -> Any:
    """Return the annotation of one item or option; None where the way forks."""
    bare = _bare(annotation)
    if isinstance(part, str):
        return _annotations(bare).get(part)
    arguments = typing.get_args(bare)
    return arguments[0] if typing.get_origin(bare) in {tuple, list} and arguments[1:] in {(), (...,)} else None


def _bare(annotation: Any) -> Any:
    """Return an annotation without its bounds and without null."""
    while typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    if typing.get_origin(annotation) in {typing.Union, types.UnionType}:
        others = [one for one in typing.get_args(annotation) if one is not type(None)]
        return _bare(others[0]) if len(others) == 1 else annotation
    return annotation


def _advice(kind: type[Any], path: Path, annotation: Any, value: Any) -> str:
    """Say what to write instead."""
    for written in _repairs(annotation, value):
        if _fits(annotation, written):
            return f"write {_flow(written)}"
    default = _default(kind, path)
    return f"the default is {_flow(default[0])}" if default else "correct it, or leave it out"


def _repairs(annotation: Any, value: Any) -> Iterator[Any]:
    """Yield what may have been meant."""
    choices = _adapter(annotation).json_schema().get("enum", [])
    if isinstance(value, str):
        yield from difflib.get_close_matches(value, [one for one in choices if isinstance(one, str)], n=1, cutoff=0.6)
        if value.lower() in _WORDS:
            yield _WORDS[value.lower()] == "true"
        for number in (int, float):
            try:
                yield number(value)
            except ValueError:
                continue
    if isinstance(value, float) and value.is_integer():
        yield int(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield str(value)
    if not isinstance(value, list | Mapping) or "name" in value:
        yield [value]


def _fits(annotation: Any, value: Any) -> bool:
    try:
        _adapter(annotation).validate_json(json.dumps(value), strict=True)
    except (ValidationError, ConfigError):
        return False
    return True


def _default(kind: type[Any], path: Path) -> tuple[Any, ...]:
    """Return the default of the option at a place, as the only item, if it has one."""
    try:
        value: Any = kind()
    except (TypeError, ConfigError):
        return ()
    for part in path:
        if not isinstance(part, str) or not hasattr(value, part):
            return ()
        value = getattr(value, part)
    return (value,)


def _flow(value: Any) -> str:
    """Write a value as it would stand in YAML."""
    plain = isinstance(value, str) and value.isidentifier() and value not in {"true", "false", "null"}
    return value if plain else json.dumps(value, ensure_ascii=False)


def _dotted(path: Iterable[str | int]) -> str:
    return ".".join(str(part) for part in path)


@functools.cache
def _annotations(kind: Any) -> dict[str, Any]:
    """Return the annotations of a dataclass's options; nothing for what is no dataclass."""
    if not dataclasses.is_dataclass(kind):
        return {}
    hints = typing.get_type_hints(kind, include_extras=True)
    return {entry.name: hints[entry.name] for entry in dataclasses.fields(kind)}


@functools.cache
def _adapter(annotation: Any) -> Any:  # a TypeAdapter, which type checkers at run time do not know
    return TypeAdapter(annotation)


def _phrase(schema: Mapping[str, Any]) -> str:
    """Put a JSON schema into words."""
    if {one.get("type") for one in schema.get("anyOf", ())} == {"string", "object"}:  # a plugin
        return "a name, or a mapping with `name` and its options"
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(map(_phrase, schema["anyOf"])))
    if "enum" in schema or "const" in schema:
        return _choice(list(map(shown, schema.get("enum", [schema.get("const")]))))
    kind = schema.get("type", "any")
    return _list_of(schema) if kind == "array" else _KINDS[kind] + _bounds(schema, whole=kind == "integer")


def _choice(words: list[str]) -> str:
    return f"one of {', '.join(words)}" if len(words) > 2 else " or ".join(words)


def _list_of(schema: Mapping[str, Any]) -> str:
    one = _phrase(schema.get("items", {}))
    for single, several in _PLURAL.items():
        if one.startswith(single):
            one = several + one.removeprefix(single)
    return f"a list of {one}" + (" with one item or more" if schema.get("minItems") else "")


def _bounds(schema: Mapping[str, Any], *, whole: bool) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    if whole and above is not None:
        low, above = above + 1, None
    if low is not None and high is not None:
        return f" from {low} to {high}"
    named = (("of at least", low), ("above", above), ("of at most", high), ("below", below))
    parts = [f"{word} {bound}" for word, bound in named if bound is not None]
    return f" {' and '.join(parts)}".replace(" and of ", " and ") if parts else ""
