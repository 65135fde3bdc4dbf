"""`aggregate`: train an aggregator on the frozen features of images that the backbone did not see."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sharedlabel import rng
from sharedlabel.backbones._masking import count_parameters
from sharedlabel.config import Plugin, canonical
from sharedlabel.config.sections import Cut, FitConfig, TrainerConfig
from sharedlabel.records.measurements import Search
from sharedlabel.scoring.data import Data
from sharedlabel.stages import _read
from sharedlabel.stages._base import Finished
from sharedlabel.store import Artifact, Output
from sharedlabel.training import search
from sharedlabel.types import Role, Tuples

VERSION = 1
TABLE = "searches"
FITTED_ROLES: tuple[Role, ...] = ("aggregator", "validation")


@dataclass(frozen=True)
class Config:
    """What a call depends on."""

    aggregator: Plugin
    fit: FitConfig
    gradient_clip: float
    n_max: int
    protocol: str
    seed: int
    cut: Cut = Cut()  # noqa: RUF009 (frozen)


def run(config: Config, data: Data, inputs: Mapping[str, Artifact], runtime: TrainerConfig) -> Output:
    """Train an aggregator, with the given setting or the best of a search."""
    n, shape, recipe = config.n_max, _read.shape(data, inputs["calibrate"]), config.fit
    learn, watch = (
        search.Images(
            *_read.calibrated(inputs["features"], inputs["calibrate"], role),
            data.labels(role),
            data.groups(role, config.protocol),
        )
        for role in FITTED_ROLES
    )

    def watched() -> Tuples:
        seed = rng.derive(config.seed, "stopping")
        return data.tuples("validation", config.protocol, n, search.STOPPING_PARTITIONS, seed, config.cut)

    task = search.task(
        shape,
        learn,
        watch,
        watched,
        n=n,
        prior=data.prior,
        recipe=recipe,
        gradient_clip=config.gradient_clip,
        seed=config.seed,
        runtime=runtime,
        form=data.form("aggregator", config.protocol, config.cut),
    )
    fitted = search.fit(config.aggregator, recipe, task)
    return Output(
        dict(fitted.aggregator.state_dict()), {**fitted.meta, "parameters": count_parameters(fitted.aggregator)}
    )


def work(config: Config, data: Data) -> int:
    """Count images times epochs, of every setting tried; early stopping is not foreseen."""
    images, epochs = len(data.splits["aggregator"]), config.fit.epochs
    if config.fit.steps:
        steps = max(1, images // config.n_max // config.fit.batch_size)
        epochs = max(epochs, math.ceil(config.fit.steps / steps))
    return epochs * images * max(1, config.fit.trials)


def records(finished: Finished) -> Iterator[Search]:
    """Yield what a search tried and chose, if there was one."""
    search_facts = finished.facts["aggregate"].get("search")
    if search_facts is None:
        return
    trials, chosen = search_facts["trials"], search_facts["trials"][search_facts["chosen"]]
    yield Search(
        **finished.named("data", "backbone", "pruner", "ratio", "aggregator", "protocol", "seed"),
        training=finished.network_training,
        trials=len(trials),
        diverged=sum(trial["loss"] is None for trial in trials),
        chosen_trial=search_facts["chosen"] + 1,
        loss_given=trials[0]["loss"],
        loss=chosen["loss"],
        options=canonical(chosen["options"]),
        measured_seconds=round(sum(trial["seconds"] for trial in trials), 3),
    )
