"""Plugins: a module's name in one of the plugin folders is its registry entry; others come from outside.

A plugin is one file `sharedlabel/<kind>/<name>.py` with a frozen dataclass `Config` and the function of its kind
(`plugins/contract.py`). Modules whose name starts with an underscore are helpers. Listing imports nothing; only loading
does.

In the place of a name, a configuration may give `./file.py`, `package.module` or the name of an installed entry point
of the group `sharedlabel.<kind>`. `take` loads it; from then on `load` finds it by its name, in this process. What is
stored holds names alone, and `load` runs nothing that was not taken: a stored name starts no code of its own.

What was taken belongs to the process, as imported modules do, and is their list: names that are stored or unpickled are
looked up where nobody could hand over a registry. It is imported again once `refresh` has seen that code has changed. A
seal lasts as long as its `with` block, in all threads.
"""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
import traceback
from collections.abc import Collection, Iterable, Iterator
from types import ModuleType

from sharedlabel.code import digests, modules
from sharedlabel.errors import ConfigError, ContractError, SharedLabelError, first_line, nearest
from sharedlabel.plugins import outside
from sharedlabel.plugins.contract import KINDS as KINDS
from sharedlabel.plugins.outside import Outside
from sharedlabel.plugins.outside import shown as shown

_NOT_PLUGINS = {"splits", "tuples"}
_taken: dict[tuple[str, str], Outside] = {}  # by kind and name
_seals: list[str] = []  # why nothing is taken now, the innermost reason last
_LONGEST = 1000  # letters of a path
_ADVICE = "one from outside is given as ./NAME.py or package.module"


def available(kind: str) -> tuple[str, ...]:
    """List the plugins of this package by name, sorted, without importing them.

    Args:
        kind: one of `KINDS`.
    """
    if kind not in KINDS:
        raise ConfigError(f"unknown plugin kind {kind!r}; available: {', '.join(KINDS)}")
    package = importlib.import_module(f"sharedlabel.{kind}")
    names = (module.name for module in pkgutil.iter_modules(package.__path__))
    return tuple(sorted(n for n in names if not n.startswith("_") and n not in _NOT_PLUGINS))


def take(kind: str, given: str) -> str:
    """Return the name of a plugin that a user gives: by its name, as a file, a module or an entry point.

    What is from outside is imported, and known by its name from now on.

    Args:
        kind: one of `KINDS`.
        given: such as `log_pool`, `./my_pool.py` or `my_package.my_pool`.

    Raises:
        ConfigError: there is none, it cannot be imported, or its name is that of another one.
    """
    own = available(kind)
    if given in own:
        _refuse_twins(kind, given)
        return given
    where = kind.removesuffix("s")
    if not (given.isprintable() and len(given) <= _LONGEST):
        raise ConfigError(
            f"{where}: expected a name or a path in one line of at most {_LONGEST} letters, got {given[:60]!r} ...; "
            "shorten it"
        )
    if _seals:
        raise ConfigError(f"{where}: expected one of this package {_seals[-1]}, got {given!r}; {nearest(given, own)}")
    try:
        name, module = outside.called(given)
        taken = _loaded(kind, name)
        if taken is not None and module in {None, taken.module}:
            return name  # as it was when it was taken, even if the file is being edited meanwhile
        plugin = outside.find(kind, given)
        if plugin is not None:
            _check_name(plugin, own)
            plugin.load()
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    if plugin is None:
        raise ConfigError(f"unknown {where} {given!r}; {nearest(given, {*own, *outside.names(kind)})}; {_ADVICE}")
    _taken[kind, plugin.name] = plugin
    return plugin.name


def take_any(given: str) -> tuple[str, str]:
    """Return kind and name of a plugin from outside, whose kind is told by what it defines; see `take`.

    Raises:
        ConfigError: it is of no kind, or of several.
    """
    kind = outside.kind_of(given)
    return kind, take(kind, given)


