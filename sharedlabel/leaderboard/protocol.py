"""A frozen protocol: which features, tuples, numbers of instances and limits a table of the leaderboard stands on.

`leaderboard/protocols/<id>.toml` says all of it; the files it names lie in the folder `<id>` beside it, each with its
sha256. Any change is a new protocol and a new table, but for `metrics`, which `rescore` raises.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import safetensors
import safetensors.torch
import torch
from jaxtyping import Float, Float64, Int64
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from sharedlabel.config import FitConfig
from sharedlabel.errors import StoreError, nearest, printable
from sharedlabel.leaderboard.sandbox import Limits
from sharedlabel.leaderboard.schema import Name, Sha256, Strict, read_toml
from sharedlabel.types import Tuples

SCORED: tuple[Literal["validation", "test"], ...] = ("validation", "test")
METRICS = 2  # raise it with any change of what a posterior scores; protocols name the version of their results
TUPLES, ANSWERS = "tuples.safetensors", "answers.safetensors"


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
    """How aggregators that need it are trained by gradient descent; the words are those of `config.FitConfig`."""

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


@dataclass(frozen=True)
class Features:
    """What one network says of the images of a protocol.

    Attributes:
        embeddings: by role.
        logits: by role; `softmax` is the calibrated posterior of one instance under the prior.
        labels: of the roles `aggregator` and `validation`.
    """

    embeddings: Mapping[str, Float[Tensor, "m d"]]
    logits: Mapping[str, Float[Tensor, "m c"]]
    labels: Mapping[str, Int64[Tensor, "m"]]


class Board:
    """The folder of the leaderboard.

    Args:
        root: holds `protocols`, `submissions` and `results`.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def ids(self) -> tuple[str, ...]:
        """List the protocols."""
        return tuple(sorted(path.stem for path in (self.root / "protocols").glob("*.toml")))

    def present(self) -> tuple[str, ...]:
        """Return the names of the protocols, of which there have to be some.

        Raises:
            StoreError: there are none.
        """
        found = self.ids()
        if not found:
            raise StoreError(
                f"expected the protocols of a leaderboard in {self.root / 'protocols'}, found none; name it with --root"
            )
        return found

    def protocol(self, name: str, oldest: int = METRICS) -> Protocol:
        """Read a protocol.

        Args:
            name: its id.
            oldest: version of the metrics that is still taken.

        Raises:
            StoreError: there is none of this name, its file is not as a protocol should be, or it is of other metrics.
        """
        if name not in self.ids():
            raise StoreError(f"unknown protocol {name!r} in {self.root / 'protocols'}; {nearest(name, self.ids())}")
        path = self.path(name)
        found = read_toml(path, Protocol)
        if found.id != name or not oldest <= found.metrics <= METRICS:
            raise StoreError(
                f"expected protocol {name!r} of metrics version {METRICS} in {path}, got {found.id!r} of version "
                f"{found.metrics}; use the release of the package that scored it, or let maintainers `rescore` it"
            )
        return found

    def path(self, name: str) -> Path:
        """Return where a protocol is written down."""
        return self.root / "protocols" / f"{name}.toml"

    def folder(self, protocol: Protocol) -> Path:
        """Return where the files of a protocol lie."""
        return self.root / "protocols" / protocol.id

    def features(self, protocol: Protocol, network: Network) -> Features:
        """Read the features of a network, in float32.

        Raises:
            StoreError: the file is missing or was altered.
        """
        tensors = load(self.folder(protocol) / network.file, network.sha256)
        roles = ("aggregator", *SCORED)
        return Features(
            {role: tensors[f"{role}.embeddings"].float() for role in roles},
            {role: tensors[f"{role}.logits"].float() for role in roles},
            {role: tensors[f"{role}.labels"].long() for role in roles if f"{role}.labels" in tensors},
        )

    def indices(self, protocol: Protocol) -> dict[str, Int64[Tensor, "t n"]]:
        """Read which instances form the tuples of validation and test: positions, and no label.

        Raises:
            StoreError: the file is missing or was altered.
        """
        tensors = load(self.folder(protocol) / TUPLES, protocol.tuples)
        return {role: tensors[f"{role}.indices"].long() for role in SCORED}

    def answers(self, protocol: Protocol) -> dict[str, Tuples]:
        """Read the labelled tuples of validation and test; for the scorer alone.

        Raises:
            StoreError: a file is missing or was altered.
        """
        indices = self.indices(protocol)
        labels = load(self.folder(protocol) / ANSWERS, protocol.answers)
        prior = uniform(protocol)
        found: dict[str, Tuples] = {}
        for role in SCORED:
            own = labels[f"{role}.labels"].long()
            weights = (prior / torch.bincount(own, minlength=len(prior)))[own]
            found[role] = Tuples(indices[role][None], own[None], weights[None])
        return found


def uniform(protocol: Protocol) -> Float64[Tensor, "c"]:
    """Return the prior over the labels of a protocol."""
    classes = protocol.source.classes
    return torch.full((classes,), 1 / classes, dtype=torch.float64)


def load(path: Path, sha256: str) -> dict[str, Tensor]:
    """Read a file of tensors whose content is known.

    Raises:
        StoreError: it is missing, was altered or holds no tensors.
    """
    try:
        return safetensors.torch.load(pinned(path, sha256))
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise StoreError(f"expected tensors in {path}, got: {printable(str(error), 200)}; it was altered") from error


def pinned(path: Path, sha256: str) -> bytes:
    """Read a file whose content is known.

    Raises:
        StoreError: it is missing or was altered.
    """
    try:
        content = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError) as error:
        raise StoreError(f"expected the file {path}, found none; restore it from the repository") from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise StoreError(
            f"expected sha256 {sha256[:12]}... of {path}, got {found[:12]}...; it was altered: "
            "restore it from the repository"
        )
    return content
