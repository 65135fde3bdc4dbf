"""Set aggregators: one file each. The names here are what a file of your own needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sharedlabel.lazily import attach

if TYPE_CHECKING:
    from sharedlabel.aggregators._base import Aggregator as Aggregator
    from sharedlabel.aggregators._base import Standardize as Standardize
    from sharedlabel.aggregators._base import instance_features as instance_features
    from sharedlabel.aggregators._base import normalize as normalize
    from sharedlabel.aggregators._base import prefix_counts as prefix_counts
else:
    __getattr__, __dir__ = attach(
        __name__,
        {
            "Aggregator": "sharedlabel.aggregators._base",
            "Standardize": "sharedlabel.aggregators._base",
            "instance_features": "sharedlabel.aggregators._base",
            "normalize": "sharedlabel.aggregators._base",
            "prefix_counts": "sharedlabel.aggregators._base",
        },
    )
