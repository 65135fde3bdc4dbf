"""Time and memory to score and mask a ResNet-50 globally, and what masks add to a training step of a ResNet-20."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks._masking_child import CLASSES, RATIO, prune, resnet50
from benchmarks._measure import Result, Times, interleaved, ratios, seconds, summarize
from benchmarks._memory import growth
from sharedlabel import rng
from sharedlabel.backbones import resnet_cifar
from sharedlabel.backbones._base import Backbone
from sharedlabel.backbones._masking import masked_call
from sharedlabel.pruners import _masks, _methods, magnitude, snip
from sharedlabel.pruners._base import Context

# Otherwise glibc keeps what was freed for later, and the peak depends on the order of earlier sizes.
RETURN_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "65536"}
TIME_BOUND = 2.0
MEMORY_BOUND = 3.0
STEP_BOUND = 1.0
MASKED_BOUND = 1.05
BATCH = 32  # images of a step
STEPS = 50  # timed together
# Pruner, side of the images in pixels, rounds (0: it has none).
MEASURED = (("magnitude", 224, 0), ("random", 224, 0), ("synflow", 32, 3), ("synflow", 224, 3))


def run(quick: bool) -> list[Result]:
    """Time scoring and masking against one training pass and one sort, then watch the memory of fresh processes."""
    side, batch, rounds = (64, 2, 1) if quick else (224, 32, 3)
    return [
        *_times(side, batch, rounds),
        *_memory(1 if quick else 3, 32 if quick else None),
        *_masks_alone(3 if quick else 31),
        _training_step(2 if quick else 15),
    ]


def _times(side: int, batch: int, rounds: int) -> list[Result]:
    """Time pruners side by side with one forward and backward pass plus one sort of all weights."""
    network = resnet50(side)
    images = torch.rand(batch, 3, side, side, generator=rng.generator(0, "benchmarks"))
    labels = torch.arange(batch) % CLASSES
    weights = torch.cat([parameter.detach().flatten() for parameter in network.parameters()])
    against = f"a training pass of {batch} images of {side} x {side} plus one sort of {len(weights) / 1e6:.1f} million"
    context = Context(rng.generator(0, "benchmarks"), images, labels)

    def reference() -> None:
        network.zero_grad()
        nn.functional.cross_entropy(network.train()(images), labels).backward()
        weights.abs().sort()
        network.eval().zero_grad()

    calls = {
        "magnitude": lambda: prune(network, "magnitude"),
        "snip": lambda: _methods.prune(snip, network, RATIO, snip.Config(examples=batch), context),
        "synflow, one round": lambda: prune(network, "synflow", 1),
    }
    results = []
    for name, call in calls.items():
        taken, passes = interleaved(call, reference, rounds)
        note = (
            f"{statistics.median(taken):.2f} s against {statistics.median(passes):.2f} s for {against} weights; "
            f"median of {rounds}"
        )
        what = f"masking: {name}, ResNet-50 to {RATIO:g}x"
        results.append(summarize(what, "x", ratios(taken, passes), bound=TIME_BOUND, note=note))
    whole = seconds(weights.sort)
    results.append(summarize("masking: one sort of all weights", "s", whole, note="for comparison"))
    return results


def _memory(rounds: int, side: int | None) -> list[Result]:
    """Watch the memory of processes that mask the network; `side` stands in for every size of images."""
    size = sum(parameter.numel() * parameter.element_size() for parameter in resnet50(64).parameters()) / 2**20
    results = []
    for name, pixels, steps in MEASURED:
        arguments = ["-m", "benchmarks._masking_child", name, str(side or pixels), str(steps)]
        values = [growth(arguments, RETURN_MEMORY) / size for _ in range(rounds)]
        note = (
            f"{statistics.median(values) * size:.0f} MiB of anonymous memory above the loaded network of {size:.0f} "
            "MiB, the pruned network and its masks included; "
            f"median of {rounds} processes whose allocator returns what "
            "what is freed"
        )
        what = f"masking: memory of {name} / weights, images of {side or pixels} x {side or pixels}"
        results.append(summarize(what, "x", values, bound=MEMORY_BOUND, note=note))
    return results


class _Weights(nn.Module):
    """The masked layers of a network, of which a pass only adds the weights up: what masks cost is not hidden.

    Args:
        network: masked.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(network.get_submodule(name) for name, _, _ in _masks.masked(network))

    def forward(self, start: Tensor) -> Tensor:
        """Return the sum of all weights."""
        weights = [layer.weight.sum() for layer in self.layers]  # type: ignore[operator]
        return start + torch.stack(weights).sum()


def _cpu(call: Callable[[], object]) -> float:
    """Return the CPU seconds of one call, of all threads: what others do on the machine is not in it."""
    started = time.process_time()
    call()
    return time.process_time() - started


def _masked_resnet20() -> Backbone:
    dense = resnet_cifar.build(resnet_cifar.Config(depth=20, width=16), (3, 32, 32), 10)
    return _methods.prune(magnitude, dense, 8.0, magnitude.Config(), Context(rng.generator(0, "benchmarks")))


def _masks_alone(rounds: int) -> list[Result]:
    """Compare the masks of every pass with two passes over the layers in a step, over gradients and over weights."""
    weights = _Weights(_masked_resnet20())
    start = torch.zeros(())

    def masked() -> None:
        for _ in range(STEPS):
            weights.zero_grad()
            masked_call(weights, start).backward()

    def plain() -> None:
        for _ in range(STEPS):
            weights.zero_grad()
            weights(start).backward()

    @torch.no_grad()
    def by_layer() -> None:
        for _ in range(STEPS):
            for _, weight, mask in _masks.masked(weights):
                assert weight.grad is not None
                weight.grad.mul_(mask)
            for _, weight, mask in _masks.masked(weights):
                weight.mul_(mask)

    both = [(_cpu(masked), _cpu(plain), _cpu(by_layer)) for _ in range(rounds + 1)][1:]
    added = Times(1e6 * (one - other) / STEPS for one, other, _ in both)
    before = Times(1e6 * taken / STEPS for *_, taken in both)
    note = (
        f"{statistics.median(added):.0f} us more of CPU time for passing forward and backward with "
        f"{len(weights.layers)} masks, "
        f"against {statistics.median(before):.0f} us for multiplying their gradients and weights layer by layer; "
        f"median of {rounds} rounds of {STEPS} steps"
    )
    what = "masking: added to a training step of ResNet-20 / by layer, before and after the optimiser"
    return [summarize(what, "x", ratios(added, before), bound=STEP_BOUND, note=note)]


def _training_step(rounds: int) -> Result:
    """Compare training steps of a masked network with those of the same network with its zeros baked in."""
    masked = _masked_resnet20().train()
    bare = copy.deepcopy(masked)
    _masks.bake(bare)
    images = torch.rand(BATCH, 3, 32, 32, generator=rng.generator(0, "benchmarks"))
    labels = torch.arange(BATCH) % 10

    def step(network: Backbone) -> Callable[[], None]:
        optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)

        def call() -> None:
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(images), labels).backward()
            optimizer.step()

        return call

    ours, without = interleaved(step(masked), step(bare), rounds, passes=6)
    note = (
        f"{1e3 * statistics.median(ours):.1f} against {1e3 * statistics.median(without):.1f} ms, {BATCH} images, SGD; "
        f"median of {rounds} rounds"
    )
    what = "masking: training step of a masked ResNet-20 / of the same without masks"
    return summarize(what, "x", ratios(ours, without), bound=MASKED_BOUND, note=note)
