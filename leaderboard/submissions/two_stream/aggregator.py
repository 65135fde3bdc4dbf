"""Two streams: attention that knows time reads embeddings and pools evidence; both correct the tempered log-pool."""

from sharedlabel.aggregators.two_stream import Config, TwoStream, build

__all__ = ["Config", "TwoStream", "build"]
