"""Fill in the card of a model from the results of its cell."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from pydantic import TypeAdapter

from sharedlabel.deployment.card import Calibration, Costs, Preprocessing, Quality, Stopping
from sharedlabel.metrics.information import FLOOR
from sharedlabel.records import DatasetFacts, Row, Threshold


def preprocessing(dataset: DatasetFacts) -> Preprocessing:
    """Say how images become inputs."""
    channels, height, width = dataset.image_shape
    return TypeAdapter(Preprocessing).validate_python(
        {
            "channels": channels,
            "height": height,
            "width": width,
            "dtype": dataset.dtype,
            "resize": dataset.size,
            "convert": dataset.channels,
            "background": dataset.background,
            "trim": dataset.trim,
        }
    )


def calibration(fitted: Mapping[int, float], log_correction: Sequence[float], temperature: float) -> Calibration:
    """Say how outputs become a posterior.

    Args:
        fitted: temperature of the posterior by tuple size.
        log_correction: of the stage `calibrate`.
        temperature: likewise.
    """
    return Calibration(
        instance="log_softmax((logits + log_correction) / temperature)",
        log_correction=tuple(log_correction),
        temperature=temperature,
        posterior="(1 - floor) * softmax(log_posterior[k] / posterior_temperature(k)) + floor / labels",
        n=tuple(sorted(fitted)),
        posterior_temperature=tuple(fitted[n] for n in sorted(fitted)),
        other_n="the temperature of the largest fitted size below, or of the smallest size if there is none below",
        floor=FLOOR,
    )


def stopping(thresholds: Sequence[Threshold]) -> tuple[Stopping, ...]:
    """Say when to stop, for every nominal error that a threshold attains.

    Args:
        thresholds: of one cell; a model watches its largest posterior probability, so those of other rules are left.
    """
    names = [item.name for item in dataclasses.fields(Stopping)]
    own = [one for one in thresholds if one.rule == "threshold" and one.threshold is not None]
    own.sort(key=lambda one: -one.nominal_error)
    return tuple(Stopping(**{name: getattr(one, name) for name in names}) for one in own)


def costs(rows: Sequence[Row]) -> Costs:
    """Take the costs from the rows of one cell on one split."""
    by_n = {
        "aggregator_macs": {str(row.n): row.aggregator_macs for row in rows},
        "cost_dense_passes": {str(row.n): row.cost_dense_passes for row in rows},
    }
    names = [item.name for item in dataclasses.fields(Costs) if item.name not in by_n]
    return Costs(**{name: getattr(rows[0], name) for name in names}, **by_n)  # type: ignore[arg-type]


def quality(rows: Sequence[Row]) -> tuple[Quality, ...]:
    """Take accuracy and relative information from the rows of one cell on test."""
    names = [item.name for item in dataclasses.fields(Quality)]
    return tuple(Quality(**{name: getattr(row, name) for name in names}) for row in rows)
