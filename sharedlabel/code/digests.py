"""Digests of code: they change when what it computes may have changed, and not when anything else is edited.

A digest covers a starting point and all that it reaches: a name in code that is reached leads to the definition
(function, class or assignment at the top of a module) that it stands for, through imports, from module to module.
Statements at the top of a reached module that bind no name are reached too, and a module that is handed on as a whole
is reached as a whole. A stage starts at its function, a plugin at its whole file.

Names in code stand in a digest for what they lead to, not as they are written. So a definition may move to another
module, and a module may be renamed, without any digest changing; leading a name to another definition changes it.

Not covered:

- `errors.py`, `plugins/`, `machine/`, `config/` and what reads configurations, what is logged of trainings and who
  watches them (`training/scores.py`, `training/logged.py`, `training/callbacks.py`), which compute no number that is
  stored: values of options are in the keys themselves;
- what writes numbers down and reads them back as they were: `store.py`, whose checksums and `FORMAT` say whether they
  are, `files/`, and the states of trainings (`training/resume.py`);
- plugins that code loads by name: configurations say which, and their own digests stand in the keys beside this one;
- other packages: manifests name their versions, and a stage's version can be raised. The package of a plugin from
  outside is its own, so it is covered, as is what lies beside a plugin that is a file of its own.

Files are read, not run; each once per process, unless it changes between two grids.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import gc
import hashlib
import importlib.util
import json
from collections.abc import Iterable, Iterator
from importlib.abc import InspectLoader
from pathlib import Path
from typing import TypeAlias

from sharedlabel.code import syntax
from sharedlabel.code.graphs import components
from sharedlabel.code.syntax import Chain
from sharedlabel.errors import ConfigError

_PACKAGE = __name__.partition(".")[0]
_FILES = f"{_PACKAGE}.plugins.files."  # how modules are called that are plugins from outside, a file each
# What a killed training goes on with cannot change numbers unseen: numbers are those of a training that nobody has
# killed, which the tests compare bit for bit, and a state says which code of `training.resume` has made it, so that
# other code does not go on from it. Whether a training was killed is in no key, so the code for it need not be either.
_RESUMING = ("training.resume", "files", "store")
_WATCHING = ("training.scores", "training.logged", "training.callbacks")
_NO_NUMBERS = {f"{_PACKAGE}.{name}" for name in ("errors", "plugins", "machine", "config", *_WATCHING, *_RESUMING)}
_EVERYTHING = "*"  # what `from module import *` imports
_INSTALLED = {"site-packages", "dist-packages"}  # folders in which packages of strangers lie side by side
Place: TypeAlias = tuple[str, int]  # a module and the number of a statement at its top
Imported: TypeAlias = tuple[str, str, Chain]  # a local name, the module it comes from, and its name there or nothing
Stamp: TypeAlias = tuple[str, int, int]  # where a file is, when it was changed, how long it is
Meaning: TypeAlias = tuple[Place | None, str]  # a definition, and what is taken of it; or what is not followed


@functools.cache
def digest(module: str, name: str | None = None) -> str:
    """Return the sha256 of a definition, or of a whole module, and of all that it reaches.

    Args:
        module: full name of a module of this package, or of a plugin.
        name: what is defined at its top; None for the whole module.

    Raises:
        ConfigError: the source of a module is not there.
        LookupError: the module has no such definition.
    """
    with _uncollected():
        places = reached(module, name)
        _color(places)
        colors = sorted(_colors[place] for place in places)
    return _hashed(colors)


def reached(module: str, name: str | None = None) -> set[Place]:
    """Return the statements that a definition, or a whole module, reaches, itself included.

    Raises:
        ConfigError: the source of a module is not there.
        LookupError: the module has no such definition.
    """
    named = [] if name is None else _named(module, (name,), _module(module).imports)
    start = _whole(module) if name is None else [place for place, _ in named if place]
    if not start:
        raise LookupError(f"expected {name or 'a statement'} in {module}, got none")
    places, left = set[Place](), set(start)
    while left:
        places |= left
        left = {place for one in left for place in (*_always(one[0]), *_followed(one))} - places
    return places


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
    """Forget the files that have changed since they were read, so that the next grid of this process sees them."""
    changed = [module for module in _read if has_changed(module)]
    if changed:
        _forget_meanings()
    for module in changed:
        del _read[module]


def read() -> tuple[str, ...]:
    """Return the modules that were read, by name."""
    return tuple(_read)


def has_changed(module: str) -> bool:
    """Tell whether the file of a module that was read is another one now."""
    return _stamp(module) != _read[module].stamp


def is_own(module: str) -> bool:
    """Tell whether a module is one of this package, and no plugin from outside."""
    return module.partition(".")[0] == _PACKAGE and not module.startswith(_FILES)


def forget() -> None:
    """Forget all that was read."""
    _read.clear()
    _forget_meanings()


def _forget_meanings() -> None:
    """Forget what names stand for, which depends on all modules; what a module says does not."""
    _colors.clear()
    for cached in (digest, _meanings, _followed, _is_module, _is_followed):
        cached.cache_clear()


class _Statement:
    """A statement at the top of a module; what is costly to find out is found out when it is reached."""

    def __init__(self, tree: ast.stmt, package: str) -> None:
        self.tree, self.package = tree, package
        self.names = syntax.bound([tree])

    @functools.cached_property
    def imports(self) -> list[Imported]:
        """What is imported in it."""
        written = syntax.imports(self.tree)
        return [(local, importlib.util.resolve_name(module, self.package), rest) for local, module, rest in written]

    @functools.cached_property
    def plain(self) -> ast.Module:
        """What is left of it when imports, docstrings and the like are gone."""
        _ = self.imports
        return syntax.plain(self.tree)

    @functools.cached_property
    def references(self) -> list[Chain]:
        """Dotted names that it takes from outside, each once, in the order of the code."""
        return list(dict.fromkeys(syntax.references(self.plain)))

    @functools.cached_property
    def text(self) -> str:
        """What it says, with a number in the place of every name from outside."""
        numbers = {chain: f"@{number}" for number, chain in enumerate(self.references)}
        return syntax.text(self.plain, {id(part): numbers[chain] for part, chain in syntax.taken(self.plain)})


class _Module:
    """The statements at the top of a module.

    Attributes:
        stamp: which file was read.
        definitions: numbers of the statements that bind a name.
        always: numbers of the others, such as calls.
    """

    def __init__(self, source: str, package: str, stamp: Stamp) -> None:
        self.stamp = stamp
        self.statements = [_Statement(tree, package) for tree in ast.parse(source).body]
        self.definitions: dict[str, list[int]] = {}
        for number, statement in enumerate(self.statements):
            for name in statement.names:
                self.definitions.setdefault(name, []).append(number)
        # What a function or class imports is known in there alone, what `if` or `try` imports everywhere.
        open_ones = (one for one in self.statements if not isinstance(one.tree, syntax.SCOPES))
        self.imports = [imported for statement in open_ones for imported in statement.imports]
        self.always = [n for n, statement in enumerate(self.statements) if not statement.names and statement.plain.body]


def _always(module: str) -> list[Place]:
    return [(module, number) for number in _module(module).always]


@functools.cache
def _followed(place: Place) -> list[Place]:
    """Return the statements that the names in a statement lead to."""
    return [target for meaning in _meanings(place) for target, _ in meaning if target is not None]


@functools.cache
def _meanings(place: Place) -> list[list[Meaning]]:
    """Return what each name that a statement takes from outside stands for."""
    module, number = place
    statement = _module(module).statements[number]
    imports = [*_module(module).imports, *statement.imports]
    return [_named(module, chain, imports) or [(None, ".".join(chain))] for chain in statement.references]


def _named(module: str, chain: Chain, imports: Iterable[Imported] = ()) -> list[Meaning]:
    """Return what a dotted name in a module stands for; nothing for a built-in name."""
    head, *rest = chain
    meanings: list[Meaning] = [
        ((module, number), ".".join(rest)) for number in _module(module).definitions.get(head, ())
    ]
    for local, target, inside in imports:
        if local == _EVERYTHING:
            meanings += _imported(module, target, () if _is_followed(module, target) else (_EVERYTHING, *chain))
        elif local == head:
            meanings += _imported(module, target, (*inside, *rest))
    return meanings


def _imported(importer: str, module: str, chain: Chain) -> list[Meaning]:
    """Return what an imported module, or a dotted name in it, stands for."""
    if not _NO_NUMBERS.isdisjoint(_packages(module)):
        return [(None, ".".join(chain) or module)]
    if not _is_followed(importer, module):
        return [(None, ".".join((module, *chain)))]
    if not chain:
        return [(place, "") for place in _whole(module)]
    inner = f"{module}.{chain[0]}"
    if _is_module(inner):
        return _imported(importer, inner, chain[1:])
    return _named(module, chain, _module(module).imports)


def _whole(module: str) -> list[Place]:
    """Return all statements of a module, those that say something, in an order that layout does not change."""
    statements = _module(module).statements
    numbers = [number for number, statement in enumerate(statements) if statement.plain.body]
    return [(module, number) for number in sorted(numbers, key=lambda number: statements[number].text)]


_colors: dict[Place, str] = {}  # of a statement: the digest of what it says and of all that its names lead to


def _color(places: set[Place]) -> None:
    """Color statements, each after those that its names lead to, and those that lead to each other together."""
    for component in components({place for place in places if place not in _colors}, _followed):
        inside = dict.fromkeys(component, "")
        for _ in component:  # after so many rounds, equal colors mean statements that do the same
            inside = {place: _hashed(_said(place, inside)) for place in component}
        _colors.update(inside)


def _said(place: Place, inside: dict[Place, str]) -> list[object]:
    """Return what a statement says, in terms of the colors of others."""
    module, number = place
    return [
        _module(module).statements[number].text,
        inside.get(place, ""),
        [[(_painted(target, inside), rest) for target, rest in meaning] for meaning in _meanings(place)],
    ]


def _painted(target: Place | None, inside: dict[Place, str]) -> str | None:
    if target is None:
        return None
    return inside[target] if target in inside else _colors[target]


def _hashed(said: object) -> str:
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def _packages(module: str) -> Iterator[str]:
    """Yield a module's name and those of the packages that it is in."""
    while module:
        yield module
        module = module.rpartition(".")[0]


