"""Join predictions with the labels that submitted code never saw; a process of its own that imports none of it.

Predictions come as a file. It is read strictly: tensors of the names, shapes and type that the protocol asks for,
finite and normalised. Scores are those of `evaluation.score`: one temperature per n, fitted on validation.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import safetensors
import safetensors.torch
import torch
from jaxtyping import Float
from torch import Tensor

from sharedlabel.errors import DataError, printable
from sharedlabel.leaderboard.protocol import SCORED, Protocol, uniform
from sharedlabel.logs import log_normalize
from sharedlabel.metrics.information import label_entropy
from sharedlabel.scoring.scores import score as score_posteriors
from sharedlabel.types import Tuples

NORMALISED = 0.02  # of the log of the sum of a posterior in float16
_COLUMNS = ("ri", "ri_low", "ri_high", "n_accuracy", "n_accuracy_low", "n_accuracy_high", "temperature", "ri_raw")


class PredictionError(DataError):
    """Predictions that are no posteriors of the tuples that were asked about."""


@dataclass(frozen=True)
class PredictionScores:
    """What predictions are worth.

    Attributes:
        ri: the primary score: mean over seeds, networks and n of the calibrated relative information.
        cells: one row for every network, seed and n.
        scores: per tuple of test: `correct` (uint8) and `information` (bits, float16), `[network seed t k]`.
    """

    ri: float
    cells: list[dict[str, Any]]
    scores: dict[str, Tensor]


def read(content: bytes, protocol: Protocol, answers: Mapping[str, Tuples]) -> dict[str, Float[Tensor, "t k c"]]:
    """Read predictions and believe nothing of them.

    Args:
        content: of a safetensors file.
        protocol: says what has to be in it.
        answers: labelled tuples of validation and test.

    Returns:
        Log-posteriors in float64 by `<network>.<seed>.<role>`, normalised.

    Raises:
        PredictionError: other tensors, shapes or types, values that are not finite, or posteriors that do not sum to 1.
    """
    try:
        tensors = safetensors.torch.load(content)
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise PredictionError(f"expected predictions in safetensors, got: {error}; run the submission again") from error
    classes, sizes = protocol.source.classes, len(protocol.n)
    expected = {
        f"{network.name}.{seed}.{role}": (answers[role].labels.shape[1], sizes, classes)
        for network in protocol.networks
        for seed in protocol.seeds
        for role in SCORED
    }
    if set(tensors) != set(expected):
        odd = ", ".join(sorted(set(tensors) ^ set(expected))[:3])
        raise PredictionError(
            f"expected {len(expected)} tensors of predictions, got {len(tensors)} with a difference in {printable(odd)}"
        )
    for name, shape in expected.items():
        tensor = tensors[name]
        if tuple(tensor.shape) != shape or tensor.dtype != torch.float16:
            raise PredictionError(
                f"expected {name} in float16 of shape {list(shape)}, got {tensor.dtype} {list(tensor.shape)}"
            )
        if not bool(tensor.isfinite().all()):
            raise PredictionError(f"expected finite log-posteriors in {name}, got NaN or Inf")
        apart = float(tensor.double().logsumexp(-1).abs().max())
        if not apart <= NORMALISED:
            raise PredictionError(f"expected posteriors that sum to 1 in {name}, got a log of their sum of {apart:.2g}")
    return {name: log_normalize(tensor.double()) for name, tensor in tensors.items()}


def score(posteriors: Mapping[str, Tensor], protocol: Protocol, answers: Mapping[str, Tuples]) -> PredictionScores:
    """Score predictions that were read.

    Args:
        posteriors: from `read`.
        protocol: they were made for.
        answers: labelled tuples.
    """
    prior, cells = uniform(protocol), []
    correct, information = [], []
    for network in protocol.networks:
        rows = []
        for seed in protocol.seeds:
            temperature, scored = None, None
            for role in SCORED:
                posterior, drawn = posteriors[f"{network.name}.{seed}.{role}"], answers[role]
                images = getattr(protocol.source, role).count
                scored = score_posteriors(posterior, drawn, prior, protocol.n, images, None, temperature)
                temperature = scored.temperature
            assert scored is not None
            rows.append(scored)
            for n, metrics in zip(protocol.n, scored.metrics, strict=True):
                shown = {name: metrics[name] for name in _COLUMNS}
                cells.append({"network": network.name, "ratio": network.ratio, "seed": seed, "n": n, **shown})
        correct.append(torch.stack([one.correct[0] for one in rows]))
        information.append(torch.stack([one.information[0] for one in rows]))
    scores = {"correct": torch.stack(correct), "information": torch.stack(information).half()}
    return PredictionScores(primary(scores["information"], answers["test"], prior), cells, scores)


def primary(information: Float[Tensor, "r s t k"], drawn: Tuples, prior: Float[Tensor, "c"]) -> float:
    """Return the primary score from log2 posteriors of the label, of every network, seed, tuple and n."""
    weights = drawn.weights[0].double()
    bits = float(information.double().mean(dim=(0, 1, 3)) @ weights)
    return 1 + bits / label_entropy(prior.log())


def mean_by(cells: list[dict[str, Any]], *keys: str) -> list[dict[str, Any]]:
    """Average cells over everything but some columns."""
    grouped: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for cell in cells:
        grouped.setdefault(tuple(cell[key] for key in keys), []).append(cell)
    return [
        dict(zip(keys, values, strict=True))
        | {name: statistics.fmean(c[name] for c in own) for name in ("ri", "n_accuracy")}
        for values, own in grouped.items()
    ]
