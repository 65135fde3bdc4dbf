"""What a key depends on: every option of a grid, with the stages whose keys it changes; all other keys must stay."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sharedlabel import config, grid
from sharedlabel.config import Experiment, parse
from sharedlabel.config.sections import Schedule
from sharedlabel.stages import STAGES

# A grid in which every stage is called: synthetic data for `exact`, rewinding for `early`, every kind of training.
BASE = (
    "--data={name: gaussian, classes: 3, dim: 4, instances_per_class: 240, group_size: 4}",
    "--backbones=[{name: mlp, label: mlp, widths: [8, 6]}]",
    "--pruners=[{name: lottery_ticket, schedule: {growth: 2, rewind: 0.5}}]",
    "--ratios=[1, 2]",
    "--aggregators=[lstm]",
    "--training=[frozen, {name: joint, label: joint, distill: 1.0}, crossfit]",
    "--crossfit.folds=2",
    "--evaluation.n=[1, 2, 4]",
    "--evaluation.partitions=2",
    "--tracking=none",
)
ALL = set(STAGES)
TRAINED = ALL - {"exact"}  # what a trained network enters
PRUNED = TRAINED - {"dense", "early", "margin"}
SCORED = {"evaluate", "adaptive"}
JOINT = SCORED | {"joint", "features"}  # features, since those of jointly trained networks are among them
FITTED = JOINT | {"aggregate"}
CALIBRATED = FITTED | {"calibrate", "crossfit"}
NONE: set[str] = set()

# Option -> another value, and the stages that have other keys then.
OPTIONS: dict[str, tuple[Any, set[str]]] = {
    "name": ("other", NONE),
    "data": ({"name": "gaussian", "classes": 3, "dim": 4, "instances_per_class": 240, "separation": 3.0}, ALL),
    # Axes: what is there stays there when a value is added.
    "backbones": (("mlp", {"name": "mlp", "label": "mlp 8", "widths": [8, 6]}), NONE),
    "pruners": (("magnitude", {"name": "lottery_ticket", "schedule": {"growth": 2, "rewind": 0.5}}), NONE),
    "ratios": ((1.0, 2.0, 3.0), NONE),
    "aggregators": (("log_pool", "lstm"), NONE),
    "training": (("frozen", "joint", {"name": "joint", "label": "other", "distill": 1.0}, "crossfit"), NONE),
    "seeds": ((1, 0), NONE),
    "split.backbone": (0.4, ALL),
    "split.aggregator": (0.5, ALL),
    "split.validation": (0.3, ALL),
    "split.test": (0.3, ALL),
    "split.seed": (1, ALL),
    "split.groups": ("divided", ALL),
    "split.limit": (200, ALL),
    "split.leaks": ("error", NONE),
    "dense.epochs": (3, TRAINED),
    "dense.batch_size": (16, TRAINED),
    "dense.optimizer": ("sgd", TRAINED),
    "dense.learning_rate": (0.5, TRAINED),
    "dense.momentum": (0.5, TRAINED),
    "dense.weight_decay": (0.5, TRAINED),
    "dense.schedule": ("constant", TRAINED),
    "dense.warmup": (0.5, TRAINED),
    "dense.final_rate": (0.1, TRAINED),
    "dense.label_smoothing": (0.5, TRAINED),
    "dense.crop": (1, TRAINED),
    "dense.flip": (True, TRAINED),
    "dense.augment": (("RandomHorizontalFlip",), TRAINED),
    "dense.balanced": (True, TRAINED),
    "dense.mixup": (0.5, TRAINED),
    "dense.ema": (0.5, TRAINED),
    "retrain.epochs": (3, PRUNED),
    "retrain.batch_size": (16, PRUNED),
    "retrain.optimizer": ("sgd", PRUNED),
    "retrain.learning_rate": (0.5, PRUNED),
    "retrain.momentum": (0.5, PRUNED),
    "retrain.weight_decay": (0.5, PRUNED),
    "retrain.schedule": ("constant", PRUNED),
    "retrain.warmup": (0.5, PRUNED),
    "retrain.final_rate": (0.1, PRUNED),
    "retrain.label_smoothing": (0.5, PRUNED),
    "retrain.crop": (1, PRUNED),
    "retrain.flip": (True, PRUNED),
    "retrain.augment": (("RandomHorizontalFlip",), PRUNED),
    "retrain.balanced": (True, PRUNED),
    "retrain.mixup": (0.5, PRUNED),
    "retrain.ema": (0.5, PRUNED),
    "fit.epochs": (3, FITTED),
    "fit.batch_size": (16, FITTED),
    "fit.learning_rate": (0.5, FITTED),
    "fit.weight_decay": (0.5, FITTED),
    "fit.patience": (3, FITTED),
    "fit.steps": (3, FITTED),
    "fit.tuples": ("fixed", FITTED),
    "fit.trials": (2, FITTED),
    "joint.epochs": (7, JOINT),
    "joint.batch_size": (8, JOINT),
    "joint.learning_rate": (0.5, JOINT),
    "joint.weight_decay": (0.5, JOINT),
    "joint.instance_loss": (0.25, JOINT),
    "joint.batch_norm": ("running", JOINT),
    "joint.batches": ("diverse", JOINT),
    "joint.distill": (0.5, NONE),  # the entry of `training` says its own
    "joint.set_loss": (0.5, JOINT),
    "crossfit.folds": (3, {"dense", "early", "prune", "features", "crossfit", "calibrate", "aggregate", *SCORED}),
    "crossfit.ridge": ((0.1, 1.0), {"crossfit", "calibrate", "aggregate", *SCORED}),
    "evaluation.n": ((1, 2, 3, 4), {"evaluate", "exact"}),
    "evaluation.protocols": (("grouped", "iid"), NONE),
    "evaluation.partitions": (3, {*SCORED, "exact"}),
    "evaluation.prior": ("empirical", {*CALIBRATED, "exact"}),
    "evaluation.seed": (1, {*SCORED, "exact"}),
    "evaluation.groups_smaller_than_n": ("error", NONE),
    "evaluation.classes_smaller_than_n": ("drop", NONE),
    "evaluation.start": ("random", NONE),  # the protocol is iid
    "evaluation.stride": (2, NONE),
    "comparison.reference": ("lstm", NONE),
    "comparison.n": (2, NONE),
    "comparison.margin": (0.5, NONE),
    "sweet_spot.retain": (0.5, NONE),
    "sweet_spot.budgets": ((0.25,), NONE),
    "sweet_spot.target": (0.5, NONE),
    "sweet_spot.marginal": (0.5, NONE),
    "sweet_spot.replicates": (3, NONE),
    "adaptive.rules": (("sprt",), {"adaptive"}),
    "adaptive.errors": ((0.2,), {"adaptive"}),
    "latency.batches": ((1,), {"latency"}),
    "latency.modes": (("compiled",), {"latency"}),
    "latency.devices": (("cpu",), {"latency"}),
    "latency.repeats": (3, {"latency"}),
    "latency.seconds": (0.1, {"latency"}),
    "margin.epsilons": ((0.2,), {"margin"}),
    "margin.alpha": (0.25, {"margin"}),
    "margin.inputs": (9, {"margin"}),
    "report.examples": (3, NONE),
    "trainer.accelerator": ("cpu", NONE),
    "trainer.devices": ("auto", NONE),
    "trainer.strategy": ("ddp_spawn", NONE),
    "trainer.precision": ("64-true", TRAINED),
    "trainer.gradient_clip": (0.5, FITTED),
    "trainer.channels_last": (True, NONE),
    "trainer.compile": (True, NONE),
    "trainer.cudnn_benchmark": (True, NONE),
    "trainer.logger": ("csv", NONE),
    "trainer.callbacks": (("learning_rate_monitor",), NONE),
    "trainer.checkpoint_seconds": (1.0, NONE),
    "trainer.networks": (4, NONE),
    "trainer.options": ({"enable_progress_bar": True}, NONE),
    "executor": ("ray", NONE),
    "ray.address": ("auto", NONE),
    "ray.gpus": (0.5, NONE),
    "workers": (3, NONE),
    "threads": (2, NONE),
    "tracking": ("offline", NONE),
    "project": ("other", NONE),
    "entity": ("other", NONE),
    "output": ("elsewhere", NONE),
    "store": ("elsewhere", NONE),
    "data_root": ("elsewhere", NONE),
}
AXES = {"backbones", "pruners", "ratios", "aggregators", "training", "seeds", "evaluation.protocols"}
# The options of a pruner's schedule, likewise, each with the schedule that it changes.
SCHEDULE: dict[str, tuple[dict[str, Any], Any, set[str]]] = {
    "when": ({}, "initial", PRUNED),
    "growth": ({"when": "iterative"}, 1.5, PRUNED),
    "rewind": ({"when": "iterative", "rewind": 0.5}, 0.25, PRUNED | {"early"}),
    "steps": ({"when": "gradual"}, 3, PRUNED),
    "until": ({"when": "gradual"}, 0.25, PRUNED),
}
# Options of plugins: the kind, what is changed to what, and the stages that have other keys then.
PLUGINS: list[tuple[str, Any, Any, set[str]]] = [
    ("backbones", {"name": "mlp", "widths": [8, 6]}, {"name": "mlp", "widths": [8, 5]}, TRAINED),
    ("backbones", {"name": "mlp", "widths": [8, 6]}, {"name": "mlp", "label": "mine", "widths": [8, 6]}, NONE),
    ("pruners", "magnitude", {"name": "magnitude", "scope": "layer"}, PRUNED),
    ("pruners", "magnitude", {"name": "magnitude", "label": "mine"}, NONE),
    ("aggregators", "lstm", {"name": "lstm", "hidden": 8}, FITTED),
    ("aggregators", "lstm", {"name": "lstm", "label": "mine"}, NONE),
    ("aggregators", {"name": "janossy", "base": "lstm"}, {"name": "janossy", "base": "gru"}, FITTED),
]


def options(section: Any, prefix: str = "") -> Iterator[str]:
    """Yield the dotted names of all options of a configuration."""
    for entry in dataclasses.fields(section):
        value = getattr(section, entry.name)
        if dataclasses.is_dataclass(value):
            yield from options(value, f"{prefix}{entry.name}.")
        else:
            yield prefix + entry.name


def changed(experiment: Experiment, name: str, value: Any) -> Experiment:
    section, _, field = name.partition(".")
    inner = dataclasses.replace(getattr(experiment, section), **{field: value}) if field else value
    return dataclasses.replace(experiment, **{section: inner})


@pytest.fixture(scope="module")
def keys() -> Iterator[Callable[[Experiment], dict[str, set[str]]]]:
    """Return the keys of a grid's calls by stage; what parsers make of the same options is made once."""
    built, known = config.plugins.build, {}

    def build(config_class: type[Any], given: Any, where: str) -> Any:
        asked = (config_class, json.dumps(given, default=vars), where)
        if asked not in known:
            known[asked] = built(config_class, given, where)
        return known[asked]

    def keys_of(experiment: Experiment) -> dict[str, set[str]]:
        by_stage: dict[str, set[str]] = {}
        for cell in grid.prepare(experiment).cells:
            for call in (*cell.calls(), cell.latency):
                for node in call.chain():
                    by_stage.setdefault(node.stage, set()).add(node.key)
        return by_stage

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config.plugins, "build", build)
        yield keys_of


