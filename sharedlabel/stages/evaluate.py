"""`evaluate`: score an aggregator on validation and, with the temperatures fitted there, on test; count its costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sharedlabel.config import Experiment, Plugin
from sharedlabel.config.sections import TrainerConfig
from sharedlabel.measurements import counts
from sharedlabel.records.measurements import ReliabilityBin
from sharedlabel.scoring.data import Data
from sharedlabel.stages import _read, _scores
from sharedlabel.stages._base import Finished, MethodSetting
from sharedlabel.stages._posteriors import Answers
from sharedlabel.store import Artifact, Output
from sharedlabel.training.devices import device

VERSION = 2
LEAF, INPUTS, TABLE = "method", ("features", "calibrate", "aggregate"), "reliability"
MODULES = _scores.MODULES
work = _scores.scored_images


@dataclass(frozen=True, kw_only=True)
class Config(_scores.Sample):
    """What a call depends on."""

    aggregator: Plugin


def configure(experiment: Experiment, setting: MethodSetting) -> Config:
    """Return what a call depends on."""
    return Config(aggregator=setting.aggregator, **_scores.Sample.asked(experiment.evaluation, setting.protocol))


def run(config: Config, data: Data, inputs: Mapping[str, Artifact], runtime: TrainerConfig) -> Output:
    """Score a fitted aggregator on stored features."""
    aggregator = _read.aggregator(config.aggregator, data, inputs["calibrate"], inputs["aggregate"])
    sample = (max(config.n), config.protocol, config.partitions, config.seed, config.cut)
    answers = Answers(aggregator, data, inputs, sample, device(runtime))
    macs = counts.aggregator_macs(aggregator, _read.shape(data, inputs["calibrate"]), config.n, _scores.COUNTED)
    scored = _scores.score(config, data, answers.after, answers.temperatures if answers.come_along else None)
    return Output(scored.tensors, {**scored.meta, "macs": {str(n): count for n, count in macs.items()}})


def records(finished: Finished) -> Iterator[ReliabilityBin]:
    """Yield the bins of the reliability diagrams."""
    return _scores.reliability(finished, "evaluate")
