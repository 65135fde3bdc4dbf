"""Features are computed as networks are trained: in their precision and memory format, and stored in 32 bits."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from sharedlabel import rng
from sharedlabel.backbones import resnet_cifar
from sharedlabel.backbones._base import Backbone
from sharedlabel.config.sections import TrainerConfig
from sharedlabel.pruners import magnitude
from sharedlabel.pruners._base import Context
from sharedlabel.pruners._methods import prune
from sharedlabel.training import embedding

CPU = TrainerConfig(accelerator="cpu")
IMAGES = torch.randint(0, 256, (40, 3, 8, 8), dtype=torch.uint8, generator=rng.generator(0, "images"))
ORDER = torch.arange(39, -1, -1)


@pytest.fixture
def network() -> Backbone:
    with rng.seeded(0, "embedding"):
        dense = resnet_cifar.build(resnet_cifar.Config(depth=8), (3, 8, 8), 5).eval()
        return prune(magnitude, dense, 4.0, magnitude.Config(), Context(generator=rng.generator(0, "prune")))


def embedded(network: Backbone, runtime: TrainerConfig = CPU) -> dict[str, Tensor]:
    (shard,) = embedding.embed(network, IMAGES, ORDER, runtime)
    return shard


def by_hand(network: nn.Module, images: Tensor) -> dict[str, Tensor]:
    made = network.embed(images)  # type: ignore[operator]
    return {"embeddings": made.float(), "logits": network.classify(made).float()}  # type: ignore[operator]


@torch.no_grad()
def test_features_of_32_bits_are_those_of_the_network_bit_for_bit(network: Backbone) -> None:
    expected = by_hand(network, IMAGES[ORDER])
    for name, tensor in embedded(network).items():
        assert torch.equal(tensor, expected[name]), name


@torch.no_grad()
@pytest.mark.parametrize(("precision", "kind"), [("bf16-mixed", torch.bfloat16), ("bf16-true", torch.bfloat16)])
def test_features_of_16_bits_are_those_of_the_network_in_them(
    network: Backbone, precision: str, kind: torch.dtype
) -> None:
    made = embedded(network, dataclasses.replace(CPU, precision=precision))  # type: ignore[arg-type]
    usual = embedded(network)
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}  # whatever it computed in
    if precision == "bf16-mixed":
        with torch.autocast("cpu", kind):
            expected = by_hand(network, IMAGES[ORDER])
    else:
        expected = by_hand(network.to(kind), IMAGES[ORDER])
    for name, tensor in made.items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, expected[name]), name
        assert not torch.equal(tensor, usual[name]), name
        torch.testing.assert_close(tensor, usual[name], atol=0.1, rtol=0.1)


def test_features_of_64_bits_are_rounded_once(network: Backbone) -> None:
    made, usual = embedded(network, dataclasses.replace(CPU, precision="64-true")), embedded(network)
    for name, tensor in made.items():
        assert tensor.dtype == torch.float32
        torch.testing.assert_close(tensor, usual[name], atol=1e-5, rtol=1e-5)


def test_convolutions_see_channels_last_where_they_are_trained_so(network: Backbone) -> None:
    seen: list[bool] = []

    def look(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        del layer, inputs
        seen.append(output.is_contiguous(memory_format=torch.channels_last))

    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(look)
    usual = embedded(network)
    assert not any(seen)
    seen.clear()
    made = embedded(network, dataclasses.replace(CPU, channels_last=True))
    assert all(seen)
    for name, tensor in made.items():
        torch.testing.assert_close(tensor, usual[name], atol=1e-5, rtol=1e-5)
