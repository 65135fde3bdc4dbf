"""Whether a grid's networks and tuples fit into memory: refused before anything is made.

Networks are built without values (on the meta device), and building stops as soon as they are known not to fit.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)
from torch.overrides import TorchFunctionMode

from sharedlabel.backbones._masking import count_parameters
from sharedlabel.config import Plugin
from sharedlabel.config.sections import EvaluationConfig
from sharedlabel.errors import ConfigError
from sharedlabel.machine import memory
from sharedlabel.plugins import load
from sharedlabel.scoring.data import SCORED_ROLES, Data
from sharedlabel.types import SetShape

MODULES = 20_000  # of a network; the deepest of torchvision have a tenth
# Bytes for each parameter of a network in training: itself, its gradient, two moments, the best epoch, the stored one.
_PER_PARAMETER = 24
# Bytes for each image and partition: indices, their shuffling and what adaptive n watches, then log-posteriors after
# every n, for each class. Fitted to the peaks of digits and of 50 Gaussian classes, 300 to 2,000 partitions, n up to 8.
_PER_INDEX, _PER_CLASS = 560, 20
_ADVICE = "choose smaller options"


@dataclass
class _Tally:
    """What was registered while a network was built."""

    parameters: int = 0
    modules: int = 0


def check_backbone(plugin: Plugin, image_shape: tuple[int, int, int], classes: int) -> None:
    """Refuse a backbone that cannot be trained in the memory there is.

    Args:
        plugin: the backbone.
        image_shape: channels, height and width.
        classes: number of classes.

    Raises:
        ConfigError: it does not fit, or has more than `MODULES` modules.
    """
    _check(plugin, lambda: load("backbones", plugin.name).build(plugin.config, image_shape, classes))


def check_aggregator(plugin: Plugin, embedding: int, classes: int) -> None:
    """Refuse an aggregator that cannot be trained in the memory there is.

    Args:
        plugin: the aggregator.
        embedding: width of the embedding.
        classes: number of classes.

    Raises:
        ConfigError: it does not fit, or has more than `MODULES` modules.
    """

    def build() -> nn.Module:
        shape = SetShape(torch.zeros(embedding), torch.ones(embedding), torch.zeros(classes))
        network: nn.Module = load("aggregators", plugin.name).build(plugin.config, shape)
        return network

    _check(plugin, build)


def check_tuples(data: Data, scoring: EvaluationConfig) -> None:
    """Refuse more partitions than the tuples and their posteriors of one split have memory for.

    Raises:
        ConfigError: they do not fit.
    """
    needed = tuple_bytes(data, scoring)
    images = max(len(data.splits[role]) for role in SCORED_ROLES)
    memory.check(
        f"evaluation.partitions: {scoring.partitions} partitions of {images} images",
        needed,
        "use fewer partitions; 20 are usual",
    )


def tuple_bytes(data: Data, scoring: EvaluationConfig) -> int:
    """Estimate the bytes that scoring one aggregator takes at its peak."""
    images = max(len(data.splits[role]) for role in SCORED_ROLES)
    return scoring.partitions * images * (_PER_INDEX + _PER_CLASS * data.dataset.num_classes)


def batch_bytes(images: int, image_shape: tuple[int, int, int]) -> int:
    """Estimate the bytes of a batch in the first layers of a network: eight times its 32-bit floats."""
    return 32 * images * math.prod(image_shape)


def network_bytes(network: nn.Module) -> int:
    """Estimate the bytes that training a network takes, but for its activations."""
    return _PER_PARAMETER * count_parameters(network)


def _check(plugin: Plugin, build: Callable[[], nn.Module]) -> None:
    where = f"{plugin.kind}: {plugin.label}"
    try:
        with (
            torch.random.fork_rng(devices=[]),
            torch.device("meta"),
            _Undrawn(),
            _counting(where),
            memory.fitting(where, _ADVICE),
        ):
            build()
    except (NotImplementedError, RuntimeError):
        return  # it reads values while it is built; what it allocates then is caught where it is really built


class _Undrawn(TorchFunctionMode):
    """Draws no values for tensors that have none: torch would import its compiler for that, which takes a second."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call what is called, but for `normal_` of such a tensor."""
        if func is torch.Tensor.normal_ and args[0].is_meta:
            return args[0]
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def _counting(where: str) -> Iterator[None]:
    """Count what this thread's networks register, and stop where it cannot fit."""
    tally, thread = _Tally(), threading.get_ident()

    def parameter_registered(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
        del module, name
        if threading.get_ident() == thread and parameter is not None:
            tally.parameters += parameter.numel()
            memory.check(where, _PER_PARAMETER * tally.parameters, _ADVICE)

    def module_registered(module: nn.Module, name: str, submodule: nn.Module) -> None:
        del module, name, submodule
        if threading.get_ident() == thread:
            tally.modules += 1
            if tally.modules > MODULES:
                raise ConfigError(f"{where}: expected at most {MODULES} modules, got more; {_ADVICE}")

    handles = (
        register_module_parameter_registration_hook(parameter_registered),
        register_module_module_registration_hook(module_registered),
    )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
