"""Digests of code: they change when what it computes may have changed, and not when anything else is edited.

A digest covers a starting point and all that it reaches: a name in code that is reached leads to the definition
(function, class or assignment at the top of a module of this package) that it stands for, through imports, from module
to module. Statements at the top of a reached module that bind no name are reached too, and a module that is handed on
as a whole is reached as a whole. A stage starts at its function, a plugin at its whole file.

Not covered:

- `errors.py`, `plugins.py`, `memory.py`, `config.py` and what reads configurations, what is logged of trainings and who
  watches them (`training/scores.py`, `training/callbacks.py`), which compute no number that is stored: values of
  options are in the keys themselves;
- plugins that code loads by name: configurations say which, and their own digests stand in the keys beside this one;
- other packages: manifests name their versions, and a stage's version can be raised.

Files are read, not run; once per process, unless they change between two grids.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import gc
import hashlib
import importlib.util
import json
from collections.abc import Iterator, Sequence
from importlib.abc import InspectLoader
from pathlib import Path
from typing import TypeAlias

from sharedlabel import syntax
from sharedlabel.errors import ConfigError
from sharedlabel.syntax import Chain

_PACKAGE = __name__.partition(".")[0]
_NO_NUMBERS = {
    f"{_PACKAGE}.{name}"
    for name in ("errors", "plugins", "memory", "plain", "schema", "config", "training.scores", "training.callbacks")
}
_EVERYTHING = "*"  # what `from module import *` imports
Place: TypeAlias = tuple[str, int]  # a module and the number of a statement at its top
Imported: TypeAlias = tuple[str, str, Chain]  # a local name, the module it comes from, and its name there or nothing


@functools.cache
def digest(module: str, name: str | None = None) -> str:
    """Return the sha256 of a definition, or of a whole module, and of all that it reaches.

    Args:
        module: full name of a module of this package.
        name: what is defined at its top; None for the whole module.

    Raises:
        ConfigError: the source of a module is not there.
        LookupError: the module has no such definition.
    """
    with _uncollected():
        start = _whole(module) if name is None else _named(module, (name,))
        if not start:
            raise LookupError(f"expected {name or 'a statement'} in {module}, got none")
        said = sorted(_said(*place) for place in _reached(start))
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Keep the garbage collector from walking over all that torch holds at every few thousand nodes of a tree."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def refresh() -> None:
    """Forget what was read if a file has changed since, so that the next grid of this process sees it."""
    if any(_stamp(name) != stamp for name, stamp in _read.items()):
        _read.clear()
        for cached in (digest, _said, _next, _module, _is_module):
            cached.cache_clear()


class _Statement:
    """A statement at the top of a module; what is costly to find out is found out when it is reached."""

    def __init__(self, tree: ast.stmt, package: str) -> None:
        self.tree, self.package = tree, package
        self.names = syntax.bound([tree])

    @functools.cached_property
    def imports(self) -> list[Imported]:
        """What is imported in it."""
        found = syntax.imports(self.tree)
        return [(local, importlib.util.resolve_name(module, self.package), rest) for local, module, rest in found]

    @functools.cached_property
    def plain(self) -> ast.Module:
        """What is left of it when imports, docstrings and the like are gone."""
        _ = self.imports
        return syntax.plain(self.tree)

    @functools.cached_property
    def references(self) -> frozenset[Chain]:
        """Dotted names that it takes from outside."""
        return frozenset(syntax.references(self.plain))


class _Module:
    """The statements at the top of a module.

    Attributes:
        definitions: numbers of the statements that bind a name.
        always: numbers of the others, such as calls.
    """

    def __init__(self, source: str, package: str) -> None:
        self.statements = [_Statement(tree, package) for tree in ast.parse(source).body]
        self.definitions: dict[str, list[int]] = {}
        for number, statement in enumerate(self.statements):
            for name in statement.names:
                self.definitions.setdefault(name, []).append(number)
        # What a function or class imports is known in there alone, what `if` or `try` imports everywhere.
        open_ones = (one for one in self.statements if not isinstance(one.tree, syntax.SCOPES))
        self.imports = [found for statement in open_ones for found in statement.imports]
        self.always = [n for n, statement in enumerate(self.statements) if not statement.names and statement.plain.body]

    def imported(self, number: int) -> list[Imported]:
        """Return the imported names that a statement uses."""
        statement = self.statements[number]
        used = {_EVERYTHING} | {chain[0] for chain in statement.references}
        return [found for found in (*self.imports, *statement.imports) if found[0] in used]


def _reached(start: set[Place]) -> set[Place]:
    found, left = set[Place](), start
    while left:
        found |= left
        left = {place for module, number in left for place in _next(module, number)} - found
    return found


@functools.cache
def _said(module: str, number: int) -> tuple[str, str, list[Imported]]:
    """Return where a statement stands, what it says and what the imported names in it stand for."""
    code = _module(module)
    return module, syntax.text(code.statements[number].plain), sorted(code.imported(number))


@functools.cache
def _next(module: str, number: int) -> set[Place]:
    """Return what a statement reaches at once."""
    code = _module(module)
    found = {(module, always) for always in code.always}
    for chain in code.statements[number].references:
        found |= _named(module, chain, code.imported(number))
    return found


def _imported(module: str, chain: Chain) -> set[Place]:
    """Return the statements of this package that an imported module, or a dotted name in it, stands for."""
    if module.partition(".")[0] != _PACKAGE or module in _NO_NUMBERS:
        return set()
    if not chain:
        return _whole(module)
    inner = f"{module}.{chain[0]}"
    return _imported(inner, chain[1:]) if _is_module(inner) else _named(module, chain, _module(module).imports)


def _whole(module: str) -> set[Place]:
    return {(module, number) for number, statement in enumerate(_module(module).statements) if statement.plain.body}


def _named(module: str, chain: Chain, imports: Sequence[Imported] = ()) -> set[Place]:
    """Return the statements that a dotted name in a module stands for; none for a name of another package."""
    head, *rest = chain
    found = {(module, number) for number in _module(module).definitions.get(head, ())}
    for local, target, inside in imports:
        if local == _EVERYTHING:
            found |= _imported(target, ())
        elif local == head:
            found |= _imported(target, (*inside, *rest))
    return found


@functools.cache
def _is_module(name: str) -> bool:
    """Tell whether the dotted name of something in a module of this package is that of a module."""
    parent = importlib.util.find_spec(name.rpartition(".")[0])
    inside = parent is not None and parent.submodule_search_locations is not None
    return inside and importlib.util.find_spec(name) is not None


_read: dict[str, tuple[str, int, int]] = {}


@functools.cache
def _module(name: str) -> _Module:
    spec = importlib.util.find_spec(name)
    loader = None if spec is None else spec.loader
    source = loader.get_source(name) if isinstance(loader, InspectLoader) else None
    if spec is None or source is None:
        raise ConfigError(
            f"expected the source of {name}, on which the keys of stored results depend, got none; "
            "install sharedlabel with its .py files"
        )
    _read[name] = _stamp(name)
    return _Module(source, spec.parent or "")


def _stamp(name: str) -> tuple[str, int, int]:
    """Return where a module's file is, when it was changed and how long it is."""
    spec = importlib.util.find_spec(name)
    path = Path("" if spec is None else spec.origin or "")
    if not path.is_file():
        return str(path), 0, 0
    found = path.stat()
    return str(path), found.st_mtime_ns, found.st_size
