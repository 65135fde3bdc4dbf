"""Max vote: every label is as probable as the instance that speaks for it most."""

from sharedlabel.aggregators.max_vote import Config, MaxVote, build

__all__ = ["Config", "MaxVote", "build"]
