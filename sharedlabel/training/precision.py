"""In which numbers networks compute: what `trainer.precision` offers, as Lightning's plugins do it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager

import torch

# Precisions of the weights themselves, which have 32 bits before and after.
WEIGHTS = {"bf16-true": torch.bfloat16, "64-true": torch.float64}
# Precisions of what autocast computes in fewer bits, with weights of 32.
MIXED = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


def computing(precision: str, device: torch.device) -> AbstractContextManager[None]:
    """Return what surrounds a pass in a precision; weights and inputs are of the type of `WEIGHTS` already.

    Args:
        precision: a value of `trainer.precision`.
        device: that computes.

    >>> with computing("bf16-mixed", torch.device("cpu")):
    ...     (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
    torch.bfloat16
    """
    if precision in MIXED:
        return torch.autocast(device.type, MIXED[precision], cache_enabled=False)
    return _usual(WEIGHTS[precision]) if precision in WEIGHTS else contextlib.nullcontext()


@contextlib.contextmanager
def _usual(kind: torch.dtype) -> Iterator[None]:
    """Make tensors of a type where no other is asked for."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(kind)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
