"""Instance temperature: the log-pool, each instance weighed by a number that is read from its embedding."""

from sharedlabel.aggregators.instance_temperature import Config, InstanceTemperature, build

__all__ = ["Config", "InstanceTemperature", "build"]
