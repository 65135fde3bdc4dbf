"""What pruners are given: examples that fit the network, and ratios that can be reached."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from sharedlabel import plugins, rng
from sharedlabel.backbones import mlp
from sharedlabel.backbones._base import Backbone
from sharedlabel.errors import CompressionError
from sharedlabel.pruners import _methods
from sharedlabel.pruners._base import Context, check_ratio, rounded_down

SHAPE, CLASSES = (2, 3, 3), 4
BY_LABELS = ("snip", "grasp", "greedy_forward")
BY_IMAGES = (*BY_LABELS, "obd", "apoz")
BY_VALIDATION = ("sipp", "pfp")


def network() -> Backbone:
    with rng.seeded(0):
        return mlp.build(mlp.Config((8, 6)), SHAPE, CLASSES)


def prune(name: str, given: Mapping[str, Tensor]) -> None:
    images = torch.rand(8, *SHAPE, generator=rng.generator(0, "images"))
    fine = {"images": images, "labels": torch.arange(8) % CLASSES, "validation": images}
    pruner = plugins.load("pruners", name)
    _methods.prune(pruner, network(), 1.5, pruner.Config(), Context(rng.generator(0), **{**fine, **given}))


def with_nan() -> Tensor:
    images = torch.rand(8, *SHAPE)
    images[3, 0, 1, 1] = torch.nan
    images[5, 1, 2, 2] = torch.inf
    return images


@pytest.mark.parametrize("name", BY_LABELS)
@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.arange(7) % CLASSES, "expected one label per image, got 8 images and 7 labels; pass both"),
        (torch.arange(8), "expected labels from 0 to 3, got 0 to 7; pass class indices"),
        (torch.arange(8) % CLASSES - 1, "expected labels from 0 to 3, got -1 to 2; pass class indices"),
    ],
    ids=["count", "high", "low"],
)
def test_labels_that_do_not_fit_are_refused(name: str, labels: Tensor, message: str) -> None:
    with pytest.raises(CompressionError, match=message):
        prune(name, {"labels": labels})


@pytest.mark.parametrize("name", [*BY_IMAGES, *BY_VALIDATION])
@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.rand(8, 1, 3, 3), "expected images of 2 x 3 x 3 .*, got 1 x 3 x 3; pass images of the size"),
        (torch.rand(8, 2, 4, 3), "expected images of 2 x 3 x 3 .*, got 2 x 4 x 3; pass images of the size"),
        (with_nan(), "expected finite images, got 2 NaN or infinite of 144 values; remove these images"),
    ],
    ids=["channels", "height", "not finite"],
)
def test_images_that_do_not_fit_are_refused(name: str, images: Tensor, message: str) -> None:
    with pytest.raises(CompressionError, match=message):
        prune(name, {"validation" if name in BY_VALIDATION else "images": images})


@pytest.mark.parametrize(
    ("ceiling", "written"), [(12.76, "12.76"), (319 / 45, "7.08888"), (2 / 3 * 1e5, "66666.6"), (1.0, "1")]
)
def test_a_written_ceiling_can_be_reached(ceiling: float, written: str) -> None:
    assert rounded_down(ceiling) == written
    check_ratio(float(written), ceiling, "")
    with pytest.raises(CompressionError, match=f"from 1 to {written}, got {ceiling + 1:g}: too few; choose"):
        check_ratio(ceiling + 1, ceiling, "too few")


def test_quotients_may_be_off_by_rounding_and_no_more() -> None:
    check_ratio(1 - 1e-15, 3.0, "")
    check_ratio(3 * (1 + 1e-15), 3.0, "")
    for ratio in (1 - 1e-6, 3 * (1 + 1e-6)):
        with pytest.raises(CompressionError, match="expected a compression ratio from 1 to 3"):
            check_ratio(ratio, 3.0, "")
