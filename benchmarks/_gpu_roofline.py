"""On a GPU: how near features and training come to the least time that the same GPU needs for their arithmetic.

An image takes at least the larger of two times: its operations at the speed of a large product of matrices in 16 bits,
and its activations, each written once and read once in 16 bits, at the speed of a large copy.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks._gpu import Facts, Setting, quickest, seconds
from benchmarks._gpu_training import RECIPE, TINY, train
from sharedlabel.backbones._base import Backbone
from sharedlabel.measurements import counts
from sharedlabel.training.devices import tuned
from sharedlabel.training.embedding import embed

_PASSES = 3  # of a training step, as multiples of its forward pass: backward there are two, for inputs and for weights
_BYTES = 2  # of a number in 16 bits
_REPEATS = 10


def shares(setting: Setting) -> Iterator[Facts]:
    """Yield what the GPU can do, then what features and training of ResNet-18 and ResNet-20 do of it."""
    peak, bandwidth = _product(setting), _copy(setting)
    yield {"what": "peak", "bf16_flops": peak, "bytes_per_second": bandwidth}
    for depth in (18, 20):
        yield from _network(setting, depth, peak, bandwidth)


def _product(setting: Setting) -> float:
    """Return the operations a second of a large product of matrices in 16 bits."""
    size = 128 if setting.tiny else 8192
    left, right = torch.randn(2, size, size, device=setting.device, dtype=torch.bfloat16)
    return 2 * size**3 * _REPEATS / quickest(lambda: [left @ right for _ in range(_REPEATS)], setting.device, 3)


def _copy(setting: Setting) -> float:
    """Return the bytes a second that a large copy reads and writes."""
    source = torch.zeros(2**20 if setting.tiny else 2**31, dtype=torch.uint8, device=setting.device)
    target = torch.empty_like(source)
    taken = quickest(lambda: [target.copy_(source) for _ in range(_REPEATS)], setting.device, 3)
    return 2 * source.numel() * _REPEATS / taken


def _network(setting: Setting, depth: int, peak: float, bandwidth: float) -> Iterator[Facts]:
    prepared = setting.grid(setting.network(depth), "--pruners=[magnitude]", "--ratios=[1]")
    recipe = dataclasses.replace(TINY if setting.tiny else RECIPE, epochs=1)
    network, _ = train(prepared, recipe)  # also wakes up what it calls
    data, runtime, shape = prepared.data, prepared.experiment.trainer, prepared.data.dataset.image_shape
    order = data.splits["backbone"]
    macs, moved = counts.macs(network, shape).executed, _bytes(network, shape)
    least = max(2 * macs / peak, moved / bandwidth)
    images = len(order) // recipe.batch_size * recipe.batch_size  # of an epoch
    with tuned(runtime):
        embedding = quickest(lambda: list(embed(network, data.dataset.images, order, runtime)), setting.device, 2)
    training = seconds(lambda: train(prepared, recipe), setting.device)
    taken = {"features": embedding / len(order), "training": training / images}  # of an image
    for what, each in taken.items():
        passes = _PASSES if what == "training" else 1
        yield {
            "what": what,
            "network": next(iter(prepared.backbones)),
            "macs": macs,
            "bytes": moved,
            "images_per_second": 1 / each,
            "share_of_peak_flops": passes * 2 * macs / peak / each,
            "share_of_roofline": passes * least / each,
        }


def _bytes(network: Backbone, shape: tuple[int, int, int]) -> int:
    """Return the bytes of an image's activations, each written once and read once in 16 bits."""
    sizes: list[int] = []

    def count(layer: nn.Module, inputs: Any, output: Tensor) -> None:
        del layer, inputs
        sizes.append(output.numel())

    layers = [layer for layer in network.modules() if not list(layer.children())]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    with torch.no_grad():
        network(torch.zeros(1, *shape))
    for hook in hooks:
        hook.remove()
    return 2 * _BYTES * sum(sizes)
