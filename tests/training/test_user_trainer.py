"""The modules under a Trainer of one's own: loggers, callbacks, checkpoints, more epochs than any recipe."""

from __future__ import annotations

import csv
import inspect
import math
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping, EMAWeightAveraging, LearningRateMonitor, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from sharedlabel import rng
from sharedlabel.aggregators import log_pool, lstm
from sharedlabel.aggregators._base import Aggregator, prefix_loss
from sharedlabel.backbones._base import Backbone
from sharedlabel.errors import ConfigError, TrainingError
from sharedlabel.metrics.accuracy import n_accuracy
from sharedlabel.metrics.information import floor_posterior, label_entropy, log2_posterior_of_label
from sharedlabel.pruners._masks import apply_masks, masked
from sharedlabel.training.callbacks import KeepPruned
from sharedlabel.training.datamodule import Instances, SharedLabelDataModule
from sharedlabel.training.modules import AggregatorModule, BackboneModule, SharedLabelModule
from sharedlabel.training.scores import TupleScores
from sharedlabel.types import SetShape

CLASSES, N = 3, 4
# Lightning's remarks on this machine, and its own use of what newer versions of torch deprecate.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*(does not have many workers|have no `val_dataloader`|logging interval|treespec, LeafSpec)"
)


@pytest.fixture(autouse=True)
def _fixed_start():
    with rng.seeded(0, "tests"):
        yield


def images() -> tuple[torch.Tensor, torch.Tensor]:
    labels = torch.arange(120) % CLASSES
    return torch.randn(120, 1, 4, 4) + 0.5 * labels[:, None, None, None], labels


def network() -> Backbone:
    return Backbone(nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.ReLU()), nn.Linear(6, CLASSES), (1, 4, 4))


def shape(width: int = 6) -> SetShape:
    return SetShape(torch.zeros(width), torch.ones(width), torch.full((CLASSES,), 1 / CLASSES).log())


def aggregator(width: int = 6) -> Aggregator:
    return lstm.build(lstm.Config(hidden=8), shape(width))


def trainer(folder: Path, epochs: int, *callbacks: pl.Callback, **options: Any) -> pl.Trainer:
    options = {"logger": False, "enable_checkpointing": False, **options}
    return pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=list(callbacks),
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


def logged(folder: Path) -> dict[str, list[float]]:
    """Return what a CSVLogger has written, by name."""
    (path,) = folder.rglob("metrics.csv")
    with path.open() as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows if row[name]] for name in rows[0]}


OF_TUPLES = {f"{name}@{size}" for name in ("n_accuracy", "ri") for size in (1, 2, 4)}


def test_a_joint_module_trains_stops_early_and_logs(tmp_path):
    datamodule = SharedLabelDataModule.of_tensors(*images(), n=N, batch_size=4)
    module = SharedLabelModule(network(), aggregator(), learning_rate=0.01)
    stopping, best = EarlyStopping("validation/loss", patience=1, min_delta=1.0), ModelCheckpoint(monitor="train/loss")
    watching = (stopping, best, LearningRateMonitor(), KeepPruned())
    logger = CSVLogger(tmp_path, name="", version="logs")
    user = trainer(tmp_path, 30, *watching, logger=logger, enable_checkpointing=True, log_every_n_steps=1)
    user.fit(module, datamodule)
    assert stopping.stopped_epoch == 1
    (tested,) = user.test(module, datamodule, verbose=False)
    assert set(tested) == {f"test/{name}" for name in {"loss", "accuracy"} | OF_TUPLES}
    told = logged(tmp_path)
    for phase in ("train", "validation"):
        assert {f"{phase}/{name}" for name in {"loss", "accuracy"} | OF_TUPLES} <= set(told)
        assert len(told[f"{phase}/loss"]) == 2
    steps = len(datamodule.train_dataloader())
    assert len(told["train/loss_step"]) == len(told["train/accuracy_step"]) == len(told["lr-AdamW/pg1"]) == 2 * steps
    assert told["train/loss"] == pytest.approx(module.losses(), rel=1e-4)
    assert told["train/loss"][0] == pytest.approx(sum(told["train/loss_step"][:steps]) / steps, rel=1e-4)
    again = SharedLabelModule.load_from_checkpoint(
        best.best_model_path, weights_only=True, backbone=network(), aggregator=aggregator()
    )
    assert (again.hparams["learning_rate"], again.temperature) == (0.01, 1.0)
    assert again.losses() == module.losses()[: len(again.losses())]
    posteriors = torch.cat(user.predict(module, datamodule))
    torch.testing.assert_close(posteriors.exp().sum(-1), torch.ones(len(posteriors), N))


