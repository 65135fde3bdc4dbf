"""An experiment is read from YAML and the command line, and what types alone cannot express is checked."""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sharedlabel.config import schema
from sharedlabel.config.commandline import CommandLine, to_yaml
from sharedlabel.config.experiment import Experiment
from sharedlabel.config.keys import canonical
from sharedlabel.config.names import DENSE
from sharedlabel.config.plugins import PluginSpec
from sharedlabel.config.sections import TrainerConfig, TrainerOptions
from sharedlabel.config.trainings import trainings
from sharedlabel.errors import ConfigError, nearest


def command_line(program: str = "train") -> CommandLine:
    """Return the command line of an experiment: `--config FILE` and every option by its dotted name.

    Args:
        program: `train`, or `evaluate`, which plans nothing.
    """
    about = {
        "train": "Train, prune, aggregate and evaluate a grid; then report the sweet spot of compression.",
        "evaluate": "Report the finished cells of a grid, without computing any other.",
    }
    switches = {
        "plan": "print which cells are done, which are missing and what they cost; run nothing",
        "fail-fast": "compute nothing more once a cell has failed; report what is done",
        "json": "print what happens as JSON, a line each, in the place of texts and tables; files are written as usual",
    }
    given = switches if program == "train" else {}
    return CommandLine(Experiment, ("data",), given, f"sharedlabel {program}", about[program])


def parse(arguments: Sequence[str] | None, program: str = "train") -> tuple[Experiment, argparse.Namespace]:
    """Parse a command line into an experiment and the remaining switches.

    Args:
        arguments: the command line, or None for that of this process.
        program: as for `command_line`.

    Raises:
        ConfigError: unknown key (the nearest valid one is named), wrong type, value out of range, unreadable file.
        SystemExit: help or the configuration was asked for, and printed.
    """
    values, switches = command_line(program).parse(arguments)
    experiment = check(schema.read(Experiment, values))
    if switches.print_config:
        print(to_yaml(experiment), end="")
        raise SystemExit(0)
    return experiment, switches


def merged(*sources: Path | Mapping[str, Any]) -> Experiment:
    """Return the experiment of YAML files and of mappings from dotted names to plain data; later ones win.

    Args:
        sources: in this order.

    Raises:
        ConfigError: as for `parse`.

    >>> merged({"name": "mine", "split.seed": 1}, {"split": {"limit": 20}}).split.seed
    1
    """
    return check(schema.read(Experiment, command_line().merged(*sources)))


def from_yaml(path: Path) -> Experiment:
    """Read an experiment from a YAML file."""
    return merged(path)


def check(experiment: Experiment) -> Experiment:
    """Check what types alone cannot express; return the experiment.

    Raises:
        ConfigError: an empty axis, a repeated value, or names that nothing can bear.
    """
    for axis in ("backbones", "pruners", "ratios", "aggregators", "training", "seeds"):
        _check_axis(axis, getattr(experiment, axis))
    _check_trainer(experiment.trainer)
    if (experiment.trainer.logger, experiment.tracking) == ("wandb", "none"):
        raise ConfigError(
            "trainer.logger: expected tracking by W&B for wandb, got tracking=none; set tracking to auto, or "
            "trainer.logger to csv"
        )
    if max(experiment.ratios) > 1 and all(_name(spec) == DENSE for spec in experiment.pruners):
        raise ConfigError(f"ratios: got {max(experiment.ratios):g} but pruners lists none that compresses; add one")
    trainings(experiment)
    _check_axis("crossfit.ridge", experiment.crossfit.ridge)
    _check_axis("evaluation.n", experiment.evaluation.n)
    _check_axis("evaluation.protocols", experiment.evaluation.protocols)
    for axis in ("batches", "modes", "devices"):
        _check_axis(f"latency.{axis}", getattr(experiment.latency, axis))
    for axis, values in (
        ("margin.epsilons", experiment.margin.epsilons),
        ("sweet_spot.budgets", experiment.sweet_spot.budgets),
    ):
        if values:
            _check_axis(axis, values)
    if experiment.adaptive.rules:
        _check_axis("adaptive.rules", experiment.adaptive.rules)
        _check_axis("adaptive.errors", experiment.adaptive.errors)
    _check_names(experiment)
    return experiment


def check_place(project: str, entity: str) -> None:
    """Refuse a project or a user or team that W&B does not take.

    Args:
        project: its name.
        entity: the user or team; empty for one's own.

    Raises:
        ConfigError: such a name.
    """
    if not re.fullmatch(r"[^/\\#?%:]{1,128}", project):
        raise ConfigError(
            f"project: expected 1 to 128 characters and none of / \\ # ? % :, got {schema.shown(project)}; "
            "W&B takes no other names"
        )
    if not re.fullmatch(r"[A-Za-z0-9_-]{0,128}", entity):
        raise ConfigError(
            f"entity: expected the name of a user or team of W&B, of letters, digits, '_' and '-', got "
            f"{schema.shown(entity)}; copy it from the address of its page"
        )


def _check_names(experiment: Experiment) -> None:
    """Refuse names that a file system or W&B does not take, before there is anything to lose."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", experiment.name) or experiment.name == "store":
        raise ConfigError(
            f"name: expected at most 100 letters, digits, '.', '_' and '-', but not 'store', got "
            f"{schema.shown(experiment.name)}; it names a folder beside the store"
        )
    check_place(experiment.project, experiment.entity)
    for place in ("output", "data_root"):
        if not getattr(experiment, place):
            raise ConfigError(
                f"{place}: expected the path of a folder, got none; the default is {getattr(Experiment, place)}"
            )


def _check_trainer(trainer: TrainerConfig) -> None:
    known = [entry.name for entry in dataclasses.fields(TrainerOptions)]
    for option in trainer.options:
        if option not in known:
            raise ConfigError(
                f"trainer.options: unknown option {option!r}, which can change what is computed or has an option of "
                f"its own, got {schema.shown(trainer.options[option])}; {nearest(option, known)}"
            )
    try:
        schema.read(TrainerOptions, trainer.options)
    except ConfigError as error:
        raise ConfigError(f"trainer.options: {error}") from error


def _name(spec: PluginSpec) -> Any:
    return spec if isinstance(spec, str) else spec.get("name")


def _check_axis(axis: str, values: Sequence[Any]) -> None:
    if not values:
        raise ConfigError(f"{axis}: expected at least one value, got none; list one, or leave the option out")
    seen: set[str] = set()
    for value in values:
        text = canonical(value)
        if text in seen:
            raise ConfigError(f"{axis}: expected each value once, got {schema.shown(value)} twice; remove one")
        seen.add(text)
