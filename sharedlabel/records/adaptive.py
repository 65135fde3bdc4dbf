"""Adaptive numbers of instances: what a threshold gave over seeds, and the threshold of every cell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from sharedlabel.records.identity import OfCell, OfMethod
from sharedlabel.records.rows import MainScores

Rule: TypeAlias = Literal["threshold", "margin", "sprt"]


@dataclass(frozen=True, kw_only=True)
class AdaptivePoint(MainScores, OfMethod):
    """A method that stops looking at instances when a rule is sure enough, on test, over its seeds.

    The threshold is fitted on validation, for each seed. The baseline of a gain is the best mix of fixed numbers of
    instances (chosen on validation) with the same mean cost. N-accuracy and RI are of the decisions and the calibrated
    posteriors at the stop, forced ones included.

    Attributes:
        rule: `threshold`, `margin` or `sprt`.
        aim: what the threshold was fitted for: a nominal `error`, or a mean number of `instances`.
        value: that error, or that number.
        n_max: instances after which a decision is forced.
        seeds: number of training seeds.
        threshold: confidence at which to stop, mean over seeds.
        validation_error: as `error`, where the threshold was fitted; empty where nothing was decided.
        validation_instances: as `instances`, where the threshold was fitted.
        instances: mean number of instances looked at, with an interval over seeds and images.
        instances_low: lower end of its interval.
        instances_high: upper end.
        cost_dense_passes: mean cost, MACs of a tuple / MACs of one dense pass.
        error: share of wrong decisions among the tuples that reached the threshold; empty where none did.
        error_low: lower end of its interval.
        error_high: upper end.
        truncated: share of the tuples that never reached it.
        n_accuracy_gain: n-accuracy less that of fixed numbers of instances at equal mean cost.
        n_accuracy_gain_low: lower end of its interval.
        n_accuracy_gain_high: upper end.
        ri_gain: likewise for RI.
        ri_gain_low: lower end of its interval.
        ri_gain_high: upper end.
    """

    rule: Rule
    aim: Literal["error", "instances"]
    value: float
    n_max: int
    seeds: int
    threshold: float
    validation_error: float | None
    validation_instances: float
    instances: float
    instances_low: float
    instances_high: float
    cost_dense_passes: float
    error: float | None
    error_low: float | None
    error_high: float | None
    truncated: float
    n_accuracy_gain: float
    n_accuracy_gain_low: float
    n_accuracy_gain_high: float
    ri_gain: float
    ri_gain_low: float
    ri_gain_high: float


@dataclass(frozen=True, kw_only=True)
class Threshold(OfCell):
    """When one cell stops for a nominal error, fitted on validation: what an exported model uses.

    Attributes:
        artifact: first digits of the key of the stored thresholds and temperatures.
        n_max: instances after which a decision is forced.
        rule: `threshold`, `margin` or `sprt`.
        nominal_error: share of wrong decisions, among the tuples that reach the threshold, that it was fitted for.
        threshold: confidence at which to stop; this and what follows is empty where none attains the error.
        validation_error: that share on validation.
        validation_instances: mean number of instances looked at.
        validation_truncated: share of the tuples that never reached the threshold.
    """

    artifact: str
    n_max: int
    rule: Rule
    nominal_error: float
    threshold: float | None
    validation_error: float | None
    validation_instances: float | None
    validation_truncated: float | None
