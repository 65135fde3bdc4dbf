"""What watches the trainings of a grid: loggers and callbacks by name, callbacks of one's own, and what is refused."""

from __future__ import annotations

import csv
import dataclasses
import importlib.util
import pickle
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning import callbacks as lightning
from pytorch_lightning.utilities.model_helpers import is_overridden

from sharedlabel import grid
from sharedlabel.config import Experiment, parse
from sharedlabel.errors import ConfigError, TrainingError
from sharedlabel.grid.rehearsal import Rehearsal
from sharedlabel.store import Store
from sharedlabel.training.callbacks import check, watched
from sharedlabel.training.onlooker import Onlooker


def watching(experiment: Experiment, **options: Any) -> Experiment:
    return dataclasses.replace(experiment, trainer=dataclasses.replace(experiment.trainer, **options))


def aggregate(experiment: Experiment, folder: Path) -> tuple[grid.Node, Store, grid.Grid]:
    """Compute everything up to the first LSTM."""
    prepared, store = grid.prepare(experiment), Store(folder)
    node = next(cell.aggregate for cell in prepared.cells if cell.aggregator == "lstm")
    grid.run_node(node, prepared, store, lambda *_: None)
    return node, store, prepared


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_a_grid_logs_every_training_to_the_folder_of_the_run(experiment, tmp_path):
    given = watching(experiment, logger="csv", callbacks=("learning_rate_monitor",))
    node, store, _ = aggregate(given, tmp_path / "store")
    logs = Path(experiment.output) / experiment.name / "logs"
    folders = {call.stage: logs / f"{call.stage}-{call.key[:12]}" / "training-1" for call in node.chain()}
    losses = {stage: rows(folders[stage] / "metrics.csv") for stage in ("dense", "prune", "aggregate")}
    for call in node.chain():
        if call.stage in losses:
            told = [float(row["train/loss"]) for row in losses[call.stage] if row["train/loss"]]
            assert told == pytest.approx(store.load(call.stage, call.key).meta["losses"], rel=1e-5)
    assert any(row["lr-AdamW/pg1"] for row in losses["dense"])
    assert {"train/accuracy", "train/loss_step"} <= set(losses["dense"][0])
    assert {"train/ri@4", "train/n_accuracy@1", "validation/loss"} <= set(losses["aggregate"][0])
    assert not (logs / f"features-{node.key[:12]}").exists()


def scalars(path: Path) -> set[str]:
    """Read the names of what an event file of TensorBoard holds: records of length, checksum, content and checksum."""
    from tensorboardX.proto.event_pb2 import Event

    content, names = path.read_bytes(), set()
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        event = Event.FromString(content[12 : 12 + length])
        names |= {value.tag for value in event.summary.value}
        content = content[16 + length :]
    return names


def test_tensorboard_is_told_the_same(experiment, tmp_path):
    node, _, _ = aggregate(watching(experiment, logger="tensorboard"), tmp_path / "store")
    logs = Path(experiment.output) / experiment.name / "logs"
    held = {}
    for call in node.chain():
        for path in (logs / f"{call.stage}-{call.key[:12]}" / "training-1").glob("events.out.tfevents.*"):
            held.setdefault(call.stage, set()).update(scalars(path))
    assert {"train/loss", "train/accuracy", "validation/loss", "validation/accuracy"} <= held["dense"] & held["prune"]
    assert {"train/ri_4", "train/n_accuracy_1", "validation/loss"} <= held["aggregate"]  # it knows no @


class Drawing(pl.Callback):
    """Draws from every stream of random numbers, in hooks between any two steps, and counts epochs."""

    epochs = 0

    def on_train_batch_start(self, *_: Any) -> None:
        torch.randn(3)
        np.random.rand()  # noqa: NPY002
        random.random()

    def on_train_epoch_end(self, *_: Any) -> None:
        self.epochs += 1
        torch.manual_seed(0)

    on_fit_start = on_after_backward = on_train_batch_end = on_train_batch_start


def test_watching_changes_no_number_and_no_key(experiment, tmp_path):
    """Of a training that draws at random itself: images are cropped and mirrored."""
    dense = dataclasses.replace(experiment.dense, crop=1, flip=True)
    drawing = dataclasses.replace(experiment, dense=dense, retrain=dataclasses.replace(dense, epochs=1))
    node, alone, _ = aggregate(drawing, tmp_path / "alone")
    callback, named = Drawing(), ("device_stats_monitor", "learning_rate_monitor")
    with watched(callback):
        same, seen, _ = aggregate(watching(drawing, logger="csv", callbacks=named), tmp_path / "seen")
    assert callback.epochs == 2 + 1 + 2  # dense, retrained, aggregator
    assert same.key == node.key
    for call in node.chain():
        one, other = alone.load(call.stage, call.key), seen.load(call.stage, call.key)
        assert (one.manifest["files"], one.meta) == (other.manifest["files"], other.meta)


