"""Log-pool: Bayes" rule for instances that are independent given the label."""

from sharedlabel.aggregators.log_pool import Config, LogPool, build

__all__ = ["Config", "LogPool", "build"]
