"""A submission: a folder with one aggregator, its card and a README; no weights, no binaries, no links."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import stat
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import EllipsisType
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from sharedlabel.errors import DataError, printable
from sharedlabel.leaderboard.schema import NAMES, Strict, is_name, parse_toml

SOURCE, CARD, README = "aggregator.py", "submission.toml", "README.md"
FILES = (SOURCE, CARD, README)
LIMITS = {SOURCE: 64_000, CARD: 16_000, README: 64_000}  # bytes
CONSTANTS = 512  # bytes of text and digits of numbers in the code, docstrings left out: little room for a table
IDENTIFIERS = 4_000  # bytes of all names that are free, each name once
ARGUMENTS = 16  # of a call that are free
NODES = 20_000  # of the tree; the template has 204
IDENTIFIER = 40  # bytes of a name that are free; those beyond count as constants
# What a file may import; the sandbox is what keeps code in, this keeps costs countable and files readable.
_IMPORTS = {"__future__", "abc", "collections", "dataclasses", "enum", "functools", "itertools", "jaxtyping", "math"}
_IMPORTS |= {"torch", "typing"}
_PACKAGES = (
    "collections.abc",
    "torch.nn",
    "torch.nn.functional",
    "sharedlabel.aggregators",
    "sharedlabel.errors",
    "sharedlabel.logs",
    "sharedlabel.types",
    "sharedlabel.config",
)
# Counting copies an aggregator, moves and converts it; storing takes its state. No class may have its own way of it.
_PICKLED = {"__deepcopy__", "__copy__", "__reduce__", "__reduce_ex__", "__getstate__", "__setstate__"}
_RELIED = _PICKLED | {"to", "float", "eval", "train", "_apply", "parameters", "state_dict", "load_state_dict"}
_NAMES = {"os", "sys", "_sys", "subprocess", "importlib", "ctypes", "builtins", "inspect", "is_meta", "bltns"}
_NAMES |= {"getattr", "setattr", "delattr", "__dict__", "__class__", "__annotations__", "__doc__", "__name__"}
_NAMES |= {"eval", "exec", "compile", "open", "__import__", "globals", "vars", "input", "breakpoint"}
_ATTRIBUTES = _NAMES | _PICKLED | {"numpy", "tolist", "from_numpy", "data_ptr", "load", "save", "from_file", "jit"}
_ATTRIBUTES |= {"__array__", "__globals__", "__builtins__", "__subclasses__", "__code__", "operator", "frombuffer"}
_ATTRIBUTES |= {"storage", "untyped_storage", "hub", "library", "ops", "fields", "_C", "_getframe"}
_ATTRIBUTES |= {"_python_dispatch", "_disable_current_modes", "_dynamo", "_functorch", "_inductor", "_ops"}
_ATTRIBUTES |= {"threading", "multiprocessing", "concurrent", "asyncio", "signal", "socket"}
_ATTRIBUTES |= {"get_type_hints", "ForwardRef", "get_annotations", "singledispatch", "singledispatchmethod"}
_ATTRIBUTES |= {"__setattr__", "__getattribute__", "__torch_function__", "__dlpack__", "dlpack", "to_dlpack"}


class _Printed(Strict):
    """What tables and pages show: every text is one line without control or format characters."""

    @field_validator("*")
    @classmethod
    def _one_line(cls, value: Any) -> Any:
        found = _unprinted(value) if isinstance(value, str) else None
        if found:
            raise ValueError(f"expected one line of printable text; remove {found}")
        return value


class Author(_Printed):
    """Who wrote it.

    Attributes:
        name: as it should be shown.
        affiliation: may be empty.
        url: of a home page or profile; may be empty.
    """

    name: Annotated[str, Field(min_length=1, max_length=100)]
    affiliation: Annotated[str, Field(max_length=200)] = ""
    url: Annotated[str, Field(max_length=300, pattern="^(https://[^ ]+)?$")] = ""


class Tuning(_Printed):
    """What was spent on choosing the options.

    Attributes:
        trials: settings that were tried, 0 for none.
        selected_on: where they were compared.
        note: in words; may be empty.
    """

    trials: Annotated[int, Field(ge=0, le=1_000_000_000)]
    selected_on: Literal["nothing", "validation", "other data"]
    note: Annotated[str, Field(max_length=1000)] = ""


class Card(_Printed):
    """`submission.toml`.

    Attributes:
        title: what the table calls it.
        description: what it does, in one paragraph.
        license: SPDX identifier of the code's licence.
        source: address of the paper or the code; may be empty.
        external_data: whether anything was learnt from data that the protocol does not hold.
        external_data_note: what, if so.
        tuning: what was spent on choosing the options.
        authors: at least one.
    """

    title: Annotated[str, Field(min_length=1, max_length=80)]
    description: Annotated[str, Field(min_length=20, max_length=2000)]
    license: Annotated[str, Field(pattern=r"^[A-Za-z0-9.+-]{2,40}$")]
    source: Annotated[str, Field(max_length=300, pattern="^(https://[^ ]+)?$")] = ""
    external_data: bool
    external_data_note: Annotated[str, Field(max_length=1000)] = ""
    tuning: Tuning
    authors: Annotated[tuple[Author, ...], Field(min_length=1, max_length=50)]


@dataclass(frozen=True)
class Submission:
    """A submission as it was read.

    Attributes:
        name: of its folder.
        card: what it says of itself.
        source: the code as it was written.
        code: the code as it runs: without comments and docstrings.
        readme: Markdown.
        sha256: of all files.
    """

    name: str
    card: Card
    source: str
    code: str
    readme: str
    sha256: str


def named(root: Path, name: str) -> Submission:
    """Read the submission of a name from a board's folder.

    Raises:
        DataError: the name cannot be one, or what `read` refuses.
    """
    check_name(name)
    return read(root / "submissions" / name)


def read(folder: Path) -> Submission:
    """Read a submission.

    Raises:
        DataError: the folder, a name, a file, the card or the code is not as it has to be; the message says which.
    """
    if folder.is_symlink() or not folder.is_dir():
        found = "a link" if folder.is_symlink() else "none"
        raise DataError(f"expected the folder of a submission at {folder}, got {found}; make one with `new`")
    check_name(folder.name)
    content = {name: _file(folder / name, LIMITS[name]) for name in FILES}
    extra = sorted(path.name for path in folder.iterdir() if path.name not in FILES)
    if extra:
        raise DataError(
            f"expected only {', '.join(FILES)} in {folder}, got {printable(', '.join(extra), 200)}; remove the others"
        )
    digest = hashlib.sha256(b"".join(hashlib.sha256(content[name].encode()).digest() for name in FILES)).hexdigest()
    card = parse_toml(content[CARD], folder / CARD, Card)
    if card.external_data != bool(card.external_data_note):
        raise DataError(f"{folder / CARD}: external_data_note goes with external_data = true; say there what was used")
    code = normal(content[SOURCE], str(folder / SOURCE))
    return Submission(folder.name, card, content[SOURCE], code, content[README], digest)


def check_name(name: str) -> None:
    """Refuse what cannot be the name of a submission.

    Raises:
        DataError: says what a name looks like.
    """
    if not is_name(name):
        raise DataError(f"expected {NAMES}, got {name!r}; rename the folder")


def _file(path: Path, limit: int) -> str:
    """Read a regular file of text, never through a link."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise DataError(f"expected the file {path}, found none; add it") from error
    except OSError as error:
        raise DataError(
            f"expected a plain file at {path}, got a link or something else ({error.strerror}); replace it"
        ) from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise DataError(f"expected a plain file at {path}, got something else; replace it")
        content = os.read(descriptor, limit + 1)
    finally:
        os.close(descriptor)
    if len(content) > limit:
        raise DataError(f"expected at most {limit:,} bytes in {path}, got more; submissions hold code, no weights")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"expected text in UTF-8 in {path}, got other bytes at {error.start}; save it as UTF-8"
        ) from error
    found = _unprinted(text, "\n\t")
    if found:
        raise DataError(f"expected printable text, \\n and \\t in {path}, got {found}; remove it")
    return text


