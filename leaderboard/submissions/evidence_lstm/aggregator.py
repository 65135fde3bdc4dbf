"""Evidence LSTM: an LSTM decides how much each instance adds to a log-pool; it starts at the tempered log-pool."""

from sharedlabel.aggregators.evidence_lstm import Config, EvidenceLstm, build

__all__ = ["Config", "EvidenceLstm", "build"]
