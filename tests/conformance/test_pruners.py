"""What every pruner has to do, over the pruners channel_groups in the folder."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
from collections.abc import Mapping
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

from sharedlabel import cost, plugins, rng
from sharedlabel.backbones._base import Backbone
from sharedlabel.config import Schedule
from sharedlabel.errors import CompressionError
from sharedlabel.pruners import _channels, _masks, _methods, _removal
from sharedlabel.pruners._base import REQUIREMENTS, Context, rounded_down

SHAPE, CLASSES = (3, 8, 8), 4
NETWORKS = {"mlp": {"widths": (24, 12)}, "resnet_cifar": {"depth": 8, "width": 6}}
RATIOS = (1.0, 1.4, 2.0, 3.7, 8.0)


class Removal(NamedTuple):
    """Channels that were removed: the smaller network, the one before, and which channels stay."""

    small: Backbone
    before: Backbone
    keep: Mapping[str, torch.Tensor]


@pytest.fixture(params=plugins.available("pruners"))
def pruner(request: pytest.FixtureRequest) -> ModuleType:
    return plugins.load("pruners", request.param)


def build(name: str) -> Backbone:
    module = plugins.load("backbones", name)
    with rng.seeded(0, "dense"):
        backbone: Backbone = module.build(module.Config(**NETWORKS[name]), SHAPE, CLASSES)
    return backbone


def refusal(pruner: ModuleType, backbone: Backbone) -> str:
    """Return why a pruner does not take a network; empty if it does."""
    try:
        _methods.ceiling(pruner, backbone, pruner.Config())
    except CompressionError as error:
        return str(error)
    return ""


@pytest.fixture(params=NETWORKS)
def dense(request: pytest.FixtureRequest, pruner: ModuleType) -> Backbone:
    backbone = build(request.param)
    if reason := refusal(pruner, backbone):
        pytest.skip(f"refused: {reason}")
    return backbone


def images() -> torch.Tensor:
    return torch.rand(16, *SHAPE, generator=rng.generator(0, "images"))


def train(network: Backbone) -> None:
    """Take a few steps on whatever requires a gradient."""
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimiser = torch.optim.SGD(trainable, lr=0.1)
    network.train()
    for _ in range(3):
        optimiser.zero_grad()
        nn.functional.cross_entropy(network(images()), torch.arange(16) % CLASSES).backward()
        optimiser.step()
    network.eval()


def prune(pruner: ModuleType, backbone: Backbone, ratio: float, seed: int = 0, **options: Any) -> Backbone:
    context = Context(rng.generator(seed, "prune"), images(), torch.arange(16) % CLASSES, images(), train)
    quick = {"rounds": 8} if "rounds" in {field.name for field in dataclasses.fields(pruner.Config)} else {}
    pruned: Backbone = _methods.prune(pruner, backbone, ratio, pruner.Config(**{**quick, **options}), context)
    return pruned


def reachable(pruner: ModuleType, backbone: Backbone) -> list[float]:
    ceiling = _methods.ceiling(pruner, backbone, pruner.Config())
    return [ratio for ratio in RATIOS if ratio <= ceiling]


def repeatable(pruner: ModuleType) -> bool:
    return getattr(pruner, "REPEATABLE", True)  # type: ignore[no-any-return]


def equal(one: Backbone, other: Backbone) -> bool:
    left, right = one.state_dict(), other.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def test_contract(pruner: ModuleType) -> None:
    assert isinstance(pruner.STRUCTURED, bool)
    assert isinstance(pruner.NESTED, bool)
    assert pruner.NEEDS.issubset(REQUIREMENTS)
    assert isinstance(getattr(pruner, "SCHEDULE", Schedule()), Schedule)
    assert isinstance(repeatable(pruner), bool)
    assert hasattr(pruner, "scores") != hasattr(pruner, "prune")
    assert dataclasses.is_dataclass(pruner.Config)
    assert pruner.Config() == pruner.Config()
    with pytest.raises(dataclasses.FrozenInstanceError):
        pruner.Config().anything = 1


def test_takes_a_network_and_refuses_the_others_with_a_reason(pruner: ModuleType) -> None:
    reasons = [refusal(pruner, build(name)) for name in NETWORKS]
    assert "" in reasons
    assert all("expected" in reason and "got" in reason for reason in reasons if reason)
    for name, reason in zip(NETWORKS, reasons, strict=True):
        if reason:
            with pytest.raises(CompressionError, match="expected"):
                prune(pruner, build(name), 2.0)


def test_ratio_is_exact(pruner: ModuleType, dense: Backbone) -> None:
    """Within one weight; structured pruners within one channel, as many parameters as the largest takes along."""
    step = largest_channel(dense) if pruner.STRUCTURED else 1
    total = cost.parameters(dense)
    for ratio in reachable(pruner, dense):
        assert abs(cost.parameters(prune(pruner, dense, ratio)) - total / ratio) <= step


def largest_channel(dense: Backbone) -> int:
    """Count the parameters that go with the largest channel of a network."""
    channel_groups = _channels.groups(dense)
    sizes = torch.tensor([group.size for group in channel_groups.values()])
    without_one = _channels.parameter_counts(dense, channel_groups, sizes - torch.eye(len(sizes), dtype=torch.int64))
    return cost.parameters(dense) - int(without_one.min())


def test_ratio_one_changes_nothing(pruner: ModuleType, dense: Backbone) -> None:
    pruned = prune(pruner, dense, 1.0)
    assert torch.equal(pruned(images()), dense(images()))


def test_input_network_is_untouched(pruner: ModuleType, dense: Backbone) -> None:
    before = copy.deepcopy(dense)
    pruned = prune(pruner, dense, reachable(pruner, dense)[-1])
    with torch.no_grad():
        for parameter in pruned.parameters():
            parameter.fill_(9)
    assert equal(before, dense)


def test_deterministic_given_the_generator(pruner: ModuleType, dense: Backbone) -> None:
    ratio = reachable(pruner, dense)[-1]
    assert equal(prune(pruner, dense, ratio), prune(pruner, dense, ratio))


def test_classifier_biases_and_normalisation_stay(pruner: ModuleType, dense: Backbone) -> None:
    if pruner.STRUCTURED:
        return
    pruned = prune(pruner, dense, reachable(pruner, dense)[-1])
    weights = {f"{name}.weight" for name in _masks.prunable(dense)}
    parameters = dict(pruned.named_parameters())
    assert all(torch.equal(value, parameters[key]) for key, value in dense.named_parameters() if key not in weights)


def test_prunes_its_own_result_if_it_says_so(pruner: ModuleType, dense: Backbone) -> None:
    first, ratio = reachable(pruner, dense)[:3][-2:] if len(reachable(pruner, dense)) > 1 else (1.0, 1.0)
    once = prune(pruner, dense, first)
    # Masked weights count as parameters of the network that is pruned, channels that are gone do not.
    left = sum(parameter.numel() for parameter in once.parameters()) / cost.parameters(dense)
    if not repeatable(pruner):
        with pytest.raises(CompressionError, match="start from the dense one"):
            prune(pruner, once, ratio * left)
        return
    twice = prune(pruner, once, max(1.0, ratio * left))
    step = largest_channel(dense) if pruner.STRUCTURED else 1
    assert abs(cost.parameters(twice) - cost.parameters(dense) / ratio) <= step


def test_what_a_pruner_trains_has_nothing_left_to_train(pruner: ModuleType, dense: Backbone) -> None:
    pruned = prune(pruner, dense, reachable(pruner, dense)[-1])
    trains, ratio = "trainer" in pruner.NEEDS, reachable(pruner, dense)[-1]
    assert any(parameter.requires_grad for parameter in pruned.parameters()) != (trains and ratio > 1)


def test_weights_that_are_not_finite_are_refused(pruner: ModuleType, dense: Backbone) -> None:
    ratio = reachable(pruner, dense)[-1]
    if ratio == 1:
        pytest.skip("removes nothing")
    with torch.no_grad():
        next(iter(_masks.prunable(dense).values())).weight.view(-1)[3] = torch.nan
    with pytest.raises(CompressionError, match=r"expected .*finite .*, got \d+ NaN or infinite"):
        prune(pruner, dense, ratio)


def kept(pruned: Backbone) -> torch.Tensor:
    return torch.cat([mask.flatten() for _, _, mask in _masks.masked(pruned)] or [torch.ones(1)]).bool()


def test_masks_nest(pruner: ModuleType, dense: Backbone) -> None:
    if not pruner.NESTED or pruner.STRUCTURED:
        return
    field = {f.name for f in dataclasses.fields(pruner.Config)}
    ceiling = _methods.ceiling(pruner, dense, pruner.Config())
    ratios = torch.linspace(1, min(ceiling, 12), 25, dtype=torch.float64).clamp(max=ceiling).tolist()
    for options in [{"scope": "global"}, {"scope": "layer"}] if "scope" in field else [{}]:
        masks = [kept(prune(pruner, dense, ratio, **options)) for ratio in ratios]
        assert all(not (more & ~less).any() for less, more in itertools.pairwise(masks))


@pytest.fixture
def removals(monkeypatch: pytest.MonkeyPatch) -> list[Removal]:
    """What is removed physically from now on."""
    seen: list[Removal] = []

    def remove(backbone: Backbone, channel_groups: Any, keep: Mapping[str, torch.Tensor]) -> Backbone:
        small = _removal.remove(backbone, channel_groups, keep)
        seen.append(Removal(small, backbone, keep))
        return small

    monkeypatch.setattr(_channels, "remove", remove)
    return seen


def test_channels_nest(pruner: ModuleType, dense: Backbone, removals: list[Removal]) -> None:
    if not pruner.NESTED or not pruner.STRUCTURED:
        return
    field = {f.name for f in dataclasses.fields(pruner.Config)}
    ceiling = _methods.ceiling(pruner, dense, pruner.Config())
    ratios = torch.linspace(1, min(ceiling, 12), 7, dtype=torch.float64).clamp(max=ceiling).tolist()
    for options in [{"scope": "global"}, {"scope": "layer"}] if "scope" in field else [{}]:
        removals.clear()
        for ratio in ratios:
            prune(pruner, dense, ratio, **options)
        masks = [torch.cat(list(removal.keep.values())) for removal in removals]
        assert len(masks) == len(ratios)
        assert all(not (more & ~less).any() for less, more in itertools.pairwise(masks))
        assert masks[0].all()
        assert masks[-1].sum() < 0.75 * masks[0].sum()


@pytest.mark.parametrize("ratio", [0.0, 0.99, -1.0, math.nan, math.inf])
def test_impossible_ratios_are_refused(pruner: ModuleType, dense: Backbone, ratio: float) -> None:
    with pytest.raises(CompressionError, match=rf"expected a compression ratio from 1 to .*, got {ratio:g}"):
        prune(pruner, dense, ratio)


def test_above_the_ceiling_is_refused_and_the_ceiling_is_reached(pruner: ModuleType, dense: Backbone) -> None:
    ceiling = _methods.ceiling(pruner, dense, pruner.Config())
    pruned = prune(pruner, dense, ceiling)
    assert cost.parameters(dense) / cost.parameters(pruned) == pytest.approx(ceiling)
    assert torch.isfinite(pruned(images())).all()
    assert float(rounded_down(ceiling)) <= ceiling
    with pytest.raises(CompressionError, match=f"from 1 to {rounded_down(ceiling)}, got {ceiling * 1.01:g}"):
        prune(pruner, dense, ceiling * 1.01)


def test_ratio_survives_training(pruner: ModuleType, dense: Backbone) -> None:
    pruned = prune(pruner, dense, reachable(pruner, dense)[-1]).train().requires_grad_()  # also what came back frozen
    parameters = cost.parameters(pruned)
    optimiser = torch.optim.SGD(pruned.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01)
    for _ in range(3):
        optimiser.zero_grad()
        nn.functional.cross_entropy(pruned(images()), torch.arange(16) % CLASSES).backward()
        optimiser.step()
    assert all(not weight[mask == 0].any() for _, weight, mask in _masks.masked(pruned))
    assert cost.parameters(pruned) == parameters


def test_bake_leaves_plain_modules(pruner: ModuleType, dense: Backbone) -> None:
    pruned = prune(pruner, dense, reachable(pruner, dense)[-1]).eval()
    expected = pruned(images())
    _masks.bake(pruned)
    assert torch.equal(pruned(images()), expected)
    assert not any(key.endswith("_mask") for key in pruned.state_dict())
    assert pruner.STRUCTURED or pruned.state_dict().keys() == dense.state_dict().keys()
    assert not any(module._forward_pre_hooks or hasattr(module, "parametrizations") for module in pruned.modules())


def test_structured_is_physically_smaller_and_unstructured_is_not(pruner: ModuleType, dense: Backbone) -> None:
    ratio = reachable(pruner, dense)[-1]
    before, after = cost.macs(dense, SHAPE), cost.macs(prune(pruner, dense, ratio), SHAPE)
    if pruner.STRUCTURED:
        assert after.executed == after.effective < before.executed
    else:
        assert after.executed == before.executed
        assert (after.effective < before.effective) == (ratio > 1)


def test_structured_equals_the_masked_network(pruner: ModuleType, dense: Backbone, removals: list[Removal]) -> None:
    """Whatever channels a pruner removes, zeros in their place would give the same outputs."""
    if not pruner.STRUCTURED:
        return
    pruned = prune(pruner, dense, reachable(pruner, dense)[-1]).eval()
    if not removals:
        pytest.skip("rewrites layers instead of removing channels")
    (removal,) = [removal for removal in removals if removal.small is pruned]
    assert not all(keep.all() for keep in removal.keep.values())
    masked = _channels.mask_channels(removal.before, removal.keep).eval()
    torch.testing.assert_close(pruned(images()), masked(images()), rtol=1e-5, atol=1e-5)
    assert cost.parameters(masked) == cost.parameters(dense)
