"""Which files a plugin from outside is made of: its own, and all of its package or beside it that it imports.

Statements of a stranger's file may do anything to each other: fill a table in a loop, register themselves, change
another module. So its files count as a whole, and every import in them is followed, wherever it is written.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

from sharedlabel.code import modules

_INSTALLED = {"site-packages", "dist-packages"}  # folders in which packages of strangers lie side by side


@functools.cache
def files(plugin: str) -> frozenset[str]:
    """Return the modules that a plugin from outside is made of, itself included; those that are folders, too.

    Args:
        plugin: full name of its module.
    """
    names, left = set[str](), {plugin}
    beside = functools.cache(functools.partial(_belongs, plugin))
    while left:
        names |= left
        imported = {name for one in left for part in modules.module(one).statements for name in part.modules}
        left = {name for one in left | imported for name in modules.packages(one) if beside(name)} - names
    return frozenset(names)


def _belongs(plugin: str, module: str) -> bool:
    """Tell whether a module is in a plugin's package, or beside that; or, where the plugin is a file, beside the file.

    Beside is what lies in the same folder, with all that is in there if it is a package. In a folder into which
    packages are installed, what lies beside is a stranger's. A file may lie in a package, too, which then is its own.
    """
    if modules.is_own(module) or modules.spec(module) is None:
        return False
    if modules.is_file(plugin):
        folders = {folder for place in _places(plugin) for folder in _around(place)}
    else:
        if module.partition(".")[0] == plugin.partition(".")[0]:
            return True
        folders = {place.parents[plugin.count(".")] for place in _places(plugin)}
    folders = {folder.resolve() for folder in folders if folder.resolve().name not in _INSTALLED}
    places = (place for name in modules.packages(module) for place in _places(name))
    return any(not folders.isdisjoint((place.resolve(), place.parent.resolve())) for place in places)


def _around(file: Path) -> Iterator[Path]:
    """Yield the folder of a file and, where that is a package, those that it is in, up to the first that is none."""
    for folder in file.parents:
        yield folder
        if not (folder / "__init__.py").is_file():
            return


def _places(module: str) -> Iterator[Path]:
    """Yield where a module is: its file, or the folders of a package."""
    spec = modules.spec(module)
    if spec is not None and spec.submodule_search_locations is not None:
        yield from (Path(folder).absolute() for folder in spec.submodule_search_locations)
    elif spec is not None and spec.has_location and spec.origin is not None:
        yield Path(spec.origin).absolute()