@pytest.fixture(scope="module")
def base() -> Experiment:
    return parse(BASE)[0]


@pytest.fixture(scope="module")
def usual(keys, base) -> dict[str, set[str]]:
    by_stage = keys(base)
    assert set(by_stage) == ALL
    return by_stage


def gone(before: dict[str, set[str]], after: dict[str, set[str]]) -> set[str]:
    """Return the stages of which something that was stored is not used any more."""
    return {stage for stage, stored in before.items() if not stored <= after.get(stage, set())}


def test_every_option_has_a_line_in_the_list():
    assert set(OPTIONS) == set(options(Experiment()))
    assert set(SCHEDULE) == {entry.name for entry in dataclasses.fields(Schedule)}


@pytest.mark.parametrize("name", [name for name in OPTIONS if name in AXES or OPTIONS[name][1]])
def test_an_option_changes_the_keys_of_the_stages_that_read_it_and_no_others(keys, base, usual, name):
    value, expected = OPTIONS[name]
    assert gone(usual, keys(changed(base, name, value))) == expected


def test_options_that_no_stage_reads_change_no_key(keys, base, usual):
    """All of them at once, but that which is refused beside others; one by one only to name those that do."""
    unread = {name: value for name, (value, expected) in OPTIONS.items() if not expected and name not in AXES}
    together, alone = base, "trainer.networks"
    for name in sorted(unread.keys() - {alone}):
        together = changed(together, name, unread[name])
    if keys(together) != usual or keys(changed(base, alone, unread[alone])) != usual:
        wrong = [name for name, value in unread.items() if gone(usual, keys(changed(base, name, value)))]
        pytest.fail(f"these change keys, or do so together: {wrong or list(unread)}")


@pytest.mark.parametrize("name", SCHEDULE)
def test_so_does_an_option_of_a_schedule(keys, base, name):
    schedule, value, expected = SCHEDULE[name]
    before, after = (
        keys(changed(base, "pruners", ({"name": "magnitude", "schedule": one},)))
        for one in (schedule, {**schedule, name: value})
    )
    assert gone(before, after) == expected


@pytest.mark.parametrize(("kind", "one", "other", "expected"), PLUGINS)
def test_so_does_an_option_of_a_plugin_and_a_label_does_not(keys, base, kind, one, other, expected):
    assert gone(keys(changed(base, kind, (one,))), keys(changed(base, kind, (other,)))) == expected


def test_a_larger_n_changes_what_reads_the_largest(keys, base, usual):
    assert gone(usual, keys(changed(base, "evaluation.n", (1, 2, 4, 5)))) == {*FITTED, "exact"}


def test_the_prior_of_tuples_changes_no_network(keys, base, usual):
    """Dense and pruned networks never see a tuple, so they serve every prior."""
    networks = {"dense", "early", "prune", "latency", "margin"}
    after = keys(changed(base, "evaluation.prior", "empirical"))
    assert {stage: usual[stage] for stage in networks} == {stage: after[stage] for stage in networks}
