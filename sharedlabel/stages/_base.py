"""What a stage is to the rest of the package, and what its calls are about."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal, TypeAlias

from sharedlabel.code import digests
from sharedlabel.config import Experiment, Plugin
from sharedlabel.config.names import CROSSFIT, FROZEN
from sharedlabel.config.sections import TrainerConfig
from sharedlabel.records import TABLES
from sharedlabel.scoring.data import FEATURE_ROLES, Data
from sharedlabel.store import Artifact, Output

_NAMED = ("prune", "aggregate")  # stages in the middle of a chain whose calls a cell names


@dataclass(frozen=True)
class NetworkSetting:
    """The network that a call is about.

    Attributes:
        backbone: plugin and options.
        pruner: likewise.
        ratio: requested compression ratio, all parameters.
        seed: training seed.
    """

    backbone: Plugin
    pruner: Plugin
    ratio: float
    seed: int


@dataclass(frozen=True)
class MethodSetting(NetworkSetting):
    """The method that a call is about.

    Attributes:
        aggregator: plugin and options.
        protocol: `iid`, `grouped` or `sequence`.
    """

    aggregator: Plugin
    protocol: str


@dataclass(frozen=True)
class ProtocolSetting:
    """The protocol that a call is about, which needs no network.

    Attributes:
        protocol: `iid`, `grouped` or `sequence`.
    """

    protocol: str


RunTogether: TypeAlias = Callable[
    [Sequence[Any], Data, Sequence[Mapping[str, Artifact]], TrainerConfig], Sequence[Output]
]
Setting: TypeAlias = NetworkSetting | ProtocolSetting  # a method is a network with an aggregator


@dataclass(frozen=True)
class Finished:
    """A finished call of a cell, for the records that its stage makes of it.

    Attributes:
        columns: what the cell is called: its id, the data set's name and the axes.
        config: of the call.
        key: of its output.
        facts: by stage, of the calls that hold the cell's numbers.
        first_seed: whether the cell has the first training seed of the grid.
    """

    columns: Mapping[str, Any]
    config: Any
    key: str
    facts: Mapping[str, Mapping[str, Any]]
    first_seed: bool

    @property
    def network_training(self) -> Literal["frozen", "crossfit"]:
        """How the cell's compressed network was trained; joint training starts from that of `frozen`."""
        return CROSSFIT if self.columns["training"] == CROSSFIT else FROZEN

    def named(self, *columns: str) -> dict[str, Any]:
        """Return some of the columns that name the cell."""
        return {name: self.columns[name] for name in columns}


@dataclass(frozen=True)
class Stage:
    """A stage as the grid sees it; `stages/__init__.py` says what its file holds.

    Attributes:
        name: of its file.
        version: raised when something that no digest sees changes what is computed.
        run: computes an output.
        leaf: `network`, `method` or `protocol`, where nothing else reads the output; empty otherwise.
        last: it measures the machine, so it is called when nothing else of the grid is at work.
        inputs: names of what a leaf reads of a network or a method.
        table: of `records.Results`, that it fills; empty if it fills none.
        together: returns what calls have in common that can be computed together; None where there are none.
        run_together: computes the outputs of several such calls.
        modules: whose functions `columns` it calls without naming them; their digests stand in its keys beside its own.
        module: the file.
    """

    name: str
    version: int
    run: Callable[[Any, Data, Mapping[str, Artifact], TrainerConfig], Output]
    leaf: str
    last: bool
    inputs: tuple[str, ...]
    table: str
    together: Callable[[Any, TrainerConfig], Hashable | None] | None
    run_together: RunTogether | None
    modules: tuple[str, ...]
    module: ModuleType

    @classmethod
    def of(cls, module: ModuleType) -> Stage:
        """Read a stage's file.

        Raises:
            ValueError: it says something that the grid would not heed, or lacks what it says.
        """
        stage = cls(
            name=module.__name__.rpartition(".")[2],
            version=module.VERSION,
            run=module.run,
            leaf=getattr(module, "LEAF", ""),
            last=getattr(module, "LAST", False),
            inputs=getattr(module, "INPUTS", ()),
            table=getattr(module, "TABLE", ""),
            together=getattr(module, "together", None),
            run_together=getattr(module, "run_together", None),
            modules=getattr(module, "MODULES", ()),
            module=module,
        )
        stage._check()
        return stage

    def _check(self) -> None:
        """Refuse mistakes when the file is imported, instead of after hours of training."""
        shows = bool(self.table) or hasattr(self.module, "columns")
        wrong = {
            "LEAF: expected network, method or protocol": self.leaf not in ("", "network", "method", "protocol"),
            "INPUTS: a leaf of a network or a method, and no other stage, names what it reads": bool(self.inputs)
            != (self.leaf in ("network", "method")),
            "configure: a leaf says what its calls depend on": bool(self.leaf)
            and not hasattr(self.module, "configure"),
            "TABLE: expected a table of records.Results": bool(self.table) and self.table not in TABLES,
            "records: they belong to a TABLE": bool(self.table) != hasattr(self.module, "records"),
            "run_together: it computes calls of which `together` says what they have in common": (
                (self.together is None) != (self.run_together is None)
            ),
            "columns, TABLE: a cell names leaves, prune and aggregate alone": shows
            and not (self.leaf or self.name in _NAMED),
        }
        for said, holds in wrong.items():
            if holds:
                raise ValueError(f"stages/{self.name}.py: {said}")

    def code(self) -> dict[str, str]:
        """Return the digests of all code that its functions reach."""
        code = {"stage": digests.digest(self.module.__name__, "run")}
        if self.run_together is not None:  # no key says which of the two has computed an output
            code["together"] = digests.digest(self.module.__name__, "run_together")
        if self.modules:  # by content alone: where the files are, and what they are called, changes no number
            code["modules"] = " ".join(sorted(digests.digest(name, "columns") for name in self.modules))
        return code

    def configure(self, experiment: Experiment, setting: Setting) -> Any:
        """Return what a leaf's call depends on, or None where the experiment asks for none."""
        return self.module.configure(experiment, setting)

    def columns(self, facts: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return what the rows of a cell show of a call.

        Args:
            facts: of its output; None where it is not stored yet.
        """
        shown: dict[str, Any] = self.module.columns(facts) if hasattr(self.module, "columns") else {}
        return shown

    def records(self, finished: Finished) -> Iterable[Any]:
        """Return the records of the table that a call fills."""
        made: Iterable[Any] = self.module.records(finished)
        return made

    def work(self, config: Any, data: Data) -> float:
        """Return how much a call has to do; in images, unless the stage says otherwise."""
        if hasattr(self.module, "work"):
            return float(self.module.work(config, data))
        return float(sum(len(data.splits[role]) for role in FEATURE_ROLES))
