"""Result records: the flat rows that every table, plot, dashboard and rule is made from.

`results.json` holds one `Results`; each list is also written as CSV. Everything is in plain units: information in bits,
MACs, bytes, milliseconds; intervals are at the 95% level. Columns whose name starts with `measured_` are measured times
and what belongs to them; all others are reproduced bit for bit by the same machine.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pydantic import TypeAdapter, ValidationError

from sharedlabel import together
from sharedlabel.errors import StoreError, printable
from sharedlabel.plain import read_file, read_json

FORMAT = 4
AXES = (
    "backbone",
    "pruner",
    "ratio",
    "aggregator",
    "training",
    "protocol",
    "seed",
)  # that tell the cells of a grid apart
Axis: TypeAlias = Literal["aggregator", "training", "pruner", "compression"]
Verdict: TypeAlias = Literal["better", "worse", "equivalent", "undecided", "no verdict"]
VERDICTS: tuple[Verdict, ...] = ("better", "equivalent", "undecided", "worse", "no verdict")
# What makes a spreadsheet compute a cell, letters of full width included, and the apostrophe that makes it a text.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20", "'")
MIN_SEEDS = 5  # training seeds below which there is no verdict
OPPOSITE: dict[Verdict, Verdict] = {
    "better": "worse",
    "worse": "better",
    "equivalent": "equivalent",
    "undecided": "undecided",
    "no verdict": "no verdict",
}  # seen from the other side


@dataclass(frozen=True)
class Row:
    """One cell at one prefix length, under one protocol, on one split.

    Attributes:
        cell: sha256 of everything the numbers depend on, 16 hex digits.
        data: data set name.
        backbone: label of the backbone.
        pruner: label of the pruner; `none` for the dense network.
        ratio: requested compression ratio, all parameters.
        aggregator: label of the aggregator; `exact` for the exact posterior of synthetic data.
        training: `frozen` features, `crossfit`, or the label of a recipe that trains backbone and aggregator together.
        seed: training seed.
        protocol: `iid` or `grouped`.
        split: `validation` (choices are made here) or `test` (reported).
        n: instances per tuple.
        tuples: evaluated tuples, all partitions together.
        partitions: partitions they come from.
        achieved_ratio: compression ratio reached, all parameters.
        prunable_ratio: the same counted over prunable weights only.
        sparsity: share of prunable weights removed, in [0, 1].
        parameters_dense: parameters of the dense network.
        parameters: parameters left.
        macs_dense: MACs of the dense network for one image.
        macs_executed: MACs that dense kernels execute for one image (masked weights count).
        macs_effective: MACs left when masked weights cost nothing.
        theoretical_speedup: macs_dense / macs_effective.
        bytes_dense: bytes of the remaining tensors stored densely.
        bytes_sparse: bytes when masked weights are stored as a bit mask and the values left.
        collapsed_layers: names of layers without a weight left, joined by commas; empty if none.
        measured_latency_ms: median time of one eager batch on the device named: of 32 images, else the largest batch;
            this and the next four are None where it is not measured yet, which a grid does last.
        measured_latency_batch: batch size of that measurement.
        measured_threads: CPU threads of that measurement.
        measured_device: device of that measurement.
        measured_contended: the machine was busy with something else meanwhile (see `Latency`).
        validation_accuracy_before_retrain: accuracy of single images after pruning, before retraining.
        validation_accuracy: accuracy of single images after retraining.
        training_epochs: passes over the backbone split that led to the network, dense training and all rounds included.
        n_accuracy: share of tuples whose most probable label is right.
        n_accuracy_low: lower end of its interval over images.
        n_accuracy_high: upper end.
        label_entropy: H(Y) in bits.
        information_gain: posterior estimator, calibrated, bits.
        information_gain_raw: posterior estimator before calibration, bits.
        information_gain_decision: plug-in mutual information of label and decision, bits.
        information_gain_decision_corrected: the same adjusted for chance: 0 for independent labels, H(Y) for sure ones.
        information_gain_decision_null: what the plug-in estimator gives for independent labels, bits.
        information_gain_accuracy: symmetric-channel estimate from the n-accuracy, bits; for balanced classes.
        ri: relative information, calibrated (primary).
        ri_low: lower end of its interval over images.
        ri_high: upper end.
        ri_raw: relative information before calibration.
        negative_log_likelihood: calibrated, bits.
        negative_log_likelihood_raw: before calibration, bits.
        calibration_error: expected calibration error after calibration.
        calibration_error_raw: before calibration.
        temperature: the temperature of this prefix length, fitted on validation.
        aggregator_macs: MACs of the aggregator for a tuple of n.
        cost_macs: n * macs_effective + aggregator_macs.
        cost_dense_passes: cost_macs / macs_dense.
        efficiency: information_gain / cost_dense_passes, bits per dense pass.
    """

    cell: str
    data: str
    backbone: str
    pruner: str
    ratio: float
    aggregator: str
    training: str
    seed: int
    protocol: Literal["iid", "grouped"]
    split: Literal["validation", "test"]
    n: int
    tuples: int
    partitions: int
    achieved_ratio: float
    prunable_ratio: float
    sparsity: float
    parameters_dense: int
    parameters: int
    macs_dense: int
    macs_executed: int
    macs_effective: float
    theoretical_speedup: float
    bytes_dense: int
    bytes_sparse: int
    collapsed_layers: str
    measured_latency_ms: float | None
    measured_latency_batch: int | None
    measured_threads: int | None
    measured_device: str | None
    measured_contended: bool | None
    validation_accuracy_before_retrain: float
    validation_accuracy: float
    training_epochs: float
    n_accuracy: float
    n_accuracy_low: float
    n_accuracy_high: float
    label_entropy: float
    information_gain: float
    information_gain_raw: float
    information_gain_decision: float
    information_gain_decision_corrected: float
    information_gain_decision_null: float
    information_gain_accuracy: float
    ri: float
    ri_low: float
    ri_high: float
    ri_raw: float
    negative_log_likelihood: float
    negative_log_likelihood_raw: float
    calibration_error: float
    calibration_error_raw: float
    temperature: float
    aggregator_macs: int
    cost_macs: float
    cost_dense_passes: float
    efficiency: float


@dataclass(frozen=True)
class Summary:
    """A method at one ratio and n, over its seeds.

    Attributes:
        seeds: number of training seeds.
        theoretical_speedup: mean over seeds.
        cost_dense_passes: mean over seeds.
        efficiency: bits per dense pass, mean over seeds.
        n_accuracy: mean over seeds, with an interval over seeds and images.
        ri: likewise.
        ri_raw: mean over seeds.
        calibration_error: mean over seeds, after calibration.
        measured_latency_ms: median over the seeds that were measured; None if none was yet.
    """

    data: str
    backbone: str
    pruner: str
    ratio: float
    aggregator: str
    training: str
    protocol: Literal["iid", "grouped"]
    split: Literal["validation", "test"]
    n: int
    seeds: int
    theoretical_speedup: float
    cost_dense_passes: float
    efficiency: float
    n_accuracy: float
    n_accuracy_low: float
    n_accuracy_high: float
    ri: float
    ri_low: float
    ri_high: float
    ri_raw: float
    calibration_error: float
    measured_latency_ms: float | None


@dataclass(frozen=True)
class Comparison:
    """Two methods that differ along one axis, on the same tuples: method minus reference, on test.

    `backbone`, `pruner`, `ratio`, `aggregator` and `training` are those of the method; those of the reference are the
    same but for the axis.

    Attributes:
        axis: `aggregator`, `training` (against frozen first), `pruner` (at one ratio), `compression` (against dense).
        method: name on the axis.
        reference: name of the other on the axis.
        seeds: training seeds that both have.
        metric: `n_accuracy` or `ri`.
        difference: mean paired difference; positive when the method is better.
        low: lower end of its own 95% interval over seeds and images.
        high: upper end.
        low_adjusted: lower end of the interval that holds together with those of its whole family (95%).
        high_adjusted: upper end.
        p_value: two-sided, its own.
        p_adjusted: for the family, and no smaller than that of the pooled test that it stands behind.
        verdict: read off the adjusted interval: `equivalent` where it is inside the margin, else `better` or `worse`
            where it does not hold 0, else `undecided`; `no verdict` with fewer than five training seeds.
        correction: of p_adjusted, the adjusted interval and the verdict, in words.
    """

    data: str
    backbone: str
    pruner: str
    ratio: float
    aggregator: str
    training: str
    protocol: Literal["iid", "grouped"]
    n: int
    axis: Axis
    method: str
    reference: str
    seeds: int
    metric: Literal["n_accuracy", "ri"]
    difference: float
    low: float
    high: float
    low_adjusted: float
    high_adjusted: float
    p_value: float
    p_adjusted: float
    verdict: Verdict
    correction: str


@dataclass(frozen=True)
class Pooled:
    """Two methods over all cells where both were tried, on the same tuples: method minus reference, on test.

    Along the axis `aggregator` the scores of each tuple are averaged over all networks of a backbone (the dense one
    included), along `training` over networks and aggregators, along `pruner` over ratios and aggregators, along
    `compression` over aggregators.

    Attributes:
        training: that of the method.
        axis: along which the two differ.
        method: name on the axis.
        reference: name of the other on the axis.
        endpoint: whether this is the primary question of the pair, which opens all its other comparisons.
        n: instances per tuple; empty for the mean over all n.
        cells: how many cells of each method the scores are averaged over.
        seeds: training seeds.
        metric: `n_accuracy` or `ri`.
        difference: mean paired difference; positive when the method is better.
        low: lower end of its own 95% interval over seeds and images.
        high: upper end.
        low_adjusted: lower end of the interval that holds together with those of its whole family (95%).
        high_adjusted: upper end.
        p_value: two-sided, its own.
        p_adjusted: for the family, and no smaller than that of the pooled test that it stands behind.
        verdict: read off the adjusted interval: `equivalent` where it is inside the margin, else `better` or `worse`
            where it does not hold 0, else `undecided`; `no verdict` with fewer than five training seeds.
        correction: of p_adjusted, the adjusted interval and the verdict, in words.
    """

    data: str
    backbone: str
    training: str
    protocol: Literal["iid", "grouped"]
    axis: Axis
    method: str
    reference: str
    endpoint: bool
    n: int | None
    cells: int
    seeds: int
    metric: Literal["n_accuracy", "ri"]
    difference: float
    low: float
    high: float
    low_adjusted: float
    high_adjusted: float
    p_value: float
    p_adjusted: float
    verdict: Verdict
    correction: str


@dataclass(frozen=True)
class Rank:
    """The place of an aggregator among all of a backbone, over all its networks, on test. A rank is an interval.

    Attributes:
        n: instances per tuple; empty for the mean over all n.
        endpoint: whether this is the primary endpoint.
        networks: how many compressed networks (the dense one included) the scores are averaged over.
        seeds: training seeds; with fewer than five no difference is shown, and every rank is possible.
        metric: `n_accuracy` or `ri`.
        mean: mean score over the networks.
        low: lower end of its interval over seeds and images.
        high: upper end.
        rank_best: 1 + number of aggregators shown to be better, all pairs compared at once (Bonferroni).
        rank_worst: number of aggregators - number shown to be worse.
        alike: names of the aggregators not shown to differ, best first, as a JSON list.
    """

    data: str
    backbone: str
    training: str
    protocol: Literal["iid", "grouped"]
    n: int | None
    endpoint: bool
    aggregator: str
    networks: int
    seeds: int
    metric: Literal["n_accuracy", "ri"]
    mean: float
    low: float
    high: float
    rank_best: int
    rank_worst: int
    alike: str

    def alike_names(self) -> frozenset[str]:
        """Return the names in `alike`; results of before have commas between them."""
        try:
            found = read_json(self.alike)
        except ValueError:
            return frozenset(self.alike.split(","))
        return frozenset(map(str, found)) if isinstance(found, list) else frozenset()


@dataclass(frozen=True)
class Wins:
    """Verdicts on an aggregator against another one, counted over the networks of a backbone, on test.

    The counts are of dependent comparisons: networks share their images and seeds.

    Attributes:
        method: aggregator.
        reference: the other aggregator.
        metric: `n_accuracy` or `ri`.
        wins: networks on which the method is better (see `comparisons`).
        equivalent: networks on which the difference is within the margin.
        undecided: networks on which nothing is shown, for want of seeds or images.
        losses: networks on which it is worse.
    """

    data: str
    backbone: str
    training: str
    protocol: Literal["iid", "grouped"]
    n: int
    method: str
    reference: str
    metric: Literal["n_accuracy", "ri"]
    wins: int
    equivalent: int
    undecided: int
    losses: int


@dataclass(frozen=True)
class SweetSpot:
    """A chosen compression: by which rule, where, and what it gives on test.

    Attributes:
        rule: `retain`, `budget`, `target`, `knee` or `marginal`.
        value: the rule's parameter (rho, dense passes, n-accuracy, none, RI per doubling); None for `knee`.
        rule_n: the n at which the rule was applied; None where the rule chooses n itself.
        ratio: chosen ratio, or None when nothing qualifies.
        n: chosen n, or None.
        cost_dense_passes: cost of the choice.
        validation_ri: RI on validation, where the choice was made.
        ri: RI on test, with its interval over seeds and images.
        n_accuracy: n-accuracy on test.
        dense_ri: RI on test of the dense network at the same n.
        dense_n_accuracy: its n-accuracy.
        interior: strictly inside the grid of ratios.
        interior_share: share of replicates (seeds and images) in which the choice is interior.
        modal_share: share of replicates that choose this very ratio and n; or nothing, where nothing qualifies.
        replicates: how many replicates.
        guessing: the interval of RI at the choice holds 0, on validation or on test: no better than guessing, and not
            to be recommended.
        reason: why nothing qualifies, or a remark; empty otherwise.
    """

    data: str
    backbone: str
    pruner: str
    aggregator: str
    training: str
    protocol: Literal["iid", "grouped"]
    rule: Literal["retain", "budget", "target", "knee", "marginal"]
    value: float | None
    rule_n: int | None
    ratio: float | None
    n: int | None
    cost_dense_passes: float | None
    validation_ri: float | None
    ri: float | None
    ri_low: float | None
    ri_high: float | None
    n_accuracy: float | None
    n_accuracy_low: float | None
    n_accuracy_high: float | None
    dense_ri: float | None
    dense_n_accuracy: float | None
    interior: bool
    interior_share: float
    modal_share: float
    replicates: int
    guessing: bool
    reason: str


@dataclass(frozen=True)
class ReliabilityBin:
    """One bin of a reliability diagram on test (first seed): confidence against accuracy, before and after calibration.

    Attributes:
        calibrated: after the temperature was applied.
        confidence: mean largest posterior in the bin.
        accuracy: share right in the bin.
        mass: share of tuples in the bin.
    """

    data: str
    backbone: str
    pruner: str
    ratio: float
    aggregator: str
    training: str
    protocol: Literal["iid", "grouped"]
    n: int
    calibrated: bool
    confidence: float
    accuracy: float
    mass: float


@dataclass(frozen=True)
class ClassCount:
    """How much a split has of a class.

    Attributes:
        split: `backbone`, `aggregator`, `validation` or `test`.
        label: name of the class.
        images: how many it has.
        groups: how many groups these come from; None where the data has none.
    """

    split: str
    label: str
    images: int
    groups: int | None


@dataclass(frozen=True)
class DatasetFacts:
    """What one must know of the data to give a trained network new images and to read its answers.

    Attributes:
        class_names: names of the labels, in the order of logits.
        image_shape: channels, height and width of an instance.
        dtype: type of its values, `uint8` or `float32`.
        size: side in pixels of the square that was cut from the centre of every image file and scaled; None if images
            were taken as they are.
        channels: channels that image files were converted to; None if they were taken as they are.
        prior: class prior of tuples.
        images: how many each split has.
        groups: how many groups these come from; empty where the data has none.
        background: what shows through where an image file is transparent.
        counts: images and groups of every class in every split.
        remarks: what one should know of the data before trusting numbers, a sentence each.
        skipped: name of each file that was left out although it seemed an image, and why.
        dropped: groups smaller than n, by split and n; these have no tuples of the grouped protocol.
    """

    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    dtype: str
    size: int | None
    channels: int | None
    prior: tuple[float, ...]
    images: dict[str, int] = field(default_factory=dict)
    groups: dict[str, int] = field(default_factory=dict)
    background: Literal["white", "black"] = "white"
    counts: tuple[ClassCount, ...] = ()
    remarks: tuple[str, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    dropped: dict[str, dict[str, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Latency:
    """Size, memory and time of one compressed network: one row per device, mode and batch.

    Attributes:
        data: data set name.
        backbone: label of the backbone.
        pruner: label of the pruner; `none` for the dense network.
        ratio: requested compression ratio, all parameters.
        seed: training seed.
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
        training: `crossfit` for the deployed networks of cross-fitting, `frozen` for all others.
    """

    data: str
    backbone: str
    pruner: str
    ratio: float
    seed: int
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
    training: Literal["frozen", "crossfit"] = "frozen"


@dataclass(frozen=True)
class Margin:
    """How many of the smallest weights of one layer of the dense network can go before the logits move by epsilon.

    Attributes:
        data: data set name.
        backbone: label of the backbone.
        seed: training seed.
        layer: name of the layer.
        weights: weights of the layer.
        epsilon: allowed Euclidean distance of the logits, as a share of their mean norm on validation images.
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
        training: `crossfit` for the deployed networks of cross-fitting, `frozen` for all others.
    """

    data: str
    backbone: str
    seed: int
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
    training: Literal["frozen", "crossfit"] = "frozen"


@dataclass(frozen=True)
class AdaptivePoint:
    """A method that stops looking at instances when a rule is sure enough, on test, over its seeds.

    The threshold is fitted on validation, for each seed. The baseline of a gain is the best mix of fixed numbers of
    instances (chosen on validation) with the same mean cost.

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
        cost_dense_passes: mean cost, MACs of a tuple / MACs of one dense pass.
        error: share of wrong decisions among the tuples that reached the threshold; empty where none did.
        truncated: share of the tuples that never reached it.
        n_accuracy: share of right decisions, forced ones included.
        ri: relative information of the calibrated posterior at the stop, forced ones included.
        n_accuracy_gain: n-accuracy less that of fixed numbers of instances at equal mean cost.
        ri_gain: likewise for RI.
    """

    data: str
    backbone: str
    pruner: str
    ratio: float
    aggregator: str
    training: str
    protocol: Literal["iid", "grouped"]
    rule: Literal["threshold", "margin", "sprt"]
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
    n_accuracy: float
    n_accuracy_low: float
    n_accuracy_high: float
    ri: float
    ri_low: float
    ri_high: float
    n_accuracy_gain: float
    n_accuracy_gain_low: float
    n_accuracy_gain_high: float
    ri_gain: float
    ri_gain_low: float
    ri_gain_high: float


@dataclass(frozen=True)
class Threshold:
    """When one cell stops for a nominal error, fitted on validation: what an exported model uses.

    Attributes:
        cell: as in `Row`.
        artifact: first digits of the key of the stored thresholds and temperatures.
        seed: training seed.
        n_max: instances after which a decision is forced.
        rule: `threshold`, `margin` or `sprt`.
        nominal_error: share of wrong decisions, among the tuples that reach the threshold, that it was fitted for.
        threshold: confidence at which to stop; this and what follows is empty where none attains the error.
        validation_error: that share on validation.
        validation_instances: mean number of instances looked at.
        validation_truncated: share of the tuples that never reached the threshold.
    """

    cell: str
    artifact: str
    data: str
    backbone: str
    pruner: str
    ratio: float
    aggregator: str
    training: str
    protocol: Literal["iid", "grouped"]
    seed: int
    n_max: int
    rule: Literal["threshold", "margin", "sprt"]
    nominal_error: float
    threshold: float | None
    validation_error: float | None
    validation_instances: float | None
    validation_truncated: float | None


@dataclass(frozen=True)
class Search:
    """What a search of an aggregator's settings chose on one network; losses are over the stopping tuples.

    Attributes:
        seed: training seed.
        trials: settings tried, the given one included.
        diverged: how many of them could not be trained.
        chosen_trial: number of the best one; 1 is the given one.
        loss_given: negative log-likelihood with the given options, nats.
        loss: with the chosen ones.
        options: the chosen values of all that was searched, as JSON; those of the recipe start with `fit.`.
        measured_seconds: time of all trials on the wall.
    """

    data: str
    backbone: str
    pruner: str
    ratio: float
    aggregator: str
    protocol: Literal["iid", "grouped"]
    seed: int
    trials: int
    diverged: int
    chosen_trial: int
    loss_given: float
    loss: float
    options: str
    measured_seconds: float


@dataclass(frozen=True)
class Failure:
    """A cell without its numbers, or without its times, and why. The next run tries it again.

    Attributes:
        cell: as in `Row`.
        stage: the stage call that failed; `latency` if times are all that is missing.
        key: first digits of its key; cells that need the same call have it alike.
        call: the call in words.
        reason: what went wrong, in one line.
        details: file with the traceback, in the folder of the run.
        repeat: how to run this cell alone.
    """

    cell: str
    data: str
    backbone: str
    pruner: str
    ratio: float
    aggregator: str
    training: str
    protocol: Literal["iid", "grouped"]
    seed: int
    stage: str
    key: str
    call: str
    reason: str
    details: str
    repeat: str


@dataclass(frozen=True)
class Results:
    """Everything a grid found.

    Attributes:
        format: version of this file's layout.
        experiment: name of the grid.
        config: the resolved configuration.
        provenance: commit, versions, device, date; `seconds` that all results took, in whatever run, None where a
            call on the way is not stored any more; `last_run_seconds` of the run that wrote this.
        dataset: what new images must look like, and the labels' names.
        rows: per seed.
        summaries: over seeds.
        comparisons: paired differences between aggregators, trainings, pruners and compressions.
        pooled: paired differences over all cells where both were tried, the primary questions among them.
        ranks: of aggregators, as intervals.
        wins: win, tie and loss counts of aggregators.
        sweet_spots: per rule and method.
        reliability: bins of the reliability diagrams.
        latencies: size, memory and time of every compressed network.
        margins: error margins of the dense networks, per layer.
        adaptive: adaptive numbers of instances, per rule, threshold and method.
        thresholds: fitted thresholds for nominal errors, per cell.
        searches: settings that were searched, per aggregator and network.
        failures: cells that were tried in vain; they are in no other table, but for those that only lack times.
        cells: how many the grid has, finished or not; 0 where an older version wrote this.
    """

    format: int
    experiment: str
    config: dict[str, Any]
    provenance: dict[str, Any]
    dataset: DatasetFacts
    rows: tuple[Row, ...]
    summaries: tuple[Summary, ...]
    comparisons: tuple[Comparison, ...]
    sweet_spots: tuple[SweetSpot, ...]
    reliability: tuple[ReliabilityBin, ...]
    latencies: tuple[Latency, ...] = ()
    margins: tuple[Margin, ...] = ()
    adaptive: tuple[AdaptivePoint, ...] = ()
    thresholds: tuple[Threshold, ...] = ()
    pooled: tuple[Pooled, ...] = ()
    ranks: tuple[Rank, ...] = ()
    wins: tuple[Wins, ...] = ()
    searches: tuple[Search, ...] = ()
    failures: tuple[Failure, ...] = ()
    cells: int = 0


TABLES: dict[str, type[Any]] = {
    "rows": Row,
    "summaries": Summary,
    "comparisons": Comparison,
    "pooled": Pooled,
    "ranks": Rank,
    "wins": Wins,
    "sweet_spots": SweetSpot,
    "reliability": ReliabilityBin,
    "latencies": Latency,
    "margins": Margin,
    "adaptive": AdaptivePoint,
    "thresholds": Threshold,
    "searches": Search,
    "failures": Failure,
}
NAME = "results.json"


def write(results: Results, folder: Path) -> None:
    """Write `results.json` and one CSV per table into a folder, together or not at all.

    Raises:
        WriteError: a file cannot be written; the message names it.
    """
    together.replace(folder, files(results))


def files(results: Results) -> dict[str, str]:
    """Return the content of `results.json` and of one CSV per table, by file name."""
    found = {NAME: json.dumps(dataclasses.asdict(results), indent=1, allow_nan=False) + "\n"}
    return found | {f"{table}.csv": to_csv(kind, getattr(results, table)) for table, kind in TABLES.items()}


def quietest(records: Iterable[Latency]) -> list[Latency]:
    """Leave out the seeds whose time was measured on a busy machine, where others of the same network were not."""
    groups: dict[tuple[Any, ...], list[Latency]] = {}
    for record in records:
        network = record.data, record.backbone, record.pruner, record.ratio, record.training
        groups.setdefault((*network, record.device, record.mode, record.batch), []).append(record)
    found = ([record for record in own if not record.measured_contended] or own for own in groups.values())
    return list(itertools.chain.from_iterable(found))


def to_csv(kind: type[Any], records: Iterable[Any], digits: int | None = None) -> str:
    """Write records as CSV, a column per field.

    A text that a spreadsheet would compute (`=1+1`) has an apostrophe in front, which makes it a text there too;
    `from_cell` takes it away.

    Args:
        kind: their dataclass; it names the columns.
        records: the lines.
        digits: significant digits of floats; None for all.
    """
    names = [item.name for item in dataclasses.fields(kind)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    for record in records:
        values = [getattr(record, name) for name in names]
        writer.writerow([_cell(value, digits) for value in values])
    return text.getvalue()


def from_cell(text: str) -> str:
    r"""Return the text that a cell of a CSV stands for, with what is not printable still escaped.

    >>> [from_cell(cell) for cell in ("log_pool", "'=1+1", "''quoted'")]
    ['log_pool', '=1+1', "'quoted'"]
    """
    return text.removeprefix("'")


def _cell(value: Any, digits: int | None) -> Any:
    r"""Return what a cell holds: numbers as they are, texts on one line and such that no spreadsheet computes them.

    >>> [_cell(value, None) for value in ("=1+1", "-1", -1.5, "red\x1b[31m")]
    ["'=1+1", "'-1", -1.5, 'red\\x1b[31m']
    """
    if isinstance(value, str):
        return "'" * value.startswith(_FORMULA) + printable(value, len(value))
    return f"{value:.{digits}g}" if digits and isinstance(value, float) else value


def read(path: Path, tables: Collection[str] | None = None) -> Results:
    """Read `results.json`, or the folder that holds it.

    Args:
        path: the file or the folder.
        tables: those that are needed; the others come back empty and are not checked. None for all.

    Raises:
        StoreError: it is absent, not readable, of another format or not what this version writes.
    """
    file = path / NAME if path.is_dir() else path
    try:
        payload = read_json(together.read(file.parent, NAME) if file.name == NAME else read_file(file))
    except (OSError, ValueError) as error:
        raise StoreError(
            f"expected a results.json at {file}, got: {error}; run `python -m sharedlabel.train` first"
        ) from error
    if not isinstance(payload, dict) or payload.get("format") != FORMAT:
        found = payload.get("format") if isinstance(payload, dict) else type(payload).__name__
        raise StoreError(f"{file} has format {found!r}, this version reads {FORMAT}; run the grid again to rewrite it")
    if tables is not None:
        payload |= {table: [] for table in TABLES if table not in tables}
    try:
        found = TypeAdapter(Results).validate_python(payload)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise StoreError(
            f"{file} is not a results file of this version: expected what `python -m sharedlabel.train` writes, got "
            f"{where} = {printable(repr(first['input']), 60)} ({first['msg']}); run the grid again to rewrite it"
        ) from error
    apart = _places(found.rows) ^ _places(found.summaries)
    if apart and (tables is None or {"rows", "summaries"} <= set(tables)):
        raise StoreError(
            f"{file} is not a results file of this version: expected rows and summaries of the same methods, got one "
            f"of them alone for {printable(', '.join(map(str, min(apart, key=str))))}; run the grid again to rewrite it"
        )
    if tables is None:
        _check_names(found, file)
    return found


def _check_names(found: Results, file: Path) -> None:
    """Refuse tables that speak of methods and data without a row.

    Raises:
        StoreError: such a table.
    """
    for column in ("data", *(axis for axis in AXES if axis not in {"ratio", "seed"})):
        known = {getattr(row, column) for row in found.rows}
        for table in TABLES.keys() - {"failures"}:  # what failed has no rows
            for record in getattr(found, table):
                name = getattr(record, column, None)
                if name is not None and name not in known:
                    raise StoreError(
                        f"{file} is not a results file of this version: expected rows of every {column}, got none of "
                        f"{printable(repr(name), 60)}, which is in {table}; run the grid again to rewrite it"
                    )


def _places(records: Iterable[Row | Summary]) -> set[tuple[Any, ...]]:
    """Return what tells summaries apart."""
    return {
        (one.data, one.backbone, one.pruner, one.ratio, one.aggregator, one.training, one.protocol, one.split, one.n)
        for one in records
    }
