"""Refit pool: the log-pool of instances whose evidence a small head, trained on held-out images, corrects."""

from sharedlabel.aggregators.refit_pool import Config, RefitPool, build

__all__ = ["Config", "RefitPool", "build"]
