"""The plain loop takes the steps that a Lightning Trainer takes, bit for bit, in every precision."""

from __future__ import annotations

import dataclasses
import functools
import typing
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins import MixedPrecision
from torch import Tensor, nn

from sharedlabel import rng
from sharedlabel.aggregators import lstm
from sharedlabel.backbones._base import Backbone
from sharedlabel.config.sections import JointConfig, TrainConfig, TrainerConfig
from sharedlabel.files.unfinished import Unfinished
from sharedlabel.training import callbacks, fit, loop, resume, trainer
from sharedlabel.training.loaders import ImageLoader, TupleLoader
from sharedlabel.training.modules import BackboneModule, SharedLabelModule
from sharedlabel.training.precision import WEIGHTS
from sharedlabel.training.resume import State, Workplace
from sharedlabel.types import SetShape

CPU = TrainerConfig(accelerator="cpu")
BY_LIGHTNING = dataclasses.replace(CPU, options={"enable_progress_bar": False})  # an option is Lightning's to heed
PRECISIONS = sorted({*typing.get_args(typing.get_type_hints(TrainerConfig)["precision"])} - {"16-mixed"})
CLASSES, N = 3, 3
LABELS = torch.arange(72) % CLASSES
IMAGES = torch.randn(72, 1, 4, 4, generator=rng.generator(0, "images")) + LABELS[:, None, None, None]
RECIPE = TrainConfig(epochs=3, batch_size=8, crop=1, flip=True, learning_rate=0.01)


def network() -> Backbone:
    body = nn.Sequential(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.2), nn.AdaptiveAvgPool2d(1))
    return Backbone(body, nn.Linear(6, CLASSES), (1, 4, 4))


def single(optimizer: str) -> tuple[BackboneModule, ImageLoader]:
    recipe = dataclasses.replace(RECIPE, optimizer=optimizer)  # type: ignore[arg-type]
    return BackboneModule.of(network(), recipe), ImageLoader(IMAGES, LABELS, torch.arange(72), 8, 0)


def together() -> tuple[SharedLabelModule, TupleLoader]:
    prior = torch.full((CLASSES,), 1 / CLASSES)
    aggregator = lstm.build(lstm.Config(hidden=8), SetShape(torch.zeros(6), torch.ones(6), prior.log()))
    recipe = JointConfig(epochs=3, batch_norm="running", learning_rate=0.01)
    module = SharedLabelModule.of(network(), aggregator, recipe, 1.3, torch.tensor([0.1, -0.2, 0.1]))
    return module, TupleLoader((IMAGES,), LABELS, N, 6, prior, 0, None)


MADE = {"sgd": lambda: single("sgd"), "adamw": lambda: single("adamw"), "joint": together}


def fitted(kind: str, runtime: TrainerConfig) -> tuple[dict[str, Tensor], list[float]]:
    with rng.seeded(0, "loop"):
        module, loader = MADE[kind]()
        fit.fit(module, loader, runtime, 3, 1.0 if kind == "joint" else 0.0)
    return dict(module.state_dict()), module.losses()


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", MADE)
def test_the_numbers_are_those_of_lightning(kind: str, precision: str) -> None:
    ours, theirs = (fitted(kind, dataclasses.replace(one, precision=precision)) for one in (CPU, BY_LIGHTNING))
    assert ours[1] == theirs[1]
    assert [name for name, tensor in ours[0].items() if not torch.equal(tensor, theirs[0][name])] == []
    assert {tensor.dtype for tensor in ours[0].values()} == {torch.float32, torch.int64}
    if precision != "32-true":
        assert ours[1] != fitted(kind, CPU)[1]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_no_precision_asks_for_a_trainer(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer.pl, "Trainer", None)
    fitted("sgd", dataclasses.replace(CPU, precision=precision))


@pytest.mark.parametrize(("kind", "clip"), [("sgd", 0.0), ("sgd", 0.1)])
def test_gradients_of_16_bits_are_scaled_as_lightning_scales_them(kind: str, clip: float) -> None:
    """On the CPU, which a grid does not ask for this precision; the first steps are skipped: the scale is too large."""
    states = []
    for ours in (True, False):
        with rng.seeded(0, "loop"):
            module, loader = MADE[kind]()
            module.train()
            if ours:
                loop.train(module, loader, 3, torch.device("cpu"), clip, precision="16-mixed")
            else:
                plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))
                with callbacks.without_noise():
                    options = {"max_epochs": 3, "accelerator": "cpu", "gradient_clip_val": clip or None}
                    pl.Trainer(**options, plugins=[plugin], **callbacks.quiet()).fit(module, loader)
        states.append((dict(module.state_dict()), module.losses()))
    (ours_state, ours_losses), (theirs_state, theirs_losses) = states
    assert ours_losses == theirs_losses
    assert [name for name, tensor in ours_state.items() if not torch.equal(tensor, theirs_state[name])] == []


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed", "bf16-true"])
def test_a_training_goes_on_from_what_it_has_left(precision: str, tmp_path: Path) -> None:
    """With the scale of its gradients, too: from the first one, steps would be skipped again."""
    (tmp_path / "partial").mkdir()
    workplace = Workplace(Unfinished(tmp_path / "unfinished" / "key", tmp_path / "partial"), 0.0, Path("logs"))
    whole = taken(precision, None, workplace)
    state = workplace.left(1)
    assert state is not None
    assert 0 < state[resume.LOOP]["epochs"] < 3
    again = taken(precision, state, workplace)
    assert [name for name, tensor in whole.items() if not torch.equal(tensor, again[name])] == []


def taken(precision: str, state: State | None, workplace: Workplace) -> dict[str, Tensor]:
    with rng.seeded(0, "loop"):
        module, loader = MADE["sgd"]()
        module.to(WEIGHTS.get(precision, torch.float32)).train()
        keep = functools.partial(workplace.keep, 1, loader)
        loop.train(module, loader, 3, torch.device("cpu"), 0.0, state, keep, precision)
    return dict(module.state_dict())
