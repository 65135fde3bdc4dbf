from __future__ import annotations

import copy
import itertools
from typing import Literal, TypeAlias

import pytest
import torch
from torch import Tensor, nn

from sharedlabel import rng
from sharedlabel.backbones import mlp
from sharedlabel.backbones._base import Backbone
from sharedlabel.errors import CompressionError
from sharedlabel.pruners import _activations, _examples, _gradients, _masks, _methods, _scores, sipp
from sharedlabel.pruners._base import Context

SHAPE = (2, 5, 4)


class Body(nn.Module):
    """A strided convolution with groups, biased, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(2, 4, (3, 2), stride=(2, 1), padding=1, groups=2)
        self.linear = nn.Linear(4 * 3 * 5, 6)

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(self.convolution(images).relu().flatten(1)).relu()


def network() -> Backbone:
    with rng.seeded(0):
        backbone = Backbone(Body(), nn.Linear(6, 3), SHAPE).double()
        backbone.normalize.mean.fill_(0.5)  # so that half of what the first layer gets is negative
        nn.init.zeros_(backbone.body.linear.weight[2])
    return backbone


def images(count: int = 5) -> Tensor:
    return torch.rand(count, *SHAPE, dtype=torch.float64, generator=rng.generator(0, "images"))


def context(count: int = 5, seed: int = 0) -> Context:
    return Context(rng.generator(seed), validation=images(count))


def shares(weights: list[float], inputs: list[float]) -> list[float]:
    """Return the share of each weight in what one unit gets from one patch, signs taken apart."""
    largest = [0.0] * len(weights)
    for weight_sign, input_sign in itertools.product((1, -1), (1, -1)):
        parts = [
            max(weight_sign * weight, 0) * max(input_sign * value, 0)
            for weight, value in zip(weights, inputs, strict=True)
        ]
        if total := sum(parts):
            largest = [max(old, part / total) for old, part in zip(largest, parts, strict=True)]
    return largest


def linear_sensitivity(weight: Tensor, inputs: Tensor) -> Tensor:
    sensitivity = torch.zeros_like(weight)
    for example in inputs.tolist():
        for unit, row in enumerate(weight.tolist()):
            sensitivity[unit] = sensitivity[unit].maximum(torch.tensor(shares(row, example), dtype=weight.dtype))
    return sensitivity


def convolution_sensitivity(layer: nn.Conv2d, inputs: Tensor, method: str) -> Tensor:
    """Loop over images, filters, signs and patches; average over patches or take the largest, then the largest."""
    weight, padded = layer.weight.detach(), nn.functional.pad(inputs, (1, 1, 1, 1))
    sensitivity, per_group = torch.zeros_like(weight), layer.out_channels // layer.groups
    rows, columns = (padded.shape[2] - 3) // 2 + 1, padded.shape[3] - 2 + 1
    for example, (unit, kernel) in itertools.product(padded, enumerate(weight)):
        channel = unit // per_group
        for weight_sign, input_sign in itertools.product((1, -1), (1, -1)):
            over_patches = []
            for row, column in itertools.product(range(rows), range(columns)):
                patch = example[channel : channel + 1, 2 * row : 2 * row + 3, column : column + 2]
                part = (weight_sign * kernel).clamp(min=0) * (input_sign * patch).clamp(min=0)
                over_patches.append(part / part.sum() if part.sum() > 0 else torch.zeros_like(part))
            stacked = torch.stack(over_patches)
            sensitivity[unit] = sensitivity[unit].maximum(
                stacked.mean(0) if method == "deterministic" else stacked.amax(0)
            )
    return sensitivity


Method: TypeAlias = Literal["deterministic", "randomized"]


@pytest.mark.parametrize(("batch", "values", "elements"), [(128, 2**25, 2**19), (2, 2**25, 100), (128, 1, 1)])
@pytest.mark.parametrize("method", ["deterministic", "randomized"])
def test_sensitivities_are_those_of_explicit_loops(
    monkeypatch: pytest.MonkeyPatch, method: Method, batch: int, values: int, elements: int
) -> None:
    monkeypatch.setattr(_examples, "_BATCH", batch)
    monkeypatch.setattr(_gradients, "_VALUES", values)
    monkeypatch.setattr(sipp, "_ELEMENTS", elements)
    monkeypatch.setattr(sipp, "_IMAGES", 2)
    backbone = network()
    sensitivity = sipp.sensitivities(backbone, sipp.Config(method), context())
    with torch.no_grad():
        given = backbone.normalize(images())
        hidden = backbone.body.convolution(given).relu().flatten(1)
    assert (given < 0).any()
    expected = convolution_sensitivity(backbone.body.convolution, given, method)
    torch.testing.assert_close(sensitivity["body.convolution"], expected)
    torch.testing.assert_close(
        sensitivity["body.linear"], linear_sensitivity(backbone.body.linear.weight.detach(), hidden)
    )


@pytest.mark.parametrize(("method", "expected"), [("deterministic", [1.25 / 3, 1.75 / 3]), ("randomized", [1.0, 1.0])])
def test_shares_in_three_patches_computed_by_hand(method: Method, expected: list[float]) -> None:
    """The filter (1, 3) gets (1, 1), (1, 0) and (0, 2): shares of 1/4 and 3/4, of 1 and 0, and of 0 and 1."""
    body = nn.Sequential(nn.Conv2d(1, 1, (1, 2)), nn.Flatten())
    backbone = Backbone(body, nn.Linear(3, 2), (1, 1, 4))
    with torch.no_grad():
        body[0].weight.copy_(torch.tensor([[[[1.0, 3.0]]]]))
    given = Context(rng.generator(0), validation=torch.tensor([[[[1.0, 1.0, 0.0, 2.0]]]]))
    sensitivity = sipp.sensitivities(backbone, sipp.Config(method), given)["body.0"]
    assert sensitivity.flatten().tolist() == pytest.approx(expected)


@pytest.mark.parametrize("method", ["deterministic", "randomized"])
def test_the_positions_of_a_linear_layer_count_as_images(method: Method) -> None:
    """The unit (1, 1) gets (1, 3) at one position and (1, 1) at the other: the largest shares are 1/2 and 3/4."""
    body = nn.Sequential(nn.Flatten(1, 2), nn.Linear(2, 1), nn.Flatten())
    backbone = Backbone(body, nn.Linear(2, 2), (1, 2, 2))
    with torch.no_grad():
        body[1].weight.fill_(1)
    given = Context(rng.generator(0), validation=torch.tensor([[[[1.0, 3.0], [1.0, 1.0]]]]))
    assert sipp.sensitivities(backbone, sipp.Config(method), given)["body.1"].tolist() == [[0.5, 0.75]]


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv1d(4, 6, 3, padding="same", dilation=2, groups=2, padding_mode="circular"),
        nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0), padding_mode="reflect"),
        nn.Conv3d(4, 4, 2, padding=1, groups=4, bias=False),
    ],
    ids=["1d", "2d", "3d"],
)
def test_patches_hold_what_a_convolution_multiplies(layer: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> None:
    given = torch.rand(2, 4, *[5] * len(layer.kernel_size), generator=rng.generator(0))
    windows = _activations.patches(layer, given)
    filters = layer.weight.flatten(1).unflatten(0, (layer.groups, -1))
    outputs = torch.einsum("bgqp,goq->bgop", windows, filters).flatten(1, 2)
    bias = torch.zeros(layer.out_channels) if layer.bias is None else layer.bias
    torch.testing.assert_close(outputs + bias[:, None], layer(given).flatten(2))


def test_drawing_from_a_transposed_convolution_is_refused() -> None:
    body = nn.Sequential(nn.ConvTranspose2d(2, 3, 2), nn.ReLU(), nn.Flatten())
    backbone = Backbone(body, nn.Linear(90, 3), SHAPE).double()
    _methods.prune(sipp, backbone, 1.05, sipp.Config(), context())
    message = "expected linear layers and convolutions, got 'body.0', a transposed convolution, .*; use method determ"
    with pytest.raises(CompressionError, match=message):
        _methods.prune(sipp, backbone, 1.05, sipp.Config("randomized"), context())


@pytest.mark.parametrize("method", ["deterministic", "randomized"])
def test_sensitivities_are_shares(method: Method) -> None:
    sensitivity = sipp.sensitivities(network(), sipp.Config(method), context())
    for score in sensitivity.values():
        assert score.min() >= 0
        assert score.max() <= 1 + 1e-12
    assert not sensitivity["body.linear"][2].any()


def test_scale_of_a_unit_does_not_matter() -> None:
    backbone, scaled = network(), network()
    with torch.no_grad():
        scaled.body.linear.weight[1] *= 1e-6
    one, other = (sipp.sensitivities(b, sipp.Config(), context()) for b in (backbone, scaled))
    torch.testing.assert_close(one["body.linear"], other["body.linear"])


def test_deterministic_keeps_the_highest_of_all_layers() -> None:
    backbone = network()
    pruned = _methods.prune(sipp, backbone, 2.0, sipp.Config(), context())
    scores = sipp.sensitivities(backbone, sipp.Config(), context())
    expected = _scores.prune_by_scores(backbone, 2.0, lambda: scores, "global")
    assert all(torch.equal(tensor, expected.state_dict()[name]) for name, tensor in pruned.state_dict().items())


def sampled(backbone: Backbone, ratio: float, scores: dict[str, Tensor], generator: torch.Generator) -> Backbone:
    times = {
        name: torch.empty(score.shape, dtype=torch.float64).exponential_(generator=generator)
        for name, score in scores.items()
    }
    return sipp._sampled(backbone, ratio, scores, times)


def plain() -> Backbone:
    with rng.seeded(0):
        return mlp.build(mlp.Config((5, 4), bias=False), (1, 2, 2), 3).double()


def test_the_randomised_estimate_is_unbiased() -> None:
    """Averaged over many draws, every weight comes out as it was, to within 5 standard errors."""
    backbone, draws = plain(), 300
    given = Context(
        rng.generator(0), validation=torch.rand(8, 1, 2, 2, dtype=torch.float64, generator=rng.generator(2))
    )
    scores = sipp.sensitivities(backbone, sipp.Config(), given)
    generator = rng.generator(1)
    dense = torch.cat([layer.weight.detach().flatten() for layer in _masks.prunable(backbone).values()])
    sums, squares = torch.zeros_like(dense), torch.zeros_like(dense)
    for _ in range(draws):
        pruned = sampled(backbone, 1.6, scores, generator)
        weights = torch.cat([layer.weight.detach().flatten() for layer in _masks.prunable(pruned).values()])
        sums += weights
        squares += weights**2
    mean = sums / draws
    error = ((squares / draws - mean**2) / draws).sqrt()
    possible = torch.cat([scores[name].flatten() for name in _masks.prunable(backbone)]) > 0
    assert ((mean - dense).abs() <= 5 * error + 1e-12)[possible].all()
    assert not mean[~possible].any()
    assert float((mean - dense)[possible].abs().mean()) < 0.1 * float(dense.abs().mean())


def test_which_weights_are_drawn_is_sampling_with_replacement_until_there_are_enough() -> None:
    """The sets that stay are as frequent as when weights are drawn one by one with probability ~ sensitivity."""
    backbone = Backbone(
        nn.Sequential(nn.Flatten(), nn.Linear(4, 1, bias=False)), nn.Linear(1, 2, bias=False), (1, 2, 2)
    )
    sensitivity = torch.tensor([[0.5, 0.25, 0.15, 0.1]])
    generator, draws, kept = rng.generator(3), 300, torch.zeros(4)
    for _ in range(draws):
        pruned = sampled(backbone, 6 / 4, {"body.1": sensitivity}, generator)
        kept += _masks.kept(pruned)["body.1"][0]
    p = sensitivity[0].tolist()
    expected = [
        p[i] + sum(p[j] * p[i] / (1 - p[j]) for j in range(4) if j != i) for i in range(4)
    ]  # first, or second after any other
    torch.testing.assert_close(kept / draws, torch.tensor(expected), rtol=0, atol=0.1)


def test_randomised_pruning_reweighs_what_it_keeps() -> None:
    backbone = network()
    pruned = _methods.prune(sipp, backbone, 2.0, sipp.Config("randomized"), context())
    assert _masks.removed(pruned) == _masks.weights_to_remove(backbone, 2.0)
    for name, layer in _masks.prunable(pruned).items():
        keep, dense = _masks.kept(pruned)[name], _masks.prunable(backbone)[name].weight
        assert (layer.weight[keep] / dense[keep] >= 1).all()
        assert not layer.weight[~keep].any()
    other = _methods.prune(sipp, backbone, 2.0, sipp.Config("randomized"), context(seed=1))
    assert any(not torch.equal(mask, _masks.kept(other)[name]) for name, mask in _masks.kept(pruned).items())


def test_randomised_masks_nest_and_nothing_changes_at_ratio_one() -> None:
    backbone = network()
    masks = [
        _masks.kept(_methods.prune(sipp, backbone, ratio, sipp.Config("randomized"), context()))
        for ratio in (1.0, 1.3, 2.0, 5.0)
    ]
    for less, more in itertools.pairwise(masks):
        assert all(not (more[name] & ~less[name]).any() for name in more)
    same = _methods.prune(sipp, backbone, 1.0, sipp.Config("randomized"), context())
    assert torch.equal(same(images()), backbone(images()))


def test_weights_without_sensitivity_go_first() -> None:
    backbone = network()
    row = backbone.body.linear.weight.shape[1]
    total = sum(parameter.numel() for parameter in backbone.parameters())
    sensitivity = sipp.sensitivities(backbone, sipp.Config(), context())
    dead = sum(int((score == 0).sum()) for score in sensitivity.values())
    assert dead >= row
    drawn = sipp.sensitivities(backbone, sipp.Config("randomized"), context())
    assert all(torch.equal(score == 0, drawn[name] == 0) for name, score in sensitivity.items())
    pruned = _methods.prune(sipp, backbone, total / (total - dead), sipp.Config("randomized"), context())
    assert torch.equal(pruned(images()), copy.deepcopy(backbone)(images()))


def test_an_empty_set_is_refused() -> None:
    with pytest.raises(
        CompressionError, match="expected validation images to measure sensitivities on, got an empty s"
    ):
        _methods.prune(sipp, network(), 2.0, sipp.Config(), context(0))
