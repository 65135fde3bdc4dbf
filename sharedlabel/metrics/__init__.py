"""Metrics: pure functions, and thin torchmetrics shells over them."""
