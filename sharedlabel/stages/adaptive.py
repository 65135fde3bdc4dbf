"""`adaptive`: fit on validation when to stop looking at further instances; on test, score every prefix and stop."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from sharedlabel.aggregators._pool import pooled
from sharedlabel.config import Experiment, Plugin
from sharedlabel.config.sections import Cut, TrainerConfig
from sharedlabel.data import tuples
from sharedlabel.measurements import counts
from sharedlabel.records import AXES, Threshold
from sharedlabel.scoring import thresholds
from sharedlabel.scoring.data import SCORED_ROLES, Data
from sharedlabel.stages import _read
from sharedlabel.stages._base import Finished, MethodSetting
from sharedlabel.stages._posteriors import Answers
from sharedlabel.stages._scores import COUNTED
from sharedlabel.store import Artifact, Output
from sharedlabel.training.devices import device

VERSION = 2
LEAF, INPUTS, TABLE = "method", ("features", "calibrate", "aggregate"), "thresholds"


@dataclass(frozen=True)
class Config:
    """What a call depends on."""

    aggregator: Plugin
    n_max: int
    protocol: str
    partitions: int
    seed: int
    rules: tuple[str, ...]
    errors: tuple[float, ...]
    cut: Cut = Cut()  # noqa: RUF009 (frozen)


def configure(experiment: Experiment, setting: MethodSetting) -> Config | None:
    """Return what a call depends on: the tuples of the evaluation; None without rules, or with single instances."""
    scoring, asked = experiment.evaluation, experiment.adaptive
    if not asked.rules or max(scoring.n) == 1:
        return None
    errors = tuple(float(error) for error in asked.errors)
    sample = (max(scoring.n), setting.protocol, scoring.partitions, scoring.seed)
    return Config(setting.aggregator, *sample, asked.rules, errors, tuples.asked(scoring, setting.protocol))


def run(config: Config, data: Data, inputs: Mapping[str, Artifact], runtime: TrainerConfig) -> Output:
    """Fit the thresholds of every rule, and score what they give on test."""
    shape = _read.shape(data, inputs["calibrate"])
    aggregator = _read.aggregator(config.aggregator, data, inputs["calibrate"], inputs["aggregate"])
    every = range(1, config.n_max + 1)
    sample = (config.n_max, config.protocol, config.partitions, config.seed, config.cut)
    answers = Answers(aggregator, data, inputs, sample, device(runtime))
    seen, drawn = {}, {}
    temperatures: dict[thresholds.Source, Tensor] = {}
    clusters = data.groups("validation", config.protocol)
    for role in SCORED_ROLES:
        drawn[role] = data.tuples(role, config.protocol, config.n_max, config.partitions, config.seed, config.cut)
        posteriors: dict[thresholds.Source, Tensor] = {"aggregator": answers.posterior(role, drawn[role])}
        if "log_pool" in thresholds.sources(config.rules):
            _, logits = _read.calibrated(inputs["features"], inputs["calibrate"], role)
            posteriors["log_pool"] = pooled(logits[drawn[role].indices.flatten(0, 1)], shape.log_prior)
        if not temperatures:
            others: thresholds.Posteriors = {name: logs for name, logs in posteriors.items() if name != "aggregator"}
            temperatures = thresholds.temperatures(others, drawn[role], clusters)
            temperatures["aggregator"] = answers.temperatures(drawn[role])
        seen[role] = thresholds.watch(posteriors, drawn[role], temperatures, config.rules)
    fitted = thresholds.fit(seen["validation"], drawn["validation"], config.errors, clusters)
    stops = thresholds.stop(seen["test"], fitted)
    tuples_of = drawn["test"].labels.shape
    return Output(
        {
            "correct": seen["test"].right.to(torch.uint8).unflatten(0, tuples_of),
            "information": seen["test"].information.float().unflatten(0, tuples_of),
            "instances": stops.instances.to(torch.int16).unflatten(0, tuples_of),
            "reached": stops.reached.unflatten(0, tuples_of),
        },
        {
            "thresholds": [dataclasses.asdict(one) for one in fitted],
            "temperature": temperatures["aggregator"].tolist(),
            "validation": thresholds.means(seen["validation"], drawn["validation"]),
            "macs": list(counts.aggregator_macs(aggregator, shape, every, COUNTED).values()),
            "anytime_macs": list(counts.anytime_macs(aggregator, shape, every, COUNTED).values()),
        },
    )


def work(config: Config, data: Data) -> int:
    """Count the images that a call scores, once for each partition."""
    return config.partitions * sum(len(data.splits[role]) for role in SCORED_ROLES)


def records(finished: Finished) -> Iterator[Threshold]:
    """Yield the threshold of every rule and nominal error; its numbers are empty where none attains the error."""
    config: Config = finished.config
    every = finished.facts["adaptive"]["thresholds"]
    fitted = {(one["rule"], one["value"]): one for one in every if one["aim"] == "error"}
    for rule, error in itertools.product(config.rules, config.errors):
        one = fitted.get((rule, error), {})
        yield Threshold(
            **finished.named("cell", "data", *AXES),
            artifact=finished.key[:16],
            n_max=config.n_max,
            rule=rule,  # type: ignore[arg-type]
            nominal_error=error,
            threshold=one.get("threshold"),
            validation_error=one.get("error"),
            validation_instances=one.get("instances"),
            validation_truncated=one.get("truncated"),
        )
