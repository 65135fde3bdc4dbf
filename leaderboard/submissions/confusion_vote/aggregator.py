"""Confusion vote: every instance votes for its most probable label, and votes count by how the voter errs."""

from sharedlabel.aggregators.confusion_vote import Config, ConfusionVote, build

__all__ = ["Config", "ConfusionVote", "build"]
