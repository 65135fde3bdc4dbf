"""`early`: repeat the beginning of the dense training: the point that rewinding goes back to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sharedlabel.config.sections import TrainerConfig
from sharedlabel.scoring.data import Data
from sharedlabel.stages import dense
from sharedlabel.store import Artifact, Output

VERSION = 1
work = dense.work


@dataclass(frozen=True)
class Config(dense.Config):
    """What a call depends on.

    Attributes:
        share: of the dense training, in [0, 1).
    """

    share: float

    @property
    def epochs(self) -> float:
        """Passes over the backbone split."""
        return self.share * self.train.epochs


def run(config: Config, data: Data, inputs: Mapping[str, Artifact], runtime: TrainerConfig) -> Output:
    """Train the dense backbone for a share of its recipe."""
    del inputs
    return dense.trained(config, data, runtime, config.share)
