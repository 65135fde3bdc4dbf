"""Causal Transformer: every instance attends to itself and to the instances before it."""

from sharedlabel.aggregators.causal_transformer import CausalTransformer, Config, build

__all__ = ["CausalTransformer", "Config", "build"]
