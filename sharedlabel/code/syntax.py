"""What a piece of Python says, whatever its layout: its text in one form, and the names that it takes from outside.

Comments, positions, docstrings and the texts of error messages are left out, and of statements imports, too, whose
names stand for what they lead to. The forms are the same under Python 3.11 to 3.13, whose trees differ in details
(`type_params`, pieces of f-strings).
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

Chain: TypeAlias = tuple[str, ...]  # a dotted name such as `cost.macs`, split at the dots
_SILENT = {"ctx", "kind", "type_comment", "type_ignores"}
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
SCOPES = (*_FUNCTIONS, ast.ClassDef)  # statements with names of their own
_BODIES = ("body", "orelse", "handlers", "finalbody", "cases")  # fields that hold statements
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


class _Plain(ast.NodeTransformer):
    """Removes what changes no result: see the module's docstring."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        """Remove docstrings and other values that stand alone."""
        return None if isinstance(node.value, ast.Constant) else self.generic_visit(node)

    def visit_Pass(self, _: ast.Pass) -> None:
        """Remove `pass`, which stands where a docstring may stand too."""

    def visit_Import(self, _: ast.Import) -> None:
        """Remove imports: what names stand for is looked up by `imports`."""

    def visit_ImportFrom(self, _: ast.ImportFrom) -> None:
        """Likewise."""

    def visit_If(self, node: ast.If) -> ast.AST | None:
        """Remove what is left of `if TYPE_CHECKING`."""
        self.generic_visit(node)
        return node if node.body or node.orelse else None

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        """Keep which error it is; remove what it tells people."""
        if isinstance(node.exc, ast.Call):
            node.exc.args = [argument for argument in node.exc.args if not _is_text(argument)]
        return self.generic_visit(node)

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        """Likewise."""
        node.msg = None if node.msg is None or _is_text(node.msg) else node.msg
        return self.generic_visit(node)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        """Join the literal pieces of an f-string, which Python versions cut differently."""
        self.generic_visit(node)
        pieces: list[ast.expr] = []
        for piece in node.values:
            last = pieces[-1] if pieces else None
            if isinstance(piece, ast.Constant) and isinstance(last, ast.Constant):
                pieces[-1] = ast.Constant(last.value + piece.value)  # type: ignore[operator]
            elif not (isinstance(piece, ast.Constant) and not piece.value):
                pieces.append(piece)
        node.values = pieces
        return node


class _PlainWithImports(_Plain):
    """Removes what changes no result, but no imports: of a whole file, it says what runs, and in which order."""

    def visit_Import(self, node: ast.Import) -> ast.AST:  # type: ignore[override]
        """Keep imports."""
        return node

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST:  # type: ignore[override]
        """Likewise."""
        return node


def _is_text(node: ast.expr) -> bool:
    if isinstance(node, ast.BinOp):
        return _is_text(node.left) and _is_text(node.right)
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def plain(tree: ast.stmt | ast.Module) -> ast.Module:
    """Return a statement, or a whole file, without what changes no result; it is changed in place."""
    remover, module = (
        (_PlainWithImports(), tree) if isinstance(tree, ast.Module) else (_Plain(), ast.Module([tree], []))
    )
    left: ast.Module = remover.visit(module)
    return left


def text(node: Any, holes: Mapping[int, str] = MappingProxyType({})) -> str:
    """Return the form of a tree that depends on what it says alone.

    Args:
        node: a tree.
        holes: what to write in the place of a part, by the part's `id`.

    >>> text(ast.parse("x = -1  # why"))
    "Module(body=[Assign(targets=[Name(id='x')],value=UnaryOp(op=USub(),operand=int:1))])"
    """
    if isinstance(node, ast.Constant):
        return f"{type(node.value).__name__}:{node.value!r}"
    if isinstance(node, ast.AST):
        if id(node) in holes:
            return holes[id(node)]
        given = [(name, getattr(node, name, None)) for name in _telling(node._fields)]
        said = [f"{name}={text(value, holes)}" for name, value in given if value is not None and value != []]
        return f"{type(node).__name__}({','.join(said)})"
    if isinstance(node, list):
        return f"[{','.join([text(one, holes) for one in node])}]"
    return repr(node)


@functools.cache
def _telling(fields: tuple[str, ...]) -> list[str]:
    return sorted(name for name in fields if name not in _SILENT)


