"""Digests of code: they change when what it computes may have changed, and not when anything else is edited.

A digest covers a starting point and all that it reaches: a name in code that is reached leads to the definition
(function, class or assignment at the top of a module) that it stands for, through imports, from module to module.
Statements at the top of a reached module that bind no name are reached too, and a module that is handed on as a whole
is reached as a whole. A stage starts at its function, a plugin at its whole file. Of a plugin from outside all files
count that it imports of its package, or from beside it, each as a whole (`surroundings.py`); what they name of this
package is reached as above.

Names in code stand in a digest for what they lead to, not as they are written. So a definition of this package may
move to another module, and a module may be renamed, without any digest changing; leading a name to another definition
changes it.

Not covered:

- `errors.py`, `plugins/`, `machine/`, `config/` and what reads configurations, what is logged of trainings and who
  watches them (`training/scores.py`, `training/logged.py`, `training/loggers.py`, `training/live.py`,
  `training/callbacks.py`, `training/watchers.py`, `training/modules.py`), which compute no number that is
  stored: values of options are in the keys themselves;
- what writes numbers down and reads them back as they were: `store/`, whose checksums and `FORMAT` say whether they
  are, `files/`, and the states of trainings (`training/resume.py`, `training/keeping.py`);
- plugins that code loads by name: configurations say which, and their own digests stand in the keys beside this one;
- other packages: manifests name their versions, and a stage's version can be raised.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import TypeAlias

from sharedlabel.code import modules, surroundings
from sharedlabel.code.graphs import components
from sharedlabel.code.modules import PACKAGE, Imported
from sharedlabel.code.syntax import Chain

# What a killed training goes on with cannot change numbers unseen: numbers are those of a training that nobody has
# killed, which the tests compare bit for bit, and a state says which code of `training.resume` has made it, so that
# other code does not go on from it. Whether a training was killed is in no key, so the code for it need not be either.
_RESUMING = ("training.resume", "training.keeping", "files", "store")
# `training.modules` makes LightningModules of what is trained, and adds nothing of its own.
_WATCHING = tuple(
    f"training.{name}" for name in ("scores", "logged", "loggers", "live", "callbacks", "watchers", "modules")
)
_NO_NUMBERS = {f"{PACKAGE}.{name}" for name in ("errors", "plugins", "machine", "config", *_WATCHING, *_RESUMING)}
_EVERYTHING = "*"  # what `from module import *` imports
Place: TypeAlias = tuple[str, int]  # a module and the number of a statement at its top
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
    places = reached(module, name)
    own = {place for place in places if modules.is_own(place[0])}
    _color(own)
    # A plugin's name stands in keys beside its digest, and that of a file's module holds where the file is.
    outside = {place: "" if place[0] == module else place[0] for place in places - own}
    colors = [_colors[place] for place in own] + [_hashed(_said(place, outside, module)) for place in outside]
    return _hashed(sorted(colors))


def reached(module: str, name: str | None = None) -> set[Place]:
    """Return the statements that a definition, or a whole module, reaches, itself included.

    Raises:
        ConfigError: the source of a module is not there.
        LookupError: the module has no such definition.
    """
    if name is not None:
        start = [place for place, _ in _named(None, module, (name,), modules.module(module).imports) if place]
    elif modules.is_own(module):
        start = _whole(module)
    else:
        start = [place for file in surroundings.files(module) for place in _whole(file)]
    if not start:
        raise LookupError(f"expected {name or 'a statement'} in {module}, got none")
    places, left = set[Place](), set(start)
    while left:
        places |= left
        left = {place for one in left for place in (*_always(one[0]), *_followed(one, _plugin(one, module)))} - places
    return places


def _plugin(place: Place, start: str) -> str | None:
    """Return the plugin from outside that a statement belongs to, if it does."""
    return None if modules.is_own(place[0]) else start


def refresh() -> None:
    """Forget the files that have changed since they were read, so that the next grid of this process sees them."""
    changed = [module for module in modules.read() if modules.has_changed(module)]
    if changed:
        _forget_meanings()
    for module in changed:
        modules.forget(module)


def forget() -> None:
    """Forget all that was read."""
    for module in modules.read():
        modules.forget(module)
    _forget_meanings()


def _forget_meanings() -> None:
    """Forget what names stand for, which depends on all modules; what a module says does not."""
    _colors.clear()
    for cached in (digest, _meanings, _followed, _is_module, surroundings.files):
        cached.cache_clear()


def _always(module: str) -> list[Place]:
    return [(module, number) for number in modules.module(module).always]


@functools.cache
def _followed(place: Place, plugin: str | None) -> list[Place]:
    """Return the statements that the names in a statement lead to."""
    return [target for meaning in _meanings(place, plugin) for target, _ in meaning if target is not None]


@functools.cache
def _meanings(place: Place, plugin: str | None) -> list[list[Meaning]]:
    """Return what each name that a statement takes from outside stands for."""
    module, number = place
    statement = modules.module(module).statements[number]
    imports = [*modules.module(module).imports, *statement.imports]
    return [_named(plugin, module, chain, imports) or [(None, ".".join(chain))] for chain in statement.references]


def _named(
    plugin: str | None,
    module: str,
    chain: Chain,
    imports: Iterable[Imported],
    passed: set[tuple[str, Chain]] | None = None,
) -> list[Meaning]:
    """Return what a dotted name in a module stands for; nothing for a built-in name.

    Args:
        plugin: the plugin from outside, if there is one, whose files are followed, too.
        module: where the name is written.
        chain: the name.
        imports: of the module, and of the statement in which the name is written.
        passed: what was asked on the way, since modules may import a name from each other.
    """
    passed = set() if passed is None else passed
    if (module, chain) in passed:
        return []
    passed.add((module, chain))
    head, *rest = chain
    meanings: list[Meaning] = [
        ((module, number), ".".join(rest)) for number in modules.module(module).definitions.get(head, ())
    ]
    for local, target, inside in imports:
        if local == _EVERYTHING:
            inner = () if _is_followed(plugin, target) else (_EVERYTHING,)
            meanings += _imported(plugin, target, (*inner, *chain), passed)
        elif local == head:
            meanings += _imported(plugin, target, (*inside, *rest), passed)
    return meanings


def _imported(plugin: str | None, module: str, chain: Chain, passed: set[tuple[str, Chain]]) -> list[Meaning]:
    """Return what an imported module, or a dotted name in it, stands for."""
    if not _NO_NUMBERS.isdisjoint(modules.packages(module)):
        return [(None, ".".join(chain) or module)]
    if not _is_followed(plugin, module):
        return [(None, ".".join((module, *chain)))]
    if not chain:
        return [(place, "") for place in _whole(module)]
    inner = f"{module}.{chain[0]}"
    if _is_module(inner):
        return _imported(plugin, inner, chain[1:], passed)
    return _named(plugin, module, chain, modules.module(module).imports, passed)


def _is_followed(plugin: str | None, module: str) -> bool:
    """Tell whether names are followed into a module: of this package, or of the files of a plugin from outside."""
    return modules.is_own(module) or (plugin is not None and module in surroundings.files(plugin))


@functools.cache
def _is_module(name: str) -> bool:
    """Tell whether the dotted name of something in a module is that of a module."""
    return modules.spec(name) is not None


def _whole(module: str) -> list[Place]:
    """Return all statements of a module, those that say something, in an order that layout does not change."""
    statements = modules.module(module).statements
    numbers = [number for number, statement in enumerate(statements) if statement.plain.body]
    return [(module, number) for number in sorted(numbers, key=lambda number: statements[number].text)]


_colors: dict[Place, str] = {}  # of a statement: the digest of what it says and of all that its names lead to


def _color(places: set[Place]) -> None:
    """Color statements, each after those that its names lead to, and those that lead to each other together."""
    followed = functools.partial(_followed, plugin=None)
    for component in components({place for place in places if place not in _colors}, followed):
        inside = dict.fromkeys(component, "")
        for _ in component:  # after so many rounds, equal colors mean statements that do the same
            inside = {place: _hashed(_said(place, inside)) for place in component}
        _colors.update(inside)


def _said(place: Place, inside: Mapping[Place, str], plugin: str | None = None) -> list[object]:
    """Return what a statement says, in terms of the colors of others."""
    module, number = place
    return [
        modules.module(module).statements[number].text,
        inside.get(place, ""),
        [[(_painted(target, inside), rest) for target, rest in meaning] for meaning in _meanings(place, plugin)],
    ]


def _painted(target: Place | None, inside: Mapping[Place, str]) -> str | None:
    if target is None:
        return None
    return inside[target] if target in inside else _colors[target]


def _hashed(said: object) -> str:
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()
