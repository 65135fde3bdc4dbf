"""Plugins that are files: each is a module of this package, so that it can be pickled and found in other processes.

The module of `pools/my_pool.py` is `sharedlabel.plugins.files.my_pool_3f9c01ab`, with a digest of the path, since two
folders may hold files of one name. Where the files are stands in an environment variable: a process that is started by
this one imports this package when it unpickles something of such a module, and finds the file.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import sys
from collections.abc import Iterable
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

_VARIABLE = "SHAREDLABEL_PLUGIN_FILES"


def module_name(path: Path) -> str:
    """Return the name of the module that a file is, and let it be imported from now on by this process and its own.

    Args:
        path: of the file, absolute.
    """
    name = f"{__name__}.{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    os.environ[_VARIABLE] = json.dumps(_paths() | {name: str(path)})
    return name


class _Loader(SourceFileLoader):
    """Reads the file itself, never byte code, which may be older than it looks, and writes none beside it."""

    def get_code(self, fullname: str) -> CodeType:
        """Compile the file."""
        del fullname
        return self.source_to_code(self.get_data(self.path), self.path)


class _Finder:
    """Finds the files by the names of their modules."""

    @staticmethod
    def find_spec(
        fullname: str, path: Iterable[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where a module is read from, if it is one of these files."""
        del path, target
        place = _paths().get(fullname)
        return (
            None
            if place is None
            else importlib.util.spec_from_file_location(fullname, place, loader=_Loader(fullname, place))
        )


def _paths() -> dict[str, str]:
    paths: dict[str, str] = json.loads(os.environ.get(_VARIABLE, "{}"))
    return paths


sys.meta_path.append(_Finder)
