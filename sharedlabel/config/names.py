"""Names that rows, tables and rules know, each written down once."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

Protocol: TypeAlias = Literal["iid", "grouped", "sequence"]

DENSE: Final = "none"  # the pruner of the dense network
DENSE_NETWORK: Final = "dense"  # what tables call the dense network
EXACT: Final = "exact"  # the aggregator whose posterior is exact; synthetic data have one
FROZEN: Final = "frozen"  # the training of aggregators on fixed features
JOINT: Final = "joint"  # of backbone and aggregator together
CROSSFIT: Final = "crossfit"  # of aggregators on features by networks that did not see the image
IID: Final = "iid"  # the protocol whose tuples hold any instances of a label
GROUPED: Final = "grouped"  # the protocol whose tuples hold instances of one group
SEQUENCE: Final = "sequence"  # the protocol whose tuples are consecutive instances of one group, in its order


def network_name(pruner: str, ratio: float) -> str:
    """Name a compressed network as tables do.

    >>> network_name("magnitude", 4.0), network_name("none", 1.0)
    ('magnitude 4x', 'dense')
    """
    return DENSE_NETWORK if pruner == DENSE else f"{pruner} {ratio:g}x"


def method_name(aggregator: str, training: str) -> str:
    """Name an aggregator as tables do, with its training where that is not the usual one.

    >>> method_name("lstm", "frozen"), method_name("lstm", "joint")
    ('lstm', 'lstm (joint)')
    """
    return aggregator if training == FROZEN else f"{aggregator} ({training})"
