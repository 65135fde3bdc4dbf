"""Plugins from outside the package: a file, a module by its dotted path, or an installed entry point.

They are code, and run with the rights of whoever names them.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.metadata
import importlib.util
import os
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.abc import InspectLoader
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

from sharedlabel.code import modules, surroundings
from sharedlabel.errors import ConfigError, first_line, home
from sharedlabel.plugins import contract, files

_STEM = re.compile(r"[A-Za-z]\w{0,79}", re.ASCII)
_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
_SUFFIX = ".py"


@dataclass(frozen=True)
class Outside:
    """A plugin from outside.

    Attributes:
        kind: plugin folder.
        name: what keys, tables and stored results call it: the stem of a file, or as it was given.
        module: full name of its module.
        where: what messages call it.
    """

    kind: str
    name: str
    module: str
    where: str

    @property
    def is_file(self) -> bool:
        """Whether it is a file of its own, called by its stem."""
        return self.module.startswith(f"{files.__name__}.")

    @property
    def is_loaded(self) -> bool:
        """Whether its module is imported, and has not been forgotten since."""
        return self.module in sys.modules

    def load(self) -> ModuleType:
        """Return its module, imported, and check what it defines.

        Its files are read for keys just before, and byte code of them, which may be older than it looks, is removed.

        Raises:
            ConfigError: it raises, or is no plugin of its kind.
        """
        names = surroundings.files(self.module)
        if not self.is_loaded:
            for name in names:
                _remove_byte_code(name)
        try:
            module = importlib.import_module(self.module)
        except (Exception, SystemExit) as error:
            raise _failed(self.where, error) from error
        contract.check_module(self.kind, module, self.where)
        return module


def find(kind: str, given: str) -> Outside | None:
    """Return the plugin from outside that something given in the place of a name stands for; None if it is a name.

    Raises:
        ConfigError: nothing is there, or no plugin of the kind; the message says why.
    """
    if _is_path(given):
        return _of_file(kind, given)
    if (entry := _entry_point(kind, given)) is not None:
        return entry
    return _of_module(kind, given, given, repr(given)) if "." in given else None


def kind_of(given: str) -> str:
    """Return the kind of a plugin from outside, told by the group of its entry point or by what its text defines.

    Raises:
        ConfigError: nothing is there, or it is of no kind, or of several.
    """
    groups = [kind for kind in contract.KINDS if given in names(kind)]
    if not groups:
        source = _file_source(given) if _is_path(given) else _module_source(given, repr(given))
        return contract.kind_of(source, repr(given))
    if len(groups) > 1:
        raise ConfigError(
            f"expected an entry point of one kind, got {given!r} of {' and '.join(groups)}; give its file or module"
        )
    return groups[0]


def called(given: str) -> tuple[str, str | None]:
    """Return the name of what is given, and the module that it is if it is a file; nothing need be there."""
    if not _is_path(given):
        return given, None
    path = home(given).resolve()
    return path.stem, files.module_name(path)


def shown(given: str) -> str:
    """Return what is given in the place of a plugin's name, a file without its folder.

    >>> shown("pools/my_pool.py"), shown("log_pool")
    ('my_pool.py', 'log_pool')
    """
    return Path(given).name if _is_path(given) else given


def names(kind: str) -> list[str]:
    """Return the names of the installed entry points of a kind, as often as they are installed."""
    return [entry.name for entry in _entry_points(kind)]


def owners(kind: str, name: str) -> str:
    """Name the distributions that install an entry point."""
    entries = (entry for entry in _entry_points(kind) if entry.name == name)
    return " and ".join(sorted(entry.dist.name if entry.dist else "?" for entry in entries))


def forget(names: Iterable[str]) -> None:
    """Let the next import run modules again, and all of the packages that they are in.

    A package that has no code of its own (a namespace, which may be shared with others) keeps its other modules.
    """
    tops = {top(name) for name in names if getattr(sys.modules.get(name), "__file__", None)}
    for name in [name for name in sys.modules if any(f"{name}.".startswith(f"{outer}.") for outer in tops)]:
        del sys.modules[name]
    for package, _, name in (outer.rpartition(".") for outer in tops):
        if package in sys.modules:  # it holds the module, too
            vars(sys.modules[package]).pop(name, None)


def top(module: str) -> str:
    """Return the outermost package with code of its own that a module is in; the module itself if it is a file."""
    if module.startswith(f"{files.__name__}."):
        return module
    parts = module.split(".")
    outer = (".".join(parts[:count]) for count in range(1, len(parts)))
    return next((name for name in outer if getattr(sys.modules.get(name), "__file__", None)), module)


def _remove_byte_code(module: str) -> None:
    """Remove what Python has kept of a file; it takes a file of the same second and length for the same."""
    spec = modules.spec(module)
    if spec is not None and isinstance(spec.loader, SourceFileLoader) and spec.cached is not None:
        with contextlib.suppress(OSError):  # in a folder that others own
            Path(spec.cached).unlink()


def _is_path(given: str) -> bool:
    return given.endswith(_SUFFIX) or any(letter in given for letter in (os.sep, os.altsep) if letter)


def _of_file(kind: str, given: str) -> Outside:
    where = repr(given)
    contract.check_text(kind, _file_source(given), where)
    path = home(given).resolve()
    return Outside(kind, path.stem, files.module_name(path), where)


def _file_source(given: str) -> str:
    path = home(given)
    if path.is_dir():
        raise ConfigError(f"expected a Python file, got {given!r}, which is a folder; name a file in it")
    if path.suffix != _SUFFIX:
        raise ConfigError(f"expected a file that ends in {_SUFFIX}, got {given!r}; name the file of the plugin")
    if not path.is_file():
        raise ConfigError(f"expected a Python file, got {given!r}, which is not there; paths start at {Path.cwd()}")
    if not _STEM.fullmatch(path.stem):
        raise ConfigError(
            f"expected a file whose name is made of a letter and up to 79 more letters, digits and '_', got {given!r}, "
            "which names a plugin in tables; rename it"
        )
    try:
        return importlib.util.decode_source(path.read_bytes())
    except (SyntaxError, UnicodeDecodeError) as error:
        raise ConfigError(f"expected Python in {given!r}, got {first_line(error)}; save it as UTF-8") from error


def _of_module(kind: str, name: str, module: str, where: str) -> Outside:
    contract.check_text(kind, _module_source(module, where), where)
    return Outside(kind, name, module, where)


def _module_source(module: str, where: str) -> str:
    if not _MODULE.fullmatch(module):
        raise ConfigError(
            f"expected a module as package.module, names of letters, digits and '_' with one dot between two, got "
            f"{where}; correct it, or name a file as ./NAME.py"
        )
    try:
        spec = modules.spec(module) or importlib.util.find_spec(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise _failed(where, error) from error
        spec = None
    except (Exception, SystemExit) as error:  # of a package's own code, which runs here
        raise _failed(where, error) from error
    if spec is None:
        raise ConfigError(
            f"expected an installed module, got {where}, which Python does not find; install it, or name a file as "
            "./NAME.py"
        )
    try:
        source = spec.loader.get_source(module) if isinstance(spec.loader, InspectLoader) else None
    except ImportError as error:  # what cannot be decoded
        raise ConfigError(f"expected Python in {where}, got {first_line(error)}; save it as UTF-8") from error
    if source is None:
        raise ConfigError(f"expected a module with its source, got {where}; install it with its .py files")
    return source


def _failed(where: str, error: BaseException) -> ConfigError:
    return ConfigError(
        f"expected {where} to be imported, got {type(error).__name__}: {first_line(error)}; correct it, or install "
        "what it needs"
    )


def _entry_point(kind: str, name: str) -> Outside | None:
    entries = [entry for entry in _entry_points(kind) if entry.name == name]
    if not entries:
        return None
    if len(entries) > 1:
        raise ConfigError(
            f"expected one entry point {name!r} of sharedlabel.{kind}, got {len(entries)}, of "
            f"{owners(kind, name)}; uninstall all but one"
        )
    where = f"the entry point {name!r} of {owners(kind, name)} ({entries[0].value})"
    if ":" in entries[0].value:
        raise ConfigError(f"expected a module, got {where}; write package.module without ':'")
    return _of_module(kind, name, entries[0].value, where)


@functools.cache
def _entry_points(kind: str) -> tuple[importlib.metadata.EntryPoint, ...]:
    return tuple(importlib.metadata.entry_points(group=f"sharedlabel.{kind}"))
