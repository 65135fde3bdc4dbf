"""What the stages that score posteriors share: the tuples, the temperatures, the output and its records."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor

from sharedlabel.config.sections import Cut, EvaluationConfig
from sharedlabel.data import tuples
from sharedlabel.measurements import counts
from sharedlabel.metrics._temperature import anchors
from sharedlabel.metrics.calibration import temperatures
from sharedlabel.records.measurements import ReliabilityBin
from sharedlabel.scoring.data import SCORED_ROLES, Data, score_tuples
from sharedlabel.scoring.scores import METRICS, Scores
from sharedlabel.stages._base import Finished
from sharedlabel.store import Output
from sharedlabel.types import Role, Tuples

MODULES = tuple(metric.__name__ for metric in METRICS)
COUNTED: counts.Counted = {}  # MACs in this process, by structure: networks and seeds share their aggregators
Posterior: TypeAlias = Callable[[Role, Tuples, Sequence[int]], Tensor]  # log-posteriors [p*t k c] of a split's tuples


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Which posteriors are scored, on which tuples.

    Attributes:
        n: prefix lengths.
        protocol: `iid`, `grouped` or `sequence`.
        partitions: times that the images are cut into disjoint tuples.
        seed: seed of the tuples.
        cut: how groups are cut into tuples.
    """

    n: tuple[int, ...]
    protocol: str
    partitions: int
    seed: int
    cut: Cut = Cut()  # noqa: RUF009 (frozen)

    @staticmethod
    def asked(scoring: EvaluationConfig, protocol: str) -> dict[str, Any]:
        """Return these values as a section of the configuration has them."""
        return {
            "n": scoring.n,
            "protocol": protocol,
            "partitions": scoring.partitions,
            "seed": scoring.seed,
            "cut": tuples.asked(scoring, protocol),
        }

    def drawn(self, data: Data, role: Role) -> Tuples:
        """Return the tuples of a split."""
        return data.tuples(role, self.protocol, max(self.n), self.partitions, self.seed, self.cut)


def score(config: Sample, data: Data, posterior: Posterior, fitted: Callable[[Tuples], Tensor] | None = None) -> Output:
    """Score log-posteriors on validation and test; temperatures depend on validation and on the largest n alone.

    Args:
        config: which posteriors, on which tuples.
        data: whose tuples.
        posterior: returns the log-posteriors.
        fitted: returns the temperature after every instance, of the tuples of validation; None to fit them here.
    """
    n, protocol = config.n, config.protocol
    sizes = sorted({*n, *anchors(range(1, max(n) + 1))}) if fitted is None else list(n)
    scores: dict[str, Scores] = {}
    temperature = None
    for role in SCORED_ROLES:
        drawn = config.drawn(data, role)
        log_posterior = posterior(role, drawn, n if temperature is not None else sizes)
        if temperature is None and fitted is not None:
            temperature = fitted(drawn)[[size - 1 for size in n]]
        elif temperature is None:
            chosen = [sizes.index(size) for size in n]
            temperature = temperatures(log_posterior, drawn, sizes, data.groups(role, protocol))[chosen]
            log_posterior = log_posterior[:, chosen]
        scores[role] = score_tuples(data, log_posterior, drawn, role, protocol, n, temperature)
    return packed(scores, n)


def packed(scores: Mapping[str, Scores], n: tuple[int, ...]) -> Output:
    """Pack the scores of both splits into an output: per-tuple scores and answers as tensors, metrics as facts."""
    tensors, meta, tuples_of = {}, {}, {}
    for role, one in scores.items():
        tuples_of[role] = one.tuples
        tensors[f"{role}.correct"], tensors[f"{role}.information"] = one.correct, one.information
        meta[role] = [{"n": size, **metrics} for size, metrics in zip(n, one.metrics, strict=True)]
    tensors["test.predicted"] = scores["test"].predicted
    return Output(tensors, {**meta, "tuples": tuples_of, "reliability": scores["test"].reliability})


def scored_images(config: Sample, data: Data) -> int:
    """Count the images that a call scores, once for each partition."""
    return config.partitions * sum(len(data.splits[role]) for role in SCORED_ROLES)


def reliability(finished: Finished, stage: str) -> Iterator[ReliabilityBin]:
    """Yield the filled bins of the reliability diagrams; of the first seed's cells alone, since tables grow long."""
    if not finished.first_seed:
        return
    method = finished.named("data", "backbone", "pruner", "ratio", "aggregator", "training", "protocol")
    for diagram in finished.facts[stage]["reliability"]:
        for confidence, accuracy, mass in zip(diagram["confidence"], diagram["accuracy"], diagram["mass"], strict=True):
            if mass > 0:
                yield ReliabilityBin(
                    **method,
                    n=diagram["n"],
                    calibrated=diagram["calibrated"],
                    confidence=confidence,
                    accuracy=accuracy,
                    mass=mass,
                )
