"""Forgetting pool: a log-pool in which every further instance fades what came before."""

from sharedlabel.aggregators.forgetting_pool import Config, ForgettingPool, build

__all__ = ["Config", "ForgettingPool", "build"]
