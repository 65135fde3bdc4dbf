"""State-space reader: the tempered log-pool corrected by memories that fade as fast as each instance tells them to."""

from sharedlabel.aggregators.state_space import Config, StateSpace, build

__all__ = ["Config", "StateSpace", "build"]
