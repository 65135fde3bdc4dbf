"""Measured against theoretical speedup of a structurally pruned residual network on the CPU."""

from __future__ import annotations

import torch

from benchmarks._measure import Result, interleaved, ratios, summarize
from sharedlabel import cost, rng
from sharedlabel.backbones import resnet_cifar
from sharedlabel.backbones._base import Backbone
from sharedlabel.pruners import filter_l1
from sharedlabel.pruners._base import Context

BOUND = 0.7
SPEEDUP = 4.0  # fewer MACs
BATCH = 32
PASSES = 6  # in a turn
SHAPE = (3, 32, 32)
CLASSES = 10
# The bound is for the widths of ResNet-18. Half of 16 channels fills half a vector register of 16 numbers (AVX-512), so
# that narrow networks cannot become as fast as they become small; that is reported without a bound.
WIDTHS: dict[int, float | None] = {16: None, 32: None, 64: BOUND}


def run(quick: bool) -> list[Result]:
    """Time ResNet-20 and the same network with 4 times fewer MACs, alternating."""
    widths, rounds = ({8: None}, 1) if quick else (WIDTHS, 9)
    results = [measured(width, bound, rounds, torch.contiguous_format) for width, bound in widths.items()]
    return [*results, measured(min(widths), None, rounds, torch.channels_last)]


def measured(width: int, bound: float | None, rounds: int, layout: torch.memory_format) -> Result:
    """Compare one network with its pruned self.

    Args:
        width: channels of the first stage.
        bound: least share of the theoretical speedup.
        rounds: passes of each network.
        layout: memory format of weights and images.
    """
    with rng.seeded(0, "benchmarks"):
        dense = resnet_cifar.build(resnet_cifar.Config(depth=20, width=width), SHAPE, CLASSES)
    pruned = with_fewer_macs(dense, SPEEDUP)
    theoretical = cost.macs(dense, SHAPE).executed / cost.macs(pruned, SHAPE).executed
    networks = [network.eval().to(memory_format=layout) for network in (dense, pruned)]
    images = torch.rand(BATCH, *SHAPE, generator=rng.generator(0, "benchmarks")).to(memory_format=layout)
    with torch.inference_mode():
        before, after = interleaved(lambda: networks[0](images), lambda: networks[1](images), rounds, PASSES)
    note = (
        f"ResNet-20 of width {width}, {'channels last' if layout == torch.channels_last else 'contiguous'}, batch "
        f"{BATCH}, {torch.get_num_threads()} threads: {1000 * min(before):.1f} against {1000 * min(after):.1f} ms "
        f"(best of {rounds} turns), {theoretical:.2f} times fewer MACs"
    )
    shares = ratios(before, after, 1 / theoretical)
    what = "structured pruning: share of the theoretical speedup"
    return summarize(what, "x", shares, bound=bound, better="at least", note=note)


def with_fewer_macs(dense: Backbone, speedup: float) -> Backbone:
    """Prune filters by the compression ratio that comes closest to a theoretical speedup, found by bisection."""
    before, low, high = cost.macs(dense, SHAPE).executed, 1.0, 4 * speedup
    for _ in range(10):
        ratio = (low * high) ** 0.5
        pruned = filter_l1.prune(dense, ratio, filter_l1.Config(), Context(rng.generator(0)))
        enough = before / cost.macs(pruned, SHAPE).executed >= speedup
        low, high = (low, ratio) if enough else (ratio, high)
    return pruned
