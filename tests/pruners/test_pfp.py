from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from sharedlabel import rng
from sharedlabel.backbones import mlp, resnet_cifar
from sharedlabel.backbones._base import Backbone
from sharedlabel.errors import CompressionError
from sharedlabel.measurements import counts as cost
from sharedlabel.pruners import _channels, _examples, _methods, pfp
from sharedlabel.pruners._base import Context

SHAPE, CLASSES = (2, 6, 5), 3


def images(count: int = 4) -> Tensor:
    return torch.rand(count, *SHAPE, generator=rng.generator(0, "images"))


def context(seed: int = 0, count: int = 4) -> Context:
    return Context(rng.generator(seed), validation=images(count))


def network() -> Backbone:
    """A strided, biased convolution that reads numbers of both signs, one that is flattened, linear layers."""
    with rng.seeded(0):
        layers = (nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Conv2d(3, 4, (3, 2), (2, 1), (1, 0), bias=True), nn.ReLU())
        body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(16, 6), nn.ReLU())
        backbone = Backbone(body, nn.Linear(6, CLASSES), SHAPE)
        nn.init.normal_(backbone.body[1].bias)
    return backbone.eval()


def multilayer(*widths: int) -> Backbone:
    with rng.seeded(0):
        return mlp.build(mlp.Config(widths), SHAPE, CLASSES)


def shares(kernel: Tensor, patch: Tensor) -> list[float]:
    """Return the share of each channel in one response, signs apart; both `[channels positions]`."""
    largest = [0.0] * len(kernel)
    for weight_sign, input_sign in itertools.product((1, -1), (1, -1)):
        terms = [
            sum(
                max(weight_sign * weight, 0) * max(input_sign * value, 0)
                for weight, value in zip(weights, values, strict=True)
            )
            for weights, values in zip(kernel.tolist(), patch.tolist(), strict=True)
        ]
        if total := sum(terms):
            largest = [max(old, term / total) for old, term in zip(largest, terms, strict=True)]
    return largest


def largest(kernels: Tensor, patches: list[Tensor]) -> Tensor:
    return torch.tensor([shares(kernel, patch) for kernel in kernels for patch in patches]).amax(0)


def patches_of(layer: nn.Conv2d, given: Tensor) -> list[Tensor]:
    (top, left), (height, width), (down, right) = layer.padding, layer.kernel_size, layer.stride  # type: ignore[misc]
    padded = nn.functional.pad(given, (left, left, top, top))
    rows, columns = range(0, padded.shape[2] - height + 1, down), range(0, padded.shape[3] - width + 1, right)
    return [
        example[:, row : row + height, column : column + width].flatten(1)
        for example, row, column in itertools.product(padded, rows, columns)
    ]


@pytest.mark.parametrize(("parts", "elements", "batch"), [(16, 2**19, 128), (3, 20, 2)])
def test_sensitivities_are_those_of_explicit_loops(
    monkeypatch: pytest.MonkeyPatch, parts: int, elements: int, batch: int
) -> None:
    monkeypatch.setattr(pfp, "_IMAGES", parts)
    monkeypatch.setattr(pfp, "_ELEMENTS", elements)
    monkeypatch.setattr(_examples, "_BATCH", batch)
    backbone = network().train()
    sensitivity = pfp.sensitivities(backbone, _channels.groups(backbone), images())
    assert backbone.training
    body = backbone.eval().body
    with torch.no_grad():
        first = body[:2](backbone.normalize(images()))
        second = body[2:4](first)
        third = body[4:](second)
    assert (first < 0).any()
    torch.testing.assert_close(
        sensitivity["body.0"].float(), largest(body[2].weight.flatten(2), patches_of(body[2], first))
    )
    by_channel = body[5].weight.unflatten(1, (4, 4))
    torch.testing.assert_close(sensitivity["body.2"].float(), largest(by_channel, list(second.flatten(2))))
    torch.testing.assert_close(
        sensitivity["body.5"].float(), largest(backbone.classifier.weight[:, :, None], list(third[:, :, None]))
    )


