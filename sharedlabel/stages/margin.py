"""`margin`: how many weights of each layer of the dense backbone can go before the output moves by epsilon."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch

from sharedlabel.config import Experiment, Plugin
from sharedlabel.config.sections import MarginConfig, TrainerConfig
from sharedlabel.measurements import margin as error_margin
from sharedlabel.records.measurements import Margin
from sharedlabel.scoring.data import Data
from sharedlabel.stages import _read
from sharedlabel.stages._base import Finished, NetworkSetting
from sharedlabel.store import Artifact, Output
from sharedlabel.training.devices import device

VERSION = 1
LEAF, INPUTS, TABLE = "network", ("dense",), "margins"


@dataclass(frozen=True)
class Config:
    """What a call depends on."""

    backbone: Plugin
    margin: MarginConfig


def configure(experiment: Experiment, setting: NetworkSetting) -> Config | None:
    """Return what a call depends on; it is the same for all networks that were pruned from one dense network."""
    return Config(setting.backbone, experiment.margin) if experiment.margin.epsilons else None


def run(config: Config, data: Data, inputs: Mapping[str, Artifact], runtime: TrainerConfig) -> Output:
    """Find the error margins of every prunable layer, on evenly spaced images of validation."""
    backbone = _read.backbone(config.backbone, data, inputs["dense"])
    split, options = data.splits["validation"], config.margin
    chosen = split[torch.linspace(0, len(split) - 1, min(options.inputs, len(split))).long()]
    layers = error_margin.margins(
        backbone, data.dataset.images[chosen], options.epsilons, float(options.alpha), device(runtime)
    )
    return Output({}, {"margins": [dataclasses.asdict(layer) for layer in layers]})


def work(config: Config, data: Data) -> int:
    """Count the images on which distances are observed."""
    return min(config.margin.inputs, len(data.splits["validation"]))


def records(finished: Finished) -> Iterator[Margin]:
    """Yield a record for every layer and epsilon."""
    for layer in finished.facts["margin"]["margins"]:
        named = finished.named("data", "backbone", "seed")
        yield Margin(**named, training=finished.network_training, **layer)
