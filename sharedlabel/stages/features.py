"""`features`: embed the aggregator, validation and test images once; shards are made one at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from sharedlabel.config import Plugin
from sharedlabel.config.sections import TrainerConfig
from sharedlabel.scoring.data import FEATURE_ROLES, Data
from sharedlabel.stages import _read
from sharedlabel.store import Artifact, Output
from sharedlabel.training.embedding import embed

VERSION = 1


@dataclass(frozen=True)
class Config:
    """What a call depends on."""

    backbone: Plugin
    precision: str


def run(config: Config, data: Data, inputs: Mapping[str, Artifact], runtime: TrainerConfig) -> Output:
    """Embed images by a stored backbone."""
    backbone = _read.backbone(config.backbone, data, inputs["backbone"])
    lengths = {role: len(data.splits[role]) for role in FEATURE_ROLES}
    order = torch.cat([data.splits[role] for role in FEATURE_ROLES])
    return Output(embed(backbone, data.dataset.images, order, runtime), {"lengths": lengths})
