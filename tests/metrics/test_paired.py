"""All pairs at once against one pair at a time."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from sharedlabel.data.tuples import partition
from sharedlabel.errors import DataError
from sharedlabel.metrics.behrens_fisher import p_value
from sharedlabel.metrics.paired import all_pairs
from sharedlabel.metrics.uncertainty import seed_average
from sharedlabel.rng import generator
from sharedlabel.types import Tuples

PREFIXES = (1, 4, 8)
METHODS = 4


def drawn(partitions: int = 3, groups: Tensor | None = None) -> Tuples:
    labels = torch.arange(240) % 3
    prior = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    return partition(labels, 8, partitions, prior, generator(0, "tuples"), groups)


def scores(tuples: Tuples, seeds: int) -> Tensor:
    """Methods that share most of their errors, with a column per prefix for each of two metrics."""
    stream = generator(1, "scores")
    shape = (*tuples.labels.shape, 2 * len(PREFIXES))
    return torch.rand(1, 1, *shape, generator=stream) + 0.1 * torch.rand(METHODS, seeds, *shape, generator=stream)


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("partitions", [1, 3])
@pytest.mark.parametrize("grouped", [False, True])
def test_every_pair_is_what_it_is_alone(seeds: int, partitions: int, grouped: bool) -> None:
    groups = torch.arange(240) // 60 if grouped else None
    tuples = drawn(partitions, groups)
    values = scores(tuples, seeds)
    pairs = all_pairs(values, tuples, PREFIXES * 2, 240, groups)
    for a, b in itertools.permutations(range(METHODS), 2):
        alone = seed_average(values[a].double() - values[b].double(), tuples, PREFIXES * 2, 240, groups)
        torch.testing.assert_close(pairs.difference[a, b], alone.mean)
        one, other = pairs.spread[a, b], alone.spread
        torch.testing.assert_close(one.of_images, other.of_images)
        torch.testing.assert_close(one.image_freedom, other.image_freedom)
        torch.testing.assert_close(one.of_seeds, other.of_seeds)
        assert seeds == 1 or torch.equal(one.seed_freedom, other.seed_freedom)
        torch.testing.assert_close(p_value(pairs.difference[a, b], one), p_value(alone.mean, alone.spread))


def test_a_method_does_not_differ_from_itself_or_its_copy() -> None:
    tuples = drawn()
    values = scores(tuples, 2)
    pairs = all_pairs(torch.cat([values, values[:1]]), tuples, PREFIXES * 2, 240)
    assert pairs.difference[0, METHODS].abs().max() == 0
    assert pairs.spread[0, METHODS].se.max() < 1e-8
    assert p_value(pairs.difference, pairs.spread).diagonal().min() == 1


def test_close_methods_lose_no_digits() -> None:
    """The variance of a tiny difference is not the rounding of two large variances."""
    tuples = drawn()
    values = scores(tuples, 3)
    pair = torch.stack([values[0], values[0] + 1e-5 * values[1]]).double()
    alone = seed_average(pair[1] - pair[0], tuples, PREFIXES * 2, 240)
    pairs = all_pairs(pair, tuples, PREFIXES * 2, 240)
    torch.testing.assert_close(pairs.spread[1, 0].se, alone.se, rtol=1e-6, atol=0)


def test_user_errors() -> None:
    lonely = Tuples(torch.arange(6)[None].view(1, 3, 2), torch.tensor([[0, 0, 1]]), torch.full((1, 3), 1 / 3))
    with pytest.raises(DataError, match="one of label 1"):
        all_pairs(torch.zeros(2, 1, 1, 3, 1), lonely, (2,), 6)


def test_two_tuples_a_label_two_seeds_and_images_in_no_tuple() -> None:
    tuples = Tuples(torch.arange(8).view(1, 4, 2), torch.tensor([[0, 0, 1, 1]]), torch.full((1, 4), 0.25))
    values = torch.rand(3, 2, 1, 4, 2, generator=generator(2, "few"), dtype=torch.float64)
    pairs = all_pairs(values, tuples, (1, 2), 11)
    alone = seed_average(values[0] - values[1], tuples, (1, 2), 11).spread
    torch.testing.assert_close(pairs.spread[0, 1].of_images, alone.of_images)
    torch.testing.assert_close(pairs.spread[0, 1].of_seeds, alone.of_seeds)
    assert float(alone.of_seeds.min()) > 0
    assert pairs.spread.seed_freedom.unique().tolist() == [1]
