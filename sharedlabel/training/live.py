"""A run of W&B for every network while it trains; imported only where one is begun."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from lightning_utilities.core.rank_zero import rank_zero_only
from pytorch_lightning.loggers import WandbLogger

from sharedlabel import rng
from sharedlabel.errors import first_line, interrupted
from sharedlabel.tracking import tracker
from sharedlabel.tracking.places import Place
from sharedlabel.tracking.runs import STEP, Curve, Run
from sharedlabel.training.watchers import Watched

_taken: dict[Place, Place] = {}  # where runs go in the place of where they should, once W&B has taken none
_TRAINED = (
    Curve("*", STEP),
    Curve("train/loss", STEP, "min"),
    Curve("train/accuracy", STEP, "max"),
    Curve("validation/loss", STEP, "min"),
    Curve("validation/accuracy", STEP, "max"),
)


class LiveLogger(WandbLogger):
    """A logger whose run ends with the training, as succeeded or failed, and which never makes a training fail."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log values."""
        with spared(self.experiment.name or ""):
            super().log_metrics(metrics, step)

    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:
        """Add the options of the module to the configuration."""
        with spared(self.experiment.name or ""):
            super().log_hyperparams(params)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """End the run."""
        with spared(self.experiment.name or ""):
            self.experiment.finish(exit_code=0 if status == "success" else 1)


_LOGGED = "what was logged lies in the folder `wandb` of the run, for `wandb sync --no-skip-online`"


@contextlib.contextmanager
def spared(name: str, left: str = _LOGGED) -> Iterator[None]:
    """Turn what W&B raises into a warning.

    Args:
        name: of the run.
        left: what is there of it.
    """
    try:
        yield
    except Exception as error:
        if interrupted():
            raise KeyboardInterrupt from error
        warnings.warn(
            f"W&B has not taken all of {name}: {first_line(error)}; the training goes on, and {left}",
            RuntimeWarning,
            stacklevel=2,
        )


def logger(watched: Watched | None, number: int) -> LiveLogger | None:
    """Return the logger of a training, whose run has begun; None where W&B takes no runs.

    A training that goes on after a kill has the same id, and so the same run.

    Args:
        watched: what is told of the stage call.
        number: of the training within it.
    """
    wanted = None if watched is None else watched.place
    place = None if wanted is None else _taken.get(wanted, wanted)
    if watched is None or wanted is None or place is None or place.mode == "none":
        return None
    more = "" if number == 1 else f"-{number}"
    run = Run(
        f"{watched.identifier}{more}", f"{watched.name}{more}", "training", watched.config, watched.tags, _TRAINED
    )
    _taken[wanted] = dataclasses.replace(place, mode="offline")  # for later ones, unless this one is taken
    made: list[LiveLogger] = []
    with spared(run.name, "nothing of it is logged"), rng.untouched():
        begun, after = tracker.begin(place, run, live=True)
        tracker.fill(begun, run)
        made.append(LiveLogger(experiment=begun))
        _taken[wanted] = after
    return made[0] if made else None
