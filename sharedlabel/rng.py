"""The only place that seeds anything.

Every random draw comes from a stream named by a seed and a salt, so adding one draw never shifts another.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Iterator

import numpy as np
import torch


def derive(seed: int, *salt: str | int) -> int:
    """Derive a 63-bit seed from a seed and any number of salts.

    >>> derive(0, "dense") == derive(0, "dense"), derive(0, "dense") == derive(0, "prune")
    (True, False)
    """
    text = "/".join(str(part) for part in (seed, *salt))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *salt: str | int) -> torch.Generator:
    """Return a fresh CPU generator of the stream `(seed, *salt)`."""
    return torch.Generator().manual_seed(derive(seed, *salt))


@contextlib.contextmanager
def seeded(seed: int, *salt: str | int) -> Iterator[None]:
    """Seed torch's global generators (initialisation, dropout) inside the block and restore them after it."""
    devices = range(torch.cuda.device_count())
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(derive(seed, *salt))
        yield


def going_on(device: torch.device) -> torch.Generator:
    """Return a generator that draws on a device what torch's own would draw there from here on.

    >>> with seeded(0):
    ...     other = going_on(torch.device("cpu"))
    ...     torch.equal(torch.rand(2), torch.rand(2, generator=other))
    True
    """
    made = torch.Generator(device)
    made.set_state(torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state())
    return made


@contextlib.contextmanager
def untouched() -> Iterator[None]:
    """Let the block draw what it likes: after it torch, on CPU and CUDA, numpy and Python go on as if it had not.

    >>> with seeded(0):
    ...     with untouched():
    ...         before = torch.rand(1)
    ...     torch.equal(before, torch.rand(1))
    True
    """
    python, cpu = random.getstate(), torch.get_rng_state()
    arrays = np.random.get_state()  # noqa: NPY002 -- the stream of those who do not use generators
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(arrays)  # noqa: NPY002
        torch.set_rng_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state(cuda)