def test_what_is_logged_is_what_the_metrics_say(tmp_path):
    """Over several batches of several sizes, with weights."""
    features, labels = torch.randn(120, 6), torch.arange(120) % CLASSES
    logits, prior = (
        torch.randn(120, CLASSES) + 2 * nn.functional.one_hot(labels, CLASSES),
        torch.tensor([0.6, 0.3, 0.1]),
    )
    instances = Instances((features, logits), labels)
    datamodule = SharedLabelDataModule(instances, instances, instances, n=N, batch_size=7, prior=prior)
    module = AggregatorModule(aggregator())
    user = trainer(tmp_path, 1)
    (told,) = user.test(module, datamodule, verbose=False)
    parts = [torch.cat(part) for part in zip(*datamodule.test_dataloader(), strict=True)]
    with torch.no_grad():
        posterior = module(*parts[:2])
    _, _, truth, weights = parts
    right = n_accuracy(posterior, truth, weights)
    missing = -log2_posterior_of_label(floor_posterior(posterior), truth)
    information = 1 - (weights.double() @ missing) / weights.sum() / label_entropy(prior.log())
    for size in (1, 2, 4):
        assert told[f"test/n_accuracy@{size}"] == pytest.approx(float(right[size - 1]), abs=1e-6)
        assert told[f"test/ri@{size}"] == pytest.approx(float(information[size - 1]), abs=1e-5)
    every = (prefix_loss(posterior, truth).mean(1) * weights).mean()
    assert told["test/loss"] == pytest.approx(float(every), rel=1e-5)


def test_scores_of_one_label_have_no_relative_information():
    scores = TupleScores([1], 2)
    scores.update(torch.zeros(3, 1, 2).log_softmax(-1), torch.zeros(3, dtype=torch.int64), torch.ones(3))
    named = scores.named()
    assert named["n_accuracy@1"] == 1
    assert math.isnan(named["ri@1"])


def test_a_backbone_trains_on_any_loader_of_images_and_labels(tmp_path):
    loader = DataLoader(TensorDataset(*images()), batch_size=20)
    module = BackboneModule(network(), learning_rate=0.02, optimizer="sgd", flip=True)
    user = trainer(tmp_path, 4, EarlyStopping("validation/accuracy", mode="max", patience=10))
    user.fit(module, loader, loader)
    assert module.losses()[-1] < module.losses()[0]
    metrics = user.callback_metrics
    assert {"train/loss", "train/accuracy", "validation/loss", "validation/accuracy"} <= set(metrics)
    (tested,) = user.test(module, loader, verbose=False)
    assert tested["test/accuracy"] == pytest.approx(float(metrics["validation/accuracy"]))
    logits = torch.cat(user.predict(module, loader))
    assert float((logits.argmax(-1) == images()[1]).float().mean()) == pytest.approx(tested["test/accuracy"], abs=0.2)


def test_an_aggregator_trains_with_a_validation_loader_or_with_tuples_to_watch(tmp_path):
    features, labels = torch.randn(120, 6), torch.arange(120) % CLASSES
    logits = torch.randn(120, CLASSES) + nn.functional.one_hot(labels, CLASSES)
    datamodule = SharedLabelDataModule.of_tensors((features, logits), labels, n=N, batch_size=4)
    module = AggregatorModule(aggregator(), learning_rate=0.03)
    user = trainer(tmp_path, 3, EarlyStopping("validation/ri@4", mode="max", patience=5))
    user.fit(module, datamodule)
    assert len(module.losses()) == 3
    assert {f"train/{name}" for name in OF_TUPLES} <= set(user.callback_metrics)
    (watched,) = [tuple(map(torch.cat, zip(*datamodule.val_dataloader(), strict=True)))]
    watching = AggregatorModule(aggregator(), learning_rate=0.5, validation=watched, patience=2)
    user = trainer(tmp_path, 40)
    user.fit(watching, datamodule.train_dataloader())
    assert len(watching.losses()) == watching.best_epoch + 2 < 40
    assert watching._validation_loss(watched) == pytest.approx(watching.best)


