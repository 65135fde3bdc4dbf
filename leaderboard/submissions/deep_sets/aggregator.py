"""Deep Sets: a network on the pooled outputs of another network on every instance."""

from sharedlabel.aggregators.deep_sets import Config, DeepSets, build

__all__ = ["Config", "DeepSets", "build"]