@pytest.mark.parametrize("padding", ["zeros", "reflect"])
def test_shares_of_a_dilated_convolution(padding: str) -> None:
    """With one channel left of each patch, its share is 1; shares lie in [0, 1] and those of a response add up to 1."""
    layer = nn.Conv2d(3, 2, 3, padding=2, dilation=2, padding_mode=padding)
    given = torch.rand(2, 3, 6, 6)
    index = torch.arange(3)[:, None]
    share = pfp.layer_sensitivity(layer, given, index)
    assert ((share > 0) & (share <= 1 + 1e-6)).all()
    assert share.sum() >= 1 - 1e-6
    given[:, 1:] = 0
    torch.testing.assert_close(pfp.layer_sensitivity(layer, given, index), torch.tensor([1.0, 0.0, 0.0]))


def test_a_channel_that_several_layers_read_counts_where_it_matters_most() -> None:
    with rng.seeded(0):
        backbone = resnet_cifar.build(resnet_cifar.Config(8, 3, "projection"), (3, 8, 8), CLASSES).eval()
    channel_groups = _channels.groups(backbone)
    given = torch.rand(3, 3, 8, 8, generator=rng.generator(1))
    inputs: dict[str, Tensor] = {}
    for slot in channel_groups["body.0"].readers:
        layer = backbone.get_submodule(slot.layer)
        layer.register_forward_pre_hook(lambda _, given, name=slot.layer: inputs.update({name: given[0]}))
    backbone(given)
    single = [
        pfp.layer_sensitivity(backbone.get_submodule(slot.layer), inputs[slot.layer], slot.index)
        for slot in channel_groups["body.0"].readers
    ]
    assert len(single) == 3
    expected = torch.stack(single).amax(0)
    torch.testing.assert_close(pfp.sensitivities(backbone, channel_groups, given)["body.0"].float(), expected)


def distinct(sensitivity: Tensor, draws: float) -> float:
    """Return the expected number of different channels."""
    p = (sensitivity / sensitivity.sum()).tolist()
    return sum(1 - (1 - one) ** draws for one in p)


@pytest.mark.parametrize("spread", [0.1, 1.0, 4.0])
def test_margins_are_those_of_a_bisection(spread: float) -> None:
    sensitivity = torch.randn(12, generator=rng.generator(0), dtype=torch.float64).mul(spread).exp()
    margins = pfp.margins(sensitivity)
    order = sensitivity.argsort(descending=True)
    assert torch.equal(margins.argsort(descending=True), order)
    for rank, channel in list(enumerate(order.tolist()))[1:]:  # the first stays whatever the margin
        low, high = 1e-3, 1e12
        for _ in range(200):
            middle = math.sqrt(low * high)
            low, high = (middle, high) if math.ceil(distinct(sensitivity, middle)) <= rank else (low, middle)
        assert margins[channel] == pytest.approx(float(sensitivity.sum()) / high, rel=1e-3)


def test_margins_computed_by_hand() -> None:
    """Of p = (3/4, 1/4), m draws give 2 - (1/4)^m - (3/4)^m different ones: more than 1 from m = 1 on."""
    margins = pfp.margins(torch.tensor([0.6, 0.2], dtype=torch.float64))
    assert float(margins[1]) == pytest.approx(0.8, rel=1e-3)
    # Of three that are alike, 3 - 3 (2/3)^m: more than 2 from m = log 3 / log 1.5 on.
    margins = pfp.margins(torch.full((3,), 0.5, dtype=torch.float64))
    assert margins[1:].tolist() == pytest.approx([1.5, 1.5 * math.log(1.5) / math.log(3)], rel=1e-3)


def test_logarithms_of_patches_and_weights() -> None:
    """The second convolution has 3 x 2 weights for a channel in 2 x 2 places, a linear layer one in one place."""
    backbone = network()
    bounds = pfp.union_bounds(backbone, _channels.groups(backbone), images())
    places = math.prod(backbone.body[2](backbone.body[:2](backbone.normalize(images()))).shape[2:])
    assert bounds["body.0"] == pytest.approx(math.log(8e16 * (places + 1) * 6))
    assert bounds["body.2"] == bounds["body.5"] == pytest.approx(math.log(8e16 * 2))
    assert [value - math.log(8e16) for value in bounds.values()] == pytest.approx([math.log(30), *[math.log(2)] * 2])


