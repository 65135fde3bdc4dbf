"""Tuples of groups of any size: at every n those count that reach it, and what comes after their end never does."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from sharedlabel import plugins, rng
from sharedlabel.aggregators._base import statistics
from sharedlabel.config import resolve
from sharedlabel.data.tuples import partition
from sharedlabel.metrics import paired, uncertainty
from sharedlabel.metrics.calibration import temperatures
from sharedlabel.metrics.intervals import interval
from sharedlabel.scoring import thresholds
from sharedlabel.scoring.scores import posterior_over, score
from sharedlabel.training.aggregator import AggregatorTraining
from sharedlabel.training.aggregator import averaged as averaged_loss
from sharedlabel.training.loaders import TupleLoader, weighed
from sharedlabel.types import SetShape, Tuples

N = (1, 2, 3, 5)
PRIOR = torch.tensor([0.6, 0.4], dtype=torch.float64)


@pytest.fixture
def known() -> SimpleNamespace:
    """Instances of groups of one to nine, ragged tuples of them, and embeddings and logits."""
    draw = rng.generator(0, "known")
    sizes = torch.randint(1, 10, (60,), generator=draw)
    groups = torch.arange(60).repeat_interleave(sizes)
    labels = (groups % 2).long()
    drawn = partition(labels, max(N), 3, PRIOR, rng.generator(1), groups, short=True)
    embeddings = torch.randn(len(labels), 6, generator=draw) + labels[:, None]
    logits = torch.randn(len(labels), 2, generator=draw) + 2 * torch.nn.functional.one_hot(labels)
    return SimpleNamespace(labels=labels, groups=groups, drawn=drawn, embeddings=embeddings, logits=logits)


def aggregator(known: SimpleNamespace, name: str) -> torch.nn.Module:
    plugin = resolve("aggregators", name)
    with rng.seeded(0, name):
        shape = SetShape(*statistics(known.embeddings), PRIOR.log().float())
        return plugins.load("aggregators", plugin.name).build(plugin.config, shape).eval()


@pytest.mark.parametrize("name", ["log_pool", "lstm", "set_transformer"])
def test_a_tuple_scores_the_same_alone_and_beside_a_longer_one(known, name):
    """Posteriors of ragged tuples are those of the same tuples without padding."""
    model = aggregator(known, name)
    posterior = posterior_over(model, (known.embeddings, known.logits), known.drawn, N)
    posterior = posterior.unflatten(0, known.drawn.labels.shape)
    for part, rows in zip(posterior, known.drawn.indices, strict=True):
        for own, row, length in zip(part, rows, known.drawn.lengths.tolist(), strict=True):
            chosen = row[:length]
            alone = model(known.embeddings[chosen][None], known.logits[chosen][None])[0]
            for column, size in enumerate(N):
                last = max(one for one in N if one <= min(size, length))
                torch.testing.assert_close(own[column], alone[last - 1], atol=1e-5, rtol=1e-5)


def test_scores_at_every_n_are_those_of_the_tuples_that_reach_it(known):
    model = aggregator(known, "log_pool")
    posterior = posterior_over(model, (known.embeddings, known.logits), known.drawn, N)
    fitted = temperatures(posterior, known.drawn, N, known.groups)
    scored = score(posterior, known.drawn, PRIOR, N, len(known.labels), known.groups, fitted)
    parts = posterior.unflatten(0, known.drawn.labels.shape)
    for column, size in enumerate(N):
        drawn = known.drawn.reaching(size)
        own = parts[:, : drawn.labels.shape[1], [column]].flatten(0, 1)
        used = known.groups[drawn.indices[:, :, 0]].unique()
        groups = torch.where(torch.isin(known.groups, used), known.groups, used[0])  # as many as have a tuple
        alone = score(own, drawn, PRIOR, [size], len(known.labels), groups, fitted[[column]])
        expected = alone.metrics[0]
        assert scored.metrics[column] == pytest.approx(expected, rel=1e-6, abs=1e-9)
        shown = [one for one in scored.reliability if one["n"] == size]
        assert [one["calibrated"] for one in shown] == [True, False]
        assert [one["mass"] for one in shown] == [pytest.approx(one["mass"]) for one in alone.reliability]


def test_estimates_and_pairs_at_every_n_are_those_of_the_tuples_that_reach_it(known):
    drawn, draw = known.drawn, rng.generator(5)
    scores = torch.rand(3, 2, *drawn.labels.shape, len(N), generator=draw, dtype=torch.float64)  # [m s p t k]
    whole = uncertainty.seed_average(scores[0], drawn, N, len(known.labels), known.groups)
    pairs = paired.all_pairs(scores, drawn, N, len(known.labels), known.groups)
    for column, size in enumerate(N):
        own = drawn.reaching(size)
        some = scores[..., : own.labels.shape[1], [column]]
        alone = uncertainty.seed_average(some[0], own, [size], len(known.labels), known.groups)
        for got, expected in ((whole[slice(column, column + 1)], alone),):
            torch.testing.assert_close(got.mean, expected.mean)
            torch.testing.assert_close(got.influence, expected.influence)
            assert all(
                torch.equal(getattr(got.spread, name), getattr(expected.spread, name))
                for name in ("image_freedom", "seed_freedom")
            )
        differences = paired.all_pairs(some, own, [size], len(known.labels), known.groups)
        torch.testing.assert_close(pairs.difference[..., [column]], differences.difference)
        torch.testing.assert_close(pairs.spread.of_images[..., [column]], differences.spread.of_images)
        torch.testing.assert_close(pairs.spread.image_freedom[..., [column]], differences.spread.image_freedom)


def test_tuples_that_share_nothing_are_counted_at_every_n(known):
    reached = [len(known.groups.unique()) for _ in N]
    sizes = torch.bincount(known.groups)
    reached = [int((sizes >= size).sum()) for size in N]
    counted = uncertainty.independent(N, len(known.labels), known.groups, known.drawn)
    expected = [min(len(known.labels) / size, count) for size, count in zip(N, reached, strict=True)]
    assert counted.tolist() == pytest.approx(expected)


def test_the_average_over_n_has_the_mean_and_the_spread_of_the_average(known):
    """By the influence of each group on it, with the fewest degrees of freedom of any n."""
    drawn, draw = known.drawn, rng.generator(6)
    scores = torch.rand(3, 2, *drawn.labels.shape, len(N), generator=draw, dtype=torch.float64)  # [m s p t k]
    given = drawn, N, len(known.labels), known.groups
    columns = [1, 3]
    for own in scores:
        every = uncertainty.seed_average(own, *given)
        whole = every.with_average(columns, seeds=2)
        torch.testing.assert_close(whole[slice(len(N))].influence, every.influence)
        last = whole[slice(len(N), None)]
        torch.testing.assert_close(last.mean, every.mean[columns].mean(0, keepdim=True))
        torch.testing.assert_close(last.influence[:, 0], every.influence[:, columns].mean(1))
        torch.testing.assert_close(last.spread.se, last.influence.square().sum(0).sqrt())
        assert float(last.spread.image_freedom) == float(every.spread.image_freedom[columns].min())
    pairs = paired.all_pairs(scores, *given, columns)
    apart = uncertainty.seed_average(scores[2] - scores[0], *given).with_average(columns, seeds=2)
    torch.testing.assert_close(pairs.difference[2, 0], apart.mean)
    for name in ("of_images", "image_freedom", "of_seeds"):
        torch.testing.assert_close(getattr(pairs.spread, name)[2, 0], getattr(apart.spread, name))


def test_the_interval_of_an_average_over_n_knows_that_few_groups_reach_the_largest():
    """Two classes of twenty groups of one instance and two of eight: nominal intervals hold in most repetitions."""
    sizes = torch.tensor(([1] * 20 + [8] * 2) * 2)
    groups = torch.arange(len(sizes)).repeat_interleave(sizes)
    labels = (groups >= len(sizes) // 2).long()
    prior, n = torch.tensor([0.5, 0.5], dtype=torch.float64), (1, 2, 4, 8)
    drawn = partition(labels, 8, 1, prior, rng.generator(0), groups, short=True)
    covered = 0
    for at in range(200):
        scores = torch.randn(1, *drawn.labels.shape, len(n), generator=rng.generator(at), dtype=torch.float64)
        made = uncertainty.seed_average(scores, drawn, n, len(labels), groups).with_average([0, 1, 2, 3], 1)
        low, high = interval(made.mean[-1:], made.spread[-1:])
        covered += int(low <= 0 <= high)
    assert covered >= 180


def test_a_temperature_looks_at_the_tuples_that_reach_its_n(known):
    """What stands after the end of a tuple changes no temperature."""
    model = aggregator(known, "log_pool")
    posterior = posterior_over(model, (known.embeddings, known.logits), known.drawn, N)
    spoilt = posterior.unflatten(0, known.drawn.labels.shape).clone()
    beyond = known.drawn.lengths[:, None] < torch.tensor(N)
    spoilt[:, beyond] = torch.tensor([0.9, 0.1]).log()
    assert beyond.any()
    usual, other = (
        temperatures(one, known.drawn, N, known.groups) for one in (posterior, spoilt.flatten(0, 1).to(posterior))
    )
    torch.testing.assert_close(usual, other)


def test_a_batch_weighs_every_class_by_its_prior_at_every_n_and_nothing_beyond_the_end(known):
    sources = (known.embeddings, known.logits)
    given = (sources, known.labels, max(N), 1000, PRIOR, 0, known.groups)

    def form(*args: object) -> Tuples:
        return partition(*args, short=True)  # type: ignore[arg-type]

    ((_, _, labels, weights),) = list(TupleLoader(*given, form=form))
    assert weights.shape == (len(labels), max(N))
    mass = torch.zeros(2, max(N)).index_add_(0, labels, weights) / len(labels)
    torch.testing.assert_close(mass, PRIOR.float()[:, None].expand(-1, max(N)))
    lengths = (weights > 0).sum(1)
    assert bool((weights > 0).int().diff(dim=1).le(0).all())  # no gap
    assert sorted(lengths.tolist(), reverse=True) == known.drawn.lengths.tolist()
    assert not torch.equal(lengths, lengths.sort(descending=True).values)  # no batch is of long tuples alone
    whole = list(TupleLoader(*given))
    assert whole[0][3].shape == (len(whole[0][2]),)


def test_a_loss_does_not_look_beyond_the_end_of_a_tuple(known):
    weights = weighed(known.drawn)
    losses = torch.rand(len(weights), len(N), generator=rng.generator(2))
    importance = torch.tensor([0.1, 0.2, 0.3, 0.4])
    usual = averaged_loss(losses, importance, weights, N)
    lengths = known.drawn.lengths.repeat(len(known.drawn.labels))
    beyond = lengths[:, None] < torch.tensor(N)
    torch.testing.assert_close(averaged_loss(losses.masked_fill(beyond, 1e6), importance, weights, N), usual)
    by_hand = sum(
        float(share) * float((losses[:, column] * weights[:, size - 1]).mean())
        for column, (size, share) in enumerate(zip(N, importance, strict=True))
    )
    assert float(usual) == pytest.approx(by_hand, rel=1e-5)


@pytest.mark.parametrize("name", ["tempered_log_pool", "random_effect_pool", "kalman_pool", "precision_pool"])
def test_what_is_fitted_directly_looks_at_every_prefix_that_there_is_and_at_no_other(known, name):
    def fitted(embeddings: Tensor, logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        model = aggregator(known, name)
        assert type(model).fits_ragged
        model.fit(embeddings, logits, labels, weights)
        return torch.cat([one.detach().flatten() for one in model.parameters()])

    index, labels, weights = known.drawn.indices.flatten(0, 1), known.drawn.labels.flatten(), weighed(known.drawn)
    given = known.embeddings[index], known.logits[index]
    usual = fitted(*given, labels, weights)
    if name != "precision_pool":  # whose signs are standardised over all that it is given
        lengths = known.drawn.lengths.repeat(len(known.drawn.labels))
        beyond = torch.arange(max(N)) >= lengths[:, None]
        spoilt = given[1].masked_fill(beyond[..., None], 7.0)
        torch.testing.assert_close(fitted(given[0], spoilt, labels, weights), usual, atol=1e-3, rtol=1e-3)
    full = weights[:, -1] > 0
    alone = fitted(given[0][full], given[1][full], labels[full], weights[full, -1])
    assert not torch.allclose(alone, usual, atol=1e-3)  # short groups say something
    same = fitted(given[0][full], given[1][full], labels[full], weights[full, -1:].expand(-1, max(N)))
    torch.testing.assert_close(same, alone, atol=1e-3, rtol=1e-3)


def test_an_aggregator_learns_from_ragged_tuples(known):
    with rng.seeded(0, "training"):
        module = AggregatorTraining(aggregator(known, "gru"), learning_rate=0.01)
    sources = (known.embeddings, known.logits)
    loader = TupleLoader(
        sources, known.labels, max(N), 20, PRIOR, 0, known.groups, form=lambda *args: partition(*args, short=True)
    )
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.01)
    losses: list[float] = []
    for _ in range(20):
        for batch in loader:
            optimizer.zero_grad()
            loss: Tensor = module.training_step(batch)
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_nobody_stops_after_the_last_instance_and_nothing_changes_there(known):
    every = range(1, max(N) + 1)
    posterior = posterior_over(aggregator(known, "log_pool"), (known.embeddings, known.logits), known.drawn, every)
    fitted = {"aggregator": temperatures(posterior, known.drawn, every, known.groups)}
    seen = thresholds.watch({"aggregator": posterior}, known.drawn, fitted, ["threshold"])
    lengths = known.drawn.lengths.repeat(len(known.drawn.labels))
    for name in ("right", "information"):
        values: Tensor = getattr(seen, name)
        last = values.gather(1, lengths[:, None] - 1)
        beyond = torch.arange(max(N)) >= lengths[:, None]
        assert torch.equal(values[beyond], last.expand_as(values)[beyond])
    limits = thresholds.fit(seen, known.drawn, [0.2], known.groups)
    stops = thresholds.stop(seen, limits)
    assert bool((stops.instances <= lengths[:, None]).all())
    assert bool((stops.instances == lengths[:, None])[~stops.reached].all())
