"""From a finished cell of a run to its trained networks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sharedlabel import plugins
from sharedlabel.aggregators._base import Aggregator
from sharedlabel.backbones._base import Backbone
from sharedlabel.backbones._butterfly import unfold
from sharedlabel.config import Plugin, plugins_in, remade
from sharedlabel.errors import StoreError
from sharedlabel.pruners._masks import bake
from sharedlabel.records import DatasetFacts
from sharedlabel.stages._restore import searched, stored_aggregator, stored_backbone, stored_shape
from sharedlabel.store import Artifact, Store
from sharedlabel.types import SetShape


@dataclass(frozen=True)
class Trained:
    """The networks of a cell and the numbers that go with them.

    Attributes:
        backbone: in evaluation mode, its masks baked in: plain layers, as small as pruning made them; butterfly layers
            as the products of matrices that they are.
        aggregator: in evaluation mode.
        shape: what the aggregator was built for.
        log_correction: of the calibration of single instances.
        temperature: likewise.
        posterior_temperatures: of the posterior after every number of instances; empty without adaptive n.
        artifacts: by what it is for, what was stored where, when and by which commit.
    """

    backbone: Backbone
    aggregator: Aggregator
    shape: SetShape
    log_correction: Float[Tensor, "c"]
    temperature: float
    posterior_temperatures: tuple[float, ...]
    artifacts: dict[str, dict[str, Any]]


def restore(key: str, dataset: DatasetFacts, store: Store, stopping: str | None = None) -> Trained:
    """Rebuild the networks of a cell from the stored outputs of its stages.

    Args:
        key: id of the cell, the first digits of the key of its evaluation.
        dataset: image shape, classes and prior.
        store: where they are.
        stopping: first digits of the key of its adaptive n; None without it.

    Raises:
        StoreError: an artifact is absent or damaged, or the code of its backbone or aggregator has changed since.
    """
    scored = store.find(key)
    inputs = {name: store.find(stored) for name, stored in scored.manifest["inputs"].items() if name != "data"}
    features, calibrate, aggregate = inputs["features"], inputs["calibrate"], inputs["aggregate"]
    if "features" in features.manifest["inputs"]:  # joined by cross-fitting: the deployed network made these of them
        features = store.find(features.manifest["inputs"]["features"])
    compressed = store.find(features.manifest["inputs"]["backbone"])
    plugin = _as_stored("backbones", features, "backbone")
    backbone = stored_backbone(plugin, dataset.image_shape, len(dataset.class_names), compressed)
    bake(backbone)
    unfold(backbone)
    shape = stored_shape(torch.tensor(dataset.prior, dtype=torch.float64), calibrate)
    stopped = None if stopping is None else store.find(stopping)
    fusing = _as_stored("aggregators", scored, "aggregator")
    return Trained(
        backbone=backbone,
        aggregator=stored_aggregator(fusing, shape, aggregate),
        shape=shape,
        log_correction=calibrate.tensors()["log_correction"],
        temperature=calibrate.meta["temperature"],
        posterior_temperatures=() if stopped is None else tuple(stopped.meta["temperature"]),
        artifacts={
            "backbone": _source(compressed),
            "calibration": _source(calibrate),
            "aggregator": _source(aggregate),
            "evaluation": _source(scored),
            **({} if stopped is None else {"stopping": _source(stopped)}),
        },
    )


def _as_stored(kind: str, artifact: Artifact, option: str) -> Plugin:
    """Return a plugin that an output was made with.

    Raises:
        StoreError: its code computes something else today: the numbers of the output are not those of its networks.
    """
    plugin = remade(kind, artifact.manifest["config"][option])
    made = artifact.manifest.get("code", {})
    for name, code in plugins.code(plugins_in(plugin)).items():
        if made.get(name, code) != code:
            raise StoreError(
                f"expected the code of {name} with which {artifact.folder} was computed, got another one; run "
                "`sharedlabel train` again, or go back to the code of commit "
                f"{artifact.manifest['provenance']['commit'] or 'unknown'}"
            )
    return plugin


def _source(artifact: Artifact) -> dict[str, Any]:
    manifest = artifact.manifest
    return {
        "stage": manifest["stage"],
        "key": artifact.key,
        "created": manifest["created"],
        "commit": manifest["provenance"]["commit"],
        "config": manifest["config"],
        **searched(artifact),
    }
