"""Tempered log-pool: the log-pool with its evidence scaled by a fitted power law in the number of instances."""

from sharedlabel.aggregators.tempered_log_pool import Config, TemperedLogPool, build

__all__ = ["Config", "TemperedLogPool", "build"]
