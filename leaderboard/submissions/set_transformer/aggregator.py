"""Set Transformer: instances attend to each other, and a learned seed attends to all of them; per prefix."""

from sharedlabel.aggregators.set_transformer import Config, SetTransformer, build

__all__ = ["Config", "SetTransformer", "build"]
