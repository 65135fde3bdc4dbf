"""A configuration becomes a grid of cells, each the end of a chain of stage calls; plan, run and resume them."""

from sharedlabel.grid.calls import finished, missing, run_node, training_macs
from sharedlabel.grid.layout import lay_out
from sharedlabel.grid.nodes import Cell, Grid, Node
from sharedlabel.grid.prepare import check_networks, opened, prepare

__all__ = [
    "Cell", "Grid", "Node", "check_networks", "finished", "lay_out", "missing", "opened", "prepare", "run_node",
    "training_macs",
]  # fmt: skip
