"""What a decision costs, and how many bits a dense pass buys. Plain arithmetic on numbers or numpy arrays."""

from __future__ import annotations

from typing import Any, TypeAlias

from numpy.typing import NDArray

from sharedlabel.metrics import _checks

Number: TypeAlias = float | int | NDArray[Any]


def cost(k: Number, backbone_macs: Number, aggregator_macs: Number) -> Number:
    """Return the MACs of a decision on k instances.

    Args:
        k: number of instances.
        backbone_macs: MACs of the backbone for one instance.
        aggregator_macs: MACs of the aggregator for a tuple of k.

    >>> cost(4, 100.0, 20)
    420.0
    """
    _checks.positive("numbers of instances", k)
    _checks.number("MACs", backbone_macs, 0)
    _checks.number("MACs", aggregator_macs, 0)
    return k * backbone_macs + aggregator_macs


def dense_passes(macs: Number, dense_macs: Number) -> Number:
    """Return a cost in passes of the dense backbone over one instance.

    Args:
        macs: cost in MACs.
        dense_macs: MACs of the dense backbone for one instance.
    """
    _checks.number("MACs", macs, 0)
    _checks.positive("MACs of the dense backbone", dense_macs)
    return macs / dense_macs


def efficiency(gain: Number, passes: Number) -> Number:
    """Return bits per dense pass. It rewards ever smaller networks: a curve to look at, not a rule to choose by.

    Args:
        gain: information gain in bits.
        passes: cost in dense passes.
    """
    _checks.number("gains", gain)
    _checks.positive("costs in dense passes", passes)
    return gain / passes
