"""Gaussian classes are an oracle: their exact posteriors are known, of independent and of grouped instances.

    data: {name: gaussian, classes: 5, group_size: 10, nuisance: 1.0}

Instance i of class y in group g is `x_i = mu_y + nuisance * u_g + sigma_i * e_i` with standard normal `u_g` and `e_i`.
Its noise level is observed as one more channel, `log sigma_i`, so nothing is hidden but the label and the group offset.
No aggregator can know more than `exact_log_posterior`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from jaxtyping import Float, Float64, Int64
from pydantic import Field, NonNegativeInt
from torch import Tensor

from sharedlabel import rng
from sharedlabel.config.schema import Count, NonNegativeFloat, PositiveFloat, Width
from sharedlabel.data import _checks
from sharedlabel.errors import ConfigError
from sharedlabel.machine import memory
from sharedlabel.types import Dataset


@dataclass(frozen=True)
class Config:
    """Gaussian classes with exact posteriors.

    Args:
        classes: number of classes, at least 2.
        dim: dimension of an instance; the noise level is one channel more.
        separation: root mean square distance between two class means.
        instances_per_class: instances of each class.
        group_size: instances per group, which share an offset; 1 for independent instances.
        nuisance: standard deviation of the offset per dimension; with `group_size: 1` it is mere noise.
        qualities: standard deviations of the noise per dimension; each instance has one of them, at random.
        seed: seed of the means and of the draws.
    """

    classes: Annotated[int, Field(ge=2, le=10_000)] = 10
    dim: Width = 8
    separation: NonNegativeFloat = 3.0
    instances_per_class: Count = 600
    group_size: Count = 1
    nuisance: NonNegativeFloat = 0.0
    qualities: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = (0.7, 1.4)
    seed: NonNegativeInt = 0


def load(config: Config, root: Path) -> Dataset:
    """Draw the data set.

    Args:
        config: options of this data set.
        root: not used, nothing is stored.

    Returns:
        `float32` images `[N dim+1 1 1]`, with groups when `group_size` is above 1; each group lies in one class.

    Raises:
        ConfigError: groups that do not come out even.
    """
    del root
    _check(config)
    count = config.classes * config.instances_per_class
    memory.check(f"gaussian: {count} instances", 20.0 * count * (config.dim + 1), "lower classes, instances or dim")
    labels = torch.arange(config.classes).repeat_interleave(config.instances_per_class)
    offsets = torch.arange(count // config.group_size).repeat_interleave(config.group_size)
    images = _draw(config, labels, offsets)[:, :, None, None]
    groups = offsets if config.group_size > 1 else None
    names = tuple(str(label) for label in range(config.classes))
    return _checks.validate(
        Dataset(
            name="gaussian",
            images=images,
            labels=labels,
            class_names=names,
            groups=groups,
            holdout=None,
            fingerprint=_checks.fingerprint(images, labels, names, groups),
        )
    )


def exact_log_posterior(
    config: Config, dataset: Dataset, indices: Int64[Tensor, "t n"], log_prior: Float[Tensor, "c"]
) -> Float64[Tensor, "t n c"]:
    """Return the exact posterior over labels after every prefix, given which instances of the tuple share a group.

    Given the label, instances of one group have covariance `sigma_i^2` on the diagonal plus `nuisance^2` everywhere.
    Conditioning each instance on the earlier ones of its group (Sherman-Morrison) leaves one Gaussian per instance, so
    prefixes are cumulative sums.

    Args:
        config: the options that `dataset` was drawn with.
        dataset: what `load` returned.
        indices: positions of each tuple's instances in `dataset`.
        log_prior: log prior over labels, natural log.

    Returns:
        Normalised log-posteriors, natural log.
    """
    x = dataset.images[indices].flatten(2).double()
    x, variance = x[:, :, :-1], (2 * x[:, :, -1]).exp()  # [t, n, dim], [t, n]
    groups = indices if dataset.groups is None else dataset.groups[indices]
    earlier = (groups[:, :, None] == groups[:, None, :]).double().tril(-1)  # [t, n, n], causal
    # Of the earlier instances of the group: their precisions, and the offset expected from them.
    precision = (earlier @ (1 / variance)[:, :, None]).squeeze(2)
    shrink = 1 / (1 + config.nuisance**2 * precision)
    observed = config.nuisance**2 * shrink[:, :, None] * (earlier @ (x / variance[:, :, None]))
    predictive = variance + config.nuisance**2 * shrink
    means = _means(config).double()
    # |z - s mu|^2 without its first term, which is the same for every class.
    cross = torch.einsum("tnd,cd->tnc", x - observed, means)
    distance = shrink[:, :, None] ** 2 * means.square().sum(1) - 2 * shrink[:, :, None] * cross
    log_likelihood = -0.5 * distance / predictive[:, :, None]
    return (log_prior.double() + log_likelihood.cumsum(1)).log_softmax(2)


def _means(config: Config) -> Float[Tensor, "c dim"]:
    generator = rng.generator(config.seed, "gaussian", "means")
    # Coordinates of variance s^2 / (2 dim) put two means at a mean square distance of s^2.
    scale: float = config.separation / math.sqrt(2 * config.dim)
    return scale * torch.randn(config.classes, config.dim, generator=generator)


def _draw(config: Config, labels: Int64[Tensor, "N"], groups: Int64[Tensor, "N"]) -> Float[Tensor, "N k"]:
    generator = rng.generator(config.seed, "gaussian", "instances")
    offsets = config.nuisance * torch.randn(int(groups[-1]) + 1, config.dim, generator=generator)
    qualities = torch.tensor(config.qualities)
    sigma = qualities[torch.randint(len(qualities), labels.shape, generator=generator)][:, None]
    noise = sigma * torch.randn(labels.numel(), config.dim, generator=generator)
    return torch.cat([_means(config)[labels] + offsets[groups] + noise, sigma.log()], dim=1)


def _check(config: Config) -> None:
    if config.instances_per_class % config.group_size:
        raise ConfigError(
            f"gaussian: expected instances_per_class to be a multiple of group_size {config.group_size}, got "
            f"{config.instances_per_class}; change either"
        )
