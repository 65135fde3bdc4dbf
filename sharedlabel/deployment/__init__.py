"""Trained networks as files that run without this package's training code, and predictions from them."""
