from __future__ import annotations

import dataclasses

import pytest
import torch

from sharedlabel.data import _checks
from sharedlabel.errors import DataError
from sharedlabel.types import Dataset

GOOD = Dataset("toy", torch.zeros(4, 1, 2, 2), torch.tensor([0, 1, 0, 1]), ("cat", "dog"), None, None, "0")


def with_value(value: float) -> torch.Tensor:
    images = torch.zeros(4, 1, 2, 2)
    images[2, 0, 1, 1] = value
    return images


def test_good_data_pass_unchanged() -> None:
    assert _checks.validate(GOOD) is GOOD


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class_names": ("cat",), "labels": torch.zeros(4).long()}, r"at least two classes, got 1 \(cat\)"),
        ({"labels": torch.tensor([0, 1, 2, 1])}, "labels from 0 to 1, got 2 for instance 2"),
        ({"labels": torch.tensor([0, 1, -1, -1])}, r"got -1 for instance 2 \(2 outside in all\)"),
        ({"labels": torch.zeros(4).long()}, "every class, got none of 'dog'"),
        ({"images": with_value(float("nan"))}, "NaN or infinity in instance 2"),
        ({"images": with_value(float("-inf"))}, "NaN or infinity in instance 2"),
    ],
)
def test_bad_data_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        _checks.validate(dataclasses.replace(GOOD, **change))  # type: ignore[arg-type]


@pytest.mark.parametrize("field", ["labels", "groups", "holdout"])
def test_columns_of_another_length_are_refused(field: str) -> None:
    column = torch.zeros(3, dtype=torch.bool if field == "holdout" else torch.int64)
    bad = dataclasses.replace(GOOD)
    # Set behind the constructor, whose shapes are checked in tests but not when users run it.
    object.__setattr__(bad, field, column)
    with pytest.raises(DataError, match=f"one entry of `{field}` per image, 4 in all, got 3"):
        _checks.validate(bad)


def test_fingerprint_depends_on_pixels_labels_names_shape_and_type() -> None:
    images, labels = torch.arange(16, dtype=torch.uint8).reshape(4, 1, 2, 2), GOOD.labels
    names = GOOD.class_names
    changed = images.clone()
    changed[3, 0, 1, 1] += 1
    prints = [
        _checks.fingerprint(images, labels, names),
        _checks.fingerprint(changed, labels, names),
        _checks.fingerprint(images, 1 - labels, names),
        _checks.fingerprint(images, labels, names[::-1]),
        _checks.fingerprint(images.reshape(4, 2, 2, 1), labels, names),
        _checks.fingerprint(images.view(torch.int8), labels, names),
        _checks.fingerprint(images, labels, names, torch.tensor([0, 0, 1, 1])),
    ]
    assert len(set(prints)) == len(prints)
    strided = images.transpose(2, 3).contiguous().transpose(2, 3)
    assert _checks.fingerprint(strided, labels, names) == prints[0]
