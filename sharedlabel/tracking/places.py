"""Where runs go: to which project and group, online, offline or nowhere."""

from __future__ import annotations

import configparser
import contextlib
import netrc
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias
from urllib.parse import urlsplit

from sharedlabel.config import Experiment, check_place, digest
from sharedlabel.errors import ConfigError
from sharedlabel.files.plain import read_yaml
from sharedlabel.records import Results

Mode: TypeAlias = Literal["online", "offline", "none"]
_MODES: Mapping[str, Mode] = {  # by what is stated
    "": "online",
    "online": "online",
    "offline": "offline",
    "dryrun": "offline",
    "none": "none",
    "disabled": "none",
}
_KEPT = 64  # letters of an experiment's name in an id, which has 128 at most
SWEEP = ("WANDB_SWEEP_ID", "WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH")  # what `wandb agent` tells what it starts


@dataclass(frozen=True)
class Sweep:
    """The trial of a sweep that this process was started for.

    Attributes:
        identifier: of the sweep.
        run_id: of the run that W&B waits for.
        options: the values of the trial by the names of options.
    """

    identifier: str
    run_id: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def current(cls) -> Self | None:
        """Return the trial that `wandb agent` has started; None where it has started none."""
        identifier, run_id, path = (os.environ.get(name, "") for name in SWEEP)
        if not identifier or not run_id:
            return None
        told = read_yaml(Path(path).read_text()) if path else {}
        return cls(identifier, run_id, {name: one["value"] for name, one in told.items() if isinstance(one, Mapping)})


@dataclass(frozen=True)
class Place:
    """Where the runs of an experiment go.

    Attributes:
        experiment: its name, by which its runs are grouped.
        project: of W&B.
        entity: user or team of W&B that the project belongs to; the user's own default if it is empty.
        mode: `online`, `offline` or `none`.
        folder: where files of W&B lie, and notes of what was published.
        sweep: the trial that the summary run is of.
    """

    experiment: str
    project: str
    entity: str
    mode: Mode
    folder: Path
    sweep: Sweep | None = None

    @classmethod
    def of(cls, experiment: Experiment, folder: Path) -> Self:
        """Return where the runs of an experiment go whose own folder this is."""
        chosen, sweep = mode(experiment.tracking), Sweep.current()
        project, entity = experiment.project, experiment.entity
        if sweep is not None:  # a run of a sweep lies where the sweep does
            project, entity = os.environ.get("WANDB_PROJECT", project), os.environ.get("WANDB_ENTITY", entity)
        return cls(experiment.name, project, entity, chosen, folder / "wandb", sweep)

    @classmethod
    def of_results(cls, results: Results, folder: Path, project: str | None = None, entity: str | None = None) -> Self:
        """Return where the runs of an experiment went, or else go, by its results.

        Args:
            results: whose configuration says where.
            folder: its own.
            project: in the place of that of the configuration.
            entity: likewise.

        Raises:
            ConfigError: a project or an entity that W&B does not take.
        """
        check_place(project or "sharedlabel", entity or "")
        said = {"project": "sharedlabel", "entity": "", "tracking": "auto", **results.config}
        tracking = "auto" if said["tracking"] == "none" else said["tracking"]
        return cls(
            results.experiment, project or said["project"], entity or said["entity"], mode(tracking), folder / "wandb"
        )

    def run_id(self, identifier: str) -> str:
        """Return the id of a run within its project; it holds the experiment, so that none shares runs with another.

        Args:
            identifier: of a cell, a method, the whole grid or a training.
        """
        return f"{self.experiment[:_KEPT]}-{digest([self.experiment, identifier])[:16]}"


def mode(requested: str) -> Mode:
    """Resolve `auto`: what WANDB_MODE says, else online; and where there is no API key, offline in the place of online.

    Args:
        requested: the option `tracking`.

    Raises:
        ConfigError: a WANDB_MODE that W&B does not know.
    """
    stated = requested
    if requested == "auto":
        disabled = os.environ.get("WANDB_DISABLED", "").lower() in {"true", "1", "yes"}
        stated = "none" if disabled else os.environ.get("WANDB_MODE", "")
    if stated not in _MODES:
        raise ConfigError(
            f"WANDB_MODE: expected one of {', '.join(filter(None, _MODES))}, got {stated!r}; correct or unset it"
        )
    if _MODES[stated] == "online" and not has_key():
        return "offline"
    return _MODES[stated]


def has_key() -> bool:
    """Tell whether there is an API key: in the environment, or in the netrc file, where `wandb login` puts it."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL") or _server() or "https://api.wandb.ai").hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _server() -> str:
    """Return the server that `wandb login --host` has noted; empty where it has noted none."""
    noted = configparser.ConfigParser(default_section="default", interpolation=None)
    home = os.environ.get("WANDB_CONFIG_DIR") or os.path.expanduser("~/.config/wandb")
    with contextlib.suppress(configparser.Error, ValueError):
        noted.read([Path(home) / "settings", Path("wandb") / "settings"])
    return noted.defaults().get("base_url", "")
