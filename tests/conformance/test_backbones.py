"""What every backbone has to do, over the backbones found in the folder."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from sharedlabel import plugins, rng
from sharedlabel.backbones._base import Backbone

SHAPES = [(1, 8, 8), (3, 16, 12)]
CLASSES = 5


@pytest.fixture(params=plugins.available("backbones"), scope="module")
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=SHAPES, ids=str, scope="module")
def shape(request: pytest.FixtureRequest) -> tuple[int, int, int]:
    return request.param


@pytest.fixture(scope="module")
def backbone(name: str, shape: tuple[int, int, int]) -> Backbone:
    module = plugins.load("backbones", name)
    with rng.seeded(0, "backbone"):
        built = module.build(module.Config(), shape, CLASSES)
    assert isinstance(built, Backbone)
    return built.eval()


def images(shape: tuple[int, int, int], count: int = 6) -> torch.Tensor:
    return torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=rng.generator(0, "images"))


def test_config_is_frozen_with_defaults(name: str) -> None:
    config = plugins.load("backbones", name).Config()
    field = dataclasses.fields(config)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(config, field, None)


def test_forward_classifies_the_embedding(backbone: Backbone, shape: tuple[int, int, int]) -> None:
    batch = images(shape)
    embedding = backbone.embed(batch)
    assert embedding.shape == (6, backbone.embedding_dim)
    assert backbone(batch).shape == (6, CLASSES)
    assert torch.equal(backbone.classify(embedding), backbone(batch))


def test_bytes_are_the_floats_they_stand_for(backbone: Backbone, shape: tuple[int, int, int]) -> None:
    batch = images(shape)
    torch.testing.assert_close(backbone(batch), backbone(batch.float() / 255))


def test_statistics_are_applied(backbone: Backbone, shape: tuple[int, int, int]) -> None:
    batch = images(shape)
    plain = backbone(batch.float() / 255)
    backbone.normalize.mean.fill_(0.25)
    backbone.normalize.std.fill_(0.5)
    shifted = backbone(batch.float() / 255 / 2 + 0.25)
    backbone.normalize.mean.zero_()
    backbone.normalize.std.fill_(1)
    torch.testing.assert_close(shifted, plain, rtol=1e-4, atol=1e-4)


def test_evaluation_does_not_look_at_the_batch(backbone: Backbone, shape: tuple[int, int, int]) -> None:
    batch = images(shape)
    alone = torch.cat([backbone(image[None]) for image in batch])
    torch.testing.assert_close(backbone(batch), alone, rtol=1e-4, atol=1e-5)


def test_gradients_reach_every_parameter(name: str, shape: tuple[int, int, int]) -> None:
    module = plugins.load("backbones", name)
    with rng.seeded(1, "backbone"):
        built = module.build(module.Config(), shape, CLASSES).train()
        built(images(shape, 16)).square().sum().backward()
    untouched = [key for key, p in built.named_parameters() if p.grad is None or not p.grad.any()]
    assert untouched == []


def test_same_seed_same_network(name: str, shape: tuple[int, int, int], backbone: Backbone) -> None:
    module = plugins.load("backbones", name)
    with rng.seeded(0, "backbone"):
        again = module.build(module.Config(), shape, CLASSES)
    state = backbone.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in again.state_dict().items())
