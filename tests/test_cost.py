from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from sharedlabel import cost, rng
from sharedlabel.backbones import mlp, resnet_cifar, torchvision_model
from sharedlabel.backbones._base import Backbone
from sharedlabel.pruners import _masks, magnitude, none, unit
from sharedlabel.pruners._base import Context
from sharedlabel.types import SetShape

CIFAR = (3, 32, 32)
CONTEXT = Context(torch.Generator())


def wrap(*layers: nn.Module, width: int, channels: int = 4) -> Backbone:
    """Give layers a classifier of two classes, which costs 2 * width MACs."""
    return Backbone(nn.Sequential(*layers), nn.Linear(width, 2), (channels, 9, 9))


def small() -> Backbone:
    with rng.seeded(0):
        return mlp.build(mlp.Config(widths=(20, 10)), (1, 4, 4), 3)


@pytest.mark.parametrize(
    ("options", "macs"),
    [
        ({}, 7 * 7 * 6 * 4 * 9),
        ({"padding": 1}, 9 * 9 * 6 * 4 * 9),
        ({"stride": 2}, 4 * 4 * 6 * 4 * 9),
        ({"stride": 2, "padding": 1}, 5 * 5 * 6 * 4 * 9),
        ({"stride": (1, 3), "padding": (0, 1)}, 7 * 3 * 6 * 4 * 9),
        ({"groups": 2}, 7 * 7 * 6 * 2 * 9),
        ({"dilation": 2}, 5 * 5 * 6 * 4 * 9),
        ({"bias": False}, 7 * 7 * 6 * 4 * 9),
    ],
    ids=str,
)
def test_convolution_by_hand(options: dict[str, Any], macs: int) -> None:
    backbone = wrap(nn.Conv2d(4, 6, 3, **options), nn.AdaptiveAvgPool2d(1), width=6)
    assert cost.macs(backbone, (4, 9, 9)) == cost.Macs(macs + 12, float(macs + 12))


def test_depthwise_and_pointwise_by_hand() -> None:
    backbone = wrap(nn.Conv2d(4, 8, 3, groups=4, padding=1), nn.Conv2d(8, 5, 1), nn.AdaptiveAvgPool2d(1), width=5)
    assert cost.macs(backbone, (4, 6, 6)).executed == 36 * 8 * 9 + 36 * 8 * 5 + 10


def test_mlp_by_hand() -> None:
    assert cost.macs(small(), (1, 4, 4)).executed == 16 * 20 + 20 * 10 + 10 * 3


def test_normalisation_and_activations_are_free() -> None:
    backbone = wrap(nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), width=4)
    assert cost.macs(backbone, (4, 8, 8)).executed == 8


@pytest.mark.parametrize(("depth", "macs"), [(20, 40_551_040), (56, 125_485_696)])
def test_cifar_resnets_by_hand(depth: int, macs: int) -> None:
    """Published as 41M and 125M. The two strided convolutions work on half the channels."""
    blocks = (depth - 2) // 6
    full, strided = 1024 * 9 * 16 * 16, 256 * 9 * 16 * 32
    assert 1024 * 27 * 16 + 2 * blocks * full + 2 * (strided + (2 * blocks - 1) * full) + 640 == macs
    backbone = resnet_cifar.build(resnet_cifar.Config(depth=depth), CIFAR, 10)
    assert cost.macs(backbone, CIFAR).executed == macs


def test_resnet18_has_the_published_cost() -> None:
    backbone = torchvision_model.build(torchvision_model.Config(), (3, 224, 224), 1000)
    assert cost.parameters(backbone) == 11_689_512
    assert cost.macs(backbone, (3, 224, 224)).executed == 1_814_073_344


@pytest.mark.parametrize("architecture", ["mobilenet_v3_small", "shufflenet_v2_x0_5", "regnet_y_400mf"])
def test_grouped_architectures_have_the_cost_that_torchvision_documents(architecture: str) -> None:
    documented = torchvision.models.get_model_weights(architecture).DEFAULT.meta
    backbone = torchvision_model.build(torchvision_model.Config(architecture), (3, 224, 224), 1000)
    assert cost.parameters(backbone) == documented["num_params"]
    assert cost.macs(backbone, (3, 224, 224)).executed / 1e9 == pytest.approx(documented["_ops"], abs=6e-4)


