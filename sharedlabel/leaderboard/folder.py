"""The folder of the leaderboard: protocols, and the files that they name by their checksums."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sharedlabel.errors import StoreError, nearest, printable
from sharedlabel.leaderboard.protocol import METRICS, SCORED, Network, Protocol, uniform
from sharedlabel.leaderboard.schema import read_toml
from sharedlabel.types import Tuples

TUPLES, ANSWERS = "tuples.safetensors", "answers.safetensors"


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
        identifiers = self.ids()
        if not identifiers:
            raise StoreError(
                f"expected the protocols of a leaderboard in {self.root / 'protocols'}, found none; name it with --root"
            )
        return identifiers

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
        protocol = read_toml(path, Protocol)
        if protocol.id != name or not oldest <= protocol.metrics <= METRICS:
            raise StoreError(
                f"expected protocol {name!r} of metrics version {METRICS} in {path}, got {protocol.id!r} of version "
                f"{protocol.metrics}; use the release of the package that scored it, or let maintainers `rescore` it"
            )
        return protocol

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
        answers: dict[str, Tuples] = {}
        for role in SCORED:
            own = labels[f"{role}.labels"].long()
            weights = (prior / torch.bincount(own, minlength=len(prior)))[own]
            answers[role] = Tuples(indices[role][None], own[None], weights[None])
        return answers


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
    digest = hashlib.sha256(content).hexdigest()
    if digest != sha256:
        raise StoreError(
            f"expected sha256 {sha256[:12]}... of {path}, got {digest[:12]}...; it was altered: "
            "restore it from the repository"
        )
    return content
