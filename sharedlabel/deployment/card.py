"""The card of an exported model: one JSON file that says what it is, what it takes and how good it is."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, NonNegativeInt, PositiveInt, TypeAdapter, ValidationError

from sharedlabel import plain
from sharedlabel.deployment import _files
from sharedlabel.errors import DeploymentError, printable
from sharedlabel.metrics.information import FLOOR
from sharedlabel.records import DatasetFacts, Row, Threshold
from sharedlabel.schema import Count

FORMAT = 3
NAME = "card.json"
_LARGEST = 2**26  # bytes of a card
_VALUES = 10**8  # of an image
_ONE = 1e-4  # how far from 1 the sum of a prior may be
_LISTED = 60
Finite: TypeAlias = Annotated[float, Field(allow_inf_nan=False)]
Positive: TypeAlias = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative: TypeAlias = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share: TypeAlias = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
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
        threshold: largest posterior probability at which to stop.
        validation_error: that share on validation.
        validation_instances: mean number of instances looked at, of at most the largest fitted size.
        validation_truncated: share of the tuples whose probability never reached the threshold.
    """

    nominal_error: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
    threshold: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
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


_CARDS = TypeAdapter(Card)


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


def write(card: Card, folder: Path) -> None:
    """Write the card into the folder of its files.

    Raises:
        DeploymentError: it is one that `read` would refuse.
    """
    text = json.dumps(dataclasses.asdict(card), indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    _parse(text, folder / NAME)
    (folder / NAME).write_text(text, encoding="utf-8")


def read(folder: Path) -> Card:
    """Read the card of a model and check that its files are those that were exported.

    Nothing but plain files is opened. The checksums find damage and mistakes; who changes a file on purpose changes the
    card, too.

    Raises:
        DeploymentError: no card, one of another version, with values that no export writes or that contradict each
            other, or a file that is absent, no plain file, or was altered.
    """
    path = folder / NAME
    try:
        with _files.opened(path) as file:
            text = file.read(_LARGEST + 1)
        if len(text) > _LARGEST:
            raise ValueError(f"more than {_LARGEST:,} bytes")
        payload = plain.read_json(text)
    except (OSError, ValueError, DeploymentError) as error:
        raise DeploymentError(
            f"expected a {NAME} in {folder}, got: {error}; give a folder that `sharedlabel export` wrote"
        ) from error
    version = payload.get("format") if isinstance(payload, dict) else type(payload).__name__
    if version != FORMAT:
        raise DeploymentError(f"{path} has format {version!r}, this version reads {FORMAT}; export the cell again")
    card = _parse(text, path)
    _check_files(card, folder)
    return card


def _parse(text: str | bytes, path: Path) -> Card:
    try:
        card = _CARDS.validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DeploymentError(
            f"{path} is not a card of this version: {where}: {first['msg']}, got "
            f"{printable(repr(first['input']), _LISTED)}; export again"
        ) from error
    _check_labels(card, path)
    _check_sizes(card.preprocessing, path)
    fitted = card.calibration
    if len(fitted.n) != len(fitted.posterior_temperature) or any(a >= b for a, b in pairwise(fitted.n)):
        raise DeploymentError(
            f"{path}: expected ascending n with one posterior temperature each, got n = {fitted.n} and "
            f"{len(fitted.posterior_temperature)} temperatures; export the cell again"
        )
    errors = [one.nominal_error for one in card.stopping]
    if any(a <= b for a, b in pairwise(errors)):
        raise DeploymentError(
            f"{path}: expected stopping thresholds by descending nominal error, got {errors}; export the cell again"
        )
    return card


def _check_labels(card: Card, path: Path) -> None:
    fitted = card.calibration
    lengths = {"labels": len(card.labels), "prior": len(card.prior), "log_correction": len(fitted.log_correction)}
    if len(set(lengths.values())) > 1:
        raise DeploymentError(f"{path}: expected one value per label, got {lengths}; export the cell again")
    twice = [label for label, count in Counter(card.labels).items() if count > 1]
    if twice:
        shown = printable(repr(twice[0]), _LISTED)
        raise DeploymentError(f"{path}: expected every label once, got {shown} twice; export the cell again")
    if abs(sum(card.prior) - 1) > _ONE:
        raise DeploymentError(
            f"{path}: expected a prior that sums to 1, got {sum(card.prior):g}; export the cell again"
        )


def _check_sizes(wanted: Preprocessing, path: Path) -> None:
    values = wanted.channels * wanted.height * wanted.width
    if values > _VALUES:
        raise DeploymentError(
            f"{path}: expected images of at most {_VALUES:,} values, got {wanted.channels} x {wanted.height} x "
            f"{wanted.width} = {values:,}; export the cell again"
        )
    square = wanted.resize in {None, wanted.height} and wanted.resize in {None, wanted.width}
    if not square or wanted.convert not in {None, wanted.channels}:
        raise DeploymentError(
            f"{path}: expected image files to become the backbone's input, {wanted.channels} channels of "
            f"{wanted.height}x{wanted.width} pixels, got resize = {wanted.resize} and convert = {wanted.convert}; "
            "export the cell again"
        )


def _check_files(card: Card, folder: Path) -> None:
    for name, expected in card.files.items():
        size = _files.size(folder / name)
        if size != expected.bytes:
            raise _altered(name, f"{expected.bytes:,} bytes", f"{size:,} bytes")
        digest = _files.sha256(folder / name)
        if digest != expected.sha256:
            raise _altered(name, f"sha256 {expected.sha256[:12]}...", f"{digest[:12]}...")


def _altered(name: str, exported: str, got: str) -> DeploymentError:
    return DeploymentError(
        f"expected {name} as it was exported ({exported}), got {got}: it was altered or is damaged; copy it again or "
        "export the cell again"
    )
