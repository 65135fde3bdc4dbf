"""Measured time and memory; real times are not tested, made-up ones are."""

from __future__ import annotations

import functools
import itertools

import jaxtyping
import pytest
import torch
from torch import Tensor, nn

from sharedlabel import rng
from sharedlabel.backbones import mlp
from sharedlabel.backbones._base import Backbone
from sharedlabel.errors import ConfigError
from sharedlabel.measurements import latency
from sharedlabel.measurements.timing import Seconds
from sharedlabel.pruners import _methods, magnitude
from sharedlabel.pruners._base import Context

SHAPE = (1, 4, 4)
FLOAT = 4


def build(*widths: int) -> Backbone:
    with rng.seeded(0):
        return mlp.build(mlp.Config(widths=widths), SHAPE, 3)


def stored_bytes(network: nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())


def test_latency_says_how_it_was_measured_and_leaves_the_network_alone() -> None:
    backbone = build(20, 10).train()
    times = latency.latency(backbone, SHAPE, 3, repeats=4)
    assert 0 < times.low_ms <= times.median_ms <= times.high_ms
    assert (times.device, times.mode, times.batch, times.threads) == ("cpu", "eager", 3, torch.get_num_threads())
    assert times.reference_ms == times.median_ms
    assert (times.clock, times.wall_ms > 0) == ("cpu", True)
    assert backbone.training
    assert all(parameter.grad is None for parameter in backbone.parameters())


class Recorded(nn.Module):
    """Says in a list when it is run."""

    def __init__(self, name: str, calls: list[str]) -> None:
        super().__init__()
        self.name, self.calls = name, calls

    def __deepcopy__(self, memo: object) -> Recorded:
        return self  # the copy must say so in the same list

    def forward(self, images: Tensor) -> Tensor:
        assert not self.training
        self.calls.append(self.name)
        return images


def recorded(name: str, calls: list[str]) -> Backbone:
    return Backbone(nn.Sequential(Recorded(name, calls), nn.Flatten()), nn.Linear(16, 3), SHAPE)


