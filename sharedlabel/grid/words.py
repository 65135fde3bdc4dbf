"""Stage calls in words."""

from __future__ import annotations

from typing import Any

from sharedlabel.errors import printable
from sharedlabel.grid.nodes import Grid, Node


def describe(node: Node, part: str = "") -> str:
    """Say in a few words what a call computes, on which network, and on which part of the images if any is named."""
    made = {call.stage: call.config for call in node.chain()}  # of several pruned networks the last is the one
    network: Any = made.get("prune", made.get("dense", made.get("early")))
    parts = [node.stage]
    for config, name in ((network, "backbone"), (network, "pruner"), (node.config, "aggregator")):
        plugin = getattr(config, name, None)
        if plugin is not None:
            parts.append(plugin.label)
        if name == "pruner" and hasattr(network, "ratio"):
            parts.append(f"{network.ratio:g}x")
    if hasattr(node.config, "protocol"):
        parts.append(node.config.protocol)
    if hasattr(network, "seed"):
        parts.append(f"seed {network.seed}")
    return printable(" ".join(parts) + (f", {part}" if part else ""))


def described(node: Node, grid: Grid) -> str:
    """Describe a call of a grid."""
    return describe(node, grid.data_by_key[node.data_key].part)
