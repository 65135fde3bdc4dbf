"""Majority vote: every instance votes for its most probable label."""

from sharedlabel.aggregators.majority_vote import Config, MajorityVote, build

__all__ = ["Config", "MajorityVote", "build"]