def test_a_schedule_is_as_long_as_the_training_and_a_second_fit_goes_on(tmp_path):
    loader = DataLoader(TensorDataset(*images()), batch_size=60)
    module = BackboneModule(network())
    for epochs in (70, 3):
        rates = LearningRateMonitor()
        logger = CSVLogger(tmp_path, name="", version=str(epochs))
        trainer(tmp_path, epochs, rates, logger=logger, log_every_n_steps=1).fit(module, loader)
        written = logged(tmp_path / str(epochs))["lr-AdamW/pg1"]
        assert written == pytest.approx([0.003 * module.scale(step, 2 * epochs) for step in range(2 * epochs)])
    assert len(module.losses()) == 73


def test_averaged_weights_are_no_trouble(tmp_path):
    """They are averages of parameters and buffers, whose shapes must stay."""
    loader, module = DataLoader(TensorDataset(*images()), batch_size=60), BackboneModule(network())
    trainer(tmp_path, 3, EMAWeightAveraging()).fit(module, loader)
    assert len(module.losses()) == 3


def test_a_training_without_an_end_keeps_its_rate(tmp_path):
    loader = DataLoader(TensorDataset(*images()), batch_size=60)
    module = BackboneModule(network())

    class Stop(pl.Callback):
        def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            assert trainer.optimizers[0].param_groups[0]["lr"] == 0.003
            trainer.should_stop = pl_module.current_epoch == 2

    trainer(tmp_path, -1, Stop()).fit(module, loader)
    assert len(module.losses()) == 3


def test_a_checkpoint_of_ones_own_goes_on_with_the_next_tuples(tmp_path):
    """A Trainer's `ckpt_path`: weights, schedule and the epoch that tuples depend on."""

    def parts() -> tuple[SharedLabelModule, SharedLabelDataModule]:
        with rng.seeded(0, "parts"):
            pixels, labels = images()
            module = SharedLabelModule(network(), aggregator(), learning_rate=0.01)
        return module, SharedLabelDataModule.of_tensors(pixels, labels, n=N, batch_size=4)

    class Half(pl.Callback):
        def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            trainer.should_stop = pl_module.current_epoch == 1

    whole, data = parts()
    trainer(tmp_path, 4).fit(whole, data)
    first, data = parts()
    begun = trainer(tmp_path, 4, Half())
    begun.fit(first, data)
    begun.save_checkpoint(tmp_path / "half.ckpt")
    second, data = parts()
    trainer(tmp_path, 4).fit(second, data, ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    assert second.losses() == whole.losses()
    expected = whole.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in second.state_dict().items())


def test_keep_pruned_sets_what_was_written_behind_masks_to_zero(tmp_path):
    backbone = network()
    apply_masks(backbone, {"body.1": (torch.rand(6, 16) < 0.5).float()})
    keep, loader = KeepPruned(), DataLoader(TensorDataset(*images()), batch_size=60)
    module = BackboneModule(backbone)

    class Vandal(pl.Callback):
        def on_train_batch_start(self, *_: Any) -> None:
            with torch.no_grad():
                backbone.body[1].weight.add_(0.1)

    trainer(tmp_path, 2, keep, Vandal()).fit(module, loader)
    (_, weight, mask) = next(masked(backbone))
    assert keep.written == int((mask == 0).sum())
    assert not weight[mask == 0].any()


def test_keep_pruned_keeps_zeros_that_were_baked_in(tmp_path):
    backbone = network()
    with torch.no_grad():
        backbone.body[1].weight[:, ::2] = 0
    loader = DataLoader(TensorDataset(*images()), batch_size=60)
    trainer(tmp_path, 2).fit(BackboneModule(backbone), loader)
    assert backbone.body[1].weight[:, ::2].all()
    with torch.no_grad():
        backbone.body[1].weight[:, ::2] = 0
    keep = KeepPruned(zeros=True)
    trainer(tmp_path, 2, keep).fit(BackboneModule(backbone), loader)
    assert not backbone.body[1].weight[:, ::2].any()
    assert backbone.body[1].weight[:, 1::2].all()
    assert keep.written == 48


