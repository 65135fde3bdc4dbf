"""What every run of an experiment says of it: its configuration, to filter and group runs by."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from sharedlabel.config import Experiment, resolve, trainings
from sharedlabel.config.names import FROZEN, IID
from sharedlabel.records import AXES, Results

# The axes whose entries are plugins, by the column of a record that names them.
_PLUGINS = {"backbone": "backbones", "pruner": "pruners", "aggregator": "aggregators"}
# How axes are written in a name, where not as they are.
_WRITTEN: dict[str, Callable[[Any], str]] = {"ratio": "{:g}x".format, "seed": "s{}".format}
_EXPERIMENT = 40  # letters of an experiment's name in the name of a run


@dataclass(frozen=True)
class About:
    """What is the same for all runs of an experiment.

    Attributes:
        experiment: its name.
        config: its configuration, as `Results.config` has it.
        provenance: commit, versions and machine, as `Results.provenance` has them.
        options: every option of every plugin and every recipe of joint training, by the column that names it and its
            label; none where nothing but results is known.
    """

    experiment: str
    config: Mapping[str, Any]
    provenance: Mapping[str, Any]
    options: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)

    @classmethod
    def of(cls, results: Results) -> Self:
        """Return what results alone say."""
        return cls(results.experiment, results.config, results.provenance)

    def settings(self, record: Any) -> dict[str, Any]:
        """Return the configuration of a run about a cell, a method or a network, by what names it.

        Axes are values, and sections of options are mappings, whose names W&B shows with dots (`dense.epochs`). The
        options of a plugin stand beside its label (`aggregator_options.hidden`).

        Args:
            record: has some of the columns `data` and those of a cell.
        """
        named = {name: getattr(record, name) for name in ("data", *AXES) if hasattr(record, name)}
        chosen = {name: self._options(name, named.get(name)) for name in _PLUGINS} | {"data": self._of_data()}
        options = {f"{name}_options": values for name, values in chosen.items() if values}
        sections = {name: one for name, one in self.config.items() if isinstance(one, Mapping) and name != "data"}
        joint = self._options("training", named.get("training"))
        return {
            "experiment": self.experiment,
            **named,
            **options,
            **sections,
            **({"joint": joint} if joint else {}),
        } | {
            "commit": self.provenance.get("commit", ""),
            "device": self.provenance.get("device", ""),
            "versions": {name: self.provenance[name] for name in _versions(self.provenance)},
        }

    def _of_data(self) -> dict[str, Any]:
        given = self.config.get("data")
        return dict(given) if isinstance(given, Mapping) else {}

    def _options(self, column: str, label: Any) -> dict[str, Any]:
        return dict(self.options.get(column, {}).get(str(label), {}))

    def tags(self, record: Any) -> tuple[str, ...]:
        """Return the tags of a run: data, backbone, pruner, aggregator and protocol, as far as the record has them."""
        names = ("data", "backbone", "pruner", "aggregator", "protocol")
        return tuple(dict.fromkeys(str(getattr(record, name))[:64] for name in names if hasattr(record, name)))

    def name(self, record: Any, *more: str) -> str:
        """Return the name of a run: the experiment, the data where they are called otherwise, and the axes."""
        named = [(axis, getattr(record, axis)) for axis in AXES if hasattr(record, axis)]
        axes = [written(axis, value) for axis, value in named]
        return "-".join((*dict.fromkeys((self.experiment[:_EXPERIMENT], record.data)), *axes, *more))

    def method(self, record: Any) -> str:
        """Return what a method is called among those of its experiment, whatever the ratio: `lstm+magnitude`."""
        several = len(self.config.get("backbones", ())) > 1
        unusual = (record.training != FROZEN, record.protocol != IID, several)
        more = [name for name, wanted in zip(("training", "protocol", "backbone"), unusual, strict=True) if wanted]
        return "+".join(str(getattr(record, name)) for name in ("aggregator", "pruner", *more))


def options(experiment: Experiment) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the options of every plugin of an experiment, and the recipes of joint training, by column and label."""
    found = {
        column: {
            plugin.label: plugin.payload() for plugin in (resolve(kind, spec) for spec in getattr(experiment, kind))
        }
        for column, kind in _PLUGINS.items()
    }
    recipes = {one.label: dataclasses.asdict(one.joint) for one in trainings(experiment) if one.joint is not None}
    return {**found, "training": recipes}


def part(text: str) -> str:
    """Return a text as a part of a metric's name: W&B takes dots in it for levels, and its filters few other signs.

    >>> part("magnitude(scope=layer)"), part("budget=0.5")
    ('magnitude_scope=layer_', 'budget=0_5')
    """
    return re.sub(r"[^\w@=+-]", "_", text, flags=re.ASCII)


def _versions(provenance: Mapping[str, Any]) -> list[str]:
    about_machine = {"commit", "device", "processor", "cores", "threads", "date", "seconds", "last_run_seconds"}
    return [name for name in provenance if name not in about_machine and not name.endswith("sha256")]


def written(axis: str, value: Any) -> str:
    """Write a value of an axis as it stands in the name of a run.

    >>> written("ratio", 4.0), written("seed", 0), written("pruner", "unit")
    ('4x', 's0', 'unit')
    """
    return _WRITTEN.get(axis, str)(value)
