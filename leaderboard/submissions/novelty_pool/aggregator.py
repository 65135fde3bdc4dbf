"""Novelty pool: a log-pool in which an instance counts the less, the more like the others it looks."""

from sharedlabel.aggregators.novelty_pool import Config, NoveltyPool, build

__all__ = ["Config", "NoveltyPool", "build"]
