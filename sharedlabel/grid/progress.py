"""What a run says while it works: a live bar on a terminal, a line per call elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from sharedlabel.errors import printable
from sharedlabel.grid import Grid, Node, check_networks, missing, sizes, training_macs
from sharedlabel.grid.failures import Failed
from sharedlabel.machine import memory
from sharedlabel.records import shown
from sharedlabel.store import Store
from sharedlabel.training import search


def describe(node: Node, part: str = "") -> str:
    """Say in a few words what a call computes, on which network, and on which part of the images if any is named."""
    made = {call.stage: call.config for call in node.chain()}  # of several pruned networks the last is the one
    network: Any = made.get("prune", made.get("dense", made.get("early")))
    parts = [node.stage]
    for config, name in ((network, "backbone"), (network, "pruner"), (node.config, "aggregator")):
        plugin = getattr(config, name, None)
        if plugin is not None:
            parts.append(plugin.label)
        if name == "pruner" and hasattr(network, "ratio"):
            parts.append(f"{network.ratio:g}x")
    if hasattr(node.config, "protocol"):
        parts.append(node.config.protocol)
    if hasattr(network, "seed"):
        parts.append(f"seed {network.seed}")
    return printable(" ".join(parts) + (f", {part}" if part else ""))


def described(node: Node, grid: Grid) -> str:
    """Describe a call of a grid."""
    return describe(node, grid.data_by_key[node.data_key].part)


class Reporter:
    """Follows the calls of a run.

    Args:
        console: where to write.
        grid: what the calls belong to.
        total: number of calls to compute.
        folder: where the tracebacks of calls that fail are kept; they are not where it is left out.
    """

    def __init__(self, console: Console, grid: Grid, total: int, folder: Path | None = None) -> None:
        self.console, self.grid, self.total, self.folder, self.done = console, grid, total, folder, 0
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self.bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self.task = self.bar.add_task("starting", total=total)

    def __call__(self, node: Node, seconds: float | None) -> None:
        """Tell that a call starts (None) or took so many seconds."""
        text = described(node, self.grid)
        if seconds is None:
            self.bar.update(self.task, description=text)
            return
        self.done += 1
        self.bar.advance(self.task)
        if not self.console.is_terminal:
            self.console.print(
                f"[{self.done}/{self.total}] {text}: {seconds:.1f} s",
                highlight=False,
                markup=False,
                soft_wrap=True,
            )

    def failed(self, failed: Failed) -> None:
        """Tell that a call failed, and keep its traceback at once: the run may be killed before it ends."""
        text = f"failed: {described(failed.node, self.grid)}: {failed.reason}"
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)
        if self.folder is None:
            return
        file = self.folder / failed.file
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(failed.details, encoding="utf-8", errors="backslashreplace")

    def waiting(self, reason: str) -> None:
        """Tell that the run waits, and until when."""
        self.bar.update(self.task, description=f"waiting {reason}")
        if not self.console.is_terminal:
            self.console.print(f"waiting {reason}", highlight=False, markup=False, soft_wrap=True)


@contextmanager
def reporting(console: Console, grid: Grid, total: int, folder: Path | None = None) -> Iterator[Reporter]:
    """Show progress inside the block; the arguments are those of `Reporter`."""
    reporter = Reporter(console, grid, total, folder)
    with reporter.bar:
        yield reporter


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