def _unprinted(text: str, allowed: str = "") -> str | None:
    """Name the first control, format or unassigned character or separator of lines: U+202E or the like."""
    for letter in text:
        category = unicodedata.category(letter)
        if letter not in allowed and (category.startswith("C") or category in ("Zl", "Zp")):
            return f"U+{ord(letter):04X}"
    return None


def normal(source: str, where: str) -> str:
    """Return code without comments, docstrings and annotations of functions, which could carry data or other code.

    Args:
        source: of a module.
        where: it comes from, for messages.

    Raises:
        DataError: no Python, an import or a name that is not allowed, or more constants than code needs.
    """
    try:
        return _normal(ast.parse(source), where)
    except (RecursionError, MemoryError) as error:
        raise DataError(f"expected Python that is nested less in {where}, got too deep a tree; split it up") from error
    except (SyntaxError, ValueError) as error:
        raise DataError(f"expected Python in {where}, got: {printable(str(error), 200)}; correct it") from error


def _normal(tree: ast.Module, where: str) -> str:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            _without_docstring(node)
        _without_annotations(node)
    nodes = list(ast.walk(tree))
    if len(nodes) > NODES:
        raise DataError(f"expected at most {NODES:,} nodes of syntax in {where}, got {len(nodes):,}; write less code")
    for node in nodes:
        _check_node(node, f"{where}, line {getattr(node, 'lineno', 0)}")
    spent = _spent(nodes)
    if spent > CONSTANTS:
        raise DataError(
            f"expected at most {CONSTANTS:,} bytes of constants in {where}, got {spent:,} with what names are longer "
            f"than {IDENTIFIER} bytes, or {IDENTIFIERS:,} in all, and with the elements of lists; tables are data: "
            "leave them out"
        )
    return ast.unparse(tree) + "\n"


