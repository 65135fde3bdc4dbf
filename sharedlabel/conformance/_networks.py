"""The networks that pruners are tried on, and what they are asked."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import unittest.mock
import weakref
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import nn

from sharedlabel import plugins, rng
from sharedlabel.backbones._base import Backbone
from sharedlabel.config import Plugin
from sharedlabel.conformance._promise import Inapplicable
from sharedlabel.errors import CompressionError
from sharedlabel.measurements import counts
from sharedlabel.pruners import _channels, _masks, _methods, _removal
from sharedlabel.pruners._base import Context

SHAPE, CLASSES = (3, 8, 8), 4
NETWORKS: dict[str, dict[str, Any]] = {"mlp": {"widths": (24, 12)}, "resnet_cifar": {"depth": 8, "width": 6}}
RATIOS = (1.0, 1.4, 2.0, 3.7, 8.0)
_QUICK = {"rounds": 8}  # of what a pruner trains by itself: what it promises holds for any number


class Removal(NamedTuple):
    """Channels that were removed: the smaller network, the one before, and which channels stay."""

    small: Backbone
    before: Backbone
    keep: Mapping[str, torch.Tensor]


class Subject:
    """A pruner that is tried.

    Args:
        plugin: with its options.
    """

    def __init__(self, plugin: Plugin) -> None:
        self.plugin = plugin
        names = {item.name for item in dataclasses.fields(plugin.config)}
        self.config = dataclasses.replace(
            plugin.config, **{name: count for name, count in _QUICK.items() if name in names}
        )
        self._ceilings = weakref.WeakKeyDictionary[Backbone, float]()  # networks are asked more than once

    @property
    def module(self) -> ModuleType:
        """The plugin's module."""
        return plugins.load("pruners", self.plugin.name)

    @property
    def structured(self) -> bool:
        """Whether it removes parameters physically."""
        return bool(self.module.STRUCTURED)

    @property
    def repeatable(self) -> Any:
        """Whether it prunes its own result."""
        return getattr(self.module, "REPEATABLE", True)

    def refusal(self, dense: Backbone) -> str:
        """Return why it does not take a network; empty if it does."""
        try:
            self.ceiling(dense)
        except CompressionError as error:
            return str(error)
        return ""

    def networks(self) -> Iterator[Backbone]:
        """Yield the networks that it takes, each new."""
        for name, top in self._taken.items():
            dense = build(name)
            self._ceilings[dense] = top
            yield dense

    @functools.cached_property
    def _taken(self) -> dict[str, float]:
        """The networks that it takes, by name, each with its ceiling: they are the same whenever they are built."""
        dense = {name: build(name) for name in NETWORKS}
        return {name: self.ceiling(network) for name, network in dense.items() if not self.refusal(network)}

    def ceiling(self, dense: Backbone) -> float:
        """Return the largest ratio that it says it reaches."""
        if dense not in self._ceilings:
            self._ceilings[dense] = _methods.ceiling(self.module, dense, self.config)
        return self._ceilings[dense]

    def reachable(self, dense: Backbone) -> list[float]:
        """Return the ratios to try on a network."""
        return [ratio for ratio in RATIOS if ratio <= self.ceiling(dense)]

    def prune(self, dense: Backbone, ratio: float, **options: Any) -> Backbone:
        """Prune a network."""
        context = Context(rng.generator(0, "prune"), images(), torch.arange(16) % CLASSES, images(), train)
        return _methods.prune(self.module, dense, ratio, dataclasses.replace(self.config, **options), context)

    def most(self, dense: Backbone) -> Backbone:
        """Prune a network to the largest ratio that is tried."""
        return self.prune(dense, self.reachable(dense)[-1])

    def scopes(self) -> list[dict[str, str]]:
        """Return the scopes that it has, as options."""
        has_scope = "scope" in {item.name for item in dataclasses.fields(self.config)}
        return [{"scope": "global"}, {"scope": "layer"}] if has_scope else [{}]


def build(name: str) -> Backbone:
    """Build a network to prune."""
    module = plugins.load("backbones", name)
    with rng.seeded(0, "dense"):
        backbone: Backbone = module.build(module.Config(**NETWORKS[name]), SHAPE, CLASSES)
    return backbone


def images() -> torch.Tensor:
    """Return images to prune with."""
    return torch.rand(16, *SHAPE, generator=rng.generator(0, "images"))


def train(network: Backbone) -> None:
    """Take a few steps on whatever requires a gradient."""
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    descend(network.train(), torch.optim.SGD(trainable, lr=0.1))
    network.eval()


def descend(network: Backbone, optimiser: torch.optim.Optimizer) -> None:
    """Take three steps."""
    for _ in range(3):
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(network(images()), torch.arange(16) % CLASSES)
        loss.backward()
        optimiser.step()


def equal(one: Backbone, other: Backbone) -> bool:
    """Tell whether two networks hold the same."""
    left, right = one.state_dict(), other.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def largest_channel(dense: Backbone) -> int:
    """Count the parameters that go with the largest channel of a network."""
    channel_groups = _channels.groups(dense)
    sizes = torch.tensor([group.size for group in channel_groups.values()])
    without_one = _channels.parameter_counts(dense, channel_groups, sizes - torch.eye(len(sizes), dtype=torch.int64))
    return counts.parameters(dense) - int(without_one.min())


def kept(pruned: Backbone) -> torch.Tensor:
    """Return which of all maskable weights are kept."""
    return torch.cat([mask.flatten() for _, _, mask in _masks.masked(pruned)] or [torch.ones(1)]).bool()


@contextlib.contextmanager
def removals() -> Iterator[list[Removal]]:
    """Note what is removed physically inside."""
    seen: list[Removal] = []

    def remove(backbone: Backbone, channel_groups: Any, keep: Mapping[str, torch.Tensor]) -> Backbone:
        small = _removal.remove(backbone, channel_groups, keep)
        seen.append(Removal(small, backbone, keep))
        return small

    with unittest.mock.patch.object(_channels, "remove", remove):
        yield seen


def only(applies: object, why: str) -> None:
    """Leave a promise untried where it says nothing of a plugin.

    Raises:
        Inapplicable: says why.
    """
    if not applies:
        raise Inapplicable(why)
