"""Fixed pseudo-random orders of the instances of every prefix."""

from __future__ import annotations

import torch
from jaxtyping import Int64
from torch import Tensor

from sharedlabel import rng

MODULUS = 2**31 - 1  # prime; the square of a remainder fits into 63 bits
ROUNDS = 4
SPACING = 2**20  # more instances than any tuple has


def orders(counts: Int64[Tensor, "k 1"], size: int | torch.SymInt, number: int) -> Int64[Tensor, "k n"]:
    """Return an order of instances for every prefix, which depends on the prefix's length and `number` alone.

    Instances are sorted by a hash of (length, instance) in integer arithmetic, so that an exported program of any
    length finds the same orders on every machine without storing them.

    Args:
        counts: instances in each prefix.
        size: instances in the tuple; symbolic while a program is exported.
        number: which of the orders.

    Returns:
        Indices of all instances; those of the prefix come first, in the order of `number`.
    """
    by_length, by_instance, offset, shift = (rng.derive(0, "orders", number, part) % MODULUS for part in range(4))
    instances = torch.arange(size, device=counts.device)
    keys = (by_length * counts + by_instance * instances + offset) % MODULUS
    for _ in range(ROUNDS):
        keys = (keys * keys + shift) % MODULUS
    later = (instances >= counts).to(keys.dtype)
    distinct = (keys + MODULUS * later) * SPACING + instances
    return distinct.argsort(-1)