def test_networks_take_turns_in_blocks() -> None:
    calls: list[str] = []
    latency.latency(recorded("a", calls), SHAPE, reference=recorded("b", calls), repeats=4, seconds=1000.0)
    warm = 2 * latency._WARM_UP_PASSES
    assert calls[:warm] == ["a"] * (warm // 2) + ["b"] * (warm // 2)
    assert calls[warm:] == ["a"] * 4 + ["b"] * 8 + ["a"] * 4  # two passes of a block do not count, two do


class Clocks:
    """Two clocks; on a busy machine the wall's runs on, in some passes and not in others.

    Args:
        waits: seconds without a core in each pass, over and over.
    """

    def __init__(self, *waits: float) -> None:
        self.wall = self.cpu = 0.0
        self.waits = itertools.cycle(waits or (0.0,))

    def __call__(self) -> Seconds:
        return Seconds(self.wall, self.cpu)

    def work(self, seconds: float) -> None:
        self.cpu += seconds
        self.wall += seconds + next(self.waits)


class Working(Recorded):
    """Takes time on made-up clocks."""

    def __init__(self, seconds: float, clocks: Clocks) -> None:
        super().__init__("", [])
        self.seconds, self.clocks = seconds, clocks

    def forward(self, images: Tensor) -> Tensor:
        self.clocks.work(self.seconds)
        return images


def timed(clocks: Clocks) -> latency.PassTimes:
    """A network that is 4 times as fast as the one it is compared with, measured on made-up clocks."""
    small, large = (
        Backbone(nn.Sequential(Working(seconds, clocks), nn.Flatten()), nn.Linear(16, 3), SHAPE)
        for seconds in (0.002, 0.008)
    )
    return latency.latency(small, SHAPE, 1, reference=large, clock=clocks)


def test_other_work_on_the_core_leaves_the_times_alone_and_is_told() -> None:
    quiet, busy = timed(Clocks()), timed(Clocks(0.0, 0.06, 0.01))
    for times in (quiet, busy):
        assert times.clock == "cpu"
        assert (times.low_ms, times.median_ms, times.high_ms) == pytest.approx((2, 2, 2))
        assert times.reference_ms / times.median_ms == pytest.approx(4)
    assert quiet.wall_ms == pytest.approx(2)
    assert quiet.contention == pytest.approx(1)
    assert busy.wall_ms == pytest.approx(12)
    assert busy.contention == pytest.approx((2 + 70 / 3) / 2, rel=0.01)  # of the small network, which waits as long


def test_with_several_threads_the_wall_is_read_and_waits_are_told() -> None:
    torch.set_num_threads(2)
    times = timed(Clocks(0.001))
    assert (times.clock, times.threads) == ("wall", 2)
    assert (times.median_ms, times.wall_ms, times.reference_ms) == pytest.approx((3, 3, 9))
    assert times.contention == pytest.approx(1.5)


def test_measuring_stops_when_its_time_is_up() -> None:
    calls: list[str] = []
    latency.latency(recorded("a", calls), SHAPE, repeats=1000, seconds=1e-9)
    assert len(calls) == 2 + 3  # the first pass and one that takes too long, then the fewest to take a median of


@pytest.fixture
def _unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave type checks out: torch 2.11 cannot compile beartype's, and nobody compiles with them but the tests."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.mark.usefixtures("_unchecked")
def test_compiled_networks_stay_compiled_however_many_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit on recompilations torch would run eagerly. Dynamo is real here, its backend is not."""
    compiled: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> object:
        compiled.append(len(inputs))
        return graph.forward

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    with torch._dynamo.config.patch(recompile_limit=1):
        for width in (2, 3):
            before = len(compiled)
            times = latency.latency(build(width), SHAPE, 2, mode="compiled", repeats=1)
            assert times.mode == "compiled"
            assert len(compiled) > before


@pytest.mark.usefixtures("_unchecked")
def test_a_network_that_cannot_be_compiled_here_is_a_user_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> object:
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    with pytest.raises(ConfigError, match=r"latency\.modes: expected .* 'compiled' works, got: .*no C\+\+ compiler"):
        latency.latency(build(5), SHAPE, mode="compiled")


@pytest.mark.parametrize("batch", [1, 7])
def test_peak_memory_of_a_perceptron_by_hand(batch: int) -> None:
    backbone = build(40, 10)
    images = batch * 16 * FLOAT
    # The normalised images, which the call of the body holds on to, and at most two results at once: the first linear
    # layer's and its activation's. Flattened images and transposed weights are views.
    alive = (16 + 40 + 40) * batch * FLOAT
    assert latency.peak_memory(backbone, SHAPE, batch) == stored_bytes(backbone) + images + alive


def test_peak_memory_of_convolutions_by_hand() -> None:
    body = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(4), nn.Flatten())
    backbone = Backbone(body, nn.Linear(8, 3), SHAPE)
    images = 5 * 16 * FLOAT
    indices = 5 * 8 * 8  # max pooling makes the positions of its maxima too, 64 bits each
    alive = images + 5 * (128 + 8) * FLOAT + indices
    assert latency.peak_memory(backbone, SHAPE, 5) == stored_bytes(backbone) + images + alive


def test_peak_memory_is_the_same_every_time_and_without_masks() -> None:
    backbone = build(40, 10)
    pruned = _methods.prune(magnitude, backbone, 4.0, magnitude.Config(), Context(torch.Generator()))
    assert {latency.peak_memory(network, SHAPE, 3) for network in (backbone, backbone, pruned)} == {
        latency.peak_memory(backbone, SHAPE, 3)
    }
    assert any(name.endswith("weight_mask") for name in pruned.state_dict())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_peak_memory_on_a_gpu_holds_what_is_counted_on_the_cpu() -> None:
    backbone = build(400, 100)
    counted = latency.peak_memory(backbone, SHAPE, 64)
    measured = latency.peak_memory(backbone, SHAPE, 64, torch.device("cuda"))
    assert counted <= measured <= 1.5 * counted + 2**20
