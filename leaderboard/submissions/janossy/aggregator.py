"""Janossy pooling: an aggregator that depends on the order, averaged over several orders of the same instances."""

from sharedlabel.aggregators.janossy import Config, Janossy, build

__all__ = ["Config", "Janossy", "build"]
