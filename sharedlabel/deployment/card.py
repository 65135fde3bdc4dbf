"""The card of an exported model: what it is, what it takes, how it is calibrated, what it costs and how good it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, NonNegativeInt, PositiveInt

from sharedlabel.config.schema import Count

FORMAT = 3
NAME = "card.json"
Finite: TypeAlias = Annotated[float, Field(allow_inf_nan=False)]
Positive: TypeAlias = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative: TypeAlias = Annotated[float, Field(ge=0, allow_inf_nan=False)]
# A mean over tuples that are all right may be more than 1 by rounding.
Share: TypeAlias = Annotated[float, Field(ge=0, le=1 + 1e-9, allow_inf_nan=False)]
# Far beyond what is ever fitted; nearer to 0, or larger, a posterior would overflow.
Temperature: TypeAlias = Annotated[float, Field(ge=1e-6, le=1e6, allow_inf_nan=False)]
Correction: TypeAlias = Annotated[float, Field(ge=-1e3, le=1e3, allow_inf_nan=False)]
Side: TypeAlias = Annotated[int, Field(ge=1, le=2**16)]
Text: TypeAlias = Annotated[str, Field(max_length=1000)]
FileName: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,99}$")]


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes an input of the backbone, which normalises it itself.

    Attributes:
        channels: of the input.
        height: of the input, pixels.
        width: of the input, pixels.
        dtype: `uint8`, 0 to 255 as decoded, or `float32`.
        resize: side in pixels of the square to cut from the centre and scale (bilinear); None: images must have the
            input's height and width.
        convert: channels to convert image files to (1 grey, 3 colour); None: they must have the input's channels.
        background: what shows through where an image file is transparent.
    """

    channels: Side
    height: Side
    width: Side
    dtype: Literal["uint8", "float32"]
    resize: Side | None
    convert: Literal[1, 3] | None
    background: Literal["white", "black"] = "white"


@dataclass(frozen=True)
class Calibration:
    """The arithmetic around the programs.

    Attributes:
        instance: formula of the aggregator's `logits`.
        log_correction: per label, natural log: prior of tuples over class frequencies of the training images.
        temperature: of single instances.
        posterior: formula of the posterior after k instances.
        n: tuple sizes whose posterior temperature was fitted on validation, ascending.
        posterior_temperature: of each of them.
        other_n: how other sizes are treated.
        floor: share of the uniform distribution that is mixed into the posterior.
    """

    instance: str
    log_correction: tuple[Correction, ...]
    temperature: Temperature
    posterior: str
    n: Annotated[tuple[Count, ...], Field(min_length=1)]
    posterior_temperature: tuple[Temperature, ...]
    other_n: str
    floor: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]


@dataclass(frozen=True)
class Stopping:
    """When to stop looking at further instances of a tuple, for a nominal error; fitted and measured on validation.

    Attributes:
        nominal_error: share of wrong answers, among those whose probability reaches the threshold, to be kept.
        threshold: largest posterior probability at which to stop; 0 stops after the first instance.
        validation_error: that share on validation.
        validation_instances: mean number of instances looked at, of at most the largest fitted size.
        validation_truncated: share of the tuples whose probability never reached the threshold.
    """

    nominal_error: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
    threshold: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
    validation_error: Share
    validation_instances: Annotated[float, Field(ge=1, allow_inf_nan=False)]
    validation_truncated: Share


@dataclass(frozen=True)
class Costs:
    """What the model costs; MACs are for one image, those of the aggregator for one tuple.

    Attributes:
        parameters_dense: parameters of the dense backbone.
        parameters: parameters left.
        achieved_ratio: compression ratio, all parameters.
        macs_dense: MACs of the dense backbone.
        macs_executed: MACs of the network in PyTorch: weights set to zero count. Butterfly layers are exported as
            matrices, whose products may differ a little.
        macs_effective: MACs left when weights set to zero cost nothing.
        theoretical_speedup: macs_dense / macs_effective.
        bytes_dense: bytes of the backbone's tensors.
        bytes_sparse: bytes when zeros are stored as a bit mask.
        aggregator_macs: by n.
        cost_dense_passes: by n, MACs of a whole tuple / macs_dense.
        measured_latency_ms: median time of one batch in PyTorch; this and what follows are None if not measured.
        measured_latency_batch: batch size of that measurement.
        measured_threads: CPU threads of that measurement.
        measured_device: device of that measurement.
        measured_contended: something else was at work on the machine meanwhile: do not plan by that time.
    """

    parameters_dense: PositiveInt
    parameters: PositiveInt
    achieved_ratio: Positive
    macs_dense: NonNegativeInt
    macs_executed: NonNegativeInt
    macs_effective: NonNegative
    theoretical_speedup: NonNegative
    bytes_dense: NonNegativeInt
    bytes_sparse: NonNegativeInt
    aggregator_macs: dict[Text, NonNegativeInt]
    cost_dense_passes: dict[Text, NonNegative]
    measured_latency_ms: NonNegative | None
    measured_latency_batch: PositiveInt | None
    measured_threads: PositiveInt | None
    measured_device: str | None
    measured_contended: bool | None


@dataclass(frozen=True)
class Quality:
    """Measured on test, with 95% intervals over images or groups; columns as in `records.Row`."""

    n: Count
    n_accuracy: Share
    n_accuracy_low: Finite
    n_accuracy_high: Finite
    ri: Finite
    ri_low: Finite
    ri_high: Finite
    calibration_error: Share


@dataclass(frozen=True)
class File:
    """A file beside the card.

    Attributes:
        sha256: of its content.
        bytes: its size.
        difference: largest difference of its outputs from PyTorch's on random inputs, relative to the larger of 1 and
            the output; None for a file that holds weights of another.
    """

    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    bytes: NonNegativeInt
    difference: NonNegative | None


@dataclass(frozen=True)
class Card:
    """Everything about an exported model.

    Attributes:
        format: version of this file's layout.
        cell: id and labels of the cell it comes from.
        labels: names of the classes, in the order of logits.
        prior: class prior of tuples.
        embedding_dim: width of the embedding.
        preprocessing: from an image file to an input.
        calibration: from the programs' outputs to the posterior.
        stopping: when to stop, by descending nominal error; empty if it was not fitted.
        costs: of the backbone and the aggregator.
        quality: by n.
        tolerance: that each file's `difference` was required to keep.
        files: by name.
        provenance: configuration, commit, versions, fingerprint of the data, artifacts, licence.
    """

    format: int
    cell: dict[Text, Text | int | Finite]
    labels: Annotated[tuple[Text, ...], Field(min_length=2)]
    prior: tuple[Share, ...]
    embedding_dim: Count
    preprocessing: Preprocessing
    calibration: Calibration
    stopping: tuple[Stopping, ...]
    costs: Costs
    quality: tuple[Quality, ...]
    tolerance: NonNegative
    files: dict[FileName, File]
    provenance: dict[str, Any]
