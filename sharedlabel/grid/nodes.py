"""What a grid is made of: stage calls, cells, and the grid itself."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sharedlabel import plugins
from sharedlabel.backbones._base import Backbone
from sharedlabel.config import Experiment, plugins_in
from sharedlabel.config.names import FROZEN
from sharedlabel.grid.jobs import Call
from sharedlabel.scoring.data import Data
from sharedlabel.stages import STAGES
from sharedlabel.store import artifact_key


@dataclass(frozen=True)
class Node:
    """One call of a stage: its configuration and the calls whose outputs it reads."""

    stage: str
    config: Any
    inputs: tuple[tuple[str, Node], ...]
    data_key: str

    @functools.cached_property
    def key(self) -> str:
        """Content address of the output."""
        return artifact_key(self.stage, STAGES[self.stage].version, self.config, self.input_keys(), self.code())

    @functools.cached_property
    def call(self) -> Call:
        """What is needed to compute it, without the calls behind it."""
        inputs = {name: (node.stage, node.key) for name, node in self.inputs}
        return Call(self.stage, self.key, self.config, inputs, self.data_key, self.code())

    def input_keys(self) -> dict[str, str]:
        """Return the keys of the inputs by name."""
        return {name: node.key for name, node in self.inputs} | {"data": self.data_key}

    def code(self) -> dict[str, str]:
        """Return the digests of the code that computes the output: the stage's, and those of the plugins it names."""
        return STAGES[self.stage].code() | plugins.code(plugins_in(self.config))

    @property
    def trains_network(self) -> bool:
        """Whether the call trains a network, as its recipe says."""
        return bool(getattr(self.config, "epochs", 0))

    def chain(self) -> Iterator[Node]:
        """Yield the calls needed for this one, inputs first, itself last."""
        for _, node in self.inputs:
            yield from node.chain()
        yield self


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One point of the grid, by its labels, and the stage calls that hold its numbers.

    A leaf of a protocol, such as `exact`, scores without a network. Its cell bears its name as the aggregator and, as
    rows have to, the labels of a network: those of the first one, whose calls are among its ends.

    Attributes:
        ends: these calls by stage, in the order in which they are made.
        evaluate: the one of them that scores: `evaluate`, or the leaf of a protocol.
    """

    backbone: str
    pruner: str
    ratio: float
    aggregator: str
    training: str
    protocol: str
    seed: int
    ends: Mapping[str, Node] = field(hash=False)
    evaluate: Node = field(hash=False)

    @property
    def id(self) -> str:
        """Short content address."""
        return self.evaluate.key[:16]

    @property
    def pruned(self) -> Node:
        """The call that makes the cell's network."""
        return self.ends["prune"]

    @property
    def latency(self) -> Node:
        """The call that measures the cell's network."""
        return self.ends["latency"]

    @property
    def aggregate(self) -> Node | None:
        """The call that fits the aggregator on fixed features; None where no network is asked."""
        return self.ends.get("aggregate")

    @property
    def adaptive(self) -> Node | None:
        """The call that fits when to stop; None where nothing is stopped."""
        return self.ends.get("adaptive")

    def calls(self) -> tuple[Node, ...]:
        """Return the leaves of the grid that end in the cell's numbers, but for measured times; they bring the rest.

        What measures times is called once everything of every cell is, so that nothing else of the run is at work then.
        """
        leaves = [node for node in self.ends.values() if STAGES[node.stage].leaf and not STAGES[node.stage].last]
        return tuple(leaves) if self.evaluate in leaves else (*leaves, self.evaluate)

    def last(self) -> tuple[Node, ...]:
        """Return the calls that measure times, which come last."""
        return tuple(node for node in self.ends.values() if STAGES[node.stage].last)

    def read(self) -> tuple[Node, ...]:
        """Return the stage calls whose outputs the cell's rows are made from; times may be missing, they come last."""
        return tuple(node for node in self.ends.values() if not STAGES[node.stage].last)

    def __str__(self) -> str:
        how = "" if self.training == FROZEN else f" {self.training}"
        return f"{self.backbone} {self.pruner} {self.ratio:g}x {self.aggregator}{how} {self.protocol} seed {self.seed}"


@dataclass(frozen=True)
class Grid:
    """An experiment with its data loaded, its plugins checked and its cells laid out.

    Attributes:
        experiment: the configuration.
        data: with the splits of the configuration.
        cells: the points of the grid.
        backbones: networks as they are initialised, by label.
        data_by_key: what the stage calls read, cross-fitting included.
        remarks: what users should know of the data: copies of images, and classes that were left out.
    """

    experiment: Experiment
    data: Data
    cells: tuple[Cell, ...]
    backbones: dict[str, Backbone] = field(repr=False)
    data_by_key: Mapping[str, Data] = field(repr=False)
    remarks: tuple[str, ...] = ()
