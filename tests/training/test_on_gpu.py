"""What a GPU alone can show: no step waits for it, and its numbers are those of a CPU but for rounding."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import jaxtyping
import pytest
import torch
from torch import Tensor

import sharedlabel as sl
from sharedlabel import grid, plugins, rng
from sharedlabel.backbones import resnet_cifar
from sharedlabel.backbones._base import Backbone
from sharedlabel.config import Experiment, resolve
from sharedlabel.config.sections import TrainConfig, TrainerConfig
from sharedlabel.data import tuples
from sharedlabel.pruners import magnitude
from sharedlabel.pruners._base import Context
from sharedlabel.pruners._methods import prune
from sharedlabel.scoring.data import Data
from sharedlabel.store import Store
from sharedlabel.training import compression, embedding, loop, resident
from sharedlabel.training.loaders import TupleLoader
from sharedlabel.training.sending import sent
from sharedlabel.types import ROLES, Dataset, SetShape

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

GPU, ON_GPU, ON_CPU = torch.device("cuda"), TrainerConfig(accelerator="gpu"), TrainerConfig(accelerator="cpu")
CLASSES, WIDTH, N = 4, 6, 8
RECIPE = TrainConfig(epochs=3, batch_size=32, optimizer="sgd", learning_rate=0.05, crop=1, flip=True)


@contextlib.contextmanager
def waiting_for_nothing() -> Iterator[None]:
    """Make whatever waits for the GPU in the block an error."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


@pytest.fixture
def no_step_waits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Make steps of the plain loop that wait an error, but for the first, which makes the optimiser's state."""
    taken: list[int] = []
    step = loop._Step.__call__

    def held(self: loop._Step, batch: list[Tensor]) -> None:
        taken.append(len(taken))
        with waiting_for_nothing() if len(taken) > 1 else contextlib.nullcontext():
            step(self, batch)

    monkeypatch.setattr(loop._Step, "__call__", held)
    return taken


@pytest.fixture
def data() -> Data:
    labels = torch.arange(400) % CLASSES
    noise = torch.randint(0, 100, (400, 3, 8, 8), generator=rng.generator(0, "images"))
    images = (noise + 50 * labels[:, None, None, None]).to(torch.uint8)
    dataset = Dataset("noise", images, labels, tuple("abcd"), None, None, "")
    parts = zip(ROLES, torch.arange(400).split(100), strict=True)
    return Data(dataset, dict(parts), tuples.prior(labels, "uniform", CLASSES), "key")


def network() -> Backbone:
    with rng.seeded(0, "gpu"):
        dense = resnet_cifar.build(resnet_cifar.Config(depth=8), (3, 8, 8), CLASSES)
        return prune(magnitude, dense, 2.0, magnitude.Config(), Context(generator=rng.generator(0, "prune")))


def test_batches_come_whole_through_pinned_memory_while_the_gpu_is_at_work() -> None:
    batches = [[torch.full((256, 3, 32, 32), number % 251, dtype=torch.uint8)] for number in range(60)]
    busy, means = torch.randn(2048, 2048, device=GPU), []
    for (batch,) in sent(batches, GPU):
        busy = (busy @ busy).clamp(-1, 1)
        means.append(batch.float().mean())
    assert torch.stack(means).tolist() == [number % 251 for number in range(60)]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("there", [True, False])
def test_no_step_of_a_backbone_waits(
    data: Data, precision: str, optimizer: str, there: bool, no_step_waits: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not there:
        monkeypatch.setattr(resident, "_free", lambda _: 0)
    runtime = dataclasses.replace(ON_GPU, precision=precision, channels_last=True)  # type: ignore[arg-type]
    recipe = dataclasses.replace(RECIPE, optimizer=optimizer, learning_rate=0.005)  # type: ignore[arg-type]
    losses = compression.train(network(), recipe, data, runtime, 0)
    assert len(no_step_waits) == 9
    assert losses[-1] < losses[0]


def test_gradients_of_16_bits_are_scaled(data: Data) -> None:
    losses = compression.train(network(), RECIPE, data, dataclasses.replace(ON_GPU, precision="16-mixed"), 0)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", plugins.available("aggregators"))
def test_no_step_of_an_aggregator_waits(name: str, no_step_waits: list[int]) -> None:
    draw, labels = rng.generator(0, "features"), torch.arange(320) % CLASSES
    prior = torch.full((CLASSES,), 1 / CLASSES)
    plugin = resolve("aggregators", name)
    shape = SetShape(torch.zeros(WIDTH), torch.ones(WIDTH), prior.log())
    aggregator = plugins.load("aggregators", plugin.name).build(plugin.config, shape)
    if not any(parameter.requires_grad for parameter in aggregator.parameters()):
        pytest.skip("nothing to train")
    sources = (torch.randn(320, WIDTH, generator=draw).to(GPU), torch.randn(320, CLASSES, generator=draw).to(GPU))
    loader = TupleLoader(sources, labels, N, 8, prior, 0, None)
    module = sl.AggregatorModule(aggregator).train()
    loop.train(module, loader, 2, GPU, 1.0)
    assert len(no_step_waits) == 10


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_features_are_those_of_a_cpu_but_for_rounding(data: Data, precision: str) -> None:
    tolerance = 1e-3 if precision == "32-true" else 0.1
    made = []
    for place in (ON_GPU, ON_CPU):
        runtime = dataclasses.replace(place, precision=precision, channels_last=True)  # type: ignore[arg-type]
        made.append(next(embedding.embed(network(), data.dataset.images, torch.arange(400), runtime)))
    for name, tensor in made[0].items():
        torch.testing.assert_close(tensor, made[1][name], atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("mode", [True, "reduce-overhead"])
def test_compiled_trainings_learn_as_others_do(data: Data, mode: bool | str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # its checks cannot be compiled
    losses = []
    for how in (False, mode, mode):  # the last one in the graphs of the one before
        with rng.seeded(0, "augmentation"):
            losses.append(compression.train(network(), RECIPE, data, dataclasses.replace(ON_GPU, compile=how), 0))  # type: ignore[arg-type]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    assert losses[2] == pytest.approx(losses[0], rel=0.02)


def test_a_grid_is_computed_from_the_first_training_to_the_scores(experiment: Experiment, tmp_path: Path) -> None:
    runtime = dataclasses.replace(experiment.trainer, accelerator="gpu", precision="bf16-mixed", cudnn_benchmark=True)
    given = dataclasses.replace(
        experiment,
        trainer=runtime,
        aggregators=("log_pool", "refit_pool", "crafted_lstm", "set_transformer"),
        training=("frozen", "crossfit", {"name": "joint", "epochs": 1, "distill": 1.0}),
    )
    prepared, store = grid.prepare(given), Store(tmp_path / "store")
    for cell in prepared.cells:
        for call in cell.calls():
            made = grid.run_node(call, prepared, store, lambda *_: None)
            assert all(bool(tensor.isfinite().all()) for tensor in made.tensors().values())
