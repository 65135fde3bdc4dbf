"""`crossfit`: join the features of images by networks trained without them, as the deployed network would see them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from sharedlabel.config.sections import CrossfitConfig, TrainerConfig
from sharedlabel.metrics.calibration import single_temperature
from sharedlabel.scoring.data import SCORED_ROLES, Data
from sharedlabel.stages import _read
from sharedlabel.store import Artifact, Output
from sharedlabel.training.alignment import align

VERSION = 2


@dataclass(frozen=True)
class Config:
    """What a call depends on; how the folds are cut is part of the keys of their features.

    Attributes:
        crossfit: the section of the configuration.
        prior: class prior of tuples, as configured.
    """

    crossfit: CrossfitConfig
    prior: str


def run(config: Config, data: Data, inputs: Mapping[str, Artifact], runtime: TrainerConfig) -> Output:
    """Join the features of all folds, brought into the space of the deployed network.

    Fitted on validation, which no network saw: an affine map of the embeddings, and the temperature that makes logits
    as sharp as the deployed network's. Validation and test keep the deployed network's features. The output is like
    that of `features`, whose embeddings of images that the deployed network was trained on are not used.
    """
    del runtime
    embeddings, logits = (torch.empty_like(tensor) for tensor in _read.features(inputs["features"], "aggregator"))
    target, target_logits = _read.features(inputs["features"], "validation")
    every, labels = data.labels("backbone"), data.labels("validation")
    correction = _read.correction(data, every)
    temperature = single_temperature(target_logits + correction, labels, data.prior)
    fitted = []
    for number, fold in enumerate(data.folds, start=1):
        source, source_logits = _read.features(inputs[f"fold {number}"], "validation")
        inside = torch.isin(data.splits["aggregator"], fold)  # both are sorted
        own_correction = _read.correction(data, every[~inside])
        own_temperature = single_temperature(source_logits + own_correction, labels, data.prior)
        alignment = align(source, target, config.crossfit.ridge)
        out_of_fold, out_of_fold_logits = _read.features(inputs[f"fold {number}"], "aggregator")
        embeddings[inside] = alignment(out_of_fold)
        logits[inside] = (out_of_fold_logits + own_correction) * (temperature / own_temperature) - correction
        facts = {"r2": alignment.r2, "ridge": alignment.strength, "temperature": own_temperature}
        fitted.append({"fold": number, "images": len(fold), **facts})
    kept = [_read.features(inputs["features"], role) for role in SCORED_ROLES]
    joined = zip((embeddings, logits), *kept, strict=True)
    return Output(
        dict(zip(("embeddings", "logits"), map(torch.cat, joined), strict=True)),
        {"lengths": inputs["features"].meta["lengths"], "temperature": temperature, "folds": fitted},
    )
