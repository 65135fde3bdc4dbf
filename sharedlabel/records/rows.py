"""`Row`: one cell at one prefix length, the finest record there is; and what it is made of."""

from __future__ import annotations

from dataclasses import dataclass

from sharedlabel.records.identity import OfCell, OnSplit


@dataclass(frozen=True, kw_only=True)
class Compression:
    """How far a network was compressed.

    Attributes:
        achieved_ratio: compression ratio reached, all parameters.
        prunable_ratio: the same counted over prunable weights only.
        sparsity: share of prunable weights removed, in [0, 1].
    """

    achieved_ratio: float
    prunable_ratio: float
    sparsity: float


@dataclass(frozen=True, kw_only=True)
class NetworkSize:
    """How large a compressed network is beside the dense one, counted; MACs are those of one image.

    Attributes:
        parameters_dense: parameters of the dense network.
        parameters: parameters left.
        macs_dense: MACs of the dense network.
        macs_executed: MACs that dense kernels execute (masked weights count).
        macs_effective: MACs left when masked weights cost nothing.
        theoretical_speedup: macs_dense / macs_effective.
        bytes_dense: bytes of the remaining tensors stored densely.
        bytes_sparse: bytes when masked weights are stored as a bit mask and the values left.
    """

    parameters_dense: int
    parameters: int
    macs_dense: int
    macs_executed: int
    macs_effective: float
    theoretical_speedup: float
    bytes_dense: int
    bytes_sparse: int


@dataclass(frozen=True, kw_only=True)
class NetworkCosts(NetworkSize, Compression):
    """What a compressed network costs, and which layers it costs too much.

    Attributes:
        collapsed_layers: names of layers without a weight left, joined by commas; empty if none.
        densest_layer_share: largest share of weights left in a prunable layer: how evenly layers were pruned. None in
            older files.
    """

    collapsed_layers: str
    densest_layer_share: float | None = None


@dataclass(frozen=True, kw_only=True)
class MeasuredTime:
    """The time of a network that rows show; all of it is None where it is not measured yet, which a grid does last.

    Attributes:
        measured_latency_ms: median time of one eager batch on the device named: of 32 images, else the largest batch.
        measured_latency_batch: batch size of that measurement.
        measured_threads: CPU threads of that measurement.
        measured_device: device of that measurement.
        measured_contended: the machine was busy with something else meanwhile (see `Latency`).
    """

    measured_latency_ms: float | None
    measured_latency_batch: int | None
    measured_threads: int | None
    measured_device: str | None
    measured_contended: bool | None


@dataclass(frozen=True, kw_only=True)
class NetworkTraining:
    """How the network that a row is about was trained.

    Attributes:
        validation_accuracy_before_retrain: accuracy of single images after pruning, before retraining.
        validation_accuracy: accuracy of single images after retraining.
        training_epochs: passes over the backbone split that led to the network, dense training and all rounds included.
    """

    validation_accuracy_before_retrain: float
    validation_accuracy: float
    training_epochs: float


@dataclass(frozen=True, kw_only=True)
class MainScores:
    """N-accuracy and relative information, each with the ends of its 95% interval.

    Attributes:
        n_accuracy: share of tuples whose most probable label is right.
        n_accuracy_low: lower end of its interval.
        n_accuracy_high: upper end.
        ri: relative information, calibrated (primary).
        ri_low: lower end of its interval.
        ri_high: upper end.
    """

    n_accuracy: float
    n_accuracy_low: float
    n_accuracy_high: float
    ri: float
    ri_low: float
    ri_high: float


@dataclass(frozen=True, kw_only=True)
class Scores(MainScores):
    """What an aggregator scored on the tuples of a split; intervals are over images.

    Attributes:
        label_entropy: H(Y) in bits.
        information_gain: posterior estimator, calibrated, bits.
        information_gain_raw: posterior estimator before calibration, bits.
        information_gain_decision: plug-in mutual information of label and decision, bits.
        information_gain_decision_corrected: the same adjusted for chance: 0 for independent labels, H(Y) for sure ones.
        information_gain_decision_null: what the plug-in estimator gives for independent labels, bits.
        information_gain_accuracy: symmetric-channel estimate from the n-accuracy, bits; for balanced classes.
        ri_raw: relative information before calibration.
        negative_log_likelihood: calibrated, bits.
        negative_log_likelihood_raw: before calibration, bits.
        calibration_error: expected calibration error after calibration.
        calibration_error_raw: before calibration.
        brier_score: squared distance of the calibrated posterior from the label, in [0, 2]; None in older files.
        temperature: the temperature of this prefix length, fitted on validation.
    """

    label_entropy: float
    information_gain: float
    information_gain_raw: float
    information_gain_decision: float
    information_gain_decision_corrected: float
    information_gain_decision_null: float
    information_gain_accuracy: float
    ri_raw: float
    negative_log_likelihood: float
    negative_log_likelihood_raw: float
    calibration_error: float
    calibration_error_raw: float
    brier_score: float | None = None
    temperature: float


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What a tuple of n instances costs.

    Attributes:
        aggregator_macs: MACs of the aggregator for a tuple of n.
        cost_macs: n * macs_effective + aggregator_macs.
        cost_dense_passes: cost_macs / macs_dense.
        efficiency: information_gain / cost_dense_passes, bits per dense pass.
    """

    aggregator_macs: int
    cost_macs: float
    cost_dense_passes: float
    efficiency: float


@dataclass(frozen=True, kw_only=True)
class Row(Spent, Scores, NetworkTraining, MeasuredTime, NetworkCosts, OnSplit, OfCell):
    """One cell at one prefix length, under one protocol, on one split.

    Attributes:
        tuples: evaluated tuples, all partitions together.
        partitions: partitions they come from.
    """

    tuples: int
    partitions: int
