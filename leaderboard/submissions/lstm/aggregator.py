"""The plain LSTM: it reads embeddings and log-probabilities one instance after another."""

from sharedlabel.aggregators.lstm import Config, PlainLstm, build

__all__ = ["Config", "PlainLstm", "build"]
