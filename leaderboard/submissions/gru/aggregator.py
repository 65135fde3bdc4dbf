"""The GRU: it reads embeddings and log-probabilities one instance after another."""

from sharedlabel.aggregators.gru import Config, Gru, build

__all__ = ["Config", "Gru", "build"]
