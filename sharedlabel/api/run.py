"""`sharedlabel.run`: the experiment of a YAML file, a mapping or an `Experiment`, from Python."""

from __future__ import annotations

import dataclasses
import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from sharedlabel import running
from sharedlabel.api.results import Results
from sharedlabel.config import Experiment, merged
from sharedlabel.config.commandline import plain
from sharedlabel.config.schema import unknown
from sharedlabel.errors import ConfigError, home


def run(
    config: str | os.PathLike[str] | Mapping[str, Any] | Experiment = Experiment(),  # noqa: B008  (it is frozen)
    *,
    verbose: bool = False,
    write: bool = True,
    fail_fast: bool = False,
    **overrides: Any,
) -> Results:
    """Run an experiment, or what is missing of it, and return its results.

    It computes what `sharedlabel train` computes with the same options, and writes the same files. What is in the
    store already is not computed again, so calling it twice costs nothing.

    Args:
        config: a YAML file, a mapping of options, or an `Experiment`; the experiment on handwritten digits if left out.
        verbose: print what the command prints: the data, progress, and the tables of the report.
        write: write tables, plots and the report into the folder of the run, and track it in W&B as `tracking` says.
            Without, there are only the artifacts in the store.
        fail_fast: compute nothing more after the first failure.
        overrides: options by name, such as `seeds=[0, 1]`. A section takes a mapping, `evaluation={"n": [1, 2]}`, or
            is named with a dot, `**{"evaluation.n": [1, 2]}`.

    Returns:
        Tables as pandas DataFrames, and what `sharedlabel.plot` draws. Cells that failed are in its table `failures`,
        and a warning says how many there are.

    Raises:
        ConfigError: an option that does not exist, or a value that it does not take.
        DataError: the data cannot be used.
        WriteError: the folder or the store cannot be written; an OSError where a folder cannot be made.

    Example::

        results = sharedlabel.run("configs/digits.yaml", seeds=[0, 1], ratios=[1, 4])
        results.summaries[["ratio", "aggregator", "n", "ri"]]
    """
    experiment = experiment_of(config, overrides)
    console = Console() if verbose else Console(quiet=True, force_terminal=False)
    grid, store = running.open_grid(experiment)
    running.announce(grid, console)
    records = (running.run if write else running.compute)(grid, store, console, fail_fast)
    if records.failures:
        first = records.failures[0]
        warnings.warn(
            f"{len(records.failures)} of {records.cells} cells failed, the first because of: {first.reason}; the table "
            "`failures` of the results lists them, and the next run tries them again",
            stacklevel=2,
        )
    return Results(records, home(experiment.output) / experiment.name if write else None)


def experiment_of(
    config: str | os.PathLike[str] | Mapping[str, Any] | Experiment, overrides: Mapping[str, Any] | None = None
) -> Experiment:
    """Return the experiment that `run` runs, checked.

    Args:
        config: as for `run`.
        overrides: options by (dotted) name, which win.

    Raises:
        ConfigError: an option that does not exist, or a value that it does not take.

    >>> experiment_of({"name": "mine", "ratios": [1, 4]}, {"evaluation.n": [1, 2]}).evaluation.n
    (1, 2)
    """
    if isinstance(config, Experiment):
        base: Path | dict[str, Any] = plain(config)
    elif isinstance(config, Mapping):
        base = _plain(config)
    elif isinstance(config, str | os.PathLike):
        base = home(os.fspath(config))
    else:
        raise ConfigError(
            f"expected a YAML file, a mapping of options or an Experiment, got a {type(config).__name__}; pass one"
        )
    return merged(base, _plain(overrides or {}))


def _plain(options: Mapping[Any, Any]) -> dict[str, Any]:
    """Return options as plain data, as they would stand in a file."""
    known = [entry.name for entry in dataclasses.fields(Experiment)]
    for name in options:
        if not isinstance(name, str) or name.partition(".")[0] not in known:
            raise ConfigError(unknown(str(name), known))
    return {name: _plain_value(name, value) for name, value in options.items()}


def _plain_value(name: str, value: Any) -> Any:
    """Return a value as plain data; paths stand for their text, numbers and arrays of numpy for plain ones."""

    def plainly(item: Any) -> Any:
        if isinstance(item, np.generic | np.ndarray):
            return item.tolist()
        if isinstance(item, os.PathLike):
            return os.fspath(item)
        if dataclasses.is_dataclass(item) and not isinstance(item, type):
            return dataclasses.asdict(item)
        raise ConfigError(f"{name}: expected plain data, got a value of {type(item)}; write it as in a YAML file")

    return json.loads(json.dumps(value, default=plainly))
