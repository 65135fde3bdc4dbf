"""What running a network takes on a device: time per batch and peak memory.

Networks are measured as they are deployed without special kernels: in evaluation mode, 32-bit floats and the default
memory format, masked weights stored as zeros.
"""

from __future__ import annotations

import copy
import functools
import statistics
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sharedlabel.backbones._base import Backbone
from sharedlabel.errors import ConfigError
from sharedlabel.measurements import timing
from sharedlabel.measurements.timing import Clock, Seconds, now
from sharedlabel.pruners._masks import bake

Mode = Literal["eager", "compiled"]
_WARM_UP_PASSES = 5


@dataclass(frozen=True)
class PassTimes:
    """The measured time of a batch.

    Attributes:
        device: name of the device.
        mode: `eager`, or `compiled` through torch.compile.
        batch: images in the batch.
        threads: CPU threads used by torch.
        clock: that of the times: `cpu` with one thread on a CPU, `wall` for several threads and other devices.
        median_ms: median time of one batch, milliseconds.
        low_ms: first quartile.
        high_ms: third quartile.
        reference_ms: median of the reference network, measured in turns with this one; of this one without any.
        wall_ms: median time of one batch on the wall, whatever the clock.
        contention: time on the wall / processor time of the calling thread over all passes, the larger one of the two
            networks; None on other devices than a CPU, where the calling thread waits.
    """

    device: str
    mode: Mode
    batch: int
    threads: int
    clock: Literal["cpu", "wall"]
    median_ms: float
    low_ms: float
    high_ms: float
    reference_ms: float
    wall_ms: float
    contention: float | None


def latency(
    backbone: Backbone,
    image_shape: tuple[int, int, int],
    batch: int = 32,
    device: torch.device | None = None,
    *,
    mode: Mode = "eager",
    reference: Backbone | None = None,
    repeats: int = 30,
    seconds: float = 1.0,
    clock: Clock = now,
) -> PassTimes:
    """Time the classification of a batch, on a copy of the network in evaluation mode.

    With one thread on a CPU the time is that of the processor, which stands still while other programs have the core.
    Several threads share their work out in ways that no processor time tells, so the wall's clock is read for them; as
    for other devices, which are waited for. The two networks take turns in blocks of passes, so that whatever slows the
    machine slows both, and each finds its own data in the caches.

    Args:
        backbone: the network.
        image_shape: channels, height and width of an image.
        batch: images in the batch.
        device: where to run; None: where the network is.
        mode: `eager`, or `compiled` for one static shape.
        reference: a network to measure beside it, such as the dense one.
        repeats: timed passes of each network at most.
        seconds: once a network has spent this long and three blocks of passes, no further block starts.
        clock: what the time is read from.

    Raises:
        ConfigError: the network cannot be compiled here.
    """
    device = device or next(backbone.parameters()).device
    images = _images(batch, image_shape, device)
    if mode == "compiled":
        torch.compiler.reset()  # else later networks hit the limit on recompilations and would silently run eagerly
    networks = [_ready(network, device, mode) for network in (backbone, reference) if network is not None]
    passes = [functools.partial(_synchronized, network, images) for network in networks]
    with torch.inference_mode():
        for one in passes:
            _warm_up(one, seconds, clock)
        taken = timing.in_turns(passes, repeats, seconds, clock)
    return _latency(taken, device, mode, batch)


def _latency(taken: Sequence[Sequence[Seconds]], device: torch.device, mode: Mode, batch: int) -> PassTimes:
    """Summarise the passes of a network, and of its reference if there is one."""
    threads = torch.get_num_threads()
    kind: Literal["cpu", "wall"] = "cpu" if device.type == "cpu" and threads == 1 else "wall"
    own, *others = ([1000 * float(getattr(one, kind)) for one in passes] for passes in taken)
    low, median, high = statistics.quantiles(own, n=4, method="inclusive")
    ratios = [timing.contention(passes) for passes in taken] if device.type == "cpu" else []
    return PassTimes(
        device=_name(device),
        mode=mode,
        batch=batch,
        threads=threads,
        clock=kind,
        median_ms=median,
        low_ms=low,
        high_ms=high,
        reference_ms=statistics.median(others[0]) if others else median,
        wall_ms=1000 * statistics.median(one.wall for one in taken[0]),
        contention=max((ratio for ratio in ratios if ratio is not None), default=None),
    )


