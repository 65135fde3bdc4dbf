"""Modules as they are written: where their files are, and what the statements at their top say.

Nothing is run, and each file is read once per process, unless it changes between two grids.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from importlib.abc import InspectLoader
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import TypeAlias

from sharedlabel.code import syntax
from sharedlabel.code.syntax import Chain
from sharedlabel.errors import ConfigError

PACKAGE = __name__.partition(".")[0]
_FILES = f"{PACKAGE}.plugins.files."  # how modules are called that are plugins from outside, a file each
Imported: TypeAlias = tuple[str, str, Chain]  # a local name, the module it comes from, and its name there or nothing
Stamp: TypeAlias = tuple[str, int, int]  # where a file is, when it was changed, how long it is


def is_file(module: str) -> bool:
    """Tell whether a module is a plugin from outside that was given as a file."""
    return module.startswith(_FILES)


def is_own(module: str) -> bool:
    """Tell whether a module is one of this package, and no plugin from outside."""
    return module.partition(".")[0] == PACKAGE and not is_file(module)


def packages(module: str) -> Iterator[str]:
    """Yield a module's name and those of the packages that it is in."""
    while module:
        yield module
        module = module.rpartition(".")[0]


def spec(module: str) -> ModuleSpec | None:
    """Return where a module would be imported from; None if Python does not find it.

    `importlib.util.find_spec` runs the packages that a module is in; this runs nothing.
    """
    if module in sys.modules:
        return getattr(sys.modules[module], "__spec__", None)
    outer = module.rpartition(".")[0]
    path = _inside(outer)
    if outer and path is None:
        return None
    specs = (finder.find_spec(module, path) for finder in sys.meta_path)
    return next((one for one in specs if one is not None), None)


def _inside(package: str) -> Sequence[str] | None:
    """Return where the modules of a package lie; None for what is none."""
    if package in sys.modules:
        return getattr(sys.modules[package], "__path__", None)
    where = spec(package) if package else None
    return None if where is None else where.submodule_search_locations


class Statement:
    """A statement at the top of a module, or a whole file; what is costly to find out is found out when it is asked."""

    def __init__(self, tree: ast.stmt | ast.Module, package: str) -> None:
        self.tree, self.package = tree, package
        self.names = set() if isinstance(tree, ast.Module) else syntax.bound([tree])

    @functools.cached_property
    def imports(self) -> list[Imported]:
        """What is imported in it."""
        written = ((local, self._absolute(module), rest) for local, module, rest in syntax.imports(self.tree))
        return [(local, module, rest) for local, module, rest in written if module]

    @functools.cached_property
    def modules(self) -> list[str]:
        """Dotted names of what may be a module that it imports, those that it uses through an import included."""
        named = [self._absolute(module) for module in syntax.modules(self.tree)]
        for local, module, rest in self.imports:
            named.append(".".join((module, *rest)))
            named += [".".join((module, *rest, *chain[1:])) for chain in self.references if chain[0] == local]
        return list(dict.fromkeys(named))

    @functools.cached_property
    def plain(self) -> ast.Module:
        """What is left of it when docstrings and the like are gone; of a statement, imports, too."""
        _ = self.imports
        return syntax.plain(self.tree)

    @functools.cached_property
    def references(self) -> list[Chain]:
        """Dotted names that it takes from outside, each once, in the order of the code."""
        return list(dict.fromkeys(chain for _, chain in self._taken))

    @functools.cached_property
    def text(self) -> str:
        """What it says, with a number in the place of every name from outside."""
        numbers = {chain: f"@{number}" for number, chain in enumerate(self.references)}
        return syntax.text(self.plain, {id(part): numbers[chain] for part, chain in self._taken})

    @functools.cached_property
    def _taken(self) -> list[tuple[ast.AST, Chain]]:
        return list(syntax.taken(self.plain))

    def _absolute(self, module: str) -> str:
        """Return the full name of a module; nothing where more dots are written than there are packages."""
        try:
            return importlib.util.resolve_name(module, self.package)
        except ImportError:
            return ""


class Module:
    """The statements at the top of a module; one from outside is read as one statement, since all of it counts.

    Attributes:
        stamp: which file was read.
        definitions: numbers of the statements that bind a name.
        always: numbers of the others, such as calls.
    """

    def __init__(self, tree: ast.Module, package: str, stamp: Stamp, *, whole: bool) -> None:
        self.stamp = stamp
        self.statements = [Statement(part, package) for part in ([tree] if whole else tree.body)]
        self.definitions: dict[str, list[int]] = {}
        for number, statement in enumerate(self.statements):
            for name in statement.names:
                self.definitions.setdefault(name, []).append(number)
        # What a function or class imports is known in there alone, what `if` or `try` imports everywhere.
        open_ones = (one for one in self.statements if not isinstance(one.tree, syntax.SCOPES))
        self.imports = [imported for statement in open_ones for imported in statement.imports]
        self.always = [n for n, statement in enumerate(self.statements) if not statement.names and statement.plain.body]


_read: dict[str, Module] = {}


def module(name: str) -> Module:
    """Return a module, read once.

    Raises:
        ConfigError: the source of one of this package is not there.
    """
    if name not in _read:
        stamp = _stamp(name)  # before the file is read: if it changes meanwhile, it is read again
        where = spec(name)
        package = (where.parent if where else None) or ""
        _read[name] = Module(_tree(name, where), package, stamp, whole=not is_own(name))
    return _read[name]


def read() -> tuple[str, ...]:
    """Return the modules that were read, by name."""
    return tuple(_read)


def has_changed(name: str) -> bool:
    """Tell whether the file of a module that was read is another one now."""
    return _stamp(name) != _read[name].stamp


def forget(name: str) -> None:
    """Let a module be read anew when it is asked for."""
    del _read[name]


def _tree(name: str, where: ModuleSpec | None) -> ast.Module:
    """Return the syntax of a module; of one from outside that cannot be read as Python, that of its bytes' digest."""
    loader = where.loader if where else None
    try:
        source = loader.get_source(name) if isinstance(loader, InspectLoader) else None
        if source is not None:
            return ast.parse(source)
    except (ImportError, SyntaxError, ValueError):
        if is_own(name):
            raise
    if is_own(name):
        raise ConfigError(
            f"expected the source of {name}, on which the keys of stored results depend, got none; "
            f"install {PACKAGE} with its .py files"
        )
    path = Path((where.origin if where else None) or "")
    if not path.is_file():  # a folder without `__init__.py`
        return ast.Module([], [])
    return ast.parse(f"content = {hashlib.sha256(path.read_bytes()).hexdigest()!r}")


def _stamp(name: str) -> Stamp:
    """Return where a module's file is, when it was changed and how long it is."""
    where = spec(name)
    path = Path("" if where is None else where.origin or "")
    if not path.is_file():
        return str(path), 0, 0
    status = path.stat()
    return str(path), status.st_mtime_ns, status.st_size
