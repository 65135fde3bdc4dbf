"""Precision pool: a log-pool that weighs instances by four signs of their quality and allows for shared errors."""

from sharedlabel.aggregators.precision_pool import Config, PrecisionPool, build

__all__ = ["Config", "PrecisionPool", "build"]