def _without_docstring(node: Any) -> None:
    first = node.body[0] if node.body else None
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        node.body = node.body[1:] or [ast.Pass()]


def _without_annotations(node: ast.AST) -> None:
    """Take annotations off a function: texts in them are code to those that evaluate them."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        node.returns = None
    elif isinstance(node, ast.arg):
        node.annotation = None


def _spent(nodes: list[ast.AST]) -> int:
    """Count all bytes that could hold a table."""
    names = [name for node in nodes for name in _identifiers(node)]
    long = sum(max(0, len(name.encode()) - IDENTIFIER) for name in names)
    many = max(0, sum(len(name.encode()) for name in set(names)) - IDENTIFIERS)
    return sum(_constant(node) + _elements(node) for node in nodes) + long + many


def _elements(node: ast.AST) -> int:
    """Count the elements of a display, and the arguments of a call beyond those that are free: what is there counts."""
    if isinstance(node, ast.Tuple | ast.List | ast.Set):
        return len(node.elts)
    if isinstance(node, ast.Dict):
        return len(node.values)
    return max(0, len(node.args) + len(node.keywords) - ARGUMENTS) if isinstance(node, ast.Call) else 0


def _constant(node: ast.AST) -> int:
    """Count the bytes of a text and the digits of a number, of which Python would not write more than 4,300."""
    if not isinstance(node, ast.Constant):
        return 0
    value = node.value
    if value is None or isinstance(value, EllipsisType):
        return 1
    if isinstance(value, int) and value.bit_length() > 8 * CONSTANTS:
        return value.bit_length() * 3 // 10
    if isinstance(value, str | bytes):
        return len(value if isinstance(value, bytes) else value.encode("utf-8", "surrogatepass"))
    return len(repr(value))


def _identifiers(node: ast.AST) -> Iterator[str]:
    """Yield the names that a node is written with: its own, its attribute's, arguments', imports'."""
    for field, value in ast.iter_fields(node):
        if not (isinstance(node, ast.Constant) and field == "value"):
            for name in value if isinstance(value, list) else [value]:
                yield from name.split(".") if isinstance(name, str) else ()


