"""What a network costs: parameters, MACs, bytes, measured latency.

MACs (multiply-accumulates) are those of matrix products and convolutions, padding included, counted analytically for
one instance; biases, normalisation, activations and other elementwise work are not counted.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from sharedlabel.backbones._base import Backbone
from sharedlabel.backbones._restore import MASK
from sharedlabel.pruners._masks import collapsed_layers, masked, prunable, removed
from sharedlabel.types import SetShape

_FLOAT32_BYTES = 4


@dataclass(frozen=True)
class Macs:
    """MACs of one pass over one instance.

    Attributes:
        executed: what dense kernels execute; masked weights count.
        effective: what is left when masked weights cost nothing: each layer's MACs times its density.
    """

    executed: int
    effective: float


@dataclass(frozen=True)
class Bytes:
    """Size of a network's tensors, floating-point values in 32 bits.

    Attributes:
        dense: every value stored, pruned ones included; masks are not.
        sparse: of masked weights only the values left and one bit per weight that says where they are.
    """

    dense: int
    sparse: int


@dataclass(frozen=True)
class Latency:
    """A measured time.

    Attributes:
        median_ms: median time of one batch, milliseconds.
        batch: instances in the batch.
        threads: CPU threads used by torch.
        device: name of the device.
    """

    median_ms: float
    batch: int
    threads: int
    device: str


@dataclass(frozen=True)
class Costs:
    """A pruned network against the dense one it came from; the fields are columns of `results.Row`."""

    parameters_dense: int
    parameters: int
    achieved_ratio: float
    prunable_ratio: float
    sparsity: float
    macs_dense: int
    macs_executed: int
    macs_effective: float
    theoretical_speedup: float
    bytes_dense: int
    bytes_sparse: int
    collapsed_layers: tuple[str, ...]


def parameters(network: nn.Module) -> int:
    """Count the parameters left: masked weights and buffers are not counted."""
    return sum(parameter.numel() for parameter in network.parameters()) - removed(network)


def macs(backbone: Backbone, image_shape: tuple[int, int, int]) -> Macs:
    """Count the MACs of classifying one image.

    Args:
        backbone: the network, with or without masks; it is not run.
        image_shape: channels, height and width of an image.
    """
    counts = _count(backbone, torch.empty(1, *image_shape, device="meta"))
    total = counts["Global"]
    pruned = (
        counts.get(f"{type(backbone).__name__}.{name}", 0) * (mask.numel() - int(mask.count_nonzero())) / mask.numel()
        for name, _, mask in masked(backbone)
    )
    return Macs(total, float(total) - sum(pruned))


def aggregator_macs(aggregator: nn.Module, shape: SetShape, n_list: Iterable[int]) -> dict[int, int]:
    """Count the MACs of one pass of an aggregator over one tuple, all its prefixes included.

    Args:
        aggregator: the aggregator; it is not run.
        shape: embedding width and number of classes.
        n_list: tuple sizes, instances.

    Returns:
        MACs by tuple size.
    """
    return {
        n: _count(
            aggregator,
            torch.empty(1, n, shape.embedding_dim, device="meta"),
            torch.empty(1, n, shape.num_classes, device="meta"),
        )["Global"]
        for n in n_list
    }


def _count(network: nn.Module, *inputs: Tensor) -> dict[str, int]:
    """Return the MACs of one pass by module, `Global` in all.

    On the meta device nothing is computed, and fused kernels that the counter does not know (recurrent, attention) are
    replaced by the products they are made of.
    """
    copied = copy.deepcopy(network).to("meta").float().eval()
    # With gradients on, attention layers do not take their fused inference path, which would go uncounted.
    with torch.enable_grad(), FlopCounterMode(display=False) as counter:
        copied.requires_grad_(True)(*inputs)
    totals = {name: sum(operations.values()) // 2 for name, operations in counter.get_flop_counts().items()}
    return {"Global": 0, **totals}


def bytes_on_disk(network: nn.Module) -> Bytes:
    """Size the parameters and buffers of a network."""
    tensors = {name: tensor for name, tensor in network.state_dict().items() if name.rpartition(".")[2] != MASK}
    dense = sum(t.numel() * (_FLOAT32_BYTES if t.is_floating_point() else t.element_size()) for t in tensors.values())
    bitmasks = sum((mask.numel() + 7) // 8 for _, _, mask in masked(network))
    return Bytes(dense, dense - _FLOAT32_BYTES * removed(network) + bitmasks)


def measure_latency(
    backbone: Backbone,
    image_shape: tuple[int, int, int],
    batch: int = 32,
    device: torch.device | None = None,
    repeats: int = 30,
    warmup: int = 5,
) -> Latency:
    """Time the classification of a batch, on a copy of the network in evaluation mode.

    Args:
        backbone: the network.
        image_shape: channels, height and width of an image.
        batch: images in the batch.
        device: where to run; None: where the network is.
        repeats: timed passes; the median is reported.
        warmup: passes before them, not timed.
    """
    device = device or next(backbone.parameters()).device
    network = copy.deepcopy(backbone).to(device).eval()
    images = torch.full((batch, *image_shape), 0.5, device=device)
    with torch.inference_mode():
        for _ in range(warmup):
            network(images)
        seconds = [_seconds(network, images) for _ in range(repeats)]
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return Latency(1000 * statistics.median(seconds), batch, torch.get_num_threads(), name)


def _seconds(network: nn.Module, images: Tensor) -> float:
    """Time one pass."""
    _synchronize(images.device)
    start = time.perf_counter()
    network(images)
    _synchronize(images.device)
    return time.perf_counter() - start


def _synchronize(device: torch.device) -> None:
    """Wait until an accelerator has finished."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def costs(dense: Backbone, pruned: Backbone, image_shape: tuple[int, int, int]) -> Costs:
    """Compare a pruned network with the dense one.

    Args:
        dense: the network before pruning.
        pruned: the network after it, masks not yet baked in.
        image_shape: channels, height and width of an image.
    """
    before, after = macs(dense, image_shape), macs(pruned, image_shape)
    weights, weights_left = _prunable_left(dense), _prunable_left(pruned)
    size = bytes_on_disk(pruned)
    return Costs(
        parameters_dense=parameters(dense),
        parameters=parameters(pruned),
        achieved_ratio=parameters(dense) / parameters(pruned),
        prunable_ratio=weights / weights_left if weights else 1.0,
        sparsity=1 - weights_left / weights if weights else 0.0,
        macs_dense=before.executed,
        macs_executed=after.executed,
        macs_effective=after.effective,
        theoretical_speedup=before.executed / after.effective,
        bytes_dense=size.dense,
        bytes_sparse=size.sparse,
        collapsed_layers=collapsed_layers(pruned),
    )


def _prunable_left(backbone: Backbone) -> int:
    """Count the prunable weights that no mask removes."""
    return sum(layer.weight.numel() for layer in prunable(backbone).values()) - removed(backbone)
