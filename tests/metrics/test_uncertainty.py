from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sharedlabel.errors import DataError
from sharedlabel.metrics import _variance
from sharedlabel.metrics.behrens_fisher import p_value
from sharedlabel.metrics.intervals import interval
from sharedlabel.metrics.uncertainty import (
    draw_multipliers,
    estimate,
    independent,
    replicate,
    seed_average,
)
from sharedlabel.rng import generator
from sharedlabel.types import Tuples

PREFIXES = (1, 4, 8)
ONSET = torch.tensor([1.0, 2.5, 3.5], dtype=torch.float64)


def cut(class_size: int, classes: int, partitions: int, width: int, generator: torch.Generator) -> Tuples:
    """Shuffle each class and cut it into disjoint tuples, once per partition."""
    count = class_size // width
    order = torch.rand(partitions, classes, class_size, generator=generator).argsort(dim=2)
    offset = torch.arange(classes)[:, None] * class_size
    indices = (order + offset)[:, :, : count * width].reshape(partitions, classes * count, width)
    labels = torch.arange(classes).repeat_interleave(count).expand(partitions, -1).contiguous()
    return Tuples(indices, labels, torch.full(labels.shape, 1 / labels.shape[1]))


def simulate(quality: Tensor, tuples: Tuples, kind: str) -> Tensor:
    """Score tuples by the summed quality of their images, `[p t k]`: right or wrong, or a log-likelihood."""
    summed = quality[tuples.indices].cumsum(dim=2)[:, :, [n - 1 for n in PREFIXES]]
    if kind == "right":
        return (summed + ONSET > 0).double()
    return torch.nn.functional.logsigmoid(summed + ONSET)


def _brute_force(scores: Tensor, tuples: Tuples, n: int, classes: int) -> float:
    """The formula of the module, with explicit loops over pairs of tuples in different partitions."""
    partitions, count = tuples.labels.shape
    total = 0.0
    for label in range(classes):
        own = [(p, t) for p in range(partitions) for t in range(count) if tuples.labels[p, t] == label]
        prior = sum(float(tuples.weights[p, t]) for p, t in own) / partitions
        mean = sum(float(scores[p, t]) for p, t in own) / len(own)
        held = {(p, t): set(tuples.indices[p, t, :n].tolist()) for p, t in own}
        products = pairs = 0.0
        for a, b in itertools.product(own, own):
            if a[0] != b[0]:
                shared = len(held[a] & held[b])
                products += shared * (float(scores[a]) - mean) * (float(scores[b]) - mean)
                pairs += shared
        size = len({i for p, t in own for i in tuples.indices[p, t].tolist()})
        zeta = products / max(pairs, 1) * size * (size - 1) / (size - n) ** 2
        spread = sum((float(scores[pt]) - mean) ** 2 for pt in own) / len(own)
        variance = (1 - 1 / partitions) * n**2 / size * zeta + spread / len(own)
        total += prior**2 * variance / (1 - 1 / len(own))
    return max(total, _brute_force_floor(scores, tuples, n))


def _brute_force_floor(scores: Tensor, tuples: Tuples, n: int) -> float:
    """Three quarters of the squared influences, less what other instances of the tuples add by chance."""
    partitions, count = tuples.labels.shape
    squares = 0.0
    for image in range(int(tuples.indices.max()) + 1):
        own = [(p, t) for p in range(partitions) for t in range(count) if image in tuples.indices[p, t, :n]]
        if own:
            label = tuples.labels[own[0]]
            same = tuples.labels == label
            size = len(tuples.indices[same].unique())
            mean = float(scores[same].mean())
            prior = float(tuples.weights[same].sum()) / partitions
            held = sum(float(scores[at]) - mean for at in own) / len(own)
            squares += (prior * n / size * held) ** 2
    return 0.75 * squares / (1 + (n - 1) / partitions)


@pytest.mark.parametrize("partitions", [1, 4])
def test_standard_error_by_brute_force(partitions: int) -> None:
    stream = generator(0, "brute", partitions)
    tuples = cut(11, 3, partitions, 3, stream)
    weights = torch.tensor([0.5, 0.3, 0.2])[tuples.labels] / 3
    tuples = Tuples(tuples.indices, tuples.labels, weights)
    quality = torch.randn(33, generator=stream, dtype=torch.float64)
    prefixes = (1, 3)
    scores = quality[tuples.indices].cumsum(2)[:, :, [0, 2]] + torch.randn(partitions, 9, 2, generator=stream)
    estimated = estimate(scores, tuples, prefixes, instances=33)
    expected = [_brute_force(scores[:, :, k], tuples, n, 3) ** 0.5 for k, n in enumerate(prefixes)]
    assert estimated.se.tolist() == pytest.approx(expected, rel=1e-5)
    assert estimated.mean.tolist() == pytest.approx((scores * weights[..., None]).sum((0, 1)).div(partitions).tolist())


