"""On a GPU, tensors lie where they are computed with, and no step of a training waits for a copy or a number.

Tensors are fake: they have a shape, a type and a device, and no values, so no GPU is needed. What mixes devices, or
asks for a value, is refused as a GPU would refuse it, or seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import sharedlabel as sl
from sharedlabel import plugins, rng
from sharedlabel.aggregators import lstm
from sharedlabel.aggregators._base import Aggregator
from sharedlabel.backbones import resnet_cifar
from sharedlabel.backbones._base import Backbone
from sharedlabel.config import resolve
from sharedlabel.pruners import magnitude
from sharedlabel.pruners._base import Context
from sharedlabel.pruners._methods import prune
from sharedlabel.training import aggregator as training
from sharedlabel.training.loop import Loop
from sharedlabel.types import SetShape

N, WIDTH, CLASSES, TUPLES = 8, 6, 5, 16
GPU = torch.device("cuda")
SHAPE = SetShape(torch.zeros(WIDTH), torch.ones(WIDTH), torch.full((CLASSES,), 1 / CLASSES).log())


class Crossings(TorchDispatchMode):
    """Notes the operations that take tensors of several devices, or bring one to another; scalars may."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = [one for one in tree_leaves((args, kwargs or {})) if isinstance(one, Tensor) and one.ndim]
        places = {one.device.type for one in given}
        if given and (kwargs or {}).get("device") is not None:
            places.add(torch.device((kwargs or {})["device"]).type)
        if len(places) > 1:
            self.seen.append(str(function))
        return function(*args, **(kwargs or {}))


@pytest.fixture
def crossings(monkeypatch: pytest.MonkeyPatch) -> Iterator[Crossings]:
    monkeypatch.setattr(torch.backends.cudnn, "enabled", False)  # recurrent layers would ask for the library itself
    with FakeTensorMode(), Crossings() as seen:
        yield seen


def built(name: str) -> Aggregator:
    plugin = resolve("aggregators", name)
    made: Aggregator = plugins.load("aggregators", plugin.name).build(plugin.config, SHAPE)
    return made


Network = TypeVar("Network", bound=nn.Module)


def moved(network: Network) -> Network:
    """Put fake parameters and buffers on a GPU in the places of a network's own."""
    for module in network.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                fake = torch.empty(parameter.shape, dtype=parameter.dtype, device=GPU)
                module._parameters[name] = nn.Parameter(fake, requires_grad=parameter.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device=GPU)
        if isinstance(module, nn.RNNBase):
            module._flat_weights = [module._parameters[name] for name in module._flat_weights_names]
    return network


def batch() -> list[Tensor]:
    embeddings, logits = torch.randn(TUPLES, N, WIDTH, device=GPU), torch.randn(TUPLES, N, CLASSES, device=GPU)
    return [embeddings, logits, torch.zeros(TUPLES, dtype=torch.long, device=GPU), torch.ones(TUPLES, device=GPU)]


NAMES = plugins.available("aggregators")
TRAINED = [name for name in NAMES if any(parameter.requires_grad for parameter in built(name).parameters())]


@pytest.mark.parametrize("name", TRAINED)
def test_a_step_of_training(name: str, request: pytest.FixtureRequest) -> None:
    aggregator = built(name)
    counted, importance = training._weighted(aggregator, N)  # of the epoch, whose first step looks for them
    module = sl.AggregatorModule(aggregator)
    crossings = request.getfixturevalue("crossings")
    moved(aggregator)
    module._trainer = Loop(1, 1, "32-true")  # type: ignore[assignment]
    module._counted[N] = counted, torch.empty(importance.shape, device=GPU)
    loss = module.training_step(batch())
    assert (loss.device.type, loss.shape, crossings.seen) == ("cuda", (), [])


@pytest.mark.parametrize("draft", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_posteriors_of_tuples_that_share_instances(name: str, draft: bool, request: pytest.FixtureRequest) -> None:
    aggregator = built(name).eval()
    crossings = request.getfixturevalue("crossings")
    moved(aggregator)
    embeddings, logits = torch.randn(40, WIDTH, device=GPU), torch.randn(40, CLASSES, device=GPU)
    tuples = torch.zeros(20, N, dtype=torch.long, device=GPU)
    posterior = aggregator.over(embeddings, logits, tuples, [1, 2, N], draft=draft)
    assert (posterior.device.type, posterior.shape, crossings.seen) == ("cuda", (20, 3, CLASSES), [])


@pytest.fixture
def network() -> Backbone:
    """A network with masks."""
    dense = resnet_cifar.build(resnet_cifar.Config(depth=8), (3, 8, 8), CLASSES)
    return prune(magnitude, dense, 4.0, magnitude.Config(), Context(generator=rng.generator(0, "prune")))


def labels(count: int) -> Tensor:
    return torch.zeros(count, dtype=torch.long, device=GPU)


def test_a_step_of_a_backbone(network: Backbone, request: pytest.FixtureRequest) -> None:
    module = sl.BackboneModule(network, crop=2, flip=True, label_smoothing=0.1).train()
    crossings = request.getfixturevalue("crossings")
    moved(network)
    module._trainer = Loop(1, 1, "32-true")  # type: ignore[assignment]
    images = torch.zeros(TUPLES, 3, 8, 8, dtype=torch.uint8, device=GPU)
    loss = module.training_step([images, labels(TUPLES)])
    assert (loss.device.type, loss.shape, crossings.seen) == ("cuda", (), [])


def test_a_step_of_joint_training(network: Backbone, request: pytest.FixtureRequest) -> None:
    width = network.embedding_dim
    shape = SetShape(torch.zeros(width), torch.ones(width), SHAPE.log_prior)
    module = sl.SharedLabelModule(network, lstm.build(lstm.Config(), shape), distill=1.0).train()
    crossings = request.getfixturevalue("crossings")
    moved(module)
    module._trainer = Loop(1, 1, "32-true")  # type: ignore[assignment]
    images = torch.zeros(4, N, 3, 8, 8, dtype=torch.uint8, device=GPU)
    taught = torch.zeros(4, N, CLASSES, device=GPU)
    loss = module.training_step([images, taught, labels(4), torch.ones(4, device=GPU)])
    assert (loss.device.type, loss.shape, crossings.seen) == ("cuda", (), [])


def test_what_crosses_is_seen(crossings: Crossings) -> None:
    torch.zeros(4, 2, device=GPU)[torch.zeros(2, dtype=torch.long)]
    torch.ones(3).to(GPU)
    assert len(crossings.seen) == 2
    with pytest.raises(RuntimeError, match="device"):
        torch.ones(3) + torch.ones(3, device=GPU)
