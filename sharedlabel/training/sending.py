"""Batches on their way to the device that computes: the next one travels while one is computed on."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor

_Arrived = Callable[[], list[Tensor]]  # returns a batch that is there when it is used


def sent(batches: Iterable[Sequence[Tensor]], device: torch.device) -> Iterator[list[Tensor]]:
    """Return batches on a device, one after the other.

    A GPU gets them through pinned memory by a stream of their own, so neither it nor this process waits for a copy:
    each is looked up, and on its way, before the one in front of it is used. What is on the device already stays as it
    is, and a CPU looks each up when it comes to it, while its cache holds it.

    Args:
        batches: parts of each, on the CPU or on the device.
        device: that computes.

    >>> [[part.tolist() for part in batch] for batch in sent([[torch.arange(2)], [torch.ones(1)]], torch.device("cpu"))]
    [[[0, 1]], [[1.0]]]
    """
    if device.type == "cuda":
        return _ahead(_pinned(batch, device) for batch in batches)
    return ([part.to(device) for part in batch] for batch in batches)


def _ahead(sending: Iterable[_Arrived]) -> Iterator[list[Tensor]]:
    """Yield what arrives, when the one after it has been sent."""
    waiting: _Arrived | None = None
    for coming in sending:
        if waiting is not None:
            yield waiting()
        waiting = coming
    if waiting is not None:
        yield waiting()


def _pinned(batch: Sequence[Tensor], device: torch.device) -> _Arrived:
    """Begin to send a batch to a GPU; what is returned lets the GPU, and not this process, wait for the end of it."""
    away = [part.device.type == "cpu" for part in batch]
    if not any(away):
        return lambda: list(batch)
    copying = _stream(device)
    with torch.cuda.stream(copying):
        there = [
            part.pin_memory().to(device, non_blocking=True) if outside else part
            for part, outside in zip(batch, away, strict=True)
        ]
    copied = copying.record_event()

    def arrived() -> list[Tensor]:
        computing = torch.cuda.current_stream(device)
        computing.wait_event(copied)
        for part, outside in zip(there, away, strict=True):
            if outside:  # its memory is the copying stream's, which may not use it again before it is computed on
                part.record_stream(computing)
        return there

    return arrived


@functools.cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """Return the stream that copies to a GPU: one, since each keeps memory of its own."""
    return torch.cuda.Stream(device)
