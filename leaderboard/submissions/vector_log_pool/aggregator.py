"""Vector log-pool: the log-pool with one weight and one bias per label, fitted on training tuples."""

from sharedlabel.aggregators.vector_log_pool import Config, VectorLogPool, build

__all__ = ["Config", "VectorLogPool", "build"]
