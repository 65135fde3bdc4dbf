from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision
from torch import Tensor, nn

from sharedlabel import rng
from sharedlabel.aggregators._base import Aggregator
from sharedlabel.backbones import _packed, mlp, resnet_cifar, torchvision_model
from sharedlabel.backbones._base import Backbone
from sharedlabel.backbones._restore import state
from sharedlabel.errors import CompressionError
from sharedlabel.measurements import counts
from sharedlabel.pruners import _masks, _methods, butterfly, magnitude, none, unit
from sharedlabel.pruners._base import Context
from sharedlabel.records import NetworkCosts
from sharedlabel.store import Output, Store, serialize
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
    assert counts.macs(backbone, (4, 9, 9)) == counts.Macs(macs + 12, float(macs + 12))


def test_depthwise_and_pointwise_by_hand() -> None:
    backbone = wrap(nn.Conv2d(4, 8, 3, groups=4, padding=1), nn.Conv2d(8, 5, 1), nn.AdaptiveAvgPool2d(1), width=5)
    assert counts.macs(backbone, (4, 6, 6)).executed == 36 * 8 * 9 + 36 * 8 * 5 + 10


def test_mlp_by_hand() -> None:
    assert counts.macs(small(), (1, 4, 4)).executed == 16 * 20 + 20 * 10 + 10 * 3


def test_normalisation_and_activations_are_free() -> None:
    assert isinstance(counts.macs(small(), (1, 4, 4)).executed, int)
    backbone = wrap(nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), width=4)
    assert counts.macs(backbone, (4, 8, 8)).executed == 8


@pytest.mark.parametrize(("depth", "macs"), [(20, 40_551_040), (56, 125_485_696)])
def test_cifar_resnets_by_hand(depth: int, macs: int) -> None:
    """Published as 41M and 125M. The two strided convolutions work on half the channels."""
    blocks = (depth - 2) // 6
    full, strided = 1024 * 9 * 16 * 16, 256 * 9 * 16 * 32
    assert 1024 * 27 * 16 + 2 * blocks * full + 2 * (strided + (2 * blocks - 1) * full) + 640 == macs
    backbone = resnet_cifar.build(resnet_cifar.Config(depth=depth), CIFAR, 10)
    assert counts.macs(backbone, CIFAR).executed == macs


def test_resnet18_has_the_published_cost() -> None:
    backbone = torchvision_model.build(torchvision_model.Config(), (3, 224, 224), 1000)
    assert counts.parameters(backbone) == 11_689_512
    assert counts.macs(backbone, (3, 224, 224)).executed == 1_814_073_344


@pytest.mark.parametrize("architecture", ["mobilenet_v3_small", "shufflenet_v2_x0_5", "regnet_y_400mf"])
def test_grouped_architectures_have_the_cost_that_torchvision_documents(architecture: str) -> None:
    documented = torchvision.models.get_model_weights(architecture).DEFAULT.meta
    backbone = torchvision_model.build(torchvision_model.Config(architecture), (3, 224, 224), 1000)
    assert counts.parameters(backbone) == documented["num_params"]
    assert counts.macs(backbone, (3, 224, 224)).executed / 1e9 == pytest.approx(documented["_ops"], abs=6e-4)


class Attention(nn.Module):
    """Self-attention over the positions of an image; keys and values may have another width."""

    def __init__(self, width: int, other: int | None = None, *, batch_first: bool = True) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, 2, kdim=other, vdim=other, batch_first=batch_first)
        self.other, self.batch_first = other, batch_first

    def forward(self, images: Tensor) -> Tensor:
        tokens = images.flatten(2).transpose(1, 2)
        tokens = tokens if self.batch_first else tokens.transpose(0, 1)
        keys = tokens if self.other is None else tokens[..., : self.other]
        mixed: Tensor = self.attention(tokens, keys, keys, need_weights=False)[0]
        return mixed.mean(1 if self.batch_first else 0)


TOKENS, WIDTH = 9, 8
SCORES = 2 * TOKENS * TOKENS * WIDTH  # queries by keys, then weights by values, over all heads


