"""Which of an aggregator's own options a search may change, and to what.

A plugin declares them beside its `Config` as `SPACE`, a mapping from names to choices, or as `space(config)` where they
depend on its options. A dotted name is an option of the aggregator that an option holds, such as `base.hidden`. An
option that changes what the loss is has no place there: the losses of settings are compared.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from sharedlabel.config import Plugin, resolve
from sharedlabel.plugins import load


@dataclass(frozen=True)
class LogRange:
    """Floats between two bounds, drawn uniformly on a logarithmic scale.

    Args:
        low: smallest, above 0.
        high: largest.
    """

    low: float
    high: float


Choices: TypeAlias = tuple[bool | int | float | str, ...] | LogRange
Space: TypeAlias = Mapping[str, Choices]


def space_of(plugin: Plugin) -> Space:
    """Return what may be searched of an aggregator's options; nothing where its file declares nothing."""
    module = load("aggregators", plugin.name)
    space: Space = module.space(plugin.config) if hasattr(module, "space") else getattr(module, "SPACE", {})
    return space


def samples(choices: Choices) -> tuple[bool | int | float | str, ...]:
    """Return all values of a choice; of a range its ends and their geometric mean."""
    if isinstance(choices, LogRange):
        return choices.low, math.sqrt(choices.low * choices.high), choices.high
    return choices


def option(plugin: Plugin, name: str) -> Any:
    """Return the value of an option by its dotted name."""
    first, _, rest = name.partition(".")
    value = getattr(plugin.config, first)
    return option(resolve("aggregators", value), rest) if rest else value


def with_options(plugin: Plugin, options: Mapping[str, Any]) -> Plugin:
    """Return an aggregator with some options changed, by their dotted names.

    Raises:
        ConfigError: there is no such option, or it cannot have that value.
    """
    payload = plugin.payload()
    for name, value in options.items():
        first, _, rest = name.partition(".")
        held = with_options(resolve("aggregators", payload[first]), {rest: value}).payload() if rest else value
        payload[first] = held
    return dataclasses.replace(resolve("aggregators", payload), label=plugin.label)
