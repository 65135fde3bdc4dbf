from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from torch import Tensor

from sharedlabel import rng
from sharedlabel.config import resolve
from sharedlabel.data import gaussian
from sharedlabel.data.gaussian import Config
from sharedlabel.data.tuples import partition, prior
from sharedlabel.errors import ConfigError
from sharedlabel.types import Dataset

CONFIG = Config(
    classes=3, dim=2, separation=2.0, instances_per_class=12, group_size=4, nuisance=0.8, qualities=(0.5, 1.0, 2.0)
)
ROOT = Path("unused")


def brute_force(config: Config, dataset: Dataset, members: list[int], log_prior: Tensor) -> Tensor:
    """Posterior from the joint density of all instances: one multivariate normal per class and dimension."""
    rows = dataset.images.flatten(1).double().numpy()[members]
    x, sigma = rows[:, :-1], np.exp(rows[:, -1])
    groups = np.array(members) if dataset.groups is None else dataset.groups.numpy()[members]
    covariance = np.diag(sigma**2) + config.nuisance**2 * (groups[:, None] == groups[None, :])
    means = gaussian._means(config).double().numpy()
    joint = [
        sum(multivariate_normal.logpdf(x[:, axis], np.full(len(members), mean[axis]), covariance) for axis in range(2))
        for mean in means
    ]
    return (torch.tensor(np.array(joint)) + log_prior).log_softmax(0)


@pytest.mark.parametrize("config", [CONFIG, dataclasses.replace(CONFIG, group_size=1)], ids=["grouped", "iid"])
@pytest.mark.parametrize("nuisance", [0.0, 0.8, 3.0])
def test_posterior_is_the_brute_force_posterior_for_any_mixture_of_groups(config: Config, nuisance: float) -> None:
    config = dataclasses.replace(config, nuisance=nuisance)
    dataset = gaussian.load(config, ROOT)
    log_prior = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64).log()
    # One group, several groups interleaved, and instances of several classes: the formula may not care.
    indices = torch.tensor([[0, 1, 2, 3], [0, 4, 1, 5], [9, 3, 8, 0], [0, 13, 26, 14], [35, 34, 20, 33]])
    posterior = gaussian.exact_log_posterior(config, dataset, indices, log_prior)
    for row, members in enumerate(indices.tolist()):
        for k in range(4):
            expected = brute_force(config, dataset, members[: k + 1], log_prior)
            torch.testing.assert_close(posterior[row, k], expected, rtol=0, atol=1e-9)


def test_posterior_is_causal_and_normalised() -> None:
    dataset = gaussian.load(CONFIG, ROOT)
    indices = torch.tensor([[0, 1, 4, 2, 5]])
    log_prior = torch.full((3,), -math.log(3))
    full = gaussian.exact_log_posterior(CONFIG, dataset, indices, log_prior)
    other = gaussian.exact_log_posterior(CONFIG, dataset, torch.tensor([[0, 1, 4, 20, 30]]), log_prior)
    assert torch.equal(full[:, :3], other[:, :3])
    assert not torch.equal(full[:, 3:], other[:, 3:])
    torch.testing.assert_close(full.exp().sum(2), torch.ones(1, 5, dtype=torch.float64))


@pytest.mark.parametrize("grouped", [False, True])
def test_posterior_is_calibrated_so_the_data_follow_the_model(grouped: bool) -> None:
    config = Config(classes=5, dim=4, separation=2.0, instances_per_class=4000, group_size=8, nuisance=1.0)
    dataset = gaussian.load(config, ROOT)
    uniform = prior(dataset.labels, "uniform", 5)
    tuples = partition(dataset.labels, 4, 1, uniform, rng.generator(0), dataset.groups if grouped else None)
    posterior = gaussian.exact_log_posterior(config, dataset, tuples.indices[0], uniform.log())
    confidence, decision = posterior.exp().max(2)
    excess = (decision == tuples.labels[0][:, None]).double() - confidence
    error = excess.std(0) / math.sqrt(excess.shape[0])
    assert (excess.mean(0).abs() < 4 * error).all(), (excess.mean(0), error)


def test_dependent_instances_tell_less() -> None:
    config = Config(classes=5, dim=4, instances_per_class=800, group_size=8, nuisance=1.0)
    dataset = gaussian.load(config, ROOT)
    uniform = prior(dataset.labels, "uniform", 5)
    score = []
    for groups in (None, dataset.groups):
        tuples = partition(dataset.labels, 8, 1, uniform, rng.generator(0), groups)
        posterior = gaussian.exact_log_posterior(config, dataset, tuples.indices[0], uniform.log())
        score.append(posterior[:, -1].gather(1, tuples.labels[0][:, None]).mean().item())
    assert score[0] > score[1] + 0.1


def test_shapes_groups_and_observed_quality() -> None:
    dataset = gaussian.load(CONFIG, ROOT)
    assert dataset.images.shape == (36, 3, 1, 1)
    assert dataset.images.dtype == torch.float32
    assert dataset.groups is not None
    assert torch.bincount(dataset.groups).tolist() == [4] * 9
    assert (dataset.labels == dataset.groups // 3).all()
    observed = sorted(dataset.images[:, -1].exp().unique().tolist())
    assert observed == pytest.approx([0.5, 1.0, 2.0])
    assert gaussian.load(dataclasses.replace(CONFIG, group_size=1), ROOT).groups is None


def test_separation_is_the_root_mean_square_distance_of_means() -> None:
    means = gaussian._means(Config(classes=2000, dim=8, separation=3.0))
    squared = torch.pdist(means).square().mean()
    assert squared.sqrt().item() == pytest.approx(3.0, rel=0.02)


def test_means_depend_on_the_seed_alone() -> None:
    larger = dataclasses.replace(CONFIG, instances_per_class=40, nuisance=0.0)
    assert torch.equal(gaussian._means(CONFIG), gaussian._means(larger))
    assert not torch.equal(gaussian._means(CONFIG), gaussian._means(dataclasses.replace(CONFIG, seed=1)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": 1}, "data 'gaussian': classes: expected a whole number from 2 to 10000, got 1; the default is 10"),
        ({"dim": 0}, "dim: expected a whole number from 1 to 65536, got 0"),
        ({"nuisance": -0.5}, "nuisance: expected a number from 0 to 1000000, got -0.5"),
        ({"qualities": []}, r"qualities: expected a list of numbers .* with one item or more, got \[\]"),
        ({"qualities": [1.0, 0.0]}, "qualities.1: expected a number above 0 and at most 1000000, got 0.0"),
        ({"group_size": 5}, "multiple of group_size 5, got 12"),
    ],
)
def test_bad_options(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        gaussian.load(resolve("data", {"name": "gaussian", **dataclasses.asdict(CONFIG), **change}).config, ROOT)
