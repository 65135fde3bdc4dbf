"""`calibrate`: fit what all aggregators get: a temperature, the prior shift, the embeddings' scale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sharedlabel.aggregators._base import LEAST_DEVIATION, statistics
from sharedlabel.config.sections import TrainerConfig
from sharedlabel.metrics.calibration import single_temperature
from sharedlabel.scoring.data import Data
from sharedlabel.stages import _read
from sharedlabel.store import Artifact, Output

VERSION = 2


@dataclass(frozen=True)
class Config:
    """What a call depends on.

    Attributes:
        prior: class prior of tuples, as configured; stages that read what this one stores need not name it again.
        least_deviation: smallest scale of an embedding unit, as a share of its layer's.
    """

    prior: str
    least_deviation: float = LEAST_DEVIATION


def run(config: Config, data: Data, inputs: Mapping[str, Artifact], runtime: TrainerConfig) -> Output:
    """Fit on the aggregator split."""
    del runtime
    embeddings, logits = _read.features(inputs["features"], "aggregator")
    labels = data.labels("aggregator")
    correction = _read.correction(data, data.labels("backbone"))
    temperature = single_temperature(logits + correction, labels, data.prior)
    mean, scale = statistics(embeddings, config.least_deviation)
    return Output(
        {"embedding_mean": mean, "embedding_scale": scale, "log_correction": correction}, {"temperature": temperature}
    )
