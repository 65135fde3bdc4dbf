"""Public names of a package that are imported when somebody uses them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def attach(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return the functions `__getattr__` and `__dir__` of a package.

    Importing such a package is quick, whatever its public names need. A name is imported once.

    Args:
        package: its `__name__`.
        homes: where each public name is imported from: the module that defines it, the package that it is a module
            of, or the module itself, where that is one of this package.

    >>> get, _ = attach(__name__, {"tau": "math"})
    >>> round(get("tau"), 2)
    6.28
    """
    module = sys.modules[package]

    def get(name: str) -> Any:
        """Import a public name."""
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}", name=name, obj=module)
        home = importlib.import_module(homes[name])
        if homes[name] == f"{package}.{name}":
            value: Any = home
        elif hasattr(home, name):
            value = getattr(home, name)
        else:  # as for `from home import name`, where that is a module
            value = importlib.import_module(f"{homes[name]}.{name}")
        setattr(module, name, value)
        return value

    def names() -> list[str]:
        """List what the package offers, and not what it imports or which of its modules are loaded."""
        return sorted({*(name for name in vars(module) if name.startswith("__")), *homes})

    return get, names
