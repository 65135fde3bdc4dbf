"""The residual LSTM: it corrects the tempered log-pool and starts exactly there."""

from sharedlabel.aggregators.residual_lstm import Config, ResidualLstm, build

__all__ = ["Config", "ResidualLstm", "build"]
