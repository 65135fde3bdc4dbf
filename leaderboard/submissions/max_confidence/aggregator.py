"""Max confidence: the posterior of the instance that is surest of its label."""

from sharedlabel.aggregators.max_confidence import Config, MaxConfidence, build

__all__ = ["Config", "MaxConfidence", "build"]