def test_attention_by_hand() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, images: Tensor) -> Tensor:
            tokens = images.flatten(2).transpose(1, 2)
            return self.attention(tokens, tokens, tokens, need_weights=False)[0].mean(1)

    tokens, width = 9, 8
    products = 4 * tokens * width * width + 2 * tokens * tokens * width
    assert cost.macs(wrap(Attention(), width=8, channels=8), (8, 3, 3)).executed == products + 16


class Recurrent(nn.Module):
    """A batch-first LSTM with a read-out at every step."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(5 + 3, 6, num_layers=layers, batch_first=True)
        self.read = nn.Linear(6, 3)

    def forward(self, embeddings: Tensor, logits: Tensor) -> Tensor:
        return self.read(self.lstm(torch.cat([embeddings, logits], -1))[0])


SHAPE = SetShape(torch.zeros(5), torch.ones(5), torch.zeros(3))


@pytest.mark.parametrize("layers", [1, 2])
def test_batch_first_lstm_by_hand(layers: int) -> None:
    step = 4 * 6 * (8 + 6) + (layers - 1) * 4 * 6 * (6 + 6) + 6 * 3
    assert cost.aggregator_macs(Recurrent(layers), SHAPE, [1, 2, 7]) == {1: step, 2: 2 * step, 7: 7 * step}


def test_aggregator_without_products_is_free_and_untouched() -> None:
    class Mean(nn.Module):
        def forward(self, embeddings: Tensor, logits: Tensor) -> Tensor:
            return logits.cumsum(1)

    assert cost.aggregator_macs(Mean(), SHAPE, (1, 4)) == {1: 0, 4: 0}


def test_counting_leaves_the_network_as_it_was() -> None:
    backbone = small().train()
    for parameter in backbone.parameters():
        parameter.requires_grad_(False)
    cost.macs(backbone, (1, 4, 4))
    assert backbone.training
    assert all(p.device.type == "cpu" and not p.requires_grad and p.grad is None for p in backbone.parameters())


def test_half_precision_counts_the_same() -> None:
    assert cost.macs(small().half(), (1, 4, 4)) == cost.macs(small(), (1, 4, 4))


def test_masked_weights_cost_their_share() -> None:
    backbone = wrap(nn.Conv2d(4, 6, 3), nn.Conv2d(6, 5, 1), nn.AdaptiveAvgPool2d(1), width=5)
    masks = {"body.0": torch.zeros(6, 4, 3, 3), "body.1": torch.ones(5, 6, 1, 1)}
    masks["body.0"][:2] = 1
    masks["body.1"][0, :3] = 0
    _masks.apply_masks(backbone, masks)
    first, second = 49 * 6 * 4 * 9, 49 * 30
    macs = cost.macs(backbone, (4, 9, 9))
    assert macs.executed == first + second + 10
    assert macs.effective == pytest.approx(first / 3 + second * 27 / 30 + 10)


def test_parameters_do_not_count_masked_weights_or_buffers() -> None:
    backbone = wrap(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.AdaptiveAvgPool2d(1), width=6)
    total = 6 * 4 * 9 + 6 + 12 + 12 + 2
    assert cost.parameters(backbone) == total
    mask = torch.ones(6, 4, 3, 3)
    mask[0] = 0
    _masks.apply_masks(backbone, {"body.0": mask})
    assert cost.parameters(backbone) == total - 36


def test_bytes_by_hand() -> None:
    backbone = wrap(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.AdaptiveAvgPool2d(1), width=6)
    values = 216 + 6 + 4 * 6 + 12 + 2 + 2 * 4  # weights, biases, batch norm, classifier, mean and deviation of channels
    counter = 8  # batches seen by the batch norm, 64 bits
    assert cost.bytes_on_disk(backbone) == cost.Bytes(4 * values + counter, 4 * values + counter)
    mask = torch.ones(6, 4, 3, 3)
    mask.view(-1)[:100] = 0
    _masks.apply_masks(backbone, {"body.0": mask})
    assert cost.bytes_on_disk(backbone) == cost.Bytes(4 * values + counter, 4 * (values - 100) + counter + 216 // 8)
    assert cost.bytes_on_disk(backbone.half()).dense == 4 * values + counter


def test_costs_of_the_dense_network_are_neutral() -> None:
    dense = small()
    costs = cost.costs(dense, none.prune(dense, 1.0, none.Config(), CONTEXT), (1, 4, 4))
    assert (costs.achieved_ratio, costs.prunable_ratio, costs.theoretical_speedup, costs.sparsity) == (1, 1, 1, 0)
    assert costs.macs_dense == costs.macs_executed == costs.macs_effective == 550
    assert costs.bytes_dense == costs.bytes_sparse == 4 * (550 + 33 + 2)
    assert costs.collapsed_layers == ()


def test_costs_of_a_masked_network() -> None:
    dense = small()
    masks = {name: torch.zeros_like(layer.weight) for name, layer in _masks.prunable(dense).items()}
    masks["body.1"][:, :4] = 1
    pruned = magnitude.prune(dense, 1.0, magnitude.Config(), CONTEXT)
    _masks.apply_masks(pruned, masks)
    assert cost.costs(dense, pruned, (1, 4, 4)) == cost.Costs(
        parameters_dense=583,
        parameters=583 - 440,
        achieved_ratio=583 / 143,
        prunable_ratio=520 / 80,
        sparsity=1 - 80 / 520,
        macs_dense=550,
        macs_executed=550,
        macs_effective=110.0,
        theoretical_speedup=5.0,
        bytes_dense=4 * 585,
        bytes_sparse=4 * (585 - 440) + 40 + 25,
        collapsed_layers=("body.3",),
    )


def test_costs_of_a_physically_smaller_network() -> None:
    dense = small()
    pruned = unit.prune(dense, 3.0, unit.Config(), CONTEXT)
    first, second = (layer.out_features for layer in _masks.prunable(pruned).values())
    weights = 16 * first + first * second
    costs = cost.costs(dense, pruned, (1, 4, 4))
    assert costs.parameters == weights + first + second + 3 * second + 3
    assert costs.achieved_ratio == 583 / costs.parameters
    assert costs.prunable_ratio == 520 / weights
    assert costs.macs_executed == costs.macs_effective == weights + 3 * second
    assert costs.bytes_dense == costs.bytes_sparse == 4 * (costs.parameters + 2)


def test_prunable_ratio_of_a_network_with_nothing_to_prune() -> None:
    dense = mlp.build(mlp.Config(widths=()), (1, 4, 4), 3)
    costs = cost.costs(dense, dense, (1, 4, 4))
    assert (costs.prunable_ratio, costs.sparsity) == (1.0, 0.0)


@pytest.mark.parametrize(("ratio", "speedup"), [(2.0, 1.7), (4.0, 2.8), (8.0, 4.4), (16.0, 7.3), (32.0, 12.9)])
def test_speedup_of_resnet20_lags_behind_its_ratio(ratio: float, speedup: float) -> None:
    """Early layers are the smallest in weights and the dearest in MACs. The numbers are published ones of trained
    networks; here the weights are those at initialisation, hence the tolerance.
    """
    with rng.seeded(0):
        dense = resnet_cifar.build(resnet_cifar.Config(), CIFAR, 10)
    costs = cost.costs(dense, magnitude.prune(dense, ratio, magnitude.Config(), CONTEXT), CIFAR)
    assert costs.achieved_ratio == pytest.approx(ratio, rel=1e-3)
    assert costs.theoretical_speedup == pytest.approx(speedup, rel=0.08)


def test_latency_says_how_it_was_measured_and_leaves_the_network_alone() -> None:
    backbone = small().train()
    latency = cost.measure_latency(backbone, (1, 4, 4), batch=3, repeats=3, warmup=1)
    assert latency.median_ms > 0
    assert (latency.batch, latency.threads, latency.device) == (3, torch.get_num_threads(), "cpu")
    assert backbone.training