def imports(tree: ast.AST) -> Iterator[tuple[str, str, Chain]]:
    """Yield what is imported anywhere in a tree: the local name, the module (relative ones with dots), and the rest.

    >>> list(imports(ast.parse("import a.b; import a.b as c; from ..d import e as f")))
    [('a', 'a', ()), ('c', 'a.b', ()), ('f', '..d', ('e',))]
    """
    for node in _statements(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first = alias.name.partition(".")[0]
                yield alias.asname or first, alias.name if alias.asname else first, ()
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield alias.asname or alias.name, "." * node.level + (node.module or ""), (alias.name,)


def _statements(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield a tree and the statements in it, level by level; most of a tree is expressions."""
    level = [tree]
    while level:
        yield from level
        parts = (getattr(node, name, None) for node in level for name in _BODIES)
        level = [node for part in parts if isinstance(part, list) for node in part]


def _children(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the parts of a tree, but for `Load` and the like, which say nothing of their own."""
    for name in node._fields:
        value = None if name == "ctx" else getattr(node, name, None)
        if isinstance(value, ast.AST):
            yield value
        elif isinstance(value, list):
            for item in value:
                if isinstance(item, ast.AST):
                    yield item


def modules(tree: ast.AST) -> Iterator[str]:
    """Yield what may be a module among the imports anywhere in a tree, relative ones with dots.

    >>> list(modules(ast.parse("import a.b; from ..c import d; importlib.import_module('e.f')")))
    ['a.b', '..c', '..c.d', 'e.f']
    """
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                start = "." * level + (module or "")
                yield start
                yield from (f"{start}{'' if start.endswith('.') else '.'}{alias.name}" for alias in names)
            case ast.Call(
                func=ast.Attribute(attr="import_module") | ast.Name(id="import_module" | "__import__"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield name


def bound(nodes: list[Any]) -> set[str]:
    """Return the names that statements bind in their own scope, those of imports excepted."""
    taken: set[str] = set()
    for node in nodes:
        if isinstance(node, SCOPES):
            taken.add(node.name)
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            taken.add(node.id)
        elif not isinstance(node, ast.Lambda):
            names = (getattr(node, name, None) for name in ("name", "rest") if not isinstance(node, ast.alias))
            taken |= {name for name in names if isinstance(name, str)}  # of `except ... as` and patterns
            inner = list(_children(node))
            # The targets of comprehensions are their own; what `:=` binds inside is not.
            if isinstance(node, _COMPREHENSIONS):
                inner = [child for child in ast.walk(node) if isinstance(child, ast.NamedExpr)]
            taken |= bound(inner)
    return taken


def references(node: Any) -> Iterator[Chain]:
    """Yield the dotted names that code takes from outside: globals, imports and built-ins.

    >>> sorted(references(ast.parse("def f(x): y = g(x); return y + a.b.c")))
    [('a', 'b', 'c'), ('g',)]
    """
    return (chain for _, chain in taken(node))


def taken(node: Any, inside: frozenset[str] = frozenset()) -> Iterator[tuple[ast.AST, Chain]]:
    """Yield the parts of a tree that are names from outside, each with its dotted name.

    Args:
        node: a tree.
        inside: names that are bound around it.
    """
    chain = _chain(node)
    if chain:
        if chain[0] not in inside:
            yield node, chain
        return
    for child, names in _scopes(node, inside):
        yield from taken(child, names)


def _chain(node: Any) -> Chain:
    """Return a dotted name that is read; empty for anything else."""
    if isinstance(node, ast.Attribute):
        before = _chain(node.value)
        return (*before, node.attr) if before else ()
    return (node.id,) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) else ()


def _scopes(node: Any, inside: frozenset[str]) -> Iterator[tuple[Any, frozenset[str]]]:
    """Yield the parts of a tree, each with the names that are bound around it."""
    if isinstance(node, (*_FUNCTIONS, ast.Lambda)):
        arguments = node.args
        named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
        body = node.body if isinstance(node.body, list) else [node.body]
        shared = {name for part in _statements(node) if isinstance(part, ast.Global) for name in part.names}
        shared |= {local for local, _, _ in imports(node)}  # as in `try: from a import b`, `except ...: b = None`
        own = inside | {one.arg for one in named if one is not None} | (bound(body) - shared)
        outside = [child for child in _children(node) if child not in body]
        yield from ((child, inside) for child in outside)
        yield from ((child, own) for child in body)
    elif isinstance(node, _COMPREHENSIONS):
        targets = [name for generator in node.generators for name in bound([generator.target])]
        first = node.generators[0].iter
        yield first, inside
        for child in _children(node):
            for part in _children(child) if isinstance(child, ast.comprehension) else (child,):
                if part is not first:
                    yield part, inside.union(targets)
    else:
        yield from ((child, inside) for child in _children(node))
