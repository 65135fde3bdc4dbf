"""Accumulator: a gated memory that adds and never forgets."""

from sharedlabel.aggregators.accumulator import Accumulator, Config, build

__all__ = ["Accumulator", "Config", "build"]
