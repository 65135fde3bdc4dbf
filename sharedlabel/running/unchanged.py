"""Results as a former run has written them, for a run that would write the same again.

All that a run writes follows from what is stored, from the configuration, from this package's files and from what
stands in the provenance. A digest of these lies beside the files, and the contents of the files, so that edited or
damaged ones are written anew. Dates and the seconds of the last run are those of the run that has written them.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
from collections.abc import Collection
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

import sharedlabel
from sharedlabel.config import digest
from sharedlabel.files import together
from sharedlabel.grid import Cell, Grid
from sharedlabel.machine import memory
from sharedlabel.records import AXES, NAME, Results, only
from sharedlabel.report import PLOTS
from sharedlabel.running.about import about
from sharedlabel.store import Store

_WRITERS = ("jinja2", "markupsafe", "pillow")  # libraries that no provenance names


@memory.uncollected()
def made_of(grid: Grid, store: Store) -> str:
    """Return a digest of all that the files of a run depend on.

    Args:
        grid: all of whose cells are stored.
        store: where they are.
    """
    measured: dict[str, str] = {}
    cells = [(cell.id, *(getattr(cell, axis) for axis in AXES), _ends(cell, store, measured)) for cell in grid.cells]
    writers = [importlib.metadata.version(name) for name in _WRITERS]
    return digest([about(grid), writers, _code(), hashlib.sha256(repr(cells).encode()).hexdigest()])


@memory.uncollected()
def results(folder: Path, made_of: str, tables: Collection[str] | None = None) -> Results | None:
    """Return the results that a former run has written, if they are made of the same and all files are as it left them.

    Args:
        folder: of the run.
        made_of: the digest of this run.
        tables: those that are needed; the others come back empty. None for all.
    """
    try:
        if not together.holds(folder, made_of):
            return None
        content = together.read(folder, NAME)
        return TypeAdapter(Results).validate_json(content if tables is None else only(content, tables))
    except (OSError, ValidationError):
        return None


def figures(folder: Path) -> dict[str, str]:
    """Return the figures that the files hold, SVG text by name, in the order in which they were drawn."""
    names = [name for name in together.contents(folder) if name.startswith(PLOTS)]
    return {Path(name).stem: together.read(folder, name).decode() for name in names}


def _ends(cell: Cell, store: Store, measured: dict[str, str]) -> list[str]:
    """Return the keys of a cell's calls, and digests of what was measured, which no key says."""
    for node in cell.last():
        if node.key not in measured:
            measured[node.key] = str(store.load(node.stage, node.key).manifest["sha256"])
    return [measured.get(node.key, node.key) for node in cell.ends.values()]


@functools.cache
def _code() -> str:
    """Return a digest of this package's files: an edit anywhere may change what is written."""
    home = Path(sharedlabel.__file__).parent
    files = sorted(path for path in home.rglob("*") if path.suffix in {".py", ".html", ".css", ".js"})
    hashed = hashlib.sha256()
    for path in files:
        content = path.read_bytes()
        hashed.update(f"{path.relative_to(home)} {len(content)}\n".encode() + content)
    return hashed.hexdigest()
