"""sharedlabel: a benchmark suite for shared-label prediction under compression."""

__version__ = "0.1.0"