def _check_node(node: ast.AST, line: str) -> None:
    if isinstance(node, ast.Import | ast.ImportFrom):
        _check_import(node, line)
    elif isinstance(node, ast.Name) and node.id in _NAMES:
        raise DataError(
            f"{line}: {node.id!r} is not allowed in a submission; an aggregator needs tensors only, and a variable "
            "another name"
        )
    elif isinstance(node, ast.AnnAssign):
        _check_annotation(node.annotation, line)
    elif isinstance(node, ast.Attribute):
        _check_attribute(node.attr, line)
        _check_public(node, line)
        _check_relied([] if isinstance(node.ctx, ast.Load) else [node.attr], line)
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        _check_relied({node.name} & _PICKLED, line)
    elif isinstance(node, ast.ClassDef):
        _check_relied(_bound(node), line)
    elif isinstance(node, ast.MatchClass):
        for name in node.kwd_attrs:
            _check_attribute(name, line)


def _bound(node: ast.AST) -> Iterator[str]:
    """Yield the names that the body of a class binds: those of its functions, not those in them."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield child.name
        elif isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store):
            yield child.id
        elif isinstance(child, ast.alias):
            yield child.asname or child.name
        elif not isinstance(child, ast.Lambda):
            yield from _bound(child)


def _check_relied(names: Iterable[str], line: str) -> None:
    for name in sorted(_RELIED.intersection(names)):
        raise DataError(f"{line}: expected no {name!r} of its own, got one; counting and storing rely on it: rename it")


def _check_attribute(name: str, line: str) -> None:
    if name in _ATTRIBUTES:
        raise DataError(f"{line}: '.{name}' is not allowed in a submission; compute with torch, so that costs count")


def _check_public(node: ast.Attribute, line: str) -> None:
    """Refuse names with an underscore in front, but of an object's own: what is private to torch turns counting off."""
    holder = node.value.func if isinstance(node.value, ast.Call) else node.value
    own = isinstance(holder, ast.Name) and holder.id in ("self", "cls", "super")
    if node.attr.startswith("_") and not own:
        raise DataError(f"{line}: '.{node.attr}' is private to what it belongs to; use what is public")


def _check_annotation(annotation: ast.AST, line: str) -> None:
    """Refuse texts that would be code where the annotation of a field is evaluated."""
    for node in ast.walk(annotation):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and not re.fullmatch(r"[\w ]*", node.value):
            raise DataError(f"{line}: expected words in the texts of an annotation, got others; write the type itself")


def _check_import(node: ast.Import | ast.ImportFrom, line: str) -> None:
    """Refuse modules that costs could hide in, and names that are not allowed as attributes or names."""
    named = [alias.name for alias in node.names]
    modules = named if isinstance(node, ast.Import) else ["." * node.level + (node.module or "")]
    for name in modules:
        if name not in _IMPORTS and not any(name == p or name.startswith(p + ".") for p in _PACKAGES):
            raise DataError(
                f"{line}: expected imports of {', '.join(sorted(_IMPORTS))} and {', '.join(_PACKAGES)}, got "
                f"{printable(repr(name), 80)}; compute with torch, so that costs can be counted"
            )
    given = [alias.asname for alias in node.names if alias.asname]
    own = ("__future__", "sharedlabel.aggregators")
    theirs = [] if all(name.startswith(own) for name in modules) else [*modules, *named]
    private = {part for text in theirs for part in text.split(".") if part.startswith("_")}
    for name in [part for text in [*modules, *named, *given] for part in text.split(".")]:
        if name in _ATTRIBUTES | {"*"} | private:
            raise DataError(f"{line}: expected imports of what computes, got {name!r}; import what you use by its name")


def schema() -> str:
    """Return the JSON Schema of `submission.toml`."""
    return json.dumps(Card.model_json_schema(), indent=2, ensure_ascii=False) + "\n"
