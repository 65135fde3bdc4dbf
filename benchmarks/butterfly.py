"""Butterfly layers against dense ones, the fused kernel against the plain form, and the best public butterfly."""

from __future__ import annotations

import copy
import importlib
import importlib.util
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks._measure import Result, interleaved, ratios, summarize
from sharedlabel import rng
from sharedlabel.backbones._butterfly import ButterflyLinear, weights

WIDTHS = (512, 1024, 2048, 4096, 8192, 16384)
BATCH = 256
PASSES = 6  # in a turn
# Width and largest share of a dense layer's weights.
BOUND = (4096, 0.04)
# Largest relative difference of the fused kernel in single precision from the plain form in double precision.
KERNEL_BOUND = 1e-4
# HazyResearch/butterfly: its kernels are built from source, it is in no package index.
PUBLIC = "torch_butterfly"


def run(quick: bool) -> list[Result]:
    """Compare layers with as many outputs as inputs, without a bias, k = log2 of the width."""
    widths, rounds = ((64, 128), 1) if quick else (WIDTHS, 50 if torch.cuda.is_available() else 7)  # a GPU is fast
    results: list[Result] = []
    won: dict[str, dict[int, bool]] = {}
    for width in widths:
        layer = ButterflyLinear(width, width, bias=False, generator=rng.generator(0, "benchmarks", "butterfly", width))
        results.append(_share(layer))
        for what, result in _times(layer, rounds).items():
            results.append(result)
            won.setdefault(what, {})[width] = result.measured > 1
        if torch.cuda.is_available() and importlib.util.find_spec("triton"):
            results += [_kernel_error(layer), *_kernel_times(layer, rounds)]
        if importlib.util.find_spec(PUBLIC):
            results.append(_against_public(layer, rounds))
    return results + [_crossing(what, faster) for what, faster in won.items()]


def _share(layer: ButterflyLinear) -> Result:
    width, count = layer.in_features, weights(layer)
    return summarize(
        f"butterfly {width} x {width}: share of a dense layer's weights",
        "",
        [count / width**2],
        bound=BOUND[1] if width == BOUND[0] else None,
        note=f"{count} of {width**2}, k = {layer.inputs.k}",
    )


def _crossing(what: str, faster: dict[int, bool]) -> Result:
    """State the width from which on the layer is faster than a dense one at every width; 0 if there is none."""
    always = [width for width in faster if all(won for other, won in faster.items() if other >= width)]
    start = min(always, default=0)
    note = "measured above" if start else "not faster at the largest width measured"
    if not importlib.util.find_spec(PUBLIC):
        note += f"; {PUBLIC}, the best public implementation, is in no package index and not installed: not compared"
    return Result(f"butterfly: faster than dense from this width on, {what}", start, "", start, start, note=note)


def _times(layer: ButterflyLinear, rounds: int) -> dict[str, Result]:
    """Time prediction and training steps beside those of a dense layer."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    width, dense = layer.in_features, nn.Linear(layer.in_features, layer.out_features, bias=False, device=device)
    layer.to(device)
    results = {}
    for what, batch, step in (
        (f"prediction, batch {BATCH}", BATCH, _predict),
        ("prediction, batch 1", 1, _predict),
        (f"forward and backward, batch {BATCH}", BATCH, _train),
    ):
        inputs = torch.randn(batch, width, generator=rng.generator(0, "benchmarks", "inputs")).to(device)
        slow, fast = interleaved(step(dense, inputs), step(layer, inputs), rounds, PASSES)
        note = f"{1000 * min(fast):.3g} ms against {1000 * min(slow):.3g} ms (best of {rounds} turns)"
        title = f"butterfly {width} x {width}: times as fast as dense, {what}"
        results[what] = summarize(title, "x", ratios(slow, fast), note=note)
    return results


def _fused(layer: ButterflyLinear) -> ButterflyLinear:
    """Copy a layer and let the Triton kernel multiply its paths out."""
    other = copy.deepcopy(layer)
    other.inputs.fused = other.outputs.fused = True
    return other


def _kernel_error(layer: ButterflyLinear) -> Result:
    """Compare outputs and gradients of the fused kernel with those of the plain form in double precision."""
    fused, exact = _fused(layer), copy.deepcopy(layer).double()
    inputs = torch.randn(BATCH, layer.in_features, generator=rng.generator(0, "benchmarks", "inputs"))
    tensors = []
    for one in (fused, exact):
        outputs = one(inputs.to(one.core))
        outputs.square().sum().backward()
        tensors.append([outputs.detach(), *(parameter.grad for parameter in one.parameters())])
    errors = [float((ours - true).norm() / true.norm()) for ours, true in zip(*tensors, strict=True)]
    return Result(
        f"butterfly {layer.in_features} x {layer.in_features}: relative error of the fused kernel",
        max(errors),
        "",
        max(errors),
        max(errors),
        bound=KERNEL_BOUND,
        note=f"difference from the plain form in double precision: outputs {errors[0]:.2g}, else gradients",
    )


def _kernel_times(layer: ButterflyLinear, rounds: int) -> list[Result]:
    """Time the fused kernel beside the plain form of the same layer."""
    width, fused = layer.in_features, _fused(layer)
    inputs = torch.randn(BATCH, width, generator=rng.generator(0, "benchmarks", "inputs")).to(layer.core.device)
    results = []
    for what, step in (("prediction", _predict), ("forward and backward", _train)):
        slow, fast = interleaved(step(layer, inputs), step(fused, inputs), rounds)
        title = f"butterfly {width} x {width}: fused kernel, times as fast as the plain form, {what}, batch {BATCH}"
        note = f"{1000 * min(fast):.3g} ms against {1000 * min(slow):.3g} ms (best of {rounds})"
        results.append(summarize(title, "x", ratios(slow, fast), note=note))
    return results


def _against_public(layer: ButterflyLinear, rounds: int) -> Result:
    """Time training steps beside those of the public implementation's full butterfly network, 2 n log2 n weights."""
    width, device = layer.in_features, layer.core.device
    public = importlib.import_module(PUBLIC).Butterfly(width, width, bias=False).to(device)
    inputs = torch.randn(BATCH, width, generator=rng.generator(0, "benchmarks", "inputs")).to(device)
    slow, fast = interleaved(_train(public, inputs), _train(layer, inputs), rounds, PASSES)
    count = sum(parameter.numel() for parameter in public.parameters())
    return summarize(
        f"butterfly {width} x {width}: times as fast as {PUBLIC}, forward and backward, batch {BATCH}",
        "x",
        ratios(slow, fast),
        note=f"{1000 * min(fast):.3g} ms against {1000 * min(slow):.3g} ms; {weights(layer)} against {count} weights",
    )


def _predict(layer: nn.Module, inputs: Tensor) -> Callable[[], None]:
    def call() -> None:
        with torch.inference_mode():
            layer(inputs)
        _wait(inputs)

    return call


def _train(layer: nn.Module, inputs: Tensor) -> Callable[[], None]:
    """Return a call that computes the gradients of inputs and weights, as inside a network."""
    inputs = inputs.clone().requires_grad_()

    def call() -> None:
        inputs.grad = None
        layer.zero_grad()
        layer(inputs).sum().backward()
        _wait(inputs)

    return call


def _wait(inputs: Tensor) -> None:
    if inputs.is_cuda:
        torch.cuda.synchronize()
