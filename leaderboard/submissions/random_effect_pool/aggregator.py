"""Random-effect pool: a log-pool of instances that share a part of their errors: n of them are worth fewer."""

from sharedlabel.aggregators.random_effect_pool import Config, RandomEffectPool, build

__all__ = ["Config", "RandomEffectPool", "build"]
