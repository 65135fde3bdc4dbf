"""The card of an exported model: one JSON file that says what it is, what it takes and how good it is."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, PositiveInt, TypeAdapter, ValidationError

from sharedlabel.errors import DeploymentError
from sharedlabel.metrics.information import FLOOR
from sharedlabel.results import DatasetFacts, Row, Threshold

FORMAT = 3
NAME = "card.json"
Finite: TypeAlias = Annotated[float, Field(allow_inf_nan=False)]
Positive: TypeAlias = Annotated[float, Field(gt=0, allow_inf_nan=False)]


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

    channels: PositiveInt
    height: PositiveInt
    width: PositiveInt
    dtype: Literal["uint8", "float32"]
    resize: int | None
    convert: int | None
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
    log_correction: tuple[Finite, ...]
    temperature: Positive
    posterior: str
    n: Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
    posterior_temperature: tuple[Positive, ...]
    other_n: str
    floor: Annotated[float, Field(ge=0, lt=1)]


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

    nominal_error: float
    threshold: float
    validation_error: float
    validation_instances: float
    validation_truncated: float


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

    parameters_dense: int
    parameters: int
    achieved_ratio: float
    macs_dense: int
    macs_executed: int
    macs_effective: float
    theoretical_speedup: float
    bytes_dense: int
    bytes_sparse: int
    aggregator_macs: dict[str, int]
    cost_dense_passes: dict[str, float]
    measured_latency_ms: float | None
    measured_latency_batch: int | None
    measured_threads: int | None
    measured_device: str | None
    measured_contended: bool | None


@dataclass(frozen=True)
class Quality:
    """Measured on test, with 95% intervals over images or groups; columns as in `results.Row`."""

    n: int
    n_accuracy: float
    n_accuracy_low: float
    n_accuracy_high: float
    ri: float
    ri_low: float
    ri_high: float
    calibration_error: float


@dataclass(frozen=True)
class File:
    """A file beside the card.

    Attributes:
        sha256: of its content.
        bytes: its size.
        difference: largest difference of its outputs from PyTorch's on random inputs, relative to the larger of 1 and
            the output; None for a file that holds weights of another.
    """

    sha256: str
    bytes: int
    difference: float | None


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
    cell: dict[str, str | int | float]
    labels: Annotated[tuple[str, ...], Field(min_length=2)]
    prior: tuple[Finite, ...]
    embedding_dim: PositiveInt
    preprocessing: Preprocessing
    calibration: Calibration
    stopping: tuple[Stopping, ...]
    costs: Costs
    quality: tuple[Quality, ...]
    tolerance: float
    files: dict[str, File]
    provenance: dict[str, Any]


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


def sha256(path: Path) -> str:
    """Return the checksum of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write(card: Card, folder: Path) -> None:
    """Write the card into the folder of its files."""
    text = json.dumps(dataclasses.asdict(card), indent=1, allow_nan=False, ensure_ascii=False)
    (folder / NAME).write_text(text + "\n", encoding="utf-8")


def read(folder: Path) -> Card:
    """Read the card of a model and check that its files are those that were exported.

    Raises:
        DeploymentError: no card, one of another version or that contradicts itself, or a file that is absent or was
            altered.
    """
    path = folder / NAME
    try:
        payload = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DeploymentError(
            f"expected a {NAME} in {folder}, got: {error}; give a folder that `python -m sharedlabel.export` wrote"
        ) from error
    found = payload.get("format") if isinstance(payload, dict) else type(payload).__name__
    if found != FORMAT:
        raise DeploymentError(f"{path} has format {found!r}, this version reads {FORMAT}; export the cell again")
    try:
        card = TypeAdapter(Card).validate_python(payload)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DeploymentError(f"{path} is not a card of this version: {where}: {first['msg']}; export again") from error
    _check_lengths(card, path)
    _check_files(card, folder)
    return card


def _check_lengths(card: Card, path: Path) -> None:
    fitted = card.calibration
    lengths = {"labels": len(card.labels), "prior": len(card.prior), "log_correction": len(fitted.log_correction)}
    if len(set(lengths.values())) > 1:
        raise DeploymentError(f"{path}: expected one value per label, got {lengths}; export the cell again")
    if len(fitted.n) != len(fitted.posterior_temperature) or any(a >= b for a, b in pairwise(fitted.n)):
        raise DeploymentError(
            f"{path}: expected ascending n with one posterior temperature each, got n = {fitted.n} and "
            f"{len(fitted.posterior_temperature)} temperatures; export the cell again"
        )


def _check_files(card: Card, folder: Path) -> None:
    for name, expected in card.files.items():
        path = folder / name
        if Path(name).name != name or not path.is_file():
            raise DeploymentError(f"expected the file {name!r} in {folder}, got none; export the cell again")
        found = sha256(path)
        if found != expected.sha256:
            raise DeploymentError(
                f"expected {name} as it was exported (sha256 {expected.sha256[:12]}...), got {found[:12]}...: it was "
                "altered or is damaged; copy it again or export the cell again"
            )
