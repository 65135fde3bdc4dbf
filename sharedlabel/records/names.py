"""Names that rows, tables and rules know, each written down once."""

from __future__ import annotations

DENSE = "none"  # the pruner of the dense network
EXACT = "exact"  # the aggregator whose posterior is exact; synthetic data have one
FROZEN = "frozen"  # the training of aggregators on fixed features
JOINT = "joint"  # of backbone and aggregator together
CROSSFIT = "crossfit"  # of aggregators on features by networks that did not see the image
IID = "iid"  # the protocol whose tuples hold any instances of a label
GROUPED = "grouped"  # the protocol whose tuples hold instances of one group