@pytest.mark.parametrize("batch_first", [True, False])
def test_attention_with_packed_projections_by_hand(batch_first: bool) -> None:
    backbone = wrap(Attention(WIDTH, batch_first=batch_first), width=WIDTH, channels=WIDTH)
    assert counts.macs(backbone, (WIDTH, 3, 3)).executed == 4 * TOKENS * WIDTH * WIDTH + SCORES + 2 * WIDTH


def test_attention_with_separate_projections_by_hand() -> None:
    backbone = wrap(Attention(WIDTH, 5), width=WIDTH, channels=WIDTH)
    projections = TOKENS * WIDTH * (WIDTH + 5 + 5 + WIDTH)
    assert counts.macs(backbone, (WIDTH, 3, 3)).executed == projections + SCORES + 2 * WIDTH


def test_a_mask_on_the_output_of_attention_saves_its_share() -> None:
    """Attention uses the weight of this layer without calling the layer."""
    backbone = wrap(Attention(WIDTH), width=WIDTH, channels=WIDTH)
    mask = torch.ones(WIDTH, WIDTH)
    mask[:, :6] = 0
    _masks.apply_masks(backbone, {"body.0.attention.out_proj": mask})
    macs = counts.macs(backbone, (WIDTH, 3, 3))
    assert macs.executed - macs.effective == TOKENS * WIDTH * 6


class Recurrent(Aggregator):
    """An LSTM over the instances with a read-out at every step."""

    permutation_invariant = False

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.lstm = nn.LSTM(5 + 3, 6, **options)
        width = options.get("proj_size", 6) * (2 if options.get("bidirectional") else 1)
        self.read = nn.Linear(width, 3)

    def forward(self, embeddings: Tensor, logits: Tensor) -> Tensor:
        steps = torch.cat([embeddings, logits], -1)
        if not self.lstm.batch_first:
            steps = steps.transpose(0, 1)
        scores = self.read(self.lstm(steps)[0])
        return scores if self.lstm.batch_first else scores.transpose(0, 1)


class Costly(Aggregator):
    """Each posterior after the first costs a product of its own, unless the last alone is asked for."""

    permutation_invariant = True

    def __init__(self) -> None:
        super().__init__()
        self.read = nn.Linear(5, 3)

    def forward(self, embeddings: Tensor, logits: Tensor) -> Tensor:
        return self.read(embeddings)

    def at(self, embeddings: Tensor, logits: Tensor, prefixes: Sequence[int]) -> Tensor:
        return self.read(embeddings[:, [k - 1 for k in prefixes]])


def test_every_posterior_costs_more_than_the_last() -> None:
    assert counts.anytime_macs(Costly(), SHAPE, [1, 4]) == {1: 15, 4: 60}
    assert counts.aggregator_macs(Costly(), SHAPE, [1, 4]) == {1: 15, 4: 15}


class Stacked(Aggregator):
    """As many products as an attribute says."""

    permutation_invariant = True

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.depth, self.read = depth, nn.Linear(5, 5)
        self.scale = nn.Parameter(torch.randn(5, generator=rng.generator(depth)))

    def forward(self, embeddings: Tensor, logits: Tensor) -> Tensor:
        for _ in range(self.depth):
            embeddings = self.read(embeddings)
        return embeddings[..., :3] * self.scale[:3]


def test_aggregators_of_one_structure_are_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, known, count = [], {}, counts.call_macs
    monkeypatch.setattr(counts, "call_macs", lambda *given: calls.append(given) or count(*given))
    assert counts.aggregator_macs(Stacked(1), SHAPE, [1, 4], known) == {1: 25, 4: 100}
    other = Stacked(1)
    nn.init.zeros_(other.scale)
    assert counts.aggregator_macs(other, SHAPE, [1, 4], known) == {1: 25, 4: 100}
    assert len(calls) == 2
    assert counts.aggregator_macs(Stacked(2), SHAPE, [1, 4], known) == {1: 50, 4: 200}
    assert counts.anytime_macs(Stacked(1), SHAPE, [4, 3], known) == {4: 100, 3: 75}
    assert counts.anytime_macs(Stacked(1), SHAPE, [3, 4], known) == {3: 75, 4: 100}
    assert len(calls) == 6
    assert counts.anytime_macs(Costly(), SHAPE, [1, 4], known) == {1: 15, 4: 60}
    assert counts.aggregator_macs(Costly(), SHAPE, [1, 4], known) == {1: 15, 4: 15}
    assert len(calls) == 10


