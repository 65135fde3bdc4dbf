"""What is measured of networks and of the scores of cells: times, error margins, reliability, searches, failures."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from sharedlabel.config.names import FROZEN, Protocol
from sharedlabel.records.identity import OfBackbone, OfCell, OfMethod, OfPruned


@dataclass(frozen=True, kw_only=True)
class OfTrained:
    """A record about a trained network, whatever aggregator looks at what it says.

    Attributes:
        seed: training seed.
        training: `crossfit` for the deployed networks of cross-fitting, `frozen` for all others.
    """

    seed: int
    training: Literal["frozen", "crossfit"] = FROZEN


@dataclass(frozen=True, kw_only=True)
class ReliabilityBin(OfMethod):
    """One bin of a reliability diagram on test (first seed): confidence against accuracy, before and after calibration.

    Attributes:
        n: instances per tuple.
        calibrated: after the temperature was applied.
        confidence: mean largest posterior in the bin.
        accuracy: share right in the bin.
        mass: share of tuples in the bin.
    """

    n: int
    calibrated: bool
    confidence: float
    accuracy: float
    mass: float


@dataclass(frozen=True, kw_only=True)
class Latency(OfTrained, OfPruned):
    """Size, memory and time of one compressed network: one row per device, mode and batch.

    Attributes:
        device: name of the device.
        mode: `eager`, or `compiled` through torch.compile.
        batch: images per batch.
        threads: CPU threads used by torch.
        parameters: parameters left.
        macs_effective: MACs of one image left when masked weights cost nothing.
        theoretical_speedup: MACs of the dense network / macs_effective.
        file_bytes_dense: size of the stored network, pruned weights included as zeros.
        file_bytes_sparse: size when masked weights are stored as a bit mask and the values left.
        peak_memory_bytes: largest size of all tensors alive at once, weights and images included; empty if compiled.
        measured_median_ms: median time of one batch.
        measured_low_ms: first quartile.
        measured_high_ms: third quartile.
        measured_images_per_second: batch / median.
        measured_dense_ms: median of the dense network of the same seed, measured in turns with this one.
        measured_speedup: measured_dense_ms / measured_median_ms.
        measured_clock: `cpu` where times are those of the processor (one thread on a CPU), else `wall`.
        measured_wall_ms: median time of one batch on the wall.
        measured_contention: time on the wall / processor time of the calling thread; empty on other devices than a CPU.
        measured_contended: measured_contention is above 1.1, so something else was at work on the machine: the times
            are not those of a quiet one, and their ratio is rough, since others take the caches away, too.
        measured_load: load average of the machine over the minute before; empty if the system does not tell.
    """

    device: str
    mode: Literal["eager", "compiled"]
    batch: int
    threads: int
    parameters: int
    macs_effective: float
    theoretical_speedup: float
    file_bytes_dense: int
    file_bytes_sparse: int
    peak_memory_bytes: int | None
    measured_median_ms: float
    measured_low_ms: float
    measured_high_ms: float
    measured_images_per_second: float
    measured_dense_ms: float
    measured_speedup: float
    measured_clock: Literal["cpu", "wall"]
    measured_wall_ms: float
    measured_contention: float | None
    measured_contended: bool
    measured_load: float | None


def quietest(records: Iterable[Latency]) -> list[Latency]:
    """Leave out the seeds whose time was measured on a busy machine, where others of the same network were not."""
    by_network: dict[tuple[Any, ...], list[Latency]] = {}
    for record in records:
        network = record.data, record.backbone, record.pruner, record.ratio, record.training
        by_network.setdefault((*network, record.device, record.mode, record.batch), []).append(record)
    quiet = ([record for record in own if not record.measured_contended] or own for own in by_network.values())
    return list(itertools.chain.from_iterable(quiet))


@dataclass(frozen=True, kw_only=True)
class LayerWeights(OfTrained, OfPruned):
    """How many weights of one layer a pruner has left.

    Attributes:
        layer: name of the layer.
        weights_dense: weights of the layer in the dense network.
        weights: weights left.
        sparsity: share removed, in [0, 1].
    """

    layer: str
    weights_dense: int
    weights: int
    sparsity: float


@dataclass(frozen=True, kw_only=True)
class LayerMargin:
    """How many of the smallest weights of one layer can go before the logits move by epsilon; distances are Euclidean.

    Attributes:
        layer: name of the layer.
        weights: weights of the layer.
        epsilon: allowed distance of the logits, as a share of their mean norm on validation images.
        epsilon_absolute: the same in units of the logits.
        certified_weights: count proven for every image of norm up to `radius`; empty without a certificate.
        certified_gap_max: largest distance observed when that many weights go.
        certified_gap_mean: mean distance observed then.
        observed_weights: count found by bisection for which no observed distance exceeds epsilon.
        observed_gap_max: largest distance observed when that many weights go.
        observed_gap_mean: mean distance observed then.
        asymptotic_weights: floor(weights ** (1 - alpha)), an asymptotic statement about wide random layers.
        alpha: exponent of the asymptotic count.
        inputs: validation images on which distances were observed.
        radius: largest norm of a normalised image among them.
        refusal: why there is no certificate; empty if there is one.
    """

    layer: str
    weights: int
    epsilon: float
    epsilon_absolute: float
    certified_weights: int | None
    certified_gap_max: float | None
    certified_gap_mean: float | None
    observed_weights: int
    observed_gap_max: float
    observed_gap_mean: float
    asymptotic_weights: int
    alpha: float
    inputs: int
    radius: float
    refusal: str


@dataclass(frozen=True, kw_only=True)
class Margin(OfTrained, LayerMargin, OfBackbone):
    """The error margin of one layer of a dense network."""


@dataclass(frozen=True, kw_only=True)
class Search(OfPruned):
    """What a search of an aggregator's settings chose on one network; losses are over the stopping tuples.

    Attributes:
        aggregator: label of the aggregator.
        protocol: `iid` or `grouped`.
        seed: training seed.
        training: `crossfit` for the deployed networks of cross-fitting, `frozen` for all others.
        trials: settings tried, the given one included.
        diverged: how many of them could not be trained.
        chosen_trial: number of the best one; 1 is the given one.
        loss_given: negative log-likelihood with the given options, nats.
        loss: with the chosen ones.
        options: the chosen values of all that was searched, as JSON; those of the recipe start with `fit.`.
        measured_seconds: time of all trials on the wall.
    """

    aggregator: str
    protocol: Protocol
    seed: int
    training: Literal["frozen", "crossfit"] = FROZEN
    trials: int
    diverged: int
    chosen_trial: int
    loss_given: float
    loss: float
    options: str
    measured_seconds: float


@dataclass(frozen=True, kw_only=True)
class Failure(OfCell):
    """A cell without its numbers, or without its times, and why. The next run tries it again.

    Attributes:
        stage: the stage call that failed; `latency` if times are all that is missing.
        key: first digits of its key; cells that need the same call have it alike.
        call: the call in words.
        reason: what went wrong, in one line.
        details: file with the traceback, in the folder of the run.
        repeat: how to run this cell alone.
    """

    stage: str
    key: str
    call: str
    reason: str
    details: str
    repeat: str
