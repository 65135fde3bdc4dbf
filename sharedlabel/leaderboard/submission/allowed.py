"""Which imports and names the code of a submission may have.

The sandbox is what keeps code in; this keeps costs countable and files readable.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator

from sharedlabel.errors import DataError, printable

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


def check_node(node: ast.AST, line: str) -> None:
    """Refuse a piece of syntax that an aggregator does not need.

    Args:
        node: of the tree.
        line: where it stands, for messages.

    Raises:
        DataError: says what is not allowed.
    """
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