@pytest.mark.parametrize(
    ("kernel", "tolerance"), [(lambda pair: pair.sum(2), 0.02), (lambda pair: pair[:, :, 0] * pair[:, :, 1], 0.15)]
)
def test_variance_of_a_tiny_u_statistic(kernel: Callable[[Tensor], Tensor], tolerance: float) -> None:
    """Six binary images, two random matchings into pairs, all outcomes: the mean SE^2 is the variance of the mean.

    For a score that adds up over images only the floor of SE^2 keeps it from being exact, and that errs upwards.
    """
    matchings = sorted(
        {
            tuple(sorted(tuple(sorted(order[i : i + 2])) for i in (0, 2, 4)))
            for order in itertools.permutations(range(6))
        }
    )
    labels = torch.zeros(2, 3, dtype=torch.int64)
    estimates = []
    for partner in matchings:
        indices = torch.tensor([matchings[0], partner])
        tuples = Tuples(indices, labels, torch.full((2, 3), 1 / 3))
        for values in itertools.product((0.0, 1.0), repeat=6):
            scores = kernel(torch.tensor(values, dtype=torch.float64)[indices])
            estimates.append(estimate(scores[..., None], tuples, (2,), instances=6))
    assert len(estimates) == 15 * 64
    means = torch.cat([one.mean for one in estimates])
    promised = torch.cat([one.se for one in estimates]).square().mean()
    assert promised.item() == pytest.approx(means.var(correction=0).item(), rel=tolerance)


@pytest.fixture(scope="module")
def coverage() -> dict[str, Tensor]:
    """Share of nominal 95% intervals that hold the truth, over fresh images; and of naive ones."""
    stream, repetitions, size, classes = generator(0, "coverage"), 400, 200, 3
    result = {}
    for kind in ("right", "loss"):
        many = cut(8 * 100_000, 1, 1, 8, stream)
        truth = simulate(torch.randn(800_000, generator=stream, dtype=torch.float64), many, kind).mean((0, 1))
        held, naive = torch.zeros(3), torch.zeros(3)
        for _ in range(repetitions):
            tuples = cut(size, classes, 10, 8, stream)
            quality = torch.randn(size * classes, generator=stream, dtype=torch.float64)
            scores = simulate(quality, tuples, kind)
            estimated = estimate(scores, tuples, PREFIXES, size * classes)
            low, high = interval(estimated.mean, estimated.spread)
            held += (low <= truth) & (truth <= high)
            flat = scores.flatten(0, 1)
            naive += (estimated.mean - truth).abs() <= 1.96 * flat.std(0) / len(flat) ** 0.5
        result[kind], result["naive " + kind] = held / repetitions, naive / repetitions
    return result


@pytest.mark.parametrize("kind", ["right", "loss"])
def test_intervals_cover_fresh_images(coverage: dict[str, Tensor], kind: str) -> None:
    assert coverage[kind].min() >= 0.91
    assert coverage[kind].max() <= 0.98


@pytest.mark.parametrize("kind", ["right", "loss"])
def test_tuples_taken_as_independent_do_not_cover(coverage: dict[str, Tensor], kind: str) -> None:
    assert coverage["naive " + kind].max() < 0.9
    assert coverage["naive " + kind][-1] < 0.7


def _small(seeds: int = 1) -> tuple[Tensor, Tuples]:
    stream = generator(1, "small")
    tuples = cut(40, 2, 3, 8, stream)
    quality = torch.randn(seeds, 80, generator=stream, dtype=torch.float64)
    return torch.stack([simulate(one, tuples, "loss") for one in quality]), tuples


def test_the_floor_of_a_variance_allows_for_what_other_instances_add() -> None:
    """Of two partitions, tuples of five: each squared influence holds 1 + 4 / 2 times its own part."""
    prefixes = torch.tensor([1.0, 5.0], dtype=torch.float64)
    assert _variance.floor_share(prefixes, 2).tolist() == pytest.approx([0.75, 0.75 / 3])


