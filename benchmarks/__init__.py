"""Benchmarks of speed and memory: `python -m benchmarks` prints one table."""
