"""Measured against theoretical speedup of a structurally pruned residual network on the CPU, and on a GPU if there."""

from __future__ import annotations

import copy
import functools

import torch

from benchmarks._measure import Result, interleaved, ratios, summarize
from sharedlabel import rng
from sharedlabel.backbones import resnet_cifar
from sharedlabel.backbones._base import Backbone
from sharedlabel.measurements import counts, latency
from sharedlabel.pruners import _methods, filter_l1
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
# On a GPU a batch of 32 small images is over before the next kernel has been launched, so a large batch is timed too.
GPU_WIDTHS = (16, 64)
GPU_PASSES: tuple[tuple[latency.Mode, int], ...] = (("eager", BATCH), ("eager", 1024), ("compiled", 1024))


def run(quick: bool) -> list[Result]:
    """Time ResNet-20 and the same network with 4 times fewer MACs, alternating."""
    widths, rounds = ({8: None}, 1) if quick else (WIDTHS, 9)
    results = [measured(width, bound, rounds, torch.contiguous_format) for width, bound in widths.items()]
    results.append(measured(min(widths), None, rounds, torch.channels_last))
    if torch.cuda.is_available() and not quick:
        results += [measured_on_gpu(width, *how) for how in GPU_PASSES for width in GPU_WIDTHS]
    return results


def measured(width: int, bound: float | None, rounds: int, layout: torch.memory_format) -> Result:
    """Compare one network with its pruned self.

    Args:
        width: channels of the first stage.
        bound: least share of the theoretical speedup.
        rounds: passes of each network.
        layout: memory format of weights and images.
    """
    dense, pruned, theoretical = dense_and_pruned(width)
    networks = [copy.deepcopy(network).eval().to(memory_format=layout) for network in (dense, pruned)]
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


def measured_on_gpu(width: int, mode: latency.Mode, batch: int) -> Result:
    """Compare one network with its pruned self on the GPU, as `latency` of a grid does.

    Args:
        width: channels of the first stage.
        mode: eager or compiled.
        batch: images per pass.
    """
    dense, pruned, theoretical = dense_and_pruned(width)
    times = latency.latency(pruned, SHAPE, batch, torch.device("cuda"), mode=mode, reference=dense)
    share, low, high = (
        times.reference_ms / taken / theoretical for taken in (times.median_ms, times.high_ms, times.low_ms)
    )
    note = (
        f"ResNet-20 of width {width}, batch {batch}: {times.reference_ms:.3g} against {times.median_ms:.3g} ms "
        f"(medians; the range is that of the quartiles), {theoretical:.2f} times fewer MACs"
    )
    what = f"structured pruning: share of the theoretical speedup on the GPU, {mode}"
    return Result(what, share, "x", low, high, note=note)


@functools.cache
def dense_and_pruned(width: int) -> tuple[Backbone, Backbone, float]:
    """Return ResNet-20, the same with a quarter of the MACs, and how many times fewer they are exactly."""
    with rng.seeded(0, "benchmarks"):
        dense = resnet_cifar.build(resnet_cifar.Config(depth=20, width=width), SHAPE, CLASSES)
    pruned = with_fewer_macs(dense, SPEEDUP)
    return dense, pruned, counts.macs(dense, SHAPE).executed / counts.macs(pruned, SHAPE).executed


def with_fewer_macs(dense: Backbone, speedup: float) -> Backbone:
    """Prune filters by the compression ratio that comes closest to a theoretical speedup, found by bisection."""
    before, low, high = counts.macs(dense, SHAPE).executed, 1.0, 4 * speedup
    for _ in range(10):
        ratio = (low * high) ** 0.5
        pruned = _methods.prune(filter_l1, dense, ratio, filter_l1.Config(), Context(rng.generator(0)))
        enough = before / counts.macs(pruned, SHAPE).executed >= speedup
        low, high = (low, ratio) if enough else (ratio, high)
    return pruned
