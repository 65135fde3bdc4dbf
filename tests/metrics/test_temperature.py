"""Temperatures on small validation splits: exact posteriors, right or distorted, drawn one by one or in groups."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy import optimize
from torch import Tensor

from sharedlabel import rng
from sharedlabel.data import gaussian, tuples
from sharedlabel.metrics import _temperature
from sharedlabel.metrics._temperature import Evidence, anchors
from sharedlabel.metrics._weights import independent_groups, independent_tuples
from sharedlabel.metrics.calibration import apply_temperature, fit_temperature, negative_log_likelihood, temperatures
from sharedlabel.plugins import load
from sharedlabel.scoring.scores import score
from sharedlabel.types import SetShape, Tuples

CLASSES, N_MAX, FRESH = 10, 8, 100
EVERY = range(1, N_MAX + 1)
PRIOR = torch.full((CLASSES,), 1 / CLASSES, dtype=torch.float64)


@dataclass(frozen=True)
class Split:
    """Tuples with their exact posteriors after every instance."""

    drawn: Tuples
    exact: Tensor
    clusters: Tensor | None

    def loss(self, posterior: Tensor, temperature: Tensor) -> Tensor:
        tempered = apply_temperature(posterior, temperature)
        return negative_log_likelihood(tempered, self.drawn.labels.flatten(), self.drawn.weights.flatten())


def splits(each: int, seed: int, groups: int = 0) -> tuple[Split, Split]:
    """Validation with some images of each class, in so many groups of each, and fresh images."""
    size = each // groups if groups else 1
    config = gaussian.Config(
        classes=CLASSES,
        separation=3.0 if groups else 5.0,
        instances_per_class=size * ((each + FRESH) // size),
        group_size=size,
        nuisance=0.7 if groups else 0.0,
        seed=seed,
    )
    dataset = gaussian.load(config, Path())
    position = torch.arange(config.instances_per_class).repeat(CLASSES)
    seen = position < (size * groups or each)

    def split(images: Tensor, name: str) -> Split:
        clusters = None if dataset.groups is None else dataset.groups[images]
        drawn = tuples.partition(dataset.labels[images], N_MAX, 5, PRIOR, rng.generator(seed, name), clusters)
        exact = gaussian.exact_log_posterior(config, dataset, images[drawn.indices.flatten(0, 1)], PRIOR.log())
        return Split(drawn, exact, clusters)

    return split(seen.nonzero().flatten(), "seen"), split((~seen).nonzero().flatten(), "fresh")


def fitted(split: Split, posterior: Tensor) -> Tensor:
    return temperatures(posterior, split.drawn, EVERY, split.clusters)


def test_exact_posteriors_keep_their_temperature_with_few_images() -> None:
    """The right answer is 1: 33 images of each class gave .28 to .43 at n = 5 to 8 when each n was fitted alone."""
    by_seed, ratios = [], []
    for seed in range(8):
        seen, fresh = splits(33, seed)
        temperature = fitted(seen, seen.exact)
        by_seed.append(temperature)
        ratios.append(fresh.loss(fresh.exact, temperature) / fresh.loss(fresh.exact, torch.ones(N_MAX)))
    median = torch.stack(by_seed).median(0).values
    assert 0.7 < float(median.min()) <= float(median.max()) < 1.4
    ratio = torch.stack(ratios)[:, :4].mean().item()  # beyond, nothing is left to lose
    assert ratio < 1.1


@pytest.mark.parametrize("power", [-1.0, 0.5])
def test_a_temperature_that_changes_with_n_is_found(power: float) -> None:
    """Averages of evidence need 1 / n; evidence that is counted too often needs more with every instance."""
    seen, fresh = splits(100, 0)
    distortion = torch.arange(1, N_MAX + 1, dtype=torch.float64)[:, None] ** power
    temperature = fitted(seen, seen.exact * distortion)
    assert (temperature / distortion[:, 0]).log().abs().max() < math.log(2.5)
    lost = fresh.loss(fresh.exact * distortion, temperature) - fresh.loss(fresh.exact, torch.ones(N_MAX))
    assert float(lost.max()) < 0.02


def test_two_groups_make_no_size_much_surer_than_the_next() -> None:
    """Two drawers: every answer is right from some n on, and its temperature alone fell from 1.26 to .058 there."""
    stream = rng.generator(0, "drawers")
    each, sizes = 30, 16
    labels = torch.arange(2 * each) // each
    signs = (2.0 * labels - 1)[:, None]
    evidence = (0.35 * signs + torch.randn(2 * each, sizes, generator=stream, dtype=torch.float64)).cumsum(1)
    evidence = torch.where(torch.arange(sizes) >= 12, evidence.abs() * signs, evidence)  # right from 13 on
    posterior = torch.stack([-evidence, evidence], dim=2).log_softmax(2)
    drawn = Tuples(
        torch.arange(2 * each * sizes).view(1, 2 * each, sizes), labels[None], torch.full((1, 2 * each), 1 / (2 * each))
    )
    clusters = labels.repeat_interleave(sizes)  # one drawer in each class
    temperature = temperatures(posterior, drawn, range(1, sizes + 1), clusters)
    steps = (temperature[1:] / temperature[:-1]).log().abs()
    assert float(steps.max()) < math.log(1.3)
    torn = torch.tensor([[[0.0, -1.0]]]).log_softmax(2)  # as after 8 + 8 images of two classes
    assert float(apply_temperature(torn, temperature[-1:]).exp().max()) < 0.9


@pytest.mark.parametrize("groups", [0, 4])
@pytest.mark.parametrize("factor", [0.01, 0.02, 7.0, 100.0])
def test_calibrated_scores_do_not_depend_on_the_scale(groups: int, factor: float) -> None:
    seen, fresh = splits(33, 0, groups)
    n = (1, 2, 4, 8)
    at = torch.tensor(n) - 1

    def ri(multiplier: float) -> list[float]:
        temperature, rows = None, []
        for one in (seen, fresh):
            posterior = (one.exact[:, at] * multiplier).log_softmax(2)
            scores = score(
                posterior, one.drawn, PRIOR, n, one.drawn.indices.unique().numel(), one.clusters, temperature
            )
            temperature, rows = scores.temperature, scores.metrics
        return [row["ri"] for row in rows]

    assert ri(factor) == pytest.approx(ri(1.0), abs=1e-6)


@pytest.mark.parametrize("name", ["log_pool", "mean_vote", "majority_vote", "max_vote", "mean_logit", "lstm"])
def test_no_aggregator_gains_by_a_factor(name: str) -> None:
    seen, fresh = splits(33, 1)
    module = load("aggregators", name)
    shape = SetShape(torch.zeros(3), torch.ones(3), PRIOR.log().float())
    with rng.seeded(0, "aggregator"):
        aggregator = module.build(module.Config(), shape).eval()
    by_factor: dict[float, list[float]] = {0.02: [], 1.0: [], 50.0: []}
    posteriors = []
    for one in (seen, fresh):
        stream = rng.generator(0, "embeddings")
        embeddings = torch.randn(*one.exact.shape[:2], 3, generator=stream)
        with torch.no_grad():
            posteriors.append(aggregator(embeddings, one.exact[:, :1].expand_as(one.exact).float()).double())
    for factor, ri in by_factor.items():
        temperature = None
        for one, posterior in zip((seen, fresh), posteriors, strict=True):
            scaled, images = (factor * posterior).log_softmax(2), one.drawn.indices.unique().numel()
            scores = score(scaled, one.drawn, PRIOR, tuple(EVERY), images, None, temperature)
            temperature = scores.temperature
            ri += [row["ri"] for row in scores.metrics]
    assert by_factor[0.02] == pytest.approx(by_factor[1.0], abs=1e-6)
    assert by_factor[50.0] == pytest.approx(by_factor[1.0], abs=1e-6)


def random_evidence(case: int, worth: float = 30.0, right: float = 0.7) -> tuple[Evidence, Tensor]:
    """What eight tuples of three sizes might say, scores of any scale and answers of any quality."""
    draw = rng.generator(case, "evidence")
    scale = (2 * torch.randn(8, 3, 1, generator=draw, dtype=torch.float64)).exp()
    raw = torch.randn(8, 3, 4, generator=draw, dtype=torch.float64) * scale
    scores = raw - raw.amax(2, keepdim=True)
    given = torch.randint(4, (8,), generator=draw)
    labels = torch.where(torch.rand(8, generator=draw) < right, scores[:, 2].argmax(1), given)
    mass = torch.rand(8, generator=draw, dtype=torch.float64)
    mass = mass / mass.sum()
    target = mass @ scores.gather(2, labels[:, None, None].expand(-1, 3, 1))[..., 0]
    return Evidence(scores, target, mass[:, None], worth * torch.tensor([1.0, 0.5, 3.0]).double()), torch.tensor(
        [2.0, 3, 9]
    )


def negative_log_likelihoods(evidence: Evidence, theta: Tensor) -> Tensor:
    """Of each size, written out tuple by tuple."""
    inverse, losses = theta.exp(), []
    for size in range(evidence.scores.shape[1]):
        tempered = evidence.scores[:, size] * inverse[size]
        losses.append((evidence.mass[:, 0] * tempered.exp().sum(1).log()).sum() - evidence.target[size] * inverse[size])
    return torch.stack(losses)


@pytest.mark.parametrize("theta", [-2.0, -0.5, 0.5, 1.5])
def test_slope_and_curvature_are_derivatives(theta: float) -> None:
    """Where the slope is negative the curvature is larger by it, so that it stays positive."""
    evidence, _ = random_evidence(0)
    at = torch.full((3,), theta, dtype=torch.float64, requires_grad=True)
    slope = torch.autograd.grad(negative_log_likelihoods(evidence, at).sum(), at, create_graph=True)[0]
    second = torch.autograd.grad(slope.sum(), at)[0]
    likelihood = _temperature._likelihood(evidence, at.detach())
    torch.testing.assert_close(likelihood.slope, slope.detach())
    torch.testing.assert_close(likelihood.curvature, (second - slope.clamp(max=0)).detach())
    assert (likelihood.curvature > 0).all()


def test_the_prior_of_sizes_written_out() -> None:
    sizes = torch.tensor([2.0, 3.0, 9.0], dtype=torch.float64)
    x = [math.log(size / 2) for size in (2, 3, 9)]
    covariance = torch.tensor([[1 + 0.25 * a * b + 0.09 * min(a, b) for a in x] for b in x], dtype=torch.float64)
    torch.testing.assert_close(_temperature._precision(sizes), covariance.inverse())


@pytest.mark.parametrize("case", range(12))
def test_the_search_finds_the_smallest_penalised_loss(case: int) -> None:
    """Of few tuples and many, all wrong and all right, by another optimiser on the loss written out."""
    evidence, sizes = random_evidence(case, worth=10.0 ** (case % 4), right=(0.0, 0.7, 1.0)[case % 3])
    first = evidence._replace(
        scores=evidence.scores[:, :1],
        target=(evidence.worth[0] * evidence.target[:1] + (evidence.mass[:, 0] @ evidence.scores[:, 0].mean(1)))
        / (evidence.worth[0] + 1),
    )

    def level(at: float) -> float:
        return float(negative_log_likelihoods(first, torch.tensor([at], dtype=torch.float64)))

    center = optimize.minimize_scalar(level, bounds=(-7, 7), method="bounded", options={"xatol": 1e-9}).x
    assert _temperature._center(evidence).item() == pytest.approx(center, abs=2e-5)
    precision = _temperature._precision(sizes.double())

    def loss(theta: Any) -> tuple[float, Any]:
        at = torch.tensor(theta, requires_grad=True)
        apart = at - center
        total = evidence.worth @ negative_log_likelihoods(evidence, at) + apart @ precision @ apart / 2
        return total.item(), torch.autograd.grad(total, at)[0].numpy()

    best = optimize.minimize(loss, [center] * 3, jac=True, method="BFGS", options={"gtol": 1e-9, "maxiter": 500})
    assert _temperature.search(evidence, sizes.double()).tolist() == pytest.approx(best.x.tolist(), abs=1e-4)


@pytest.mark.parametrize(("gap", "sign", "end"), [(1e-4, 1.0, 7.0), (1e4, -1.0, -7.0)], ids=["sure", "wrong"])
def test_the_level_has_ends(gap: float, sign: float, end: float) -> None:
    """Next to no difference that is always right asks for any factor; large ones that are always wrong for none."""
    scores = torch.tensor([[[0.0, -gap]], [[-gap, 0.0]]], dtype=torch.float64)
    right = 0.0 if sign > 0 else -gap
    evidence = Evidence(
        scores, torch.tensor([right]).double(), torch.full((2, 1), 0.5).double(), torch.tensor([1e12]).double()
    )
    assert _temperature._center(evidence).tolist() == [end]


def test_sizes_that_are_searched_for_and_what_each_adds() -> None:
    assert anchors([6, 5, 4, 3, 2, 1]) == [1, 2, 4, 6]
    assert anchors([3, 5, 6, 8, 9, 16, 17]) == [3, 8, 16, 17]
    assert anchors([7]) == [7]
    added = _temperature.separate(torch.tensor([1.0, 2.0, 3.0, 6.0, 24.0], dtype=torch.float64))
    assert added.tolist() == pytest.approx([1, 1, math.log2(1.5), 1, 1])


def test_partitions_and_groups_add_no_independent_tuples() -> None:
    labels = torch.arange(60) % 2
    groups = torch.arange(60) // 20
    once, often = (tuples.partition(labels, 4, parts, PRIOR[:2] * 5, rng.generator(0)) for parts in (1, 40))
    assert independent_tuples(once, (1, 2, 4)).tolist() == pytest.approx([14, 14, 14])
    assert independent_tuples(often, (1, 2, 4)).tolist() == pytest.approx([60, 30, 15])
    cut = tuples.partition(labels, 4, 40, PRIOR[:2] * 5, rng.generator(0), groups)
    assert independent_tuples(cut, (1, 2, 4), groups).tolist() == pytest.approx([6, 6, 6])  # 3 groups in 2 classes
    assert independent_groups(cut, groups) == pytest.approx(3)
    uneven = Tuples(torch.arange(4).view(1, 4, 1), torch.tensor([[0, 1, 1, 1]]), torch.tensor([[0.5, 0.5, 0, 0]]))
    assert independent_tuples(uneven, (1,)).tolist() == pytest.approx([2])


def test_a_posterior_of_no_information_is_left_alone() -> None:
    flat = torch.zeros(5, 2, 3)
    assert fit_temperature(flat, torch.tensor([0, 1, 2, 0, 1])).tolist() == [1.0, 1.0]