def test_a_layer_of_many_patches_keeps_more() -> None:
    """Margins are multiplied by the logarithms before they are compared: at 2x a linear unit goes instead."""
    backbone = network()
    channel_groups = _channels.groups(backbone)
    alone = {name: pfp.margins(s) for name, s in pfp.sensitivities(backbone, channel_groups, images()).items()}
    networks = (
        _channels.prune_channels_by_scores(backbone, 2.0, alone, "global"),
        _methods.prune(pfp, backbone, 2.0, pfp.Config(), context()),
    )
    widths = [[len(small.get_submodule(name).get_parameter("weight")) for name in channel_groups] for small in networks]
    assert widths == [[3, 2, 3], [3, 2, 2]]


def test_margins_of_special_channels() -> None:
    none = torch.zeros(3, dtype=torch.float64)
    assert torch.equal(pfp.margins(none), none)
    one = pfp.margins(torch.tensor([0.0, 0.7, 0.0], dtype=torch.float64))
    assert one[1] > 0
    assert one[0] == one[2] == 0
    equal = pfp.margins(torch.full((4,), 0.5, dtype=torch.float64))
    assert (equal.diff() < 0).all()  # of equal ones the first is kept longest


def test_one_margin_gives_every_layer_its_budget() -> None:
    """A layer of which few channels do all the work is left with few."""
    backbone = multilayer(20, 20)
    with torch.no_grad():
        backbone.body[3].weight[:, 3:] *= 1e-4
    sensitivity = pfp.sensitivities(backbone, _channels.groups(backbone), images())
    pruned = _methods.prune(pfp, backbone, 2.0, pfp.Config(), context())
    sizes = [pruned.body[1].out_features, pruned.body[3].out_features]
    assert sizes[0] < sizes[1]
    # Some factor gives both numbers of channels.
    factors = torch.logspace(-2, 6, 4000, dtype=torch.float64).tolist()
    budgets = [[math.ceil(distinct(s, t * float(s.sum()))) for s in sensitivity.values()] for t in factors]
    assert min(sum(abs(a - b) for a, b in zip(budget, sizes, strict=True)) for budget in budgets) <= 1


def test_deterministic_keeps_the_most_sensitive_and_their_weights() -> None:
    backbone = multilayer(12, 8)
    sensitivity = pfp.sensitivities(backbone, _channels.groups(backbone), images())
    pruned = _methods.prune(pfp, backbone, 3.0, pfp.Config(), context())
    rows = [
        s.argsort(descending=True, stable=True)[: len(pruned.body[i].weight)].sort().values
        for i, s in zip((1, 3), sensitivity.values(), strict=True)
    ]
    assert torch.equal(pruned.body[1].weight, backbone.body[1].weight[rows[0]])
    assert torch.equal(pruned.body[3].weight, backbone.body[3].weight[rows[1]][:, rows[0]])
    assert torch.equal(pruned.classifier.weight, backbone.classifier.weight[:, rows[1]])


@pytest.mark.parametrize("kept", [1, 3, 5, 6])
def test_drawn_factors_are_unbiased(kept: int) -> None:
    """Averaged over many draws, every channel counts once, to within 5 standard errors."""
    sensitivity = torch.tensor([0.05, 0.9, 0.3, 0.0, 0.3, 0.6, 0.02], dtype=torch.float64)
    generator, draws = rng.generator(0), 4000
    factors = torch.stack([pfp.draw(sensitivity, kept, generator) for _ in range(draws)])
    assert ((factors > 0).sum(1) == kept).all()
    error = factors.std(0) / math.sqrt(draws)
    expected = (sensitivity > 0).double()
    assert ((factors.mean(0) - expected).abs() <= 5 * error + 1e-9).all()


