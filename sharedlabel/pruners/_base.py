"""The pruner contract.

A pruner is a module with a frozen `Config`, three constants and two functions:

- `STRUCTURED`: whether it removes parameters physically instead of masking them;
- `NESTED`: whether the weights kept at a ratio are among those kept at any smaller ratio, everything else equal;
- `NEEDS`: what it reads of the `Context` beside the generator, a subset of `REQUIREMENTS`;
- `ceiling(backbone, config)`: the largest compression ratio that it can reach on this network;
- `prune(backbone, ratio, config, context)`: a new, pruned network; the one passed in is left as it was.

It may have two more constants:

- `SCHEDULE`: when the network is pruned unless the user says otherwise; the default is after training;
- `REPEATABLE`: whether it can prune what it has pruned already, as rounds and gradual pruning do; the default is True.

A pruner that needs the `trainer` trains in the place of what would follow: where it removes weights, nothing in the
network that it returns requires a gradient.

The compression ratio is counted over all parameters: those of the network passed in, masked weights included / those
that remain. Masked weights count as removed. Prunable are the weights of convolutions and linear layers in the body:
never the classifier, biases or normalisation.
"""

from __future__ import annotations

import decimal
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Int64, Num
from torch import Tensor

from sharedlabel.backbones._base import Backbone
from sharedlabel.errors import CompressionError

REQUIREMENTS = ("data", "labels", "gradients", "trainer", "validation")
_ROUNDING = 1e-9  # ratios relative to what earlier rounds left are quotients, right to about 1e-16


@dataclass(frozen=True)
class Context:
    """What a pruner may draw on; None where there is none.

    Attributes:
        generator: the only source of randomness, on the CPU.
        images: `[b C H W]`, images that the backbone is trained on, in random order (`data`).
        labels: `[b]`, their class indices (`labels`).
        validation: `[v C H W]`, images of the validation split, in random order (`validation`).
        train: trains in place whatever requires a gradient, as the dense network is trained (`trainer`).
    """

    generator: torch.Generator
    images: Tensor | None = None
    labels: Tensor | None = None
    validation: Tensor | None = None
    train: Callable[[Backbone], None] | None = None

    def examples(self, count: int) -> Num[Tensor, "b ..."]:
        """Return the first `count` training images, or all if there are fewer.

        Raises:
            CompressionError: there are none.
        """
        return _some(self.images, count, "images to compute scores from")

    def labelled(self, count: int) -> tuple[Num[Tensor, "b ..."], Int64[Tensor, "b"]]:
        """Return the first `count` training images with their labels, or all if there are fewer.

        Raises:
            CompressionError: there are no images, no labels, or other numbers of them.
        """
        images, labels = self.examples(count), _some(self.labels, count, "labels of the images")
        if self.images is not None and self.labels is not None and len(self.images) != len(self.labels):
            raise CompressionError(
                f"expected one label per image, got {len(self.images)} images and {len(self.labels)} labels; pass both "
                "of the same examples"
            )
        return images, labels

    def sensitivity_set(self, count: int) -> Num[Tensor, "b ..."]:
        """Return the first `count` validation images, or all if there are fewer.

        Raises:
            CompressionError: there are none.
        """
        return _some(self.validation, count, "validation images to measure sensitivities on")

    def trainer(self) -> Callable[[Backbone], None]:
        """Return the training function.

        Raises:
            CompressionError: there is none.
        """
        if self.train is None:
            raise CompressionError("expected a way to train the network, got none; pass Context(train=...)")
        return self.train


def check_ratio(ratio: float, ceiling: float, reason: str) -> None:
    """Refuse a compression ratio that cannot be reached.

    Args:
        ratio: requested compression ratio.
        ceiling: the largest one.
        reason: what sets the ceiling, for the message.

    Raises:
        CompressionError: the ratio is below 1, NaN or above the ceiling.
    """
    if not 1 - _ROUNDING <= ratio <= ceiling * (1 + _ROUNDING):
        raise CompressionError(
            f"expected a compression ratio from 1 to {rounded_down(ceiling)}, got {ratio:g}: {reason}; "
            "choose a ratio in this range, another pruner or a larger network"
        )


def rounded_down(ceiling: float) -> str:
    """Write a ceiling with six digits, so that what is written can be reached.

    >>> rounded_down(2.9999999), rounded_down(12.76)
    ('2.99999', '12.76')
    """
    nearest = f"{ceiling:.6g}"
    if float(nearest) <= ceiling:
        return nearest
    return f"{float(decimal.Context(prec=6, rounding=decimal.ROUND_FLOOR).create_decimal(ceiling)):g}"


def _some(found: Tensor | None, count: int, what: str) -> Tensor:
    if found is None or not len(found):
        raise CompressionError(f"expected {what}, got {'none' if found is None else 'an empty set'}; pass some")
    if count < 1:
        raise CompressionError(f"expected at least one of the {what}, got a limit of {count}")
    return found[:count]
