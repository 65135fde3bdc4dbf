"""The code of a submission as it runs: without comments and docstrings, and with little room for a table of answers."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from types import EllipsisType
from typing import Any

from sharedlabel.errors import DataError, printable
from sharedlabel.leaderboard.submission.allowed import check_node

CONSTANTS = 512  # bytes of text and digits of numbers in the code, docstrings left out: little room for a table
IDENTIFIERS = 4_000  # bytes of all names that are free, each name once
ARGUMENTS = 16  # of a call that are free
NODES = 20_000  # of the tree; the template has 204
IDENTIFIER = 40  # bytes of a name that are free; those beyond count as constants


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
        check_node(node, f"{where}, line {getattr(node, 'lineno', 0)}")
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
