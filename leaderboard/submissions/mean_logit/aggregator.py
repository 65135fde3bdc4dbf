"""Mean logit: the geometric mean of the instances" probabilities."""

from sharedlabel.aggregators.mean_logit import Config, MeanLogit, build

__all__ = ["Config", "MeanLogit", "build"]
