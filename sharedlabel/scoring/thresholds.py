"""Adaptive n: watch the posterior of a tuple grow and stop when a rule is sure enough, by thresholds from validation.

Of each rule there are two families of thresholds: one for every nominal error, and one for every mean number of
instances on a geometric grid, which draws the whole curve between one instance and all of them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from sharedlabel.errors import ConfigError, nearest
from sharedlabel.metrics import calibration, stopping
from sharedlabel.metrics._weights import evenness, independent_groups, normalized, weighted_mean
from sharedlabel.metrics.accuracy import correct
from sharedlabel.metrics.calibration import apply_temperature
from sharedlabel.metrics.information import floor_posterior, log2_posterior_of_label
from sharedlabel.types import Tuples

Source: TypeAlias = Literal["aggregator", "log_pool"]
Posteriors: TypeAlias = Mapping[Source, Tensor]  # log-posteriors [t n c] after every instance
CURVE = 9  # points between one instance and all of them


@dataclass(frozen=True)
class Watched:
    """What a rule sees of tuples after every instance, and how good a decision there would be.

    Attributes:
        confidence: by rule.
        right: whether the most probable label is right.
        information: log2 of the calibrated posterior of the label, bits.
        lengths: instances of each tuple, after which all stays as it is; None where tuples have one size.
    """

    confidence: Mapping[str, Float64[Tensor, "t n"]]
    right: Bool[Tensor, "t n"]
    information: Float64[Tensor, "t n"]
    lengths: Int64[Tensor, "t"] | None = None


@dataclass(frozen=True)
class FittedThreshold:
    """A fitted threshold and what it gave on validation.

    Attributes:
        rule: `threshold`, `margin` or `sprt`.
        aim: what it was fitted for: a nominal `error`, or a mean number of `instances`.
        value: that error, or that number.
        threshold: confidence at which to stop.
        error: share of wrong decisions among the tuples that reached it; None where none did.
        instances: mean number of instances looked at.
        truncated: share of the tuples that never reached it.
    """

    rule: str
    aim: Literal["error", "instances"]
    value: float
    threshold: float
    error: float | None
    instances: float
    truncated: float


# Whose posterior a rule watches, and how sure it is. The label is the aggregator's in any case; `sprt` asks the
# log-pool whether the evidence suffices.
_RULES: dict[str, tuple[Source, Callable[[Tensor], Tensor]]] = {
    "threshold": ("aggregator", stopping.largest),
    "margin": ("aggregator", stopping.margin),
    "sprt": ("log_pool", stopping.largest),
}


def sources(rules: Iterable[str]) -> set[Source]:
    """Name the posteriors that rules and scores need.

    Raises:
        ConfigError: an unknown rule.
    """
    for rule in rules:
        if rule not in _RULES:
            raise ConfigError(f"unknown rule {rule!r}; {nearest(rule, _RULES)}")
    return {"aggregator", *(_RULES[rule][0] for rule in rules)}


def temperatures(
    posteriors: Posteriors, drawn: Tuples, clusters: Int64[Tensor, "N"] | None = None
) -> dict[Source, Float64[Tensor, "n"]]:
    """Fit one temperature per number of instances to every posterior, on validation.

    Args:
        posteriors: log-posteriors of the validation tuples, not floored.
        drawn: these tuples.
        clusters: group of each image under the grouped protocol.

    Raises:
        DataError: a posterior is not finite.
    """
    sizes = range(1, drawn.indices.shape[2] + 1)
    return {name: calibration.temperatures(logs, drawn, sizes, clusters) for name, logs in posteriors.items()}


def watch(
    posteriors: Posteriors, drawn: Tuples, fitted: Mapping[Source, Float64[Tensor, "n"]], rules: Sequence[str]
) -> Watched:
    """Return what the rules see of tuples.

    Args:
        posteriors: log-posteriors of the tuples, not floored, of all `sources` of the rules.
        drawn: the tuples.
        fitted: temperatures of the posteriors, from validation.
        rules: to watch by.
    """
    labels, _ = _flat(drawn)
    lengths = None if drawn.lengths is None else drawn.lengths.repeat(len(drawn.labels))
    floored = {
        name: _held(floor_posterior(apply_temperature(logs, fitted[name])), lengths)
        for name, logs in posteriors.items()
    }
    return Watched(
        confidence={rule: _RULES[rule][1](floored[_RULES[rule][0]]) for rule in rules},
        right=correct(floored["aggregator"], labels),
        information=log2_posterior_of_label(floored["aggregator"], labels),
        lengths=lengths,
    )


def fit(
    seen: Watched, drawn: Tuples, errors: Sequence[float], clusters: Int64[Tensor, "N"] | None = None
) -> list[FittedThreshold]:
    """Fit the thresholds of every rule on validation.

    Args:
        seen: of the validation tuples.
        drawn: these tuples.
        errors: nominal errors, each in (0, 1); those that no threshold attains are left out.
        clusters: group of each image under the grouped protocol: an error is promised for groups, not for images.

    Raises:
        DataError: an error outside (0, 1).
    """
    _, weights = _flat(drawn)
    fitted = []
    for rule, confidence in seen.confidence.items():
        thresholds = stopping.candidates(confidence)
        rates = stopping.rates(_stops(seen, rule, thresholds), seen.right, weights)
        units = _units(drawn, rates.instances, clusters)
        aims: list[tuple[Literal["error", "instances"], float, int | None]] = [
            ("error", error, stopping.for_error(rates, error, units)) for error in errors
        ]
        aims += [("instances", size, stopping.for_instances(rates, size)) for size in curve(confidence.shape[1])]
        for aim, value, at in aims:
            if at is not None:
                error = float(rates.error[at])
                fitted.append(
                    FittedThreshold(
                        rule=rule,
                        aim=aim,
                        value=value,
                        threshold=float(thresholds[at]),
                        error=None if math.isnan(error) else error,
                        instances=float(rates.instances[at]),
                        truncated=float(rates.truncated[at]),
                    )
                )
    return fitted


def _units(drawn: Tuples, instances: Float64[Tensor, "m"], clusters: Int64[Tensor, "N"] | None) -> Float64[Tensor, "m"]:
    """Return how many exchangeable units stand behind decisions after some mean numbers of instances."""
    if clusters is not None:
        return torch.full_like(instances, independent_groups(drawn, clusters))
    return len(drawn.indices.unique()) * evenness(drawn.weights.flatten()) / instances


def curve(n_max: int) -> list[float]:
    """Return the mean numbers of instances that thresholds are fitted for: geometric from 1 to all.

    >>> [round(size, 2) for size in curve(4)]
    [1.0, 1.19, 1.41, 1.68, 2.0, 2.38, 2.83, 3.36, 4.0]
    """
    return [float(n_max ** (step / (CURVE - 1))) for step in range(CURVE)]


def stop(seen: Watched, fitted: Sequence[FittedThreshold]) -> stopping.Stops:
    """Stop tuples by fitted thresholds; a column per threshold.

    Args:
        seen: of any tuples.
        fitted: on validation, rule by rule.
    """
    parts = []
    for rule, own in itertools.groupby(fitted, key=lambda one: one.rule):
        thresholds = torch.tensor([one.threshold for one in own], dtype=torch.float64)
        parts.append(_stops(seen, rule, thresholds))
    return stopping.Stops(*(torch.cat(columns, dim=1) for columns in zip(*parts, strict=True)))


def _held(posterior: Tensor, lengths: Int64[Tensor, "t"] | None) -> Tensor:
    """Return posteriors after every instance; where a tuple has no more, that after its last one."""
    if lengths is None:
        return posterior
    at = torch.minimum(torch.arange(posterior.shape[1]), lengths[:, None] - 1)
    return posterior.gather(1, at[..., None].expand_as(posterior))


def _stops(seen: Watched, rule: str, thresholds: Float64[Tensor, "m"]) -> stopping.Stops:
    """Stop tuples by thresholds of a rule, and no later than with their last instance."""
    stopped = stopping.stops(seen.confidence[rule], thresholds)
    if seen.lengths is None:
        return stopped
    return stopped._replace(instances=torch.minimum(stopped.instances, seen.lengths[:, None]))


def means(seen: Watched, drawn: Tuples) -> dict[str, list[float]]:
    """Return n-accuracy and mean log2 posterior of the label, in bits, after every instance.

    Args:
        seen: of tuples.
        drawn: these tuples.
    """
    labels, weights = _flat(drawn)
    mass = normalized(labels, weights)
    values = {"n_accuracy": seen.right, "information": seen.information}
    return {name: weighted_mean(value, mass).tolist() for name, value in values.items()}


def _flat(drawn: Tuples) -> tuple[Tensor, Tensor]:
    return drawn.labels.flatten(), drawn.weights.flatten()
