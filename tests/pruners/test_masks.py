from __future__ import annotations

import copy
import itertools
import math
import weakref
from collections import Counter
from typing import Any, Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune as torch_prune
from torch.utils._python_dispatch import TorchDispatchMode

from sharedlabel import plugins, rng
from sharedlabel.backbones import mlp, resnet_cifar
from sharedlabel.backbones._base import Backbone
from sharedlabel.errors import CompressionError
from sharedlabel.pruners import _masks, _methods, _scores, _select, magnitude
from sharedlabel.pruners._base import Context

CONTEXT = Context(torch.Generator())


def network(seed: int = 0, bias: bool = True) -> Backbone:
    with rng.seeded(seed):
        return mlp.build(mlp.Config(widths=(10, 6), bias=bias), (1, 4, 4), 3)


def convolutional() -> Backbone:
    with rng.seeded(0):
        return resnet_cifar.build(resnet_cifar.Config(depth=8, width=4, shortcut="projection"), (3, 8, 8), 3)


def masks(backbone: Backbone) -> torch.Tensor:
    return torch.cat([mask.flatten() for _, _, mask in _masks.masked(backbone)]).bool()


@given(st.lists(st.integers(-2, 2), min_size=1, max_size=30), st.data())
@settings(max_examples=200, deadline=None)
def test_top_k_is_exact_with_the_first_of_equals(values: list[int], data: st.DataObject) -> None:
    k = data.draw(st.integers(0, len(values)))
    expected = sorted(range(len(values)), key=lambda i: (-values[i], i))[:k]
    kept = _select.keep_highest(torch.tensor(values, dtype=torch.float64), k)
    assert kept.nonzero().flatten().tolist() == sorted(expected)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=5), st.data())
@settings(max_examples=100, deadline=None)
def test_one_normalised_rank_cuts_the_same_share_of_every_layer(sizes: list[int], data: st.DataObject) -> None:
    generator = rng.generator(data.draw(st.integers(0, 99)))
    ranks = [_select.normalized_ranks(torch.rand(size, generator=generator)) for size in sizes]
    k = data.draw(st.integers(0, sum(sizes)))
    kept = torch.split(_select.keep_highest(torch.cat(ranks), k), sizes)
    assert sum(int(part.sum()) for part in kept) == k
    cuts = [(int(part.sum()) / size, 1 / size) for part, size in zip(kept, sizes, strict=True)]
    # Half a weight of each of the two layers is the most that rounding can part them.
    assert all(abs(a - b) <= (u + v) / 2 + 1e-12 for (a, u), (b, v) in itertools.combinations(cuts, 2))


floats = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, -1.0, -math.inf, math.inf, 1e-45, -1e-45]), st.floats(width=32, allow_nan=False)
)


@given(
    st.lists(st.lists(floats, max_size=12), min_size=1, max_size=4),
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.int64]),
    st.sampled_from([1, 3, 2**22]),
    st.data(),
)
@settings(max_examples=200, deadline=None)
def test_selection_over_layers_is_that_of_a_stable_sort(
    values: list[list[float]], dtype: torch.dtype, part: int, data: st.DataObject
) -> None:
    if dtype == torch.int64:
        values = [[math.copysign(min(abs(value), 2**40), value) for value in layer] for layer in values]
    scores = {str(index): torch.tensor(layer, dtype=torch.float64).to(dtype) for index, layer in enumerate(values)}
    flat = [value for layer in scores.values() for value in layer.tolist()]
    k = data.draw(st.integers(0, len(flat)))
    expected = sorted(range(len(flat)), key=lambda i: (-flat[i], i))[:k]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_select, "_PART", part)
        kept = _select.keep_highest_of(scores, k)
    assert torch.cat(list(kept.values())).nonzero().flatten().tolist() == sorted(expected)