def test_channels_are_drawn_by_their_sensitivity() -> None:
    """The first channel drawn is channel j with probability s_j / sum_k s_k."""
    sensitivity, generator = torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64), rng.generator(0)
    counts = sum((pfp.draw(sensitivity, 1, generator) > 0).double() for _ in range(4000))
    torch.testing.assert_close(counts / 4000, sensitivity / 8, rtol=0, atol=0.04)  # 5 standard errors
    assert torch.equal(pfp.draw(sensitivity, 3, generator), torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize("build", [network, lambda: multilayer(12, 8)])
def test_randomised_has_the_same_budgets_and_scales_what_reads(build: object) -> None:
    assert callable(build)
    backbone = build()
    options = pfp.Config(method="randomized")
    pruned, other = (
        _methods.prune(pfp, backbone, 2.0, options, context()),
        _methods.prune(pfp, backbone, 2.0, pfp.Config(), context()),
    )
    assert [p.shape for p in pruned.parameters()] == [p.shape for p in other.parameters()]
    channel_groups, generator = _channels.groups(backbone), rng.generator(0)
    sensitivity = pfp.sensitivities(backbone, channel_groups, images())
    maps = backbone.normalize(images())
    factors = {
        name: pfp.draw(s, len(pruned.get_submodule(name).get_parameter("weight")), generator)
        for name, s in sensitivity.items()
    }
    names = {slot.layer: (name, slot) for name, group in channel_groups.items() for slot in group.readers}
    with torch.no_grad():
        for key, layer in [*backbone.body.named_children(), ("classifier", backbone.classifier)]:
            reads = names.get(key if key == "classifier" else f"body.{key}")
            if reads is not None:  # scale the channels, as they come in
                scale = torch.ones(maps.shape[1])
                scale[reads[1].index] = factors[reads[0]].float()[:, None]
                maps = maps * scale.view(1, -1, *[1] * (maps.ndim - 2))
            maps = layer(maps)
    torch.testing.assert_close(pruned(images()), maps, rtol=1e-4, atol=1e-5)


def test_at_ratio_one_nothing_is_scaled() -> None:
    backbone = network()
    pruned = _methods.prune(pfp, backbone, 1.0, pfp.Config(method="randomized"), context())
    assert torch.equal(pruned(images()), backbone(images()))


def test_draws_are_those_of_the_generator() -> None:
    options = pfp.Config(method="randomized")
    one, same, other = (
        _methods.prune(pfp, multilayer(12, 8), 2.0, options, context(seed)).classifier.weight for seed in (0, 0, 1)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_parameters_are_exact_to_one_channel() -> None:
    backbone = multilayer(40, 30)
    for ratio, method in itertools.product((1.5, 4.0, 9.0), ("deterministic", "randomized")):
        pruned = _methods.prune(pfp, backbone, ratio, pfp.Config(method=method), context())  # type: ignore[arg-type]
        assert abs(cost.parameters(pruned) - cost.parameters(backbone) / ratio) <= 61 + 30 + 1


def test_missing_images_other_convolutions_and_weights_that_are_not_finite_are_refused() -> None:
    with pytest.raises(CompressionError, match="expected validation images to measure sensitivities on, got none"):
        _methods.prune(pfp, network(), 2.0, pfp.Config(), Context(rng.generator(0), images()))
    with pytest.raises(CompressionError, match="validation images to measure sensitivities on, got an empty set"):
        _methods.prune(pfp, network(), 2.0, pfp.Config(), context(0, 0))
    with pytest.raises(CompressionError, match=r"expected two-dimensional convolutions.*, got Conv1d; .*filter_l1"):
        pfp.layer_sensitivity(nn.Conv1d(3, 2, 1), torch.rand(2, 3, 4), torch.arange(3)[:, None])
    backbone = network()
    with torch.no_grad():
        backbone.body[2].weight[0] = torch.nan
    with pytest.raises(CompressionError, match=r"got 3 NaN or infinite of 3 in layer 'body\.0'"):
        _methods.prune(pfp, backbone, 2.0, pfp.Config(), context())
