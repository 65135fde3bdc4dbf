"""On a GPU: the retrainings of a grid, as a grid computes them in several ways, against one call after the other."""

from __future__ import annotations

import dataclasses
import shutil
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks._gpu import Facts, Setting, seconds
from benchmarks._silent import Silent
from sharedlabel.config import Experiment
from sharedlabel.grid import Grid, Node, missing, prepare
from sharedlabel.grid.driver import Run
from sharedlabel.grid.executors.choose import executor
from sharedlabel.store import Store

GOAL = 10.0  # times as fast as one call after the other
_WORKERS = 6


def retrained(setting: Setting) -> Iterator[Facts]:
    """Retrain ResNet-20 at all ratios and seeds; yield the seconds of every way, and how many times as fast it is.

    The dense networks are there, and the workers have trained for an epoch each.
    """
    prepared = setting.grid(*_options(setting))
    dense = Store(setting.output / "grid-dense")
    with Run(dense, executor(prepared, dense, 1), Silent()) as made:
        made.compute([node for node in missing(prepared, dense) if node.stage == "dense"])
    first = 0.0
    for name, changes in _ways().items():
        way = dataclasses.replace(prepared, experiment=_changed(prepared.experiment, changes))
        folder = setting.output / f"grid-{name.replace(' ', '-')}"
        shutil.copytree(dense.root, folder)
        taken, accuracies = _timed(setting, way, Store(folder))
        first = first or taken
        yield {
            "way": name,
            "calls": len(accuracies),
            "seconds": taken,
            "times_as_fast": first / taken,
            "mean_validation_accuracy": statistics.fmean(accuracies),
            "goal": GOAL,
        }


def _ways() -> dict[str, dict[str, Any]]:
    """Return the ways, the first of which is one call after the other, by the options of the experiment."""
    return {
        "one after the other": {"workers": 1},
        "by default": {"workers": "auto"},
        f"{_WORKERS} workers": {"workers": _WORKERS},
        "18 networks at once": {"workers": 1, "trainer": {"networks": 18, "channels_last": False}},
    }


def _options(setting: Setting) -> Sequence[str]:
    seeds, ratios = ("[0]", "[1, 2]") if setting.tiny else ("[0, 1, 2]", "[1, 2, 4, 8, 16, 32]")
    recipe = "optimizer: sgd, learning_rate: 0.05, crop: 4, flip: true"
    batch, epochs = (8, (1, 2)) if setting.tiny else (512, (2, 4))
    return (
        setting.network(20),
        "--pruners=[magnitude]",
        f"--ratios={ratios}",
        f"--seeds={seeds}",
        f"--dense={{epochs: {epochs[0]}, batch_size: {batch}, {recipe}}}",
        f"--retrain={{epochs: {epochs[1]}, batch_size: {batch}, {recipe}}}",
    )


def _changed(experiment: Experiment, changes: Mapping[str, Any]) -> Experiment:
    trainer = dataclasses.replace(experiment.trainer, **changes.get("trainer", {}))
    return dataclasses.replace(experiment, **{**changes, "trainer": trainer})


def _timed(setting: Setting, prepared: Grid, store: Store) -> tuple[float, list[float]]:
    """Return the seconds of all retrainings, and the accuracy of each on validation."""
    experiment = prepared.experiment
    short = prepare(dataclasses.replace(experiment, retrain=dataclasses.replace(experiment.retrain, epochs=1)))
    waking, calls = _retrainings(short), _retrainings(prepared)
    with Run(store, executor(prepared, store, len(calls)), Silent(), runtime=experiment.trainer) as made:
        made.compute(waking)
        taken = seconds(lambda: made.compute(calls), setting.device)
    pruned = [store.load(call.stage, call.key) for call in calls if call.stage == "prune"]
    return taken, [one.meta["validation_accuracy"] for one in pruned]


def _retrainings(prepared: Grid) -> list[Node]:
    """Return the calls that retrain, after those of the dense networks, which are stored already."""
    chains = [cell.ends["prune"].chain() for cell in prepared.cells]
    return list({node.key: node for chain in chains for node in chain}.values())