def test_selection_reads_one_layer_at_a_time() -> None:
    alive: list[weakref.ref[torch.Tensor]] = []

    def compute(name: str) -> torch.Tensor:
        assert sum(score() is not None for score in alive) <= 1
        score = torch.arange(5.0) * int(name)
        alive.append(weakref.ref(score))
        return score

    scores = _scores.LazyScores("1234", compute)
    kept = _select.keep_highest_of(scores, 3)
    assert len(scores) == 4
    assert {name: int(mask.sum()) for name, mask in kept.items()} == {"1": 0, "2": 0, "3": 1, "4": 2}


@given(st.lists(st.tuples(st.integers(1, 40), st.floats(0, 1)), min_size=1, max_size=5), st.data())
@settings(max_examples=200, deadline=None)
def test_quotas_are_those_of_normalised_ranks(layers: list[tuple[int, float]], data: st.DataObject) -> None:
    sizes, most = [size for size, _ in layers], [round(size * share) for size, share in layers]
    k = data.draw(st.integers(0, sum(most)))
    keys = []
    for size, limit in zip(sizes, most, strict=True):
        ranks = _select.normalized_ranks(torch.arange(size, 0, -1))
        keys.append(ranks.masked_fill(torch.arange(size) >= limit, -math.inf))
    kept = torch.split(_select.keep_highest(torch.cat(keys), k), sizes)
    assert _select.layer_quotas(sizes, most, k) == [int(part.sum()) for part in kept]


def test_quotas_give_the_last_weight_to_the_first_of_equal_ranks() -> None:
    """The third of 13 weights and the eighth of 39 stand at the same rank; a rounded product told them apart."""
    assert _select.layer_quotas([3, 13, 13, 39, 13], [3, 13, 13, 39, 13], 17) == [1, 3, 3, 8, 2]


def test_quotas_of_large_layers_are_exact() -> None:
    sizes = [2**20 + 1, 3 * 2**19, 7, 1]
    for k in (0, 1, 5, 2**20, sum(sizes) - 1, sum(sizes)):
        quotas = _select.layer_quotas(sizes, sizes, k)
        assert sum(quotas) == k
        assert all(abs(quota - k * size / sum(sizes)) <= 1 for quota, size in zip(quotas, sizes, strict=True))


