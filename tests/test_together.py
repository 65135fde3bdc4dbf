"""Which networks are trained in one program, and that stages return of each what they return of it alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from sharedlabel.config import resolve
from sharedlabel.config.sections import SplitConfig, TrainConfig, TrainerConfig
from sharedlabel.data import splits, tuples
from sharedlabel.errors import ConfigError
from sharedlabel.grid.prepare import _check_trainer
from sharedlabel.plugins import load
from sharedlabel.scoring.data import Data, data_key
from sharedlabel.stages import STAGES, Stage, dense, early, prune
from sharedlabel.store import Artifact, Output, Store
from sharedlabel.training import watchers

CPU = TrainerConfig(accelerator="cpu")
TRAIN = TrainConfig(epochs=2, batch_size=32, optimizer="sgd", learning_rate=0.02, crop=1, flip=True)
RETRAIN = dataclasses.replace(TRAIN, epochs=1)
MLP = resolve("backbones", {"name": "mlp", "widths": [24, 16]})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    digits = load("data", "digits")
    dataset = digits.load(digits.Config(), tmp_path_factory.mktemp("digits"))
    split = splits.split(dataset, SplitConfig(limit=40))
    return Data(dataset, split, tuples.prior(dataset.labels, "uniform", 10), data_key(dataset, split, {}))


def call(pruner: Any = "magnitude", ratio: float = 2.0, seed: int = 0, **others: Any) -> prune.Config:
    given = {"backbone": MLP, "train": TRAIN, "retrain": RETRAIN, "precision": "32-true", **others}
    return prune.Config(pruner=resolve("pruners", pruner), ratio=ratio, seed=seed, **given)


def assert_alike(outputs: list[Output], alone: list[Output]) -> None:
    for output, expected in zip(outputs, alone, strict=True):
        assert output.tensors.keys() == expected.tensors.keys()
        torch.testing.assert_close(output.tensors, expected.tensors, rtol=1e-4, atol=1e-5)
        assert output.meta.keys() == expected.meta.keys()
        torch.testing.assert_close(output.meta, expected.meta, rtol=1e-4, atol=1e-5)


def started(seeds: tuple[int, ...], data: Data, store: Store, rewind: float = 0.0) -> list[dict[str, Artifact]]:
    """Return the stored dense networks of some seeds, and where rewinding goes back to."""
    made = []
    for seed in seeds:
        config, share = dense.Config(MLP, TRAIN, "32-true", seed), early.Config(MLP, TRAIN, "32-true", seed, rewind)
        outputs = {"dense": dense.run(config, data, {}, CPU), "early": early.run(share, data, {}, CPU)}
        made.append({name: store.save(name, f"{name}{seed}", output, {}, 0.0) for name, output in outputs.items()})
    return made


def both(
    configs: list[prune.Config], data: Data, inputs: list[dict[str, Artifact]]
) -> tuple[list[Output], list[Output]]:
    assert len({prune.together(config, CPU) for config in configs}) == 1
    alone = [prune.run(config, data, read, CPU) for config, read in zip(configs, inputs, strict=True)]
    return prune.run_together(configs, data, inputs, CPU), alone


def test_pruned_after_training(data: Data, tmp_path: Path) -> None:
    configs = [call(), call("random", 4.0, 1), call("none", 1.0, 1), call("magnitude", 8.0)]
    inputs = [{"dense": made["dense"]} for made in started((0, 1, 1, 0), data, Store(tmp_path))]
    assert_alike(*both(configs, data, inputs))


def test_pruned_at_initialisation(data: Data) -> None:
    configs = [call("snip"), call("synflow", 4.0, 1)]
    outputs, alone = both(configs, data, [{}, {}])
    assert_alike(outputs, alone)
    assert [len(output.meta["losses"]) for output in outputs] == [3, 3]


def test_rounds_with_rewinding(data: Data, tmp_path: Path) -> None:
    pruner = {"name": "lottery_ticket", "schedule": {"growth": 2.0, "rewind": 0.5}}
    store = Store(tmp_path)
    inputs = started((0, 1), data, store, 0.5)
    first = [call(pruner, 2.0, seed) for seed in (0, 1)]
    outputs, alone = both(first, data, inputs)
    assert_alike(outputs, alone)
    before = [store.save("prune", f"round{at}", output, {}, 0.0) for at, output in enumerate(alone)]
    inputs = [{**read, "previous": previous} for read, previous in zip(inputs, before, strict=True)]
    outputs, alone = both([call(pruner, 4.0, seed) for seed in (0, 1)], data, inputs)
    assert_alike(outputs, alone)
    assert outputs[0].meta["training_epochs"] == 2 + 2 * (1 + 1)


def test_dense_networks_of_several_seeds(data: Data) -> None:
    configs = [dense.Config(MLP, TRAIN, "32-true", seed) for seed in (0, 1, 2)]
    alone = [dense.run(config, data, {}, CPU) for config in configs]
    assert_alike(dense.run_together(configs, data, [{}, {}, {}], CPU), alone)


@pytest.mark.parametrize(
    "other",
    [
        call(retrain=TRAIN),
        call(precision="bf16-mixed"),
        call(backbone=resolve("backbones", {"name": "mlp", "widths": [24, 12]})),
        call({"name": "magnitude", "schedule": "initial"}),
        call({"name": "magnitude", "schedule": {"when": "iterative", "rewind": 0.5}}),
    ],
)
def test_networks_that_are_trained_otherwise_are_trained_in_another_program(other: prune.Config) -> None:
    assert prune.together(other, CPU) not in (prune.together(call(), CPU), None)


def test_what_does_not_train_a_network_is_not_asked() -> None:
    assert prune.together(call(train=RETRAIN), CPU) == prune.together(call(), CPU)
    assert prune.together(call({"name": "magnitude", "schedule": "iterative"}), CPU) == prune.together(call(), CPU)


@pytest.mark.parametrize("pruner", ["unit", "butterfly", "edge_popup", {"name": "magnitude", "schedule": "gradual"}])
def test_networks_of_other_shapes_and_those_that_are_pruned_while_they_train_are_trained_alone(pruner: Any) -> None:
    assert prune.together(call(pruner), CPU) is None


@pytest.mark.parametrize(
    "runtime",
    [
        {"accelerator": "mps"},
        {"callbacks": ("tqdm_progress_bar",)},
        {"channels_last": True},
        {"compile": True},
        {"devices": 2},
        {"logger": "csv"},
        {"options": {"benchmark": True}},
    ],
)
def test_where_somebody_watches_or_a_program_is_that_of_one_network_each_is_trained_alone(runtime: Any) -> None:
    assert prune.together(call(), dataclasses.replace(CPU, **runtime)) is None
    assert dense.together(dense.Config(MLP, TRAIN, "32-true", 0), dataclasses.replace(CPU, **runtime)) is None


def test_callbacks_that_are_objects_watch_each_network() -> None:
    token = watchers.WATCHERS.set((object(),))
    try:
        assert prune.together(call(), CPU) is None
    finally:
        watchers.WATCHERS.reset(token)


def test_a_stage_says_what_its_calls_have_in_common_and_computes_them_or_neither() -> None:
    module = ModuleType("sharedlabel.stages.odd")
    vars(module).update(VERSION=1, run=prune.run, together=prune.together)
    with pytest.raises(ValueError, match="run_together: it computes calls of which `together` says"):
        Stage.of(module)


def test_keys_hold_the_code_of_both_ways() -> None:
    assert STAGES["prune"].code().keys() == {"stage", "together"}
    assert STAGES["features"].code().keys() == {"stage"}


@pytest.mark.parametrize("beside", [{"logger": "csv"}, {"channels_last": True}, {"precision": "16-mixed"}])
def test_what_says_how_one_network_is_trained_is_refused_beside_several(beside: dict[str, Any]) -> None:
    asked = dataclasses.replace(CPU, networks=4, **beside)
    with pytest.raises(ConfigError, match=r"trainer.networks: expected 1 where .*, got 4; set it to 1, or leave those"):
        _check_trainer(asked)
    _check_trainer(dataclasses.replace(CPU, networks=4))