class Stops(pl.Callback):
    """Ends every training after an epoch."""

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.should_stop = True


class StopsWithinTheLastEpoch(pl.Callback):
    """Ends every training before its last step."""

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        trainer.should_stop = trainer.global_step == trainer.max_epochs * trainer.num_training_batches - 1


class Lengthens(pl.Callback):
    """Adds an epoch to every training."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        trainer.fit_loop.max_epochs += 1


class Shortens(pl.Callback):
    """Leaves batches out."""

    def __init__(self, batches: int) -> None:
        self.batches = batches

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        trainer.limit_train_batches = self.batches


@pytest.mark.parametrize("callback", [Stops(), StopsWithinTheLastEpoch(), Lengthens(), Shortens(1), Shortens(0)])
def test_a_callback_that_changes_how_long_a_training_is_leaves_nothing_in_the_store(experiment, tmp_path, callback):
    refused = pytest.raises(TrainingError, match=r"expected \d+ steps of training, .*got \d+: a callback has changed")
    with refused, watched(callback):
        aggregate(experiment, tmp_path / "store")
    assert not list((tmp_path / "store").rglob("manifest.json"))


def test_an_onlooker_passes_for_its_callback():
    class Bar(lightning.ProgressBar):
        def state_dict(self) -> dict[str, Any]:
            return {"seen": 3}

    bar = Bar()
    onlooker = pickle.loads(pickle.dumps(Onlooker(lightning.LambdaCallback(setup=print))))
    assert isinstance(onlooker, lightning.LambdaCallback)
    assert onlooker.setup.__wrapped__ is print
    seen: Any = Onlooker(bar)
    assert isinstance(seen, lightning.ProgressBar)
    seen._trainer = "somebody"
    assert bar._trainer == "somebody"
    assert is_overridden("state_dict", seen)
    assert not is_overridden("load_state_dict", seen)
    assert (seen.state_key, seen.state_dict()) == (bar.state_key, {"seen": 3})


def test_what_a_killed_training_has_logged_stays(experiment, tmp_path):
    given = watching(experiment, logger="csv")
    node, store, prepared = aggregate(given, tmp_path / "store")
    store._verified.clear()
    (tmp_path / "store" / "artifacts" / node.stage / node.key / "manifest.json").unlink()
    with pytest.warns(RuntimeWarning, match="is damaged"):
        grid.run_node(node, prepared, store, lambda *_: None)
    logs = Path(experiment.output) / experiment.name / "logs" / f"aggregate-{node.key[:12]}"
    assert sorted(path.name for path in logs.iterdir()) == ["training-1", "training-1.2"]


def test_a_rehearsal_logs_nothing_and_nobody_watches_it(experiment):
    class Never(pl.Callback):
        def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            raise AssertionError

    small = dataclasses.replace(
        watching(experiment, logger="csv"), aggregators=("lstm",), pruners=("none",), ratios=(1.0,)
    )
    with watched(Never()):
        assert Rehearsal(grid.prepare(small)).failed == {}
    assert not (Path(experiment.output) / experiment.name / "logs").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ["--trainer.callbacks=[os.system]"],
            "expected some of device_stats_monitor, learning_rate_monitor, .*'os.system'",
        ),
        (
            ["--trainer.callbacks=[early_stopping]"],
            "early_stopping, which changes what is trained, .*; set fit.patience",
        ),
        (["--trainer.callbacks=[model_pruning]"], "model_pruning, which changes .*; name a pruner under pruners"),
        (
            ["--trainer.callbacks=[learning_rate_monitor]"],
            "learning_rate_monitor needs a logger, got trainer.logger=none",
        ),
        (
            ["--trainer.callbacks=[{name: learning_rate_monitor, often: 3}]", "--trainer.logger=csv"],
            "expected options that learning_rate_monitor of Lightning has, got .*often",
        ),
        (
            ["--trainer.callbacks=[{name: learning_rate_monitor, logging_interval: x}]", "--trainer.logger=csv"],
            "logging_interval should be `step` or `epoch`",
        ),
        (["--trainer.callbacks=[{label: x}]"], "expected some of .*, got 'None'"),
        (["--trainer.logger=paper"], "trainer.logger"),
    ],
)
def test_what_is_no_watching_is_refused_before_any_training(options, said):
    with pytest.raises(ConfigError, match=said):
        check(parse(options)[0].trainer)


def test_a_logger_that_is_not_installed_is_told(experiment, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"trainer\.logger: tensorboard needs the package tensorboard, .*pip install"):
        check(watching(experiment, logger="tensorboard").trainer)


def test_a_callback_of_ones_own_must_only_look():
    refused = pytest.raises(ConfigError, match="expected callbacks that only look, got EarlyStopping, which changes")
    with refused, watched(lightning.EarlyStopping("train/loss")):
        pass
    refused = pytest.raises(ConfigError, match=r"expected a pytorch_lightning\.Callback, got str; pass an instance")
    with refused, watched("learning_rate_monitor"):
        pass