class Attentive(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.attention, self.last = nn.Linear(4, 4), nn.MultiheadAttention(4, 2), nn.Linear(4, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        steps = self.first(images.flatten(1, 2))
        return self.last(self.attention(steps, steps, steps)[0].mean(1))


def test_the_projections_of_attention_are_prunable_and_recurrence_is_left_alone() -> None:
    """Attention reads the weight of its output projection, which is a linear layer, without calling it."""
    backbone = Backbone(Attentive(), nn.Linear(2, 3), (1, 4, 4))
    assert list(_masks.prunable(backbone)) == [
        "body.first",
        "body.attention.in_proj",
        "body.attention.out_proj",
        "body.last",
    ]
    assert list(_masks.called_layers(backbone)) == ["body.first", "body.last"]
    body = nn.Sequential(nn.LSTM(4, 4, batch_first=True), nn.Linear(4, 2))
    assert list(_masks.prunable(Backbone(body, nn.Linear(2, 3), (1, 4, 4)))) == ["body.1"]


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_scores_of_mixed_precision_are_compared_exactly(scope: Literal["global", "layer"]) -> None:
    """Two scores that differ in float64 alone are told apart, and those of other layers are not rounded."""
    backbone = network()
    scores = {name: torch.zeros_like(layer.weight) for name, layer in _masks.prunable(backbone).items()}
    scores["body.3"] = 1 + torch.arange(60, dtype=torch.float64).view(6, 10) * 1e-12
    pruned = _scores.prune_by_scores(backbone, 257 / (257 - 190), lambda: scores, scope)
    kept = _masks.kept(pruned)["body.3"].flatten()
    assert kept[60 - int(kept.sum()) :].all()
    assert int(kept.sum()) == {"global": 30, "layer": 8}[scope]


def test_prunable_are_the_weights_of_the_body_only() -> None:
    assert list(_masks.prunable(network())) == ["body.1", "body.3"]
    assert _masks.count(network()) == (16 * 10 + 10 * 6, 16 * 10 + 10 + 10 * 6 + 6 + 6 * 3 + 3)
    backbone = convolutional()
    convolutions = sum(m.weight.numel() for m in backbone.modules() if isinstance(m, nn.Conv2d))
    assert _masks.count(backbone)[0] == convolutions
    assert not any(place.owner is backbone.classifier for place in _masks.prunable(backbone).values())


def test_ceiling_leaves_one_weight() -> None:
    backbone = network()
    ceiling = _masks.mask_ceiling(backbone)
    assert ceiling == 257 / (257 - 219)
    pruned = _methods.prune(magnitude, backbone, ceiling, magnitude.Config(), CONTEXT)
    assert int(masks(pruned).sum()) == 1
    assert len(_masks.collapsed_layers(pruned)) == 1


@pytest.mark.parametrize("ratio", [1.0, 1.001, 1.5, 2.0, 3.0, 5.7])
def test_number_to_remove_is_the_nearest(ratio: float) -> None:
    number = _masks.weights_to_remove(network(), ratio)
    assert abs((257 - number) - 257 / ratio) <= 0.5


@pytest.mark.parametrize("ratio", [0.0, -2.0, 0.999, math.nan, math.inf, 6.77])
def test_ratio_out_of_range_states_the_ceiling_and_why(ratio: float) -> None:
    with pytest.raises(
        CompressionError, match=rf"from 1 to 6.76315, got {ratio:g}: 220 of 257 parameters are prunable"
    ):
        _masks.weights_to_remove(network(), ratio)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_scores_that_are_not_finite_are_refused(value: float, scope: Literal["global", "layer"]) -> None:
    backbone = network()
    scores = {name: torch.zeros_like(layer.weight) for name, layer in _masks.prunable(backbone).items()}
    scores["body.3"][0, :2] = value
    with pytest.raises(CompressionError, match=r"got 2 NaN or infinite of 60 in layer 'body.3'"):
        _scores.prune_by_scores(backbone, 2.0, lambda: scores, scope)


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("ratio", [1.0, 1.3, 2.0, 4.0, 6.0])
def test_all_scores_equal_still_removes_exactly_the_number(ratio: float, scope: Literal["global", "layer"]) -> None:
    """A threshold removes all or none of equal scores, and none when it is zero."""
    backbone = network()
    scores = {name: torch.zeros_like(layer.weight) for name, layer in _masks.prunable(backbone).items()}
    pruned = _scores.prune_by_scores(backbone, ratio, lambda: scores, scope)
    assert _masks.removed(pruned) == 257 - round(257 / ratio)


def test_weights_that_are_zero_go_first_and_only_as_many_as_asked() -> None:
    backbone = network()
    with torch.no_grad():
        for layer in _masks.prunable(backbone).values():
            layer.weight[:, ::2] = 0
    pruned = _methods.prune(magnitude, backbone, 1.25, magnitude.Config(), CONTEXT)
    assert _masks.removed(pruned) == 257 - round(257 / 1.25)
    zero = torch.cat([layer.weight.flatten() == 0 for layer in _masks.prunable(backbone).values()])
    assert zero[~masks(pruned)].all()


def test_global_magnitude_is_that_of_torch() -> None:
    backbone = convolutional()
    pruned = _methods.prune(magnitude, backbone, 3.0, magnitude.Config(), CONTEXT)
    reference = copy.deepcopy(backbone)
    layers = list(_masks.called_layers(reference).values())
    amount = _masks.removed(pruned)
    torch_prune.global_unstructured([(m, "weight") for m in layers], torch_prune.L1Unstructured, amount=amount)
    assert torch.equal(masks(pruned), torch.cat([m.weight_mask.flatten() for m in layers]).bool())


def test_layer_magnitude_is_that_of_torch() -> None:
    backbone = network(bias=False)
    # 119 of 238 parameters: 119 of 220 prunable ones, so the layers of 160 and 60 lose 86.5 and 32.5 weights.
    pruned = _methods.prune(magnitude, backbone, 2.0, magnitude.Config("layer"), CONTEXT)
    assert _masks.removed(pruned) == 119
    for name, amount in (("body.1", 87), ("body.3", 32)):
        reference = copy.deepcopy(_masks.called_layers(backbone)[name])
        torch_prune.l1_unstructured(reference, "weight", amount=amount)
        assert torch.equal(_masks.called_layers(pruned)[name].get_buffer("weight_mask"), reference.weight_mask)


def test_channels_last_weights_get_the_same_masks() -> None:
    backbone = convolutional()
    turned = copy.deepcopy(backbone).to(memory_format=torch.channels_last)
    expected, pruned = (_methods.prune(magnitude, b, 3.0, magnitude.Config(), CONTEXT) for b in (backbone, turned))
    assert torch.equal(masks(expected), masks(pruned))
    for layer in _masks.called_layers(pruned).values():
        assert layer.weight.is_contiguous(memory_format=torch.channels_last)
        assert layer.get_buffer("weight_mask").stride() == layer.weight.stride()


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_pruning_twice_counts_from_the_dense_network(scope: Literal["global", "layer"]) -> None:
    once = _methods.prune(magnitude, network(), 2.0, magnitude.Config(scope), CONTEXT)
    same = _methods.prune(magnitude, once, 2.0, magnitude.Config(scope), CONTEXT)
    assert torch.equal(masks(once), masks(same))
    twice = _methods.prune(magnitude, once, 4.0, magnitude.Config(scope), CONTEXT)
    direct = _methods.prune(magnitude, network(), 4.0, magnitude.Config(scope), CONTEXT)
    assert torch.equal(masks(twice), masks(direct))


def test_removed_weights_never_come_back() -> None:
    once = _methods.prune(magnitude, network(), 4.0, magnitude.Config("global"), CONTEXT)
    again = _methods.prune(magnitude, once, 4.0, magnitude.Config("layer"), CONTEXT)
    assert torch.equal(masks(once), masks(again))
    scores = {name: (layer.weight == 0).float() for name, layer in _masks.prunable(once).items()}
    further = _scores.prune_by_scores(once, 5.0, lambda: scores, "global")
    assert not (masks(further) & ~masks(once)).any()


def test_a_network_compressed_further_already_is_refused() -> None:
    pruned = _methods.prune(magnitude, network(), 4.0, magnitude.Config(), CONTEXT)
    with pytest.raises(CompressionError, match=r"at most 2 times, got masks at 4.01562 times; start from the dense"):
        _methods.prune(magnitude, pruned, 2.0, magnitude.Config(), CONTEXT)


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_zeros_survive_momentum_and_weight_decay(optimiser: str) -> None:
    pruned = _methods.prune(magnitude, convolutional(), 4.0, magnitude.Config(), CONTEXT).train()
    kept, before = masks(pruned), copy.deepcopy(pruned.state_dict())
    step = (
        torch.optim.SGD(pruned.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1, nesterov=True)
        if optimiser == "sgd"
        else torch.optim.AdamW(pruned.parameters(), lr=0.1, weight_decay=0.1)
    )
    images, labels = torch.rand(8, 3, 8, 8), torch.arange(8) % 3
    for _ in range(5):
        step.zero_grad()
        nn.functional.cross_entropy(pruned(images), labels).backward()
        step.step()
        weights = torch.cat([layer.weight.detach().flatten() for layer in _masks.prunable(pruned).values()])
        assert torch.equal(weights != 0, kept)
    moved = [key for key, value in pruned.state_dict().items() if not torch.equal(value, before[key])]
    assert {f"{name}.weight" for name in _masks.prunable(pruned)} <= set(moved)
    assert not any(key.endswith("weight_mask") for key in moved)


def test_gradients_of_removed_weights_are_masked() -> None:
    pruned = _methods.prune(magnitude, network(), 4.0, magnitude.Config(), CONTEXT)
    pruned(torch.rand(4, 1, 4, 4)).square().sum().backward()
    gradients = torch.cat([layer.weight.grad.flatten() for layer in _masks.prunable(pruned).values()])
    assert not gradients[~masks(pruned)].any()
    assert gradients[masks(pruned)].any()


class Counted(TorchDispatchMode):
    """Counts operations by name, those of backward passes included."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[str(function)] += 1
        return function(*args, **(kwargs or {}))


def test_masks_cost_a_pass_one_operation_and_each_gradient_another() -> None:
    dense = convolutional()
    pruned = _methods.prune(magnitude, dense, 4.0, magnitude.Config(), CONTEXT)
    images, counted = torch.rand(2, 3, 8, 8), []
    for backbone in (dense, pruned):
        with Counted() as one:
            backbone(images).sum().backward()
        counted.append(one.counts)
    layers = sum(1 for _ in _masks.masked(pruned))
    assert counted[1] - counted[0] == Counter({"aten._foreach_mul.List": 1, "aten.mul.Tensor": layers})
    assert not counted[0] - counted[1]


def test_masks_are_in_the_order_of_the_network_also_where_a_module_stands_twice() -> None:
    backbone = _methods.prune(magnitude, convolutional(), 4.0, magnitude.Config(), CONTEXT)
    stage = backbone.body
    twice = nn.ModuleList([nn.ModuleDict({"a": stage, "b": nn.Identity()}), stage, nn.ModuleList([stage])])
    owners = [place.owner for place in _masks.masked_weights(twice)]
    assert owners == [module for module in stage.modules() if "weight_mask" in module._buffers]


def test_an_emptied_layer_is_reported_and_still_runs() -> None:
    backbone = network()
    with torch.no_grad():
        _masks.prunable(backbone)["body.3"].weight.mul_(1e-9)
    pruned = _methods.prune(magnitude, backbone, 257 / (257 - 60), magnitude.Config(), CONTEXT)
    assert _masks.collapsed_layers(pruned) == ("body.3",)
    assert torch.isfinite(pruned(torch.rand(2, 1, 4, 4))).all()
    assert _masks.collapsed_layers(_methods.prune(magnitude, backbone, 2.0, magnitude.Config("layer"), CONTEXT)) == ()


def test_bake_keeps_the_function_and_drops_the_masks() -> None:
    backbone = network()
    pruned = _methods.prune(magnitude, backbone, 3.0, magnitude.Config(), CONTEXT)
    images = torch.rand(4, 1, 4, 4)
    expected = pruned(images)
    _masks.bake(pruned)
    assert pruned.state_dict().keys() == backbone.state_dict().keys()
    assert torch.equal(pruned(images), expected)


def tied(last: str) -> Backbone:
    """A network of which two linear layers have one weight."""
    body = nn.Sequential(nn.Flatten(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16))
    backbone = Backbone(body, nn.Linear(16, 16), (1, 4, 4))
    backbone.get_submodule(last).weight = backbone.get_submodule("body.1").weight
    return backbone


@pytest.mark.parametrize("name", ["magnitude", "unit", "butterfly", "snip"])
@pytest.mark.parametrize("last", ["body.3", "classifier"])
def test_layers_that_share_a_weight_are_refused(name: str, last: str) -> None:
    pruner = plugins.load("pruners", name)
    with pytest.raises(CompressionError, match=f"got 'body.1', which shares its weight with {last}; give each"):
        _methods.ceiling(pruner, tied(last), pruner.Config())


def test_a_layer_in_two_places_is_counted_once() -> None:
    layer = nn.Linear(16, 16, bias=False)
    backbone = Backbone(nn.Sequential(nn.Flatten(), layer, nn.ReLU(), layer), nn.Linear(16, 2), (1, 4, 4))
    assert _masks.count(backbone) == (256, 256 + 34)
    pruned = _methods.prune(magnitude, backbone, 2.0, magnitude.Config(), CONTEXT)
    assert _masks.removed(pruned) == 145
    assert pruned.body[1] is pruned.body[3]
