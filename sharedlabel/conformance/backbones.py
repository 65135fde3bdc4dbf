"""What every backbone promises: see `backbones/_base.py`."""

from __future__ import annotations

import dataclasses
import functools
from types import ModuleType

import torch

from sharedlabel import plugins, rng
from sharedlabel.backbones._base import Backbone
from sharedlabel.config import Plugin
from sharedlabel.conformance._promise import Promises, expect
from sharedlabel.errors import ContractError

Shape = tuple[int, int, int]
SHAPES: tuple[Shape, ...] = ((1, 8, 8), (3, 16, 12))
CLASSES = 5
PROMISES = Promises()


class Subject:
    """A backbone that is tried, built for images of several shapes.

    Args:
        plugin: with its options.
    """

    def __init__(self, plugin: Plugin) -> None:
        self.plugin = plugin

    @property
    def module(self) -> ModuleType:
        """The plugin's module."""
        return plugins.load("backbones", self.plugin.name)

    def build(self, shape: Shape, seed: int = 0) -> Backbone:
        """Build it anew."""
        with rng.seeded(seed, "backbone"):
            built = self.module.build(self.plugin.config, shape, CLASSES)
        if not isinstance(built, Backbone):
            raise ContractError(f"expected `build` to return a Backbone, got {type(built).__name__}")
        return built

    @functools.cached_property
    def built(self) -> dict[Shape, Backbone]:
        """By image shape, in evaluation mode."""
        return {shape: self.build(shape).eval() for shape in SHAPES}


def images(shape: Shape, count: int = 6) -> torch.Tensor:
    """Return random bytes."""
    return torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=rng.generator(0, "images"))


@PROMISES.add
def frozen_options(subject: Subject) -> None:
    """`Config` is frozen."""
    config = subject.module.Config()
    name = next((item.name for item in dataclasses.fields(config)), "anything")
    try:
        setattr(config, name, None)
    except dataclasses.FrozenInstanceError:
        return
    raise ContractError("expected options that cannot be set, got others; write @dataclass(frozen=True)")


@PROMISES.add
def classifies_embeddings(subject: Subject) -> None:
    """The network is its classifier on its embedding, of the width that it states."""
    for shape, backbone in subject.built.items():
        batch = images(shape)
        embedding, logits = backbone.embed(batch), backbone(batch)
        wanted = (6, backbone.embedding_dim)
        expect(embedding.shape == wanted, f"expected embeddings {list(wanted)}, got {list(embedding.shape)}")
        expect(logits.shape == (6, CLASSES), f"expected logits {[6, CLASSES]}, got {list(logits.shape)}")
        expect(torch.equal(backbone.classify(embedding), logits), "expected classify(embed(x)), got other logits")


@PROMISES.add
def reads_bytes(subject: Subject) -> None:
    """Bytes are the floats that they stand for."""
    for shape, backbone in subject.built.items():
        batch = images(shape)
        torch.testing.assert_close(backbone(batch), backbone(batch.float() / 255))


@PROMISES.add
def normalises(subject: Subject) -> None:
    """Images are normalised by the statistics of the training images."""
    for shape, backbone in subject.built.items():
        batch = images(shape)
        plain = backbone(batch.float() / 255)
        backbone.normalize.mean.fill_(0.25)
        backbone.normalize.std.fill_(0.5)
        shifted = backbone(batch.float() / 255 / 2 + 0.25)
        backbone.normalize.mean.zero_()
        backbone.normalize.std.fill_(1)
        torch.testing.assert_close(shifted, plain, rtol=1e-4, atol=1e-4)


@PROMISES.add
def separate_images(subject: Subject) -> None:
    """In evaluation, an image is itself in whatever batch."""
    for shape, backbone in subject.built.items():
        batch = images(shape)
        alone = torch.cat([backbone(image[None]) for image in batch])
        torch.testing.assert_close(backbone(batch), alone, rtol=1e-4, atol=1e-5)


@PROMISES.add
def gradients(subject: Subject) -> None:
    """Gradients reach every parameter."""
    for shape in SHAPES:
        with rng.seeded(1, "backbone"):
            built = subject.module.build(subject.plugin.config, shape, CLASSES).train()
            built(images(shape, 16)).square().sum().backward()
        untouched = [key for key, p in built.named_parameters() if p.grad is None or not p.grad.any()]
        expect(not untouched, f"expected a gradient of every parameter, got none of {', '.join(untouched)}")


@PROMISES.add
def reproducible(subject: Subject) -> None:
    """The same seed makes the same network."""
    for shape, backbone in subject.built.items():
        state = backbone.state_dict()
        again = subject.build(shape).state_dict()
        expect(
            all(torch.equal(value, state[key]) for key, value in again.items()), "expected the same network, got two"
        )
