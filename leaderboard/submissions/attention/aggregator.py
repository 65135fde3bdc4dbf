"""Gated attention pooling over embeddings and log-probabilities, causal."""

from sharedlabel.aggregators.attention import Attention, Config, build

__all__ = ["Attention", "Config", "build"]