def test_influence_squares_to_the_variance() -> None:
    scores, tuples = _small(seeds=3)
    for estimated in (
        estimate(scores[0], tuples, PREFIXES, 80),
        estimate(scores[0, :, :, :1], _singles(tuples), (1,), 80, torch.arange(80) // 4),
        seed_average(scores, tuples, PREFIXES, 80),
    ):
        torch.testing.assert_close(estimated.influence.square().sum(0), estimated.se.square())


def _singles(tuples: Tuples) -> Tuples:
    return Tuples(tuples.indices[:, :, :1], tuples.labels, tuples.weights)


def test_one_partition_of_single_instances_is_the_stratified_textbook_case() -> None:
    stream = generator(2, "textbook")
    tuples = cut(30, 2, 1, 1, stream)
    scores = torch.randn(1, 60, 1, generator=stream, dtype=torch.float64)
    estimated = estimate(scores, tuples, (1,), 60)
    by_class = scores.view(2, 30)
    assert estimated.se.item() == pytest.approx((by_class.var(1) / 30 / 4).sum().sqrt().item(), rel=1e-6)
    assert estimated.spread.image_freedom.item() == 58


def test_groups_that_span_classes_are_the_units() -> None:
    """Speakers say every class once: the standard error is that of the speakers' means."""
    speakers, classes = 5, 3
    stream = generator(3, "speakers")
    scores = torch.randn(1, speakers * classes, 1, generator=stream, dtype=torch.float64)
    clusters = torch.arange(speakers).repeat_interleave(classes)
    labels = torch.arange(classes).repeat(speakers)[None]
    tuples = Tuples(torch.arange(15)[None, :, None], labels, torch.full((1, 15), 1 / 15))
    estimated = estimate(scores, tuples, (1,), 15, clusters)
    means = scores.view(speakers, classes).mean(1)
    assert estimated.se.item() == pytest.approx((means.std() / speakers**0.5).item(), rel=1e-6)
    assert estimated.spread.image_freedom.item() == 4
    assert estimated.influence.shape == (5, 1)


def test_groups_inside_classes_are_compared_within_their_class() -> None:
    """Three specimens of each of two classes, two tuples each: the textbook stratified cluster sample."""
    stream = generator(4, "specimens")
    scores = torch.randn(1, 12, 1, generator=stream, dtype=torch.float64)
    tuples = Tuples(
        torch.arange(12)[None, :, None], torch.arange(2).repeat_interleave(6)[None], torch.full((1, 12), 1 / 12)
    )
    estimated = estimate(scores, tuples, (1,), 12, torch.arange(6).repeat_interleave(2))
    means = scores.view(2, 3, 2).mean(2)
    assert estimated.se.item() == pytest.approx((means.var(1) / 3 / 4).sum().sqrt().item(), rel=1e-6)
    assert estimated.spread.image_freedom.item() == 4


def test_a_class_with_one_group_is_taken_to_vary_as_the_others() -> None:
    scores = torch.tensor([0.0, 1.0, 0.5], dtype=torch.float64).view(1, 3, 1)
    tuples = Tuples(torch.arange(3)[None, :, None], torch.tensor([[0, 0, 1]]), torch.tensor([[0.25, 0.25, 0.5]]))
    estimated = estimate(scores, tuples, (1,), 3, torch.arange(3))
    assert estimated.se.square().item() == pytest.approx(2 * 0.25 * 0.5 / 2)


def test_seeds_add_their_spread() -> None:
    scores, tuples = _small()
    shifted = torch.cat([scores - 0.1, scores + 0.1])
    images = estimate(scores[0], tuples, PREFIXES, 80)
    both = seed_average(shifted, tuples, PREFIXES, 80)
    torch.testing.assert_close(both.mean, images.mean)
    torch.testing.assert_close(both.se.square(), images.se.square() + 0.1**2)
    torch.testing.assert_close(both.spread.of_seeds, torch.full_like(both.mean, 0.1**2))
    assert both.spread.seed_freedom.tolist() == [1, 1, 1]
    one = seed_average(scores, tuples, PREFIXES, 80)
    torch.testing.assert_close(one.se, images.se)


def test_paired_difference_cancels_what_methods_share() -> None:
    scores, tuples = _small()
    better = scores + 0.01 * (1 + scores)
    separate = estimate(scores[0], tuples, PREFIXES, 80)
    gain = seed_average(better - scores, tuples, PREFIXES, 80)
    torch.testing.assert_close(gain.se, 0.01 * separate.se)
    assert (p_value(gain.mean, gain.spread) < 1e-3).all()
    same = seed_average(scores - scores, tuples, PREFIXES, 80)
    assert p_value(same.mean, same.spread).tolist() == [1.0, 1.0, 1.0]


def test_bootstrap_keeps_the_pairing() -> None:
    scores, tuples = _small()
    first = estimate(scores[0], tuples, PREFIXES, 80)
    second = estimate(scores[0] * 2 + 1, tuples, PREFIXES, 80)
    drawn = replicate([first, second], draw_multipliers(4000, 80, generator(5)))
    assert drawn.shape == (4000, 2, 3)
    torch.testing.assert_close(drawn[:, 1], drawn[:, 0] * 2 + 1)
    torch.testing.assert_close(drawn[:, 0].std(0), first.se, rtol=0.05, atol=0)
    torch.testing.assert_close(drawn[:, 0].mean(0), first.mean, rtol=0, atol=float(first.se.max()) / 15)


def test_a_replicate_is_the_mean_plus_what_its_multipliers_weigh() -> None:
    scores, tuples = _small()
    estimated = estimate(scores[0], tuples, PREFIXES, 80)
    multipliers = torch.arange(2 * 90, dtype=torch.float64).view(2, 90)  # of ten units more
    expected = torch.stack([estimated.mean + (line[:80, None] * estimated.influence).sum(0) for line in multipliers])
    torch.testing.assert_close(replicate([estimated], multipliers)[:, 0], expected)


@pytest.mark.parametrize("seeds", [1, 2, 4])
def test_multipliers_of_seeds_have_students_tails(seeds: int) -> None:
    """Gaussian ones of all units first; one chi-square per replicate then, of the degrees of freedom of the seeds."""
    drawn, again = draw_multipliers(5, 9, generator(6), seeds), generator(6)
    plain = torch.randn(5, 9, generator=again, dtype=torch.float64)
    factor = torch.ones(5, dtype=torch.float64)
    if seeds > 1:
        normal = torch.randn(5, seeds - 1, generator=again, dtype=torch.float64)
        factor = ((seeds - 1) / (normal**2).sum(1)).sqrt()
    torch.testing.assert_close(drawn[:, : 9 - seeds], plain[:, : 9 - seeds])
    torch.testing.assert_close(drawn[:, 9 - seeds :], plain[:, 9 - seeds :] * factor[:, None])


def test_tuples_that_share_nothing_are_counted() -> None:
    assert independent((1, 4, 2.5), 80).tolist() == pytest.approx([80, 20, 32])
    assert independent((1, 4, 40), 80, torch.arange(80) // 4).tolist() == pytest.approx([20, 20, 2])


def test_columns_can_be_taken_alone() -> None:
    scores, tuples = _small(seeds=3)
    whole = seed_average(scores, tuples, PREFIXES, 80)
    some, alone = whole[slice(1, 3)], seed_average(scores[..., 1:3], tuples, PREFIXES[1:3], 80)
    torch.testing.assert_close(some.mean, alone.mean)
    torch.testing.assert_close(some.se, alone.se)
    torch.testing.assert_close(some.influence, alone.influence)


def test_seeds_of_grouped_tuples_add_to_the_groups_spread() -> None:
    scores, tuples = _small(seeds=4)
    given = scores[..., :1], _singles(tuples), (1,), 80, torch.arange(80) // 4
    averaged, groups = seed_average(*given), estimate(given[0].mean(0), *given[1:])
    torch.testing.assert_close(averaged.spread.of_images, groups.spread.of_images)
    torch.testing.assert_close(averaged.spread.image_freedom, groups.spread.image_freedom)
    means = (scores[..., 0] * tuples.weights).sum((1, 2)) / tuples.weights.sum()
    assert averaged.spread.of_seeds.item() == pytest.approx((means.var() / 4).item())
    assert averaged.spread.seed_freedom.tolist() == [3]


def test_user_errors() -> None:
    scores, tuples = _small()
    with pytest.raises(DataError, match=r"scores \[p t k\] with k = 2, got \[3, 10, 3\]"):
        estimate(scores[0], tuples, (1, 4), 80)
    with pytest.raises(DataError, match="tuples that span groups"):
        estimate(scores[0], tuples, PREFIXES, 80, torch.arange(80) // 4)
    with pytest.raises(DataError, match="two groups or more"):
        estimate(scores[0], tuples, PREFIXES, 80, torch.arange(80) // 40)
    lonely = Tuples(torch.arange(6)[None].view(1, 3, 2), torch.tensor([[0, 0, 1]]), torch.full((1, 3), 1 / 3))
    with pytest.raises(DataError, match="one of label 1"):
        estimate(torch.zeros(1, 3, 1), lonely, (2,), 6)