def local() -> Aggregator:
    class Local(Costly):
        pass

    return Local()


def parametrised() -> Aggregator:
    aggregator = Costly()
    nn.utils.parametrizations.weight_norm(aggregator.read)
    return aggregator


@pytest.mark.parametrize("make", [local, parametrised])
def test_an_aggregator_that_cannot_be_pickled_is_counted_every_time(make, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, known, count = [], {}, counts.call_macs
    monkeypatch.setattr(counts, "call_macs", lambda *given: calls.append(given) or count(*given))
    for _ in range(2):
        assert counts.anytime_macs(make(), SHAPE, [1, 4], known) == {1: 15, 4: 60}
    assert len(calls) == 4
    assert known == {}


def test_a_class_that_was_written_anew_is_counted_anew(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a notebook that reloads a plugin: the name is the same, the class is not."""
    text = """
import torch
from sharedlabel.aggregators._base import Aggregator

class Written(Aggregator):
    permutation_invariant = True

    def __init__(self):
        super().__init__()
        self.read = torch.nn.Linear(5, 3)

    def forward(self, embeddings, logits):
        return self.read(embeddings){again}
"""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "written_anew.py").write_text(text.format(again=""))
    module, known = importlib.import_module("written_anew"), {}
    assert counts.anytime_macs(module.Written(), SHAPE, [2], known) == {2: 30}
    (tmp_path / "written_anew.py").write_text(text.format(again=" + self.read(embeddings)"))
    assert counts.anytime_macs(importlib.reload(module).Written(), SHAPE, [2], known) == {2: 60}


def test_weights_of_butterfly_layers_can_be_pruned() -> None:
    with rng.seeded(0):
        dense = mlp.build(mlp.Config(widths=(64, 64)), (1, 8, 8), 3)
    pruned = _methods.prune(butterfly, dense, 2.0, butterfly.Config(), CONTEXT)
    costs = counts.costs(dense, pruned, (1, 8, 8))
    kept = counts.parameters(pruned) - (counts.parameters(dense) - 2 * 64 * 64)  # what is no weight of the body stays
    assert costs.prunable_ratio == pytest.approx(2 * 64 * 64 / kept)
    assert costs.sparsity == pytest.approx(1 - kept / (2 * 64 * 64))


SHAPE = SetShape(torch.zeros(5), torch.ones(5), torch.zeros(3))
GATES = 4 * 6  # four gates of six units


@pytest.mark.parametrize(
    ("options", "step"),
    [
        ({"batch_first": True}, GATES * (8 + 6) + 6 * 3),
        ({"batch_first": False}, GATES * (8 + 6) + 6 * 3),
        ({"batch_first": True, "num_layers": 2}, GATES * (8 + 6) + GATES * (6 + 6) + 6 * 3),
        ({"batch_first": True, "bidirectional": True}, 2 * GATES * (8 + 6) + 12 * 3),
        (
            {"batch_first": False, "bidirectional": True, "num_layers": 2},
            2 * GATES * (8 + 6) + 2 * GATES * (12 + 6) + 12 * 3,
        ),
        ({"batch_first": True, "proj_size": 2}, GATES * (8 + 2) + 6 * 2 + 2 * 3),
        ({"batch_first": True, "bias": False}, GATES * (8 + 6) + 6 * 3),
    ],
    ids=str,
)
def test_lstm_by_hand(options: dict[str, Any], step: int) -> None:
    assert counts.aggregator_macs(Recurrent(**options), SHAPE, [1, 2, 7]) == {1: step, 2: 2 * step, 7: 7 * step}


class Rows(nn.Module):
    """A batch-first LSTM that reads an image row by row."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4 * 9, 6, batch_first=True)

    def forward(self, images: Tensor) -> Tensor:
        return self.lstm(images.transpose(1, 2).flatten(2))[0][:, -1]


def test_lstm_in_a_backbone_by_hand() -> None:
    assert counts.macs(wrap(Rows(), width=6), (4, 9, 9)) == counts.Macs(
        9 * GATES * (36 + 6) + 12, 9.0 * GATES * 42 + 12
    )


def test_aggregator_without_products_is_free_and_untouched() -> None:
    class Mean(Aggregator):
        permutation_invariant = True

        def forward(self, embeddings: Tensor, logits: Tensor) -> Tensor:
            return logits.cumsum(1)

    assert counts.aggregator_macs(Mean(), SHAPE, (1, 4)) == {1: 0, 4: 0}


def test_counting_leaves_the_network_as_it_was() -> None:
    backbone = small().train()
    for parameter in backbone.parameters():
        parameter.requires_grad_(False)
    counts.macs(backbone, (1, 4, 4))
    assert backbone.training
    assert all(p.device.type == "cpu" and not p.requires_grad and p.grad is None for p in backbone.parameters())


def test_half_precision_counts_the_same() -> None:
    assert counts.macs(small().half(), (1, 4, 4)) == counts.macs(small(), (1, 4, 4))


def test_masked_weights_cost_their_share() -> None:
    backbone = wrap(nn.Conv2d(4, 6, 3), nn.Conv2d(6, 5, 1), nn.AdaptiveAvgPool2d(1), width=5)
    masks = {"body.0": torch.zeros(6, 4, 3, 3), "body.1": torch.ones(5, 6, 1, 1)}
    masks["body.0"][:2] = 1
    masks["body.1"][0, :3] = 0
    _masks.apply_masks(backbone, masks)
    first, second = 49 * 6 * 4 * 9, 49 * 30
    macs = counts.macs(backbone, (4, 9, 9))
    assert macs.executed == first + second + 10
    assert macs.effective == pytest.approx(first / 3 + second * 27 / 30 + 10)


def test_parameters_do_not_count_masked_weights_or_buffers() -> None:
    backbone = wrap(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.AdaptiveAvgPool2d(1), width=6)
    total = 6 * 4 * 9 + 6 + 12 + 12 + 2
    assert counts.parameters(backbone) == total
    mask = torch.ones(6, 4, 3, 3)
    mask[0] = 0
    _masks.apply_masks(backbone, {"body.0": mask})
    assert counts.parameters(backbone) == total - 36


def test_bytes_by_hand() -> None:
    backbone = wrap(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.AdaptiveAvgPool2d(1), width=6)
    values = 216 + 6 + 4 * 6 + 12 + 2 + 2 * 4  # weights, biases, batch norm, classifier, mean and deviation of channels
    counter = 8  # batches seen by the batch norm, 64 bits
    assert counts.bytes_on_disk(backbone) == counts.Bytes(4 * values + counter, 4 * values + counter)
    mask = torch.ones(6, 4, 3, 3)
    mask.view(-1)[:100] = 0
    _masks.apply_masks(backbone, {"body.0": mask})
    assert counts.bytes_on_disk(backbone) == counts.Bytes(4 * values + counter, 4 * (values - 100) + counter + 216 // 8)
    assert counts.bytes_on_disk(backbone.half()).dense == 4 * values + counter


@pytest.mark.parametrize(("weights", "mask"), [(1, 1), (7, 1), (8, 1), (9, 2), (16, 2), (17, 3)])
def test_a_bit_mask_takes_whole_bytes(weights: int, mask: int) -> None:
    backbone = wrap(nn.Flatten(), nn.Linear(weights, 1, bias=False), width=1)
    dense = counts.bytes_on_disk(backbone)
    _masks.apply_masks(backbone, {"body.1": torch.ones(1, weights)})
    assert counts.bytes_on_disk(backbone) == counts.Bytes(dense.dense, dense.dense + mask)


def content(size: int, file: bytes) -> int:
    """Size of a safetensors file without its header, whose length its first eight bytes say."""
    return size - 8 - int.from_bytes(file[:8], "little")


def test_dense_bytes_are_those_of_a_stored_file_up_to_its_header(tmp_path: Path) -> None:
    with rng.seeded(0):
        backbone = resnet_cifar.build(resnet_cifar.Config(depth=8, width=4), CIFAR, 10)
    artifact = Store(tmp_path).save("dense", "key", Output(state(backbone)), {}, 0.0)
    (file,) = artifact.folder.glob("*.safetensors")
    assert counts.file_bytes(backbone).dense == file.stat().st_size
    assert content(file.stat().st_size, file.read_bytes()) == counts.bytes_on_disk(backbone).dense


def test_masked_networks_have_small_sparse_files() -> None:
    dense = small()
    pruned = _methods.prune(magnitude, dense, 4.0, magnitude.Config(), CONTEXT)
    size, packed = counts.file_bytes(pruned), serialize(_packed.pack(state(pruned)))
    assert size == counts.Bytes(counts.file_bytes(dense).dense, len(packed))
    shapes = 2 * 2 * 8  # rows and columns of two layers, 64 bits each
    assert content(len(packed), packed) == counts.bytes_on_disk(pruned).sparse + shapes


@pytest.mark.parametrize("ratio", [1.0, 2.0, 9.0])
def test_nothing_is_lost_by_packing(ratio: float) -> None:
    tensors = state(_methods.prune(magnitude, small(), ratio, magnitude.Config(), CONTEXT))
    stored = safetensors.torch.load(serialize(_packed.pack(tensors)))
    for name in ("body.1", "body.3"):
        shape = stored.pop(f"{name}.weight_shape").tolist()
        bits = np.unpackbits(stored.pop(f"{name}.weight_mask").numpy(), bitorder="little")
        mask = torch.from_numpy(bits[: math.prod(shape)]).view(shape).bool()
        assert bits.sum() == mask.sum()
        assert torch.equal(mask, tensors.pop(f"{name}.weight_mask").bool())
        weight = torch.zeros(shape).masked_scatter_(mask, stored.pop(f"{name}.weight"))
        assert torch.equal(weight, tensors.pop(f"{name}.weight"))
    assert stored.keys() == tensors.keys()
    assert all(torch.equal(stored[name], tensor) for name, tensor in tensors.items())


def test_costs_of_the_dense_network_are_neutral() -> None:
    dense = small()
    costs = counts.costs(dense, _methods.prune(none, dense, 1.0, none.Config(), CONTEXT), (1, 4, 4))
    assert (costs.achieved_ratio, costs.prunable_ratio, costs.theoretical_speedup, costs.sparsity) == (1, 1, 1, 0)
    assert costs.macs_dense == costs.macs_executed == costs.macs_effective == 550
    assert costs.bytes_dense == costs.bytes_sparse == 4 * (550 + 33 + 2)
    assert (costs.collapsed_layers, costs.densest_layer_share) == ("", 1)


def test_costs_of_a_masked_network() -> None:
    dense = small()
    masks = {name: torch.zeros_like(layer.weight) for name, layer in _masks.prunable(dense).items()}
    masks["body.1"][:, :4] = 1
    pruned = _methods.prune(magnitude, dense, 1.0, magnitude.Config(), CONTEXT)
    _masks.apply_masks(pruned, masks)
    assert counts.costs(dense, pruned, (1, 4, 4)) == NetworkCosts(
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
        collapsed_layers="body.3",
        densest_layer_share=0.25,
    )


def test_costs_of_a_physically_smaller_network() -> None:
    dense = small()
    pruned = _methods.prune(unit, dense, 3.0, unit.Config(), CONTEXT)
    first, second = (layer.out_features for layer in _masks.called_layers(pruned).values())
    weights = 16 * first + first * second
    costs = counts.costs(dense, pruned, (1, 4, 4))
    assert costs.parameters == weights + first + second + 3 * second + 3
    assert costs.achieved_ratio == 583 / costs.parameters
    assert costs.prunable_ratio == 520 / weights
    assert costs.macs_executed == costs.macs_effective == weights + 3 * second
    assert costs.bytes_dense == costs.bytes_sparse == 4 * (costs.parameters + 2)


def test_prunable_ratio_of_a_network_with_nothing_to_prune() -> None:
    dense = mlp.build(mlp.Config(widths=()), (1, 4, 4), 3)
    costs = counts.costs(dense, dense, (1, 4, 4))
    assert (costs.prunable_ratio, costs.sparsity) == (1.0, 0.0)


@pytest.mark.parametrize(("ratio", "speedup"), [(2.0, 1.7), (4.0, 2.8), (8.0, 4.4), (16.0, 7.3), (32.0, 12.9)])
def test_speedup_of_resnet20_lags_behind_its_ratio(ratio: float, speedup: float) -> None:
    """Early layers are the smallest in weights and the dearest in MACs. The numbers are published ones of trained
    networks; here the weights are those at initialisation, hence the tolerance.
    """
    with rng.seeded(0):
        dense = resnet_cifar.build(resnet_cifar.Config(), CIFAR, 10)
    costs = counts.costs(dense, _methods.prune(magnitude, dense, ratio, magnitude.Config(), CONTEXT), CIFAR)
    assert costs.achieved_ratio == pytest.approx(ratio, rel=1e-3)
    assert costs.theoretical_speedup == pytest.approx(speedup, rel=0.08)


class Applied(nn.Module):
    """A function between a flattened image and the classifier."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, images: Tensor) -> Tensor:
        return self.function(images.flatten(1))


@pytest.mark.parametrize(
    ("function", "operation"),
    [
        (lambda x: nn.functional.bilinear(x, x, torch.empty(3, 8, 8, device="meta")), "aten._trilinear"),
        (lambda x: x @ torch.empty(8, device="meta") * torch.empty(1, 3, device="meta"), "aten.mv"),
        (lambda x: torch.dot(x[0], x[0]) * torch.empty(1, 3, device="meta"), "aten.dot"),
        (lambda x: torch.cdist(x, torch.empty(3, 8, device="meta")), "aten._cdist_forward"),
        (lambda x: torch.linalg.solve(torch.empty(8, 8, device="meta"), x.T).T[:, :3], "aten._linalg_solve_ex"),
        (lambda x: torch.zeros(1, 3, device="meta").addmm_(x, torch.empty(8, 3, device="meta")), "aten.addmm_"),
    ],
    ids=["bilinear", "mv", "dot", "cdist", "solve", "in place"],
)
def test_products_that_cannot_be_counted_are_refused(function: Callable[[Tensor], Tensor], operation: str) -> None:
    backbone = Backbone(Applied(function), nn.Linear(3, 2), (2, 2, 2))
    with pytest.raises(
        CompressionError, match=f"expected operations whose MACs can be counted, got {operation}, which"
    ):
        counts.macs(backbone, backbone.image_shape)


def test_norms_cross_products_and_transforms_are_free() -> None:
    def function(x: Tensor) -> Tensor:
        three = x[:, :3] / torch.linalg.vector_norm(x, dim=1, keepdim=True)
        return torch.linalg.cross(three, three) + torch.outer(x[:, 0], x[0, :3])

    assert counts.macs(Backbone(Applied(function), nn.Linear(3, 2), (2, 2, 2)), (2, 2, 2)).executed == 6


class Secret(Aggregator):
    """Multiplies where nobody counts."""

    permutation_invariant = True

    def forward(self, embeddings, logits):
        secret = torch.from_numpy(logits.detach().numpy() @ torch.eye(logits.shape[2]).numpy())
        return torch.log_softmax(secret.cumsum(1), -1)


def test_work_that_is_done_in_secret_is_refused_whoever_counts():
    shape = SetShape(torch.zeros(4), torch.ones(4), torch.full((3,), 1 / 3).log())
    for known in (None, {}):
        with pytest.raises(TypeError, match="meta device"):
            counts.aggregator_macs(Secret(), shape, [1, 2], known)
