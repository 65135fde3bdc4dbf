"""`counts`: count parameters, MACs and bytes of a pruned network, against the dense one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sharedlabel.config import Experiment, Plugin
from sharedlabel.config.sections import TrainerConfig
from sharedlabel.measurements import counts
from sharedlabel.scoring.data import Data
from sharedlabel.stages import _read
from sharedlabel.stages._base import NetworkSetting
from sharedlabel.store import Artifact, Output

VERSION = 1
LEAF, INPUTS = "network", ("reference", "backbone")


@dataclass(frozen=True)
class Config:
    """What a call depends on."""

    backbone: Plugin


def configure(experiment: Experiment, setting: NetworkSetting) -> Config:
    """Return what a call depends on."""
    del experiment
    return Config(setting.backbone)


def run(config: Config, data: Data, inputs: Mapping[str, Artifact], runtime: TrainerConfig) -> Output:
    """Count what the network costs; a stage of its own, so that a new count trains no network again."""
    del runtime
    dense, pruned = (_read.backbone(config.backbone, data, inputs[role]) for role in INPUTS)
    return Output({}, {"costs": dataclasses.asdict(counts.costs(dense, pruned, data.dataset.image_shape))})


def columns(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Show all counts."""
    return dict(facts["costs"])
