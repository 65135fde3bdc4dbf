"""Write a card into the folder of its model, and read it back, trusting nothing that it says."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from sharedlabel.deployment import _files
from sharedlabel.deployment.card import FORMAT, NAME, Card, Costs, Preprocessing
from sharedlabel.errors import DeploymentError, printable
from sharedlabel.files import plain

_LARGEST = 2**26  # bytes of a card
_VALUES = 10**8  # of an image
_ONE = 1e-4  # how far from 1 the sum of a prior may be
_LISTED = 60
_CARDS = TypeAdapter(Card)


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
    _check_costs(card.costs, path)
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


def _check_costs(costs: Costs, path: Path) -> None:
    for name, value in vars(costs).items():
        if isinstance(value, int | float) and value < 0:
            raise DeploymentError(f"{path}: expected {name} of at least 0, got {value:g}; export the cell again")


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
