"""What stages read of the outputs of others: networks, features, calibrated logits."""

from __future__ import annotations

from torch import Tensor

from sharedlabel.aggregators._base import Aggregator
from sharedlabel.backbones._base import Backbone
from sharedlabel.config import Plugin
from sharedlabel.data import tuples
from sharedlabel.metrics.calibration import calibrate_logits, log_correction
from sharedlabel.scoring.data import FEATURE_ROLES, Data
from sharedlabel.stages._restore import stored_aggregator, stored_backbone, stored_shape
from sharedlabel.store import Artifact
from sharedlabel.types import Role, SetShape


def backbone(plugin: Plugin, data: Data, artifact: Artifact) -> Backbone:
    """Return a stored backbone."""
    return stored_backbone(plugin, data.dataset.image_shape, data.dataset.num_classes, artifact)


def shape(data: Data, calibration: Artifact) -> SetShape:
    """Return what aggregators are built for."""
    return stored_shape(data.prior, calibration)


def aggregator(plugin: Plugin, data: Data, calibration: Artifact, artifact: Artifact) -> Aggregator:
    """Return a stored aggregator."""
    return stored_aggregator(plugin, shape(data, calibration), artifact)


def features(artifact: Artifact, role: Role) -> tuple[Tensor, Tensor]:
    """Return the embeddings `[m d]` and raw logits `[m c]` of one split."""
    lengths = [artifact.meta["lengths"][name] for name in FEATURE_ROLES]
    index, tensors = FEATURE_ROLES.index(role), artifact.tensors()
    return tensors["embeddings"].split(lengths)[index], tensors["logits"].split(lengths)[index]


def calibrated(artifact: Artifact, calibration: Artifact, role: Role) -> tuple[Tensor, Tensor]:
    """Return embeddings, and logits whose softmax is the calibrated posterior under the prior of tuples."""
    embeddings, logits = features(artifact, role)
    shift, temperature = calibration.tensors()["log_correction"], calibration.meta["temperature"]
    return embeddings, calibrate_logits(logits, shift, temperature)


def correction(data: Data, trained_on: Tensor) -> Tensor:
    """Return the log of the prior of tuples over the class frequencies among the labels that a backbone learnt from."""
    frequencies = tuples.prior(trained_on, "empirical", data.dataset.num_classes)
    return log_correction(data.prior, frequencies)
