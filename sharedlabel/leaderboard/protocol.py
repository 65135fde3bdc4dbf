"""A frozen protocol: which features, tuples, numbers of instances and limits a table of the leaderboard stands on.

`leaderboard/protocols/<id>.toml` says all of it; the files it names lie in the folder `<id>` beside it, each with its
sha256. Any change is a new protocol and a new table, but for `metrics`, which `rescore` raises.
"""

from __future__ import annotations

import hashlib
from typing import Literal

import torch
from jaxtyping import Float64
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from sharedlabel.config.sections import FitConfig
from sharedlabel.leaderboard.sandbox.limits import Limits
from sharedlabel.leaderboard.schema import Name, Sha256, Strict

SCORED: tuple[Literal["validation", "test"], ...] = ("validation", "test")
METRICS = 2  # raise it with any change of what a posterior scores; protocols name the version of their results


class Network(Strict):
    """A compressed backbone, by the file of its features.

    Attributes:
        name: what tables call it.
        pruner: compression method, `none` for the dense network.
        ratio: compression ratio that was asked for.
        achieved_ratio: over all parameters.
        theoretical_speedup: dense MACs / effective MACs.
        macs: effective MACs of one instance.
        cell: key of the stage call that embedded the images.
        file: safetensors in the protocol's folder.
        sha256: of the file.
    """

    name: str
    pruner: str
    ratio: PositiveFloat
    achieved_ratio: PositiveFloat
    theoretical_speedup: PositiveFloat
    macs: PositiveInt
    cell: Sha256
    file: Name
    sha256: Sha256


class Images(Strict):
    """Images of a role that the protocol uses.

    Attributes:
        count: how many.
        sha256: of their sorted positions in the data set, as little-endian int64.
    """

    count: PositiveInt
    sha256: Sha256


class Source(Strict):
    """Where the images come from: names and fingerprint of the data set, and the images of each role."""

    name: str
    fingerprint: str
    classes: PositiveInt
    backbone: Images
    aggregator: Images
    validation: Images
    test: Images


class Recipe(Strict):
    """How aggregators that need it are trained by gradient descent; the words are those of `sections.FitConfig`."""

    epochs: PositiveInt
    steps: PositiveInt
    batch_size: PositiveInt
    learning_rate: PositiveFloat
    weight_decay: float
    patience: PositiveInt
    gradient_clip: float

    def fit(self) -> FitConfig:
        """Return it as the trainer reads it."""
        return FitConfig(**self.model_dump(exclude={"gradient_clip"}))


class Protocol(Strict):
    """A table of the leaderboard.

    Attributes:
        id: its name, with its version.
        title: for people.
        about: one paragraph on what it measures.
        command: made the files.
        n: numbers of instances that are scored, ascending.
        seeds: training seeds.
        prior: of the labels, always uniform.
        metrics: version of what a posterior scores, by which its results were scored.
        tolerance: largest difference of the primary score between two runs of one submission that still verifies.
        tuples: sha256 of the file of tuples, which holds no label.
        answers: sha256 of the file of labels, which only the scorer reads.
    """

    id: Name
    title: str
    about: str
    command: str
    n: tuple[PositiveInt, ...]
    seeds: tuple[int, ...]
    prior: Literal["uniform"]
    metrics: int
    tolerance: PositiveFloat
    tuples: Sha256
    answers: Sha256
    source: Source
    recipe: Recipe
    limits: Limits
    networks: tuple[Network, ...]

    @property
    def files(self) -> str:
        """The sha256 that stands for all files of the protocol."""
        parts = [self.tuples, self.answers, *(network.sha256 for network in self.networks)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def uniform(protocol: Protocol) -> Float64[Tensor, "c"]:
    """Return the prior over the labels of a protocol."""
    classes = protocol.source.classes
    return torch.full((classes,), 1 / classes, dtype=torch.float64)
