"""Calls that wait, on Ray, with 1, 2, ... simulated machines; prints the seconds of each number of machines as JSON.

A process of its own, since Ray reads its environment once.
"""

from __future__ import annotations

import dataclasses
import importlib
import itertools
import json
import os
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from benchmarks._silent import Silent
from benchmarks._sleeping import Sleeping
from sharedlabel.config import parse
from sharedlabel.config.sections import RayConfig
from sharedlabel.grid.driver import Run
from sharedlabel.grid.executors import ray as executor
from sharedlabel.grid.jobs import Call
from sharedlabel.grid.nodes import Node
from sharedlabel.store import Store

_numbers = itertools.count()


def main(folder: str, seconds: float, each: int, *machines: int) -> None:
    """Time as many calls as the largest cluster has for each of its machines, and as many as are so many for each."""
    os.environ |= {**executor._USUAL, "RAY_AUTH_TOKEN": secrets.token_hex(20), "PYTHONPATH": os.pathsep.join(sys.path)}
    store = Store(Path(folder) / "store")
    taken = {}
    with _cluster() as cluster:
        experiment = dataclasses.replace(parse([])[0], ray=RayConfig(address=cluster.address))
        for count in machines:
            while len(cluster.list_all_nodes()) < count:
                cluster.add_node(num_cpus=1)
            cluster.wait_for_nodes()
            made = executor.Ray(cast("Any", Sleeping(seconds)), experiment, store.root, {"CPU": 1.0})
            with Run(store, made, Silent()) as run:
                _seconds(run, count)  # from here on every machine has imported everything
                taken[count] = _seconds(run, each * max(machines)), _seconds(run, each * count)
    print(json.dumps(taken))


def _seconds(run: Run, calls: int) -> float:
    """Return the seconds of so many calls, none of which needs another."""
    nodes = [_node() for _ in range(calls)]
    began = time.perf_counter()
    run.compute(nodes)
    return time.perf_counter() - began


def _node() -> Node:
    node, key = Node("sleep", SimpleNamespace(), (), "data"), f"{next(_numbers):064x}"
    node.__dict__.update(key=key, call=Call("sleep", key, None, {}, "data", {}))
    return node


@contextmanager
def _cluster() -> Iterator[Any]:
    """Give a cluster of one machine with room for one call."""
    cluster = importlib.import_module("ray.cluster_utils").Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    try:
        yield cluster
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), *map(int, sys.argv[3:]))