def peak_memory(
    backbone: Backbone, image_shape: tuple[int, int, int], batch: int = 32, device: torch.device | None = None
) -> int:
    """Return the bytes of all tensors alive at once while a batch is classified eagerly, weights and images included.

    On a GPU it is what PyTorch's allocator hands out (`max_memory_allocated`), the workspaces of kernels included. On
    other devices tensors are counted as operations make them and as they are freed, which gives the same number on
    every run; scratch memory inside a kernel is not seen.

    Args:
        backbone: the network.
        image_shape: channels, height and width of an image.
        batch: images in the batch.
        device: where to run; None: where the network is.
    """
    device = device or next(backbone.parameters()).device
    network, images = _ready(backbone, device, "eager"), _images(batch, image_shape, device)
    stored = [images, *network.parameters(), *network.buffers()]
    with torch.no_grad():  # inference mode would hide what composite operations allocate
        if device.type == "cuda":
            return _peak_on_gpu(network, images, stored)
        counted = _Allocations(stored)
        with counted:
            network(images)
    return counted.peak


def _peak_on_gpu(network: nn.Module, images: Tensor, stored: Sequence[Tensor]) -> int:
    network(images)  # libraries allocate their lasting workspaces in the first pass
    torch.cuda.synchronize(images.device)
    torch.cuda.reset_peak_memory_stats(images.device)
    before = torch.cuda.memory_allocated(images.device)
    network(images)
    torch.cuda.synchronize(images.device)
    own = sum(tensor.untyped_storage().nbytes() for tensor in stored)
    return own + torch.cuda.max_memory_allocated(images.device) - before


class _Allocations(TorchDispatchMode):
    """Counts the bytes of the tensors that are alive: each storage from the operation that makes it until it is freed.

    Args:
        stored: tensors that are there from the start.
    """

    def __init__(self, stored: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.current = self.peak = 0
        self._known: set[int] = set()
        for tensor in stored:
            self._add(tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count what it returns."""
        del types
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._add(tensor)
        return made

    def _add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()  # views share it
        if storage._cdata in self._known:
            return
        self._known.add(storage._cdata)
        self.current += storage.nbytes()
        self.peak = max(self.peak, self.current)
        weakref.finalize(storage, self._drop, storage._cdata, storage.nbytes())

    def _drop(self, address: int, size: int) -> None:
        self._known.discard(address)
        self.current -= size


def _images(batch: int, image_shape: tuple[int, int, int], device: torch.device) -> Tensor:
    return torch.full((batch, *image_shape), 0.5, device=device)


def _ready(backbone: Backbone, device: torch.device, mode: Mode) -> nn.Module:
    """Copy a network to where and how it is to run."""
    network = copy.deepcopy(backbone)
    bake(network)  # masks serve training; a deployed network has none
    network.to(device).eval()
    return torch.compile(network, dynamic=False) if mode == "compiled" else network  # type: ignore[return-value]


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _warm_up(one_pass: Callable[[], None], seconds: float, clock: Clock) -> None:
    """Run passes that do not count: the first compiles, allocates and fills caches."""
    try:
        one_pass()
    except Exception as error:
        from torch._dynamo.exc import BackendCompilerFailed

        if not isinstance(error, BackendCompilerFailed):
            raise
        raise ConfigError(
            f"latency.modes: expected a network and a machine on which 'compiled' works, got: {error.inner_exception}; "
            "install a C++ compiler (and Triton for a GPU), or leave 'compiled' out"
        ) from error
    spent = 0.0
    for _ in range(_WARM_UP_PASSES - 1):
        spent += timing.one_pass(one_pass, clock).wall
        if spent > seconds / 2:
            break


def _synchronized(network: nn.Module, images: Tensor) -> None:
    """Run a network and wait for its result."""
    network(images)
    _synchronize(images.device)


def _synchronize(device: torch.device) -> None:
    """Wait until an accelerator has finished."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
