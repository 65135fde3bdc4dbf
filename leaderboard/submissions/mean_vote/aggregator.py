"""Mean vote: the linear pool, the average of the instances" probabilities."""

from sharedlabel.aggregators.mean_vote import Config, MeanVote, build

__all__ = ["Config", "MeanVote", "build"]
