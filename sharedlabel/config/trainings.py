"""The axis `training`: recipes that say how backbones and aggregators learn."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from sharedlabel.config.experiment import Experiment
from sharedlabel.config.keys import canonical
from sharedlabel.config.names import CROSSFIT, FROZEN, JOINT
from sharedlabel.config.plugins import PluginSpec, build, described, given_label
from sharedlabel.config.sections import JointConfig
from sharedlabel.errors import ConfigError, nearest

TRAININGS = (FROZEN, JOINT, CROSSFIT)


@dataclass(frozen=True)
class Training:
    """An entry of the axis `training`, checked.

    Attributes:
        name: kind of training, one of `TRAININGS`.
        label: what tables call it; not part of any key.
        joint: the recipe of joint training; None for other kinds.
    """

    name: str
    label: str
    joint: JointConfig | None = None


def trainings(experiment: Experiment) -> tuple[Training, ...]:
    """Return the entries of the axis `training` with their recipes.

    Raises:
        ConfigError: unknown kind or option, a recipe that trains nothing, or entries that tables could not tell apart.
    """
    entries = tuple(_training(spec, experiment.joint) for spec in experiment.training)
    recipes: dict[str, str] = {}
    for entry in entries:
        twin = recipes.setdefault(canonical([entry.name, entry.joint]), entry.label)
        if twin != entry.label:
            raise ConfigError(f"training: {twin!r} and {entry.label!r} are the same recipe; remove one")
        if sum(other.label == entry.label for other in entries) > 1:
            raise ConfigError(f"training: two entries are called {entry.label!r} in tables; give one a `label`")
    return entries


def _training(spec: PluginSpec, usual: JointConfig) -> Training:
    """Check one entry; options that it leaves out are those of the section of its kind."""
    options = {"name": spec} if isinstance(spec, str) else dict(spec)
    name, label = options.pop("name", None), given_label(options.pop("label", None), "training")
    if not isinstance(name, str) or name not in TRAININGS:
        raise ConfigError(f"training: unknown kind {name!r}; {nearest(str(name), TRAININGS)}")
    if label in TRAININGS and label != name:
        raise ConfigError(f"training: the label {label!r} has a meaning of its own; choose another")
    if name != JOINT:
        if options or label not in (None, name):
            raise ConfigError(f"training: {name!r} takes no options and no other label, got {spec!r}; leave them out")
        return Training(name, name)
    recipe = build(JointConfig, {**dataclasses.asdict(usual), **options}, "training 'joint'")
    if not (recipe.set_loss or recipe.instance_loss or recipe.distill):
        raise ConfigError(
            "training 'joint': set_loss, instance_loss and distill are all 0, which trains nothing; raise one of them"
        )
    shown = label if label is not None else described(name, ((recipe, usual),))
    return Training(name, shown, recipe)