@functools.cache
def _is_followed(importer: str, module: str) -> bool:
    """Tell whether a module is covered: of this package, of that of its importer, or beside a file that is alone."""
    top, outer = module.partition(".")[0], importer.partition(".")[0]
    if top in {_PACKAGE, outer}:
        return True
    if is_own(importer) or ("." in importer and not importer.startswith(_FILES)):
        return False
    folder = _folder(importer)
    return folder is not None and folder == _folder(top) and _INSTALLED.isdisjoint(folder.parts)


def _folder(module: str) -> Path | None:
    """Return the folder in which a file, or the folder of a package, lies."""
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.has_location or spec.origin is None:
        return None
    path = Path(spec.origin).resolve()
    return path.parent.parent if spec.submodule_search_locations is not None else path.parent


@functools.cache
def _is_module(name: str) -> bool:
    """Tell whether the dotted name of something in a module is that of a module."""
    parent = importlib.util.find_spec(name.rpartition(".")[0])
    inside = parent is not None and parent.submodule_search_locations is not None
    return inside and importlib.util.find_spec(name) is not None


_read: dict[str, _Module] = {}


def _module(name: str) -> _Module:
    """Return a module, read once."""
    if name not in _read:
        _read[name] = _parsed(name)
    return _read[name]


def _parsed(name: str) -> _Module:
    stamp = _stamp(name)  # before the file is read: if it changes meanwhile, it is read again
    spec = importlib.util.find_spec(name)
    loader = None if spec is None else spec.loader
    source = loader.get_source(name) if isinstance(loader, InspectLoader) else None
    if spec is None or source is None:
        raise ConfigError(
            f"expected the source of {name}, on which the keys of stored results depend, got none; "
            f"install {name.partition('.')[0]} with its .py files"
        )
    return _Module(source, spec.parent or "", stamp)


def _stamp(name: str) -> Stamp:
    """Return where a module's file is, when it was changed and how long it is."""
    spec = importlib.util.find_spec(name)
    path = Path("" if spec is None else spec.origin or "")
    if not path.is_file():
        return str(path), 0, 0
    status = path.stat()
    return str(path), status.st_mtime_ns, status.st_size
