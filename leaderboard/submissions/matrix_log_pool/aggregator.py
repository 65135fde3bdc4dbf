"""Matrix log-pool: the log-pool of linearly mapped log-probabilities, fitted on training tuples."""

from sharedlabel.aggregators.matrix_log_pool import Config, MatrixLogPool, build

__all__ = ["Config", "MatrixLogPool", "build"]