def test_keep_pruned_counts_what_was_behind_masks_and_what_was_zero_together():
    backbone = nn.Sequential(network(), nn.Linear(4, 2, dtype=torch.float64))
    apply_masks(backbone[0], {"body.1": (torch.rand(6, 16) < 0.5).float()})
    with torch.no_grad():
        backbone[1].weight[0] = 0
    keep = KeepPruned(zeros=True)
    keep.begin(backbone)
    (_, weight, mask) = next(masked(backbone))
    with torch.no_grad():
        weight.add_(10)
        backbone[1].weight.add_(10)
    kept = weight[mask == 1].clone(), backbone[1].weight[1].clone()
    keep.enforce()
    assert keep.written == int((mask == 0).sum()) + 4
    assert not weight[mask == 0].any()
    assert not backbone[1].weight[0].any()
    assert torch.equal(weight[mask == 1], kept[0])
    assert torch.equal(backbone[1].weight[1], kept[1])


@pytest.mark.parametrize(
    ("make", "options", "said"),
    [
        (
            SharedLabelModule,
            {"batch_norm": "Frozen"},
            "batch_norm: expected 'frozen' or 'running', got 'Frozen'; write",
        ),
        (SharedLabelModule, {"distill": -1}, "distill: expected a number from 0 to 1000000.*, got -1"),
        (SharedLabelModule, {"set_loss": "1"}, "set_loss: expected a number from 0 to 1000000.*, got '1'; write 1"),
        (SharedLabelModule, {"instance_loss": math.nan}, "instance_loss: expected a finite number, got nan"),
        (SharedLabelModule, {"temperature": 0}, "temperature: expected a number above 0, got 0"),
        (SharedLabelModule, {"learning_rate": -1}, "learning_rate: expected a number .*above 0.*, got -1"),
        (AggregatorModule, {"learning_rate": -1}, "learning_rate: expected a number .*above 0.*, got -1"),
        (AggregatorModule, {"patience": 0}, "patience: expected a whole number from 1 to 1000000, got 0"),
        (BackboneModule, {"learning_rate": 0}, "learning_rate: expected a number .*above 0.*, got 0"),
        (BackboneModule, {"optimizer": "adam"}, "optimizer: expected 'sgd' or 'adamw', got 'adam'; write adamw"),
        (BackboneModule, {"schedule": "linear"}, "schedule: expected 'cosine' or 'constant', got 'linear'"),
        (BackboneModule, {"warmup": 2}, "warmup: expected a number from 0 to 1, got 2"),
        (BackboneModule, {"crop": -1}, "crop: expected a whole number from 0 to 1000000, got -1"),
        (BackboneModule, {"flip": "yes"}, "flip: expected true or false, got 'yes'; write true"),
    ],
)
def test_options_that_no_recipe_takes_are_refused_when_a_module_is_made(make, options, said, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as it is for users
    parts = {"backbone": network(), "aggregator": aggregator()}
    given = {name: part for name, part in parts.items() if name in inspect.signature(make).parameters}
    with pytest.raises(ConfigError, match=said):
        make(**given, **options)


def test_what_cannot_be_trained_is_said_in_a_sentence(tmp_path):
    with pytest.raises(
        ConfigError, match=r"expected a backbone with embed\(images\) and .*, got Linear without embed and"
    ):
        SharedLabelModule(nn.Linear(2, 2), aggregator())
    fixed = AggregatorModule(log_pool.build(log_pool.Config(), shape()))
    loader = SharedLabelDataModule.of_tensors((torch.randn(60, 6), torch.randn(60, 3)), torch.arange(60) % 3, n=2)
    with pytest.raises(TrainingError, match="expected something to train, got AggregatorModule without a parameter"):
        trainer(tmp_path, 1).fit(fixed, loader.train_dataloader())
    taught = SharedLabelModule(network(), aggregator(), distill=0.5)
    with pytest.raises(TrainingError, match=r"expected batches with the log-posteriors of a teacher for distill=0\.5"):
        taught.training_step((torch.randn(2, N, 1, 4, 4), torch.tensor([0, 1])))
