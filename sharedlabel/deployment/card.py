"""The card of an exported model: what it is, what it takes, how it is calibrated, what it costs and how good it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import ConfigDict, Field, NonNegativeInt

from sharedlabel.config.schema import Count
from sharedlabel.records import MainScores, MeasuredTime, NetworkSize

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
        trim: rows and columns at the edges of an image file whose pixels are all at most as bright as this are cut off
            first; None: none are.
    """

    channels: Side
    height: Side
    width: Side
    dtype: Literal["uint8", "float32"]
    resize: Side | None
    convert: Literal[1, 3] | None
    background: Literal["white", "black"] = "white"
    trim: Annotated[int, Field(ge=0, le=254)] | None = None


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


@dataclass(frozen=True, kw_only=True)
class Costs(MeasuredTime, NetworkSize):
    """What the model costs; MACs are for one image, those of the aggregator for one tuple.

    Counts and times are those of the network in PyTorch. Butterfly layers are exported as matrices, whose products may
    differ a little from `macs_executed`. Do not plan by a time that was `measured_contended`.

    Attributes:
        achieved_ratio: compression ratio, all parameters.
        aggregator_macs: by n.
        cost_dense_passes: by n, MACs of a whole tuple / macs_dense.
    """

    __pydantic_config__: ClassVar = ConfigDict(allow_inf_nan=False)

    achieved_ratio: Positive
    aggregator_macs: dict[Text, NonNegativeInt]
    cost_dense_passes: dict[Text, NonNegative]


@dataclass(frozen=True, kw_only=True)
class Quality(MainScores):
    """Measured on test, with 95% intervals over images or groups.

    Attributes:
        n: instances per tuple.
        calibration_error: expected calibration error after calibration.
    """

    __pydantic_config__: ClassVar = ConfigDict(allow_inf_nan=False)

    n_accuracy: Share
    n: Count
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
