"""A run of W&B for every network while it trains; what a watcher sees moves no number."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from sharedlabel import grid
from sharedlabel.config import Experiment, parse
from sharedlabel.errors import ConfigError
from sharedlabel.grid import watching
from sharedlabel.store import Store
from sharedlabel.tracking.dashboards.panels import TRAINING
from sharedlabel.tracking.places import Place
from tests.wandb_files import Offline, offline, without_account

wandb = pytest.importorskip("wandb")


@pytest.fixture(autouse=True)
def _no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    without_account(monkeypatch, tmp_path)
    yield
    wandb.teardown()


def logged(experiment: Experiment, logger: Any) -> Experiment:
    dense = dataclasses.replace(experiment.dense, crop=1, flip=True)  # which draws at random
    trainer = dataclasses.replace(
        experiment.trainer, logger=logger, callbacks=("learning_rate_monitor",) if logger == "wandb" else ()
    )
    return dataclasses.replace(
        experiment, dense=dense, retrain=dataclasses.replace(dense, epochs=1), tracking="offline", trainer=trainer
    )


def computed(experiment: Experiment, folder: Path) -> tuple[grid.Node, Store]:
    """Compute everything up to the first LSTM."""
    prepared, store = grid.prepare(experiment), Store(folder)
    node = next(cell.aggregate for cell in prepared.cells if cell.aggregator == "lstm" and cell.ratio == 2)
    assert node is not None
    grid.run_node(node, prepared, store, lambda *_: None)
    return node, store


def runs_of(experiment: Experiment) -> dict[str, Offline]:
    return offline(Path(experiment.output) / experiment.name / "wandb")


def test_every_network_has_a_run_while_it_trains_and_its_numbers_are_the_same(
    experiment: Experiment, tmp_path: Path
) -> None:
    node, alone = computed(logged(experiment, "none"), tmp_path / "alone")
    same, seen = computed(logged(experiment, "wandb"), tmp_path / "seen")
    assert same.key == node.key
    calls = {call.stage: call for call in node.chain()}
    for call in calls.values():
        one, other = alone.load(call.stage, call.key), seen.load(call.stage, call.key)
        assert (one.manifest["files"], one.meta) == (other.manifest["files"], other.meta)
    runs, place = runs_of(experiment), Place("digits", "", "", "none", Path())
    assert set(runs) == {place.run_id(calls[stage].key) for stage in ("dense", "prune")}  # the LSTM has none
    run = runs[place.run_id(calls["prune"].key)]
    assert (run.about.job_type, run.about.run_group, run.exit) == ("training", "digits", 0)
    assert run.about.display_name == "digits-prune-mlp-magnitude-2x-s0"
    assert {"pruner": "magnitude", "ratio": 2.0, "seed": 0, "stage": "prune"}.items() <= run.config.items()
    assert run.config["retrain"]["epochs"] == 1
    assert {*TRAINING, "lr-AdamW/pg1"} <= run.keys()
    dense = runs[place.run_id(calls["dense"].key)]
    told = [point["train/loss"] for point in dense.history if "train/loss" in point]
    assert told == pytest.approx(alone.load("dense", calls["dense"].key).meta["losses"], rel=1e-5)
    assert len([point for point in dense.history if "validation/accuracy" in point]) == 2
    assert dense.curves["validation/accuracy"] == ("trainer/global_step", {"max"})


def test_joint_training_has_a_run_with_tuples_of_validation(experiment: Experiment, tmp_path: Path) -> None:
    given = dataclasses.replace(
        logged(experiment, "wandb"),
        training=("joint",),
        joint=dataclasses.replace(experiment.joint, epochs=2),
        aggregators=("lstm",),
        ratios=(1.0,),
        comparison=dataclasses.replace(experiment.comparison, reference="lstm"),
    )
    prepared, store = grid.prepare(given), Store(tmp_path / "store")
    node = prepared.cells[0].evaluate
    grid.run_node(node, prepared, store, lambda *_: None)
    joint = next(call for call in node.chain() if call.stage == "joint")
    run = runs_of(experiment)[Place("digits", "", "", "none", Path()).run_id(joint.key)]
    assert (run.about.display_name, run.exit) == ("digits-joint-mlp-lstm-iid-s0", 0)
    assert {"train/loss", "train/ri@4", "validation/ri@4", "train/gradient_norm"} <= run.keys()
    assert len([point for point in run.history if "validation/ri@4" in point]) == 2
    told = [point["train/loss"] for point in run.history if "train/loss" in point]
    assert told == pytest.approx(store.load("joint", joint.key).meta["losses"], rel=1e-5)


def test_a_training_that_goes_on_after_a_kill_is_a_further_part_of_its_run(
    experiment: Experiment, tmp_path: Path
) -> None:
    given = logged(experiment, "wandb")
    node, _ = computed(given, tmp_path / "store")
    dense = next(call for call in node.chain() if call.stage == "dense")
    before = len(runs_of(experiment)[Place("digits", "", "", "none", Path()).run_id(dense.key)].history)
    again = Store(tmp_path / "again")
    grid.run_node(dense, grid.prepare(given), again, lambda *_: None)
    runs = runs_of(experiment)
    assert len(runs) == 2
    assert len(runs[Place("digits", "", "", "none", Path()).run_id(dense.key)].history) == 2 * before


def test_a_look_at_validation_is_what_a_stage_computes_of_the_same_images(experiment: Experiment) -> None:
    prepared = grid.prepare(experiment)
    data = prepared.data
    batches = list(watching._images(data, 100))
    assert sum(len(labels) for _, labels in batches) == 100
    split = set(data.splits["validation"].tolist())
    every = watching._images(data, len(split))
    assert torch.equal(torch.cat([labels for _, labels in every]), data.labels("validation"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ["--trainer.logger=wandb", "--tracking=none"],
            "trainer.logger: expected tracking by W&B for wandb, got tracking=none",
        ),
        (["--entity=a/b"], "entity: expected the name of a user or team of W&B, .*got 'a/b'"),
    ],
)
def test_what_cannot_be_tracked_is_refused_before_any_training(options: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse(options)


def test_w_and_b_that_takes_nothing_fails_no_training(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**settings: Any) -> None:
        raise wandb.errors.UsageError("no disk")

    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.warns(
        RuntimeWarning, match=r"not taken all of digits-(dense|prune)-.*: no disk; the training goes on, and nothing of"
    ) as said:
        node, store = computed(logged(experiment, "wandb"), tmp_path / "store")
    assert len({str(one.message) for one in said}) == 2  # the next network has a try of its own
    assert store.has(node.stage, node.key)
