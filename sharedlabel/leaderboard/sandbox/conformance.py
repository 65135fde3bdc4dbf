"""Try a submitted aggregator on random tuples, and count what it costs; runs in the sandbox.

Fitted aggregators go through the same code: it says whether one is normalised, causal and looks at one tuple at a time.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from sharedlabel import rng
from sharedlabel.aggregators._base import Aggregator
from sharedlabel.backbones._masking import count_parameters
from sharedlabel.config import resolve
from sharedlabel.errors import SharedLabelError, printable
from sharedlabel.leaderboard.sandbox import child
from sharedlabel.leaderboard.sandbox.counting import check_counted
from sharedlabel.leaderboard.sandbox.properties import PROPERTIES, Violation
from sharedlabel.measurements import counts
from sharedlabel.plugins import load
from sharedlabel.types import SetShape

TOLD = 300  # characters of a problem: what submitted code says of itself is no message of ours
Build = Callable[[], Any]  # an aggregator, it claims


def examine(folder: str, job: Mapping[str, Any]) -> dict[str, Any]:
    """Try a submission on every width that the protocols have, and count what it costs.

    Args:
        folder: holds the submission.
        job: `shapes`, a list of the embedding width, the number of classes and the numbers of instances.

    Returns:
        `problems`, one line for each, and `costs`: `macs` and `parameters` of every shape in turn, none if there are
        problems.
    """
    problems: list[str] = []
    costs = []
    try:
        child.mount(folder)
        module = load("aggregators", child.MODULE)
        _check_file(module)
        config = resolve("aggregators", child.MODULE).config
        for width, classes, sizes in job["shapes"]:
            shape = SetShape(torch.zeros(width), torch.ones(width), torch.full((classes,), -math.log(classes)))

            def build(shape: SetShape = shape) -> Any:
                return module.build(config, shape)

            violated, counted = _examined(build, shape, sizes)
            problems += violated
            costs.append(counted)
    except Exception as error:  # whatever submitted code raises is a finding, not a crash
        problems.append(_told(error))
    return {"problems": list(dict.fromkeys(problems)), "costs": [] if problems else costs}


def _examined(build: Build, shape: SetShape, sizes: list[int]) -> tuple[list[str], dict[str, Any]]:
    """Try one width: the problems, and what it costs if there are none.

    Raises:
        Violation: it cannot be built.
    """
    try:
        with torch.no_grad(), rng.seeded(0, "conformance", "build"):
            _shaken(build)
    except Exception as error:  # whatever submitted code raises is a finding, not a crash
        raise Violation(_told(error, "build")) from error
    problems = list(_violations(build, shape.embedding_dim, shape.num_classes))
    if problems:
        return problems, {}
    try:
        built = build()
        macs = counts.aggregator_macs(built, shape, sizes)
        with rng.seeded(0, "conformance", "counted"):
            check_counted(built, shape, macs)
    except Exception as error:  # whatever submitted code raises is a finding, not a crash
        return [_told(error, "counted")], {}
    return [], {"macs": {str(n): value for n, value in macs.items()}, "parameters": count_parameters(built)}


def _told(error: Exception, name: str = "") -> str:
    """Say in one short line what was raised, and by which property."""
    kind = "" if isinstance(error, Violation | SharedLabelError) else f"{type(error).__name__}: "
    where = f"{name}: " if name else ""
    return printable(where + kind + " ".join(str(error).split()), TOLD)[:TOLD]  # escapes are longer


def _check_file(module: Any) -> None:
    """Refuse a file that does not hold exactly one aggregator and the function that builds it."""
    classes = [
        value
        for name, value in vars(module).items()
        if inspect.isclass(value)
        and issubclass(value, Aggregator)
        and value is not Aggregator
        and not name.startswith("_")
    ]
    own = [value for value in classes if value.__module__ == module.__name__] or classes
    if len(own) != 1:
        names = ", ".join(sorted(value.__name__ for value in own)) or "none"
        raise Violation(
            f"expected one class that derives from Aggregator, got {names}; leave one, helpers start with _"
        )
    parameters = list(inspect.signature(module.build).parameters) if callable(getattr(module, "build", None)) else None
    if parameters != ["config", "shape"]:
        shown = "none" if parameters is None else f"build({', '.join(parameters)})"
        raise Violation(f"expected a function build(config, shape), got {shown}; see leaderboard/README.md")
    config = getattr(module, "Config", None)
    kind = getattr(config, "__dataclass_params__", None) if inspect.isclass(config) else None
    if kind is None or not kind.frozen:
        shown = "none" if config is None else f"a {type(config).__name__}" if kind is None else "one that is not"
        raise Violation(f"expected a frozen dataclass Config in the file, got {shown}; it holds the options")


def _violations(build: Build, width: int, classes: int) -> Iterator[str]:
    """Yield the properties that do not hold, each with what was found; what several find is said once."""
    seen = set()
    for name, check in PROPERTIES.items():
        try:
            with torch.no_grad(), rng.seeded(0, "conformance", name):
                check(functools.partial(_shaken, build), width, classes)
        except Exception as problem:  # whatever submitted code raises is a finding, not a crash
            if _told(problem) not in seen:
                yield _told(problem, name)
            seen.add(_told(problem))


def _shaken(build: Build) -> Aggregator:
    """Build it and move every parameter off its start, so that no zero hides anything."""
    built = build()
    if not isinstance(built, Aggregator):
        raise Violation(f"expected build to return an Aggregator, got {type(built).__name__}")
    for parameter in built.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    return built.eval()
