"""Augmentation by transforms of torchvision, each image on its own, on the device where it is.

    dense: {augment: [{name: RandomAffine, degrees: 10, translate: [0.1, 0.1]}, {name: ColorJitter, brightness: 0.4}]}

Names and options are those of `torchvision.transforms.v2`. Its transforms draw once for all images of a batch, so each
image is handed over alone; what is drawn comes from torch's own stream, which is seeded.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from jaxtyping import Num
from torch import Tensor

from sharedlabel import rng
from sharedlabel.errors import ConfigError, first_line, nearest

Spec: TypeAlias = str | dict[str, Any]
_TRIED = 16  # draws, of which each has to give an image of the same form
_OF_BATCHES = {"MixUp": "mixup", "CutMix": "mixup"}  # and the option that stands for them
_INNER = "transforms"  # the option of RandomApply, RandomChoice, ... that holds others


def transform(specs: Sequence[Spec]) -> Callable[[Num[Tensor, "b C H W"]], Num[Tensor, "b C H W"]] | None:
    """Return what augments a batch of images; None where there is nothing to do.

    Args:
        specs: names of transforms, or mappings with `name` and options, in their order.

    Raises:
        ConfigError: an unknown name or option (the nearest is named), or a value that it does not take.
    """
    chain = [_made(spec) for spec in specs]
    if not chain:
        return None

    def augmented(images: Tensor) -> Tensor:
        return torch.stack([functools.reduce(lambda image, one: one(image), chain, image) for image in images.unbind()])

    return augmented


def check(specs: Sequence[Spec], image: Num[Tensor, "C H W"], where: str) -> None:
    """Refuse transforms that cannot be made, or that turn an image into something else than such an image.

    Args:
        specs: as of `transform`.
        image: of the data.
        where: the option that holds them.

    Raises:
        ConfigError: names the transform.
    """
    for number, spec in enumerate(specs):
        try:
            augment = transform([spec])
        except ConfigError as error:
            raise ConfigError(f"{where}[{number}]: {error}") from error
        assert augment is not None
        name = spec if isinstance(spec, str) else spec["name"]
        with rng.untouched():
            for _ in range(_TRIED):
                try:
                    made = augment(image[None])[0]
                except Exception as error:
                    raise ConfigError(
                        f"{where}[{number}]: {name} takes no images of {image.dtype} {list(image.shape)}: "
                        f"{first_line(error)}; leave it out or change its options"
                    ) from error
                if made.shape != image.shape or made.dtype != image.dtype:
                    raise ConfigError(
                        f"{where}[{number}]: expected images of {image.dtype} {list(image.shape)} from {name}, got "
                        f"{made.dtype} {list(made.shape)}; choose options that keep size and type"
                    )


def _made(spec: Spec) -> Callable[[Tensor], Tensor]:
    from torchvision.transforms import v2  # takes half a second, which few need

    options = {"name": spec} if isinstance(spec, str) else dict(spec)
    name = options.pop("name", None)
    known: dict[str, Callable[..., Any]] = {
        one: kind
        for one, kind in vars(v2).items()
        if inspect.isclass(kind) and issubclass(kind, v2.Transform) and kind is not v2.Transform
    }
    if not isinstance(name, str):
        raise ConfigError(f"expected a transform by its name, or a mapping with 'name', got {spec!r}; name it")
    if name in _OF_BATCHES:
        raise ConfigError(
            f"expected transforms of one image, got {name}, which mixes those of a batch; use {_OF_BATCHES[name]}"
        )
    if name not in known:
        raise ConfigError(f"unknown transform {name!r} of torchvision.transforms.v2; {nearest(name, known)}")
    taken = inspect.signature(known[name]).parameters
    for option in options:
        if option not in taken:
            raise ConfigError(f"{name}: unknown option {option!r}; {nearest(option, taken)}")
    try:
        made: Callable[[Tensor], Tensor] = known[name](**{key: _value(key, value) for key, value in options.items()})
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"{name}: {first_line(error)}; see torchvision.transforms.v2.{name}") from error
    return made


def _value(option: str, value: Any) -> Any:
    """Return a value as a transform takes it: an interpolation by its name, and the transforms that it holds."""
    from torchvision.transforms import InterpolationMode

    if option == "interpolation" and isinstance(value, str):
        modes: Mapping[str, Any] = {mode.value: mode for mode in InterpolationMode}
        if value not in modes:
            raise ConfigError(f"unknown interpolation {value!r}; {nearest(value, modes)}")
        return modes[value]
    if option != _INNER:
        return value
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise ConfigError(f"transforms: expected a list of transforms, got {value!r}; write [{value}]")
    return [_made(one) for one in value]
