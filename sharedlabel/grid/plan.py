"""What a run would do and cost, before it does it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sharedlabel.grid import Grid, Node, check_networks, missing, sizes, training_macs
from sharedlabel.machine import memory
from sharedlabel.records import shown
from sharedlabel.store import Store
from sharedlabel.training import search


def search_budget(grid: Grid) -> str:
    """Say how many settings a search tries for how many aggregators, and how many networks the whole grid trains."""
    trials = grid.experiment.fit.trials
    calls = {cell.aggregate.key: cell.aggregate.config.aggregator for cell in grid.cells if cell.aggregate is not None}
    by_label = {plugin.label: plugin for plugin in calls.values()}
    searched = {label for label, plugin in by_label.items() if search.descends(plugin)}
    networks = trials * sum(plugin.label in searched for plugin in calls.values())
    return f"search: {trials} trials for each of {len(searched)} aggregators, {networks} trained networks in all"


def print_plan(grid: Grid, store: Store, console: Console) -> None:
    """Print which cells are done and missing, and what the missing stage calls will cost."""
    absent = missing(grid, store)
    keys = {node.key for node in absent}
    title = f"{shown.name(grid.experiment.name)}: {len(grid.cells)} cells"
    cells = Table(title=Text(title), title_justify="left")
    for header in ("backbone", "pruner", "ratio", "seed"):
        cells.add_column(header)
    cells.add_column("done", justify="right")
    cells.add_column("missing", justify="right")
    rows: dict[tuple[str, str, float, int], list[bool]] = {}
    for cell in grid.cells:
        rows.setdefault((cell.backbone, cell.pruner, cell.ratio, cell.seed), []).append(cell.evaluate.key not in keys)
    for (backbone, pruner, ratio, seed), done in rows.items():
        names = (Text(shown.name(backbone)), Text(shown.name(pruner)))
        cells.add_row(*names, f"{ratio:g}", str(seed), str(sum(done)), str(len(done) - sum(done)))
    console.print(cells)
    if not absent:
        console.print("Every cell is done; a run computes nothing and only writes the report.")
        return
    check_networks(grid)
    console.print(_costs(absent, grid, store, console))
    networks = map(sizes.network_bytes, grid.backbones.values())
    needed = memory.readable(max(sizes.tuple_bytes(grid.data, grid.experiment.evaluation), *networks))
    beside = f"memory: about {needed} beside the data and the activations"
    console.print(f"{beside}, of {memory.readable(memory.total())}", highlight=False)


def _costs(absent: Sequence[Node], grid: Grid, store: Store, console: Console) -> Table:
    costs = Table(title="what the missing cells cost, about", title_justify="left")
    for header in ("stage", "calls", "training TMACs", "seconds, estimated"):
        costs.add_column(header, justify="left" if header == "stage" else "right")
    by_stage: dict[str, list[Node]] = {}
    for node in absent:
        by_stage.setdefault(node.stage, []).append(node)
    stored = {stage: _stored_seconds(stage, nodes, grid, store) for stage, nodes in by_stage.items()}
    rehearsal = None
    if None in stored.values():
        from sharedlabel.grid.rehearsal import Rehearsal

        if not console.is_terminal:
            console.print("measuring the stages on a little made-up data, to say what they cost")
        with console.status("measuring the stages on a little made-up data"):
            rehearsal = Rehearsal(grid)
        for stage, why in rehearsal.failed.items():
            console.print(
                f"warning: {stage} fails on made-up data: {why}", highlight=False, markup=False, soft_wrap=True
            )
    total, known = 0.0, True
    for stage, nodes in by_stage.items():
        macs = sum(training_macs(node, grid) for node in nodes)
        seconds = stored[stage]
        if seconds is None and rehearsal is not None:
            rehearsed = [rehearsal.seconds(node) for node in nodes]
            seconds = None if None in rehearsed else sum(one for one in rehearsed if one is not None)
        total, known = total + (seconds or 0.0), known and seconds is not None
        costs.add_row(
            stage,
            str(len(nodes)),
            f"{macs / 1e12:.2f}" if macs else "-",
            "unknown until one has run" if seconds is None else f"{seconds:.0f}",
        )
    costs.add_row(
        "all", str(sum(len(nodes) for nodes in by_stage.values())), "", f"{total:.0f}" if known else f"over {total:.0f}"
    )
    return costs


def _stored_seconds(stage: str, nodes: Sequence[Node], grid: Grid, store: Store) -> float | None:
    """Estimate from stored calls on the same data: training by MACs, the rest by the call; None without any."""
    same = [record for record in store.manifests(stage) if record["inputs"].get("data") in grid.data_by_key]
    spent = sum(record["seconds"] for record in same)
    if not same:
        return None
    macs = sum(training_macs(node, grid) for node in nodes)
    if not macs:
        trials = grid.experiment.fit.trials or 1 if stage == "aggregate" else 1
        return float(spent / sum(map(_trials, same)) * len(nodes) * trials)
    known = {node.key: node for cell in grid.cells for node in cell.evaluate.chain() if node.stage == stage}
    done = sum(training_macs(known[record["key"]], grid) for record in same if record["key"] in known)
    matching = sum(record["seconds"] for record in same if record["key"] in known)
    return float(matching / done * macs) if done else None


def _trials(record: dict[str, Any]) -> int:
    """Return how many settings a stored call was asked to try."""
    asked = record["config"].get("fit", {}).get("trials", 0)
    return int(asked) or 1