def load(kind: str, name: str) -> ModuleType:
    """Return the module of a plugin of this package, or of one that was taken.

    Raises:
        ConfigError: no such plugin; the message names the nearest one and lists all.
    """
    own = available(kind)
    if name in own:
        return importlib.import_module(f"sharedlabel.{kind}.{name}")
    if (kind, name) in _taken:
        return _taken[kind, name].load()
    raise ConfigError(
        f"unknown {kind.removesuffix('s')} {name[:_LONGEST]!r}; if it is one from outside, name its file or module "
        f"(export: --plugin); {nearest(name, own)}"
    )


def code(named: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the digests of plugins' code, by `kind.name`, of those named by kind and name."""
    return {f"{kind}.{name}": digests.digest(_module(kind, name)) for kind, name in sorted(named)}


@contextlib.contextmanager
def sealed(why: str) -> Iterator[None]:
    """Take no plugin from outside inside this context.

    Args:
        why: said in the message, such as `in a protocol`.
    """
    _seals.append(why)
    try:
        yield
    finally:
        _seals.pop()


@contextlib.contextmanager
def blamed() -> Iterator[None]:
    """Turn what code of a plugin from outside raises inside this context into a sentence that says where.

    Raises:
        ContractError: names the last file and line of such code that was reached.
    """
    try:
        yield
    except SharedLabelError:
        raise
    except (Exception, SystemExit) as error:
        places = [
            f"line {line} of {frame.f_code.co_filename} (in {frame.f_code.co_name})"
            for frame, line in traceback.walk_tb(error.__traceback__)
            if _is_outside(frame.f_globals.get("__name__", ""))
        ]
        if not places:
            raise
        said = first_line(error)
        what = type(error).__name__ + (f": {said}" if said != type(error).__name__ else "")
        raise ContractError(
            f"expected a plugin that raises no error, got {what}, from {places[-1]}; correct it"
        ) from error


def _is_outside(module: str) -> bool:
    """Tell whether a module is a plugin that was taken, or is in the package of one."""
    tops = {outside.top(plugin.module) for plugin in _taken.values()}
    return any(f"{module}.".startswith(f"{top}.") for top in tops)


def refresh() -> None:
    """Forget the plugins from outside if their code has changed, so that whoever asks for one next runs it anew.

    The packages of all their modules are imported again as a whole, since modules may hold parts of each other.
    """
    read = [name for name in modules.read() if not modules.is_own(name)]
    if any(map(modules.has_changed, read)):
        outside.forget(read)
        importlib.invalidate_caches()
    digests.refresh()


def _loaded(kind: str, name: str) -> Outside | None:
    """Return a plugin from outside that was taken, unless `refresh` has forgotten it since."""
    plugin = _taken.get((kind, name))
    return plugin if plugin is not None and plugin.is_loaded else None


def _module(kind: str, name: str) -> str:
    return _taken[kind, name].module if (kind, name) in _taken else f"sharedlabel.{kind}.{name}"


def _refuse_twins(kind: str, name: str) -> None:
    """Refuse a name of this package that something installed uses, too: whose is meant cannot be told."""
    if not _seals and name in outside.names(kind):
        raise ConfigError(
            f"{kind.removesuffix('s')}: expected a name that this package does not use, got the entry point {name!r} "
            f"of {outside.owners(kind, name)}; rename it there, or uninstall it"
        )


def _check_name(plugin: Outside, own: Collection[str]) -> None:
    """Refuse a plugin from outside that another one is called like."""
    if plugin.name in own or modules.is_own(plugin.module):
        raise ConfigError(
            f"expected a name that this package does not use, got {plugin.where}; rename it, or write "
            f"{plugin.name.rpartition('.')[2]} for the package's own"
        )
    twin = _loaded(plugin.kind, plugin.name)
    where = None if twin is None else twin.where
    if plugin.is_file and plugin.name in outside.names(plugin.kind):
        where = f"the entry point of {outside.owners(plugin.kind, plugin.name)}"
    if where is not None:
        raise ConfigError(f"expected one plugin called {plugin.name!r}, got {where} and {plugin.where}; rename one")
