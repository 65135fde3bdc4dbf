"""Kalman pool: a Kalman filter on the evidence for each label."""

from sharedlabel.aggregators.kalman_pool import Config, KalmanPool, build

__all__ = ["Config", "KalmanPool", "build"]
