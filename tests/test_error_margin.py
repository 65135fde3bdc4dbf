"""The error margin: the bound is a theorem, counts against brute force, the observed gap on any network."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sharedlabel import rng
from sharedlabel.backbones import mlp, resnet_cifar
from sharedlabel.backbones._base import Backbone
from sharedlabel.errors import CompressionError
from sharedlabel.measurements import margin
from sharedlabel.pruners import _methods, magnitude
from sharedlabel.pruners._base import Context
from sharedlabel.pruners._masks import prunable

SHAPE = (1, 2, 3)
ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.Tanh, nn.Softsign, nn.LeakyReLU, nn.Identity)


def chain(
    widths: tuple[int, ...], activation: type[nn.Module] = nn.ReLU, *, bias: bool = True, seed: int = 0
) -> Backbone:
    """A random perceptron in float64 with biases of the size of its weights."""
    with rng.seeded(seed):
        sizes = (math.prod(SHAPE), *widths)
        body = nn.Sequential(nn.Flatten())
        for inputs, outputs in itertools.pairwise(sizes):
            body.extend([nn.Linear(inputs, outputs, bias=bias), activation(), nn.Dropout(0.5)])
        backbone = Backbone(body, nn.Linear(sizes[-1], 4, bias=bias), SHAPE)
        for parameter in backbone.parameters():
            nn.init.normal_(parameter)
        backbone.normalize.mean.fill_(0.3)
        backbone.normalize.std.fill_(0.4)
    return backbone.double().eval()


def inputs(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, *SHAPE, generator=rng.generator(seed, "inputs"), dtype=torch.float64)


def radius(backbone: Backbone, images: Tensor) -> float:
    return float(backbone.normalize(images).flatten(1).norm(dim=1).max())


def gaps(one: Backbone, other: Backbone, images: Tensor) -> Tensor:
    with torch.no_grad():
        return (one(images) - other(images)).norm(dim=1)


def without(backbone: Backbone, counts: dict[str, int]) -> Backbone:
    pruned = copy.deepcopy(backbone)
    with torch.no_grad():
        for name, count in counts.items():
            weight = pruned.get_parameter(f"{name}.weight")
            weight.copy_(margin.without_smallest(weight, count))
    return pruned


networks = st.builds(
    chain,
    st.lists(st.integers(1, 7), min_size=1, max_size=3).map(tuple),
    st.sampled_from(ACTIVATIONS),
    bias=st.booleans(),
    seed=st.integers(0, 10**6),
)


@settings(deadline=None, max_examples=60)
@given(networks, st.integers(0, 10**6), st.floats(0, 1))
def test_no_input_violates_the_bound(backbone: Backbone, seed: int, share: float) -> None:
    images = inputs(16, seed)
    counts = {name: int(share * layer.weight.numel()) for name, layer in prunable(backbone).items()}
    pruned = without(backbone, counts)
    limit = margin.bound(backbone, pruned, radius(backbone, images))
    assert float(gaps(backbone, pruned, images).max()) <= limit * (1 + 1e-9)


@settings(deadline=None, max_examples=60)
@given(networks, st.integers(0, 10**6), st.floats(0.01, 30))
def test_what_is_certified_never_moves_the_output_further(backbone: Backbone, seed: int, epsilon: float) -> None:
    images = inputs(16, seed)
    certified = margin.certificate(backbone, epsilon, radius(backbone, images))
    assert certified.keys() == prunable(backbone).keys()
    for name, count in certified.items():
        assert float(gaps(backbone, without(backbone, {name: count}), images).max()) <= epsilon * (1 + 1e-9)


@settings(deadline=None, max_examples=30)
@given(networks, st.floats(0.01, 30))
def test_the_bound_holds_for_the_certified_count_and_not_for_one_more(backbone: Backbone, epsilon: float) -> None:
    for name, count in margin.certificate(backbone, epsilon, 2.0).items():
        size = backbone.get_parameter(f"{name}.weight").numel()
        assert margin.bound(backbone, without(backbone, {name: count}), 2.0) <= epsilon * (1 + 1e-9)
        if count < size:
            assert margin.bound(backbone, without(backbone, {name: count + 1}), 2.0) >= epsilon * (1 - 1e-9)


def test_without_biases_the_bound_is_the_published_sum() -> None:
    backbone = chain((5, 4, 6), bias=False)
    pruned = without(backbone, {"body.1": 9, "body.4": 3, "body.7": 11})
    before, after = (
        [np.asarray(layer.weight.detach()) for layer in (*prunable(network).values(), network.classifier)]
        for network in (backbone, pruned)
    )
    expected = 0.0
    for i, (w, v) in enumerate(zip(before, after, strict=True)):
        above = math.prod(np.linalg.norm(x, 2) for x in before[i + 1 :])
        below = math.prod(np.linalg.norm(x, 2) for x in after[:i])
        expected += above * np.linalg.norm(w - v, 2) * below * 1.7
    assert margin.bound(backbone, pruned, 1.7) == pytest.approx(expected)


def test_biases_below_a_layer_do_not_cancel() -> None:
    """At x = 0 the first layer passes on its bias: a bound proportional to |x| would be 0 and wrong."""
    backbone = chain((5, 4))
    pruned = without(backbone, {"body.4": 20})
    zero = backbone.normalize.mean.expand(1, *SHAPE)
    assert radius(backbone, zero) == 0
    assert 0 < float(gaps(backbone, pruned, zero)) <= margin.bound(backbone, pruned, 0.0)


def test_all_weights_of_a_layer_can_go_when_the_output_does_not_depend_on_it() -> None:
    backbone = chain((5, 4))
    nn.init.zeros_(backbone.classifier.weight)
    assert margin.certificate(backbone, 1e-9, 2.0) == {"body.1": 30, "body.4": 20}


def test_the_smallest_go_first_and_of_equal_ones_the_last() -> None:
    weight = torch.tensor([[3.0, -1.0], [1.0, -0.5]])
    expected = {0: weight, 1: [[3, -1], [1, 0]], 2: [[3, -1], [0, 0]], 3: [[3, 0], [0, 0]], 4: [[0, 0], [0, 0]]}
    for count, left in expected.items():
        assert torch.equal(margin.without_smallest(weight, count), torch.as_tensor(left, dtype=torch.float32))


def test_the_same_weights_go_as_in_magnitude_pruning() -> None:
    backbone = chain((5,))
    total = sum(parameter.numel() for parameter in backbone.parameters())
    pruned = _methods.prune(magnitude, backbone, total / (total - 12), magnitude.Config(), Context(torch.Generator()))
    assert torch.equal(pruned.get_parameter("body.1.weight"), without(backbone, {"body.1": 12}).body[1].weight)


@pytest.mark.parametrize(
    ("weights", "alpha", "count"), [(262_144, 0.5, 512), (1000, 2 / 3, 10), (10, 0.5, 3), (1, 0.9, 1)]
)
def test_asymptotic_count(weights: int, alpha: float, count: int) -> None:
    assert margin.asymptotic_count(weights, alpha) == count


def test_observed_counts_against_brute_force() -> None:
    backbone, images = chain((5, 4)), inputs(40)
    scale = float(backbone(images).detach().norm(dim=1).mean())
    for layer in margin.margins(backbone, images, (0.02, 0.3, 50.0), 0.5):
        assert layer.epsilon_absolute == pytest.approx(layer.epsilon * scale)
        by_count = [gaps(backbone, without(backbone, {layer.layer: k}), images) for k in range(layer.weights + 1)]
        holds = [bool(gap.max() <= layer.epsilon_absolute) for gap in by_count]
        assert holds[layer.observed_weights]
        assert layer.observed_weights == layer.weights or not holds[layer.observed_weights + 1]
        for count, largest, mean in (
            (layer.observed_weights, layer.observed_gap_max, layer.observed_gap_mean),
            (layer.certified_weights, layer.certified_gap_max, layer.certified_gap_mean),
        ):
            assert (largest, mean) == pytest.approx((float(by_count[count].max()), float(by_count[count].mean())))
        assert layer.certified_weights <= layer.observed_weights


def test_layers_that_the_certificate_does_not_cover_are_observed() -> None:
    with rng.seeded(0):
        backbone = resnet_cifar.build(resnet_cifar.Config(depth=8, width=2, shortcut="projection"), (3, 8, 8), 4)
    images = torch.randint(0, 256, (9, 3, 8, 8), generator=rng.generator(0, "images"), dtype=torch.uint8)
    layers = margin.margins(backbone, images, (0.2,), 0.5)
    assert [layer.layer for layer in layers] == list(prunable(backbone))
    for layer in layers:
        assert (layer.certified_weights, layer.certified_gap_max, layer.certified_gap_mean) == (None, None, None)
        assert "got Conv2d at 'body.0'" in layer.refusal
        assert 0 < layer.observed_weights < layer.weights
        pruned = without(backbone.eval(), {layer.layer: layer.observed_weights})
        assert float(gaps(backbone, pruned, images).max()) == pytest.approx(layer.observed_gap_max, rel=1e-3)
        assert layer.observed_gap_max <= layer.epsilon_absolute


def test_the_network_is_left_alone_and_batches_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone, images = chain((5, 4)).train(), inputs(40)
    before = copy.deepcopy(backbone.state_dict())
    whole = margin.margins(backbone, images, (0.1,), 0.5)
    assert backbone.training
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
    assert all(parameter.grad is None for parameter in backbone.parameters())
    monkeypatch.setattr(margin, "_BATCH", 7)
    for one, other in zip(whole, margin.margins(backbone, images, (0.1,), 0.5), strict=True):
        assert dataclasses.asdict(one) == pytest.approx(dataclasses.asdict(other))


def test_a_linear_classifier_has_no_layer_to_prune() -> None:
    backbone = mlp.build(mlp.Config(widths=()), SHAPE, 4)
    assert margin.margins(backbone, inputs(3).float(), (0.1,), 0.5) == []
    assert margin.certificate(backbone, 1.0, 1.0) == {}


def shared() -> nn.Sequential:
    layer = nn.Linear(6, 6)
    return nn.Sequential(nn.Flatten(), layer, nn.ReLU(), layer)


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (nn.Sequential(nn.Conv2d(1, 2, 1), nn.Flatten()), "got Conv2d at 'body.0'"),
        (nn.Sequential(nn.Flatten(), nn.Linear(6, 6), nn.GELU()), "got GELU at 'body.2'"),
        (nn.Sequential(nn.Flatten(), nn.Sequential(nn.Linear(6, 6), nn.Sigmoid())), "got Sigmoid at 'body.1.1'"),
        (nn.Sequential(nn.Flatten(), nn.Linear(6, 6), nn.LeakyReLU(-1.5)), "got LeakyReLU at 'body.2'"),
        (nn.Sequential(nn.Linear(3, 3), nn.Flatten()), "got Linear at 'body.0'"),
        (nn.Sequential(nn.Flatten(), nn.Linear(6, 6), nn.BatchNorm1d(6)), "got BatchNorm1d at 'body.2'"),
        (shared(), "got Linear at 'body.3'"),
        (nn.Flatten(), "got Flatten at 'body'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_networks_are_refused_with_the_reason(body: nn.Module, named: str) -> None:
    backbone = Backbone(body, nn.Linear(6, 4), SHAPE)
    with pytest.raises(CompressionError, match=f"expected a chain of linear layers .*{named}"):
        margin.certificate(backbone, 1.0, 1.0)
    with pytest.raises(CompressionError, match=named):
        margin.bound(backbone, backbone, 1.0)
    assert named in margin.refusal(backbone)


def test_a_chain_is_not_refused() -> None:
    assert margin.refusal(chain((3, 2), nn.Tanh)) == ""


def spoilt(name: str) -> Backbone:
    backbone = chain((3, 2))
    with torch.no_grad():
        backbone.get_parameter(name).view(-1)[0] = torch.nan
    return backbone


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"images": inputs(0)}, "expected images to observe distances on, got an empty set; pass some"),
        ({"images": inputs(3) * torch.nan}, "expected finite images, got 18 NaN or infinite of 18 values"),
        ({"images": inputs(3).mT}, "expected images of 1 x 2 x 3 .*, got 1 x 3 x 2"),
        ({"backbone": spoilt("body.1.weight")}, "expected finite weights, got 1 NaN .* of 18 in layer 'body.1'"),
        ({"backbone": spoilt("classifier.bias")}, "expected finite logits, got NaN or infinite ones on finite images"),
        ({"epsilons": ()}, "expected at least one epsilon, got none"),
        ({"epsilons": (0.1, math.nan)}, "expected positive, finite epsilons, got nan"),
        ({"epsilons": (-0.1,)}, "expected positive, finite epsilons, got -0.1"),
        ({"epsilons": (0.0,)}, "expected positive, finite epsilons, got 0"),
        ({"epsilons": (math.inf,)}, "expected positive, finite epsilons, got inf"),
        ({"alpha": 0.0}, r"expected alpha in \(0, 1\), got 0;"),
        ({"alpha": 1.0}, r"expected alpha in \(0, 1\), got 1;"),
        ({"alpha": math.nan}, r"expected alpha in \(0, 1\), got nan;"),
    ],
    ids=str,
)
def test_what_no_margin_can_be_stated_for_is_refused(changed: dict[str, Any], message: str) -> None:
    given = {"backbone": chain((3, 2)), "images": inputs(3), "epsilons": (0.1,), "alpha": 0.5, **changed}
    with pytest.raises(CompressionError, match=message):
        margin.margins(**given)


def test_epsilons_may_come_from_a_generator() -> None:
    layers = margin.margins(chain((3, 2)), inputs(3), (epsilon for epsilon in (0.1, 0.5)), 0.5)
    assert [layer.epsilon for layer in layers] == [0.1, 0.1, 0.5, 0.5]
