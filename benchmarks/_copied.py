"""A store of thousands of finished cells, made of one seed's: what it holds counts here, not what the numbers say."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from sharedlabel import grid
from sharedlabel import store as stores
from sharedlabel.config import Experiment, canonical, digest, parse
from sharedlabel.grid.calls import ordered
from sharedlabel.grid.nodes import Cell, Grid, Node
from sharedlabel.records import Identity
from sharedlabel.store import Store
from sharedlabel.store.artifacts import MANIFEST


def fill(experiment: Experiment, store: Store) -> int:
    """Store every call of an experiment: those of its first seed are there, all others get its outputs.

    The copies are whole artifacts: manifests with keys, configurations and inputs of their own, and the same shards
    under other names (hard links).

    Args:
        experiment: of several seeds; the first is computed.
        store: where its calls lie.

    Returns:
        How many calls there are in all.
    """
    prepared = grid.opened(experiment)
    pairs = _pairs(prepared)
    for node, first in pairs:
        if node.key != first.key:
            source = store.load(first.stage, first.key).folder
            _copy(node, source, source.with_name(node.key))
    return len(pairs)


def _pairs(prepared: Grid) -> list[tuple[Node, Node]]:
    """Return every call with the same call of the first seed."""
    firsts: dict[Identity, Cell] = {}
    pairs: dict[str, tuple[Node, Node]] = {}
    for cell in prepared.cells:
        like = firsts.setdefault(Identity.of(cell), cell)
        own, others = (ordered((*both.calls(), *both.last())) for both in (cell, like))
        pairs |= {node.key: (node, first) for node, first in zip(own, others, strict=True)}
    return list(pairs.values())


def _copy(node: Node, source: Path, folder: Path) -> None:
    manifest: dict[str, Any] = json.loads((source / MANIFEST).read_text())
    del manifest["sha256"]
    manifest |= {
        "key": node.key,
        "config": json.loads(canonical(node.config)),
        "inputs": node.input_keys(),
        "code": node.code(),
    }
    folder.mkdir()
    for name in manifest["files"]:
        os.link(source / name, folder / name)
    (folder / MANIFEST).write_text(json.dumps({"sha256": digest(manifest), **manifest}, indent=1))


if __name__ == "__main__":
    given = parse(sys.argv[1:])[0]
    print(fill(given, stores.of(given, readonly=False)))
