"""`sharedlabel.load_model`: an exported model, ready to predict."""

from __future__ import annotations

import os

from sharedlabel.api import _arguments
from sharedlabel.deployment import predictor
from sharedlabel.deployment.predictor import Predictor


def load_model(folder: str | os.PathLike[str], runtime: str | None = None, *, trust: bool = False) -> Predictor:
    """Open an exported model; it needs neither the store nor the data that it comes from.

    Args:
        folder: what `sharedlabel export` wrote.
        runtime: `onnx` or `torch`; ONNX if it was exported, else torch, if left out.
        trust: whether its files may run code, as those for torch may when they are opened.

    Returns:
        `predict(instances)` answers a tuple of images `[C H W]`, looking at as many as it takes to reach a `threshold`;
        `stream(instances)` yields the log-posterior after each; `threshold(error)` is the one fitted for an error.

    Raises:
        ConfigError: it is no path.
        DeploymentError: there is no model, it was altered, or its runtime is not installed.

    Example::

        model = sharedlabel.load_model("runs/digits/models/CELL")
        model.predict(images, threshold=model.threshold(0.05)).label
    """
    return predictor.load(_arguments.path(folder, "an exported model"), runtime, trust=trust)
