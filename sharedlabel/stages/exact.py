"""`exact`: score the exact posterior of a synthetic data set: what no aggregator can beat."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sharedlabel.config import Experiment, Plugin, resolve
from sharedlabel.config.sections import TrainerConfig
from sharedlabel.plugins import load
from sharedlabel.records.measurements import ReliabilityBin
from sharedlabel.scoring.data import Data
from sharedlabel.stages import _scores
from sharedlabel.stages._base import Finished, ProtocolSetting
from sharedlabel.store import Artifact, Output
from sharedlabel.types import Role, Tuples

VERSION = 2
LEAF, TABLE = "protocol", "reliability"
MODULES = _scores.MODULES
work = _scores.scored_images


@dataclass(frozen=True, kw_only=True)
class Config(_scores.Sample):
    """What a call depends on.

    Attributes:
        data: plugin and options of the data set, which knows its exact posterior.
        prior: class prior of tuples, as configured.
    """

    data: Plugin
    prior: str


def configure(experiment: Experiment, setting: ProtocolSetting) -> Config | None:
    """Return what a call depends on; None where the data set has no exact posterior."""
    plugin, scoring = resolve("data", experiment.data), experiment.evaluation
    if not hasattr(load("data", plugin.name), "exact_log_posterior"):
        return None
    return Config(data=plugin, prior=scoring.prior, **_scores.Sample.asked(scoring, setting.protocol))


def run(config: Config, data: Data, inputs: Mapping[str, Artifact], runtime: TrainerConfig) -> Output:
    """Score the exact posterior on the tuples of the evaluation."""
    del inputs, runtime
    oracle = load("data", config.data.name).exact_log_posterior

    def posterior(role: Role, drawn: Tuples, n: Sequence[int]) -> Tensor:
        instances = data.splits[role][drawn.indices.flatten(0, 1)]
        every: Tensor = oracle(config.data.config, data.dataset, instances, data.prior.log())
        return every[:, torch.tensor(n) - 1]

    return _scores.score(config, data, posterior)


def records(finished: Finished) -> Iterator[ReliabilityBin]:
    """Yield the bins of the reliability diagrams."""
    return _scores.reliability(finished, "exact")
