"""The crafted LSTM: a log-pool of refitted evidence, corrected by an LSTM; it starts at the tempered log-pool."""

from sharedlabel.aggregators.crafted_lstm import Config, CraftedLstm, build

__all__ = ["Config", "CraftedLstm", "build"]
