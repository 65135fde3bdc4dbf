"""Tuples of consecutive instances, and tuples of groups of any size."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sharedlabel import rng
from sharedlabel.data.tuples import check, partition, sequences
from sharedlabel.errors import DataError
from sharedlabel.types import Tuples

SIZES = ((0, 7), (0, 2), (0, 1), (1, 9), (1, 4), (2, 5))  # label and instances of each group
PRIOR = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)


def drawn_from(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Labels, groups and positions of instances in a random order."""
    labels = torch.tensor([label for label, size in SIZES for _ in range(size)])
    groups = torch.tensor([group for group, (_, size) in enumerate(SIZES) for _ in range(size)])
    positions = torch.cat([torch.arange(size) * 2.5 - 3 for _, size in SIZES]).double()
    order = torch.randperm(len(labels), generator=rng.generator(seed, "order"))
    return labels[order], groups[order], positions[order]


def members(drawn: Tuples) -> list[list[list[int]]]:
    """The instances of every tuple, without padding."""
    lengths = [drawn.indices.shape[2]] * drawn.indices.shape[1] if drawn.lengths is None else drawn.lengths.tolist()
    return [
        [row[:length] for row, length in zip(part.tolist(), lengths, strict=True)] for part in drawn.indices.unbind()
    ]


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("start", ["first", "random"])
def test_consecutive_instances_of_a_group_in_the_order_of_their_positions(start, stride):
    labels, groups, positions = drawn_from()
    n = 3 if stride == 1 else 2
    drawn = sequences(labels, n, 40, PRIOR, rng.generator(0), groups, positions=positions, start=start, stride=stride)
    check(drawn, labels)
    assert len(drawn.indices) == (1 if start == "first" else 40)
    begun = set()
    for part in members(drawn):
        assert sorted(int(groups[row[0]]) for row in part) == list(range(len(SIZES)))  # each group once
        for row in part:
            (group,) = set(groups[row].tolist())
            ranks = [round((float(positions[one]) + 3) / 2.5) for one in row]
            assert ranks == list(range(ranks[0], ranks[0] + stride * len(row), stride))
            size = SIZES[group][1]
            assert len(row) == min(n, math.ceil(size / stride))
            begun.add((group, ranks[0]))
    first = {(group, 0) for group in range(len(SIZES))}
    possible = {
        (group, at)
        for group, (_, size) in enumerate(SIZES)
        for at in range(size - (min(n, math.ceil(size / stride)) - 1) * stride)
    }
    assert begun == (first if start == "first" else possible)


def test_without_positions_the_order_of_the_instances_counts():
    labels, groups = torch.zeros(6, dtype=torch.int64), torch.tensor([1, 0, 1, 0, 1, 1])
    drawn = sequences(labels, 4, 1, torch.ones(1), rng.generator(0), groups)
    assert drawn.indices.tolist() == [[[0, 2, 4, 5], [1, 3, 3, 3]]]
    assert drawn.lengths is not None
    assert drawn.lengths.tolist() == [4, 2]


@pytest.mark.parametrize("form", ["partition", "sequences"])
def test_every_class_weighs_its_prior_at_every_n_and_the_longest_come_first(form):
    labels, groups, positions = drawn_from()
    if form == "partition":
        drawn = partition(labels, 4, 3, PRIOR, rng.generator(0), groups, short=True)
    else:
        drawn = sequences(labels, 4, 3, PRIOR, rng.generator(0), groups, positions=positions, start="random")
    assert drawn.lengths is not None
    assert drawn.lengths.tolist() == sorted(drawn.lengths.tolist(), reverse=True)
    for size in range(1, 5):
        reached = drawn.reaching(size)
        assert reached.labels.shape[1] == int((drawn.lengths >= size).sum())
        for labels_, weights in zip(reached.labels, reached.weights, strict=True):
            mass = torch.zeros(3, dtype=torch.float64).index_add_(0, labels_, weights)
            torch.testing.assert_close(mass, PRIOR)


def test_what_is_left_of_a_group_is_a_short_tuple_and_no_instance_is_lost():
    labels, groups, _ = drawn_from()
    drawn = partition(labels, 4, 5, PRIOR, rng.generator(0), groups, short=True)
    check(drawn, labels)
    for part in members(drawn):
        assert sorted(one for row in part for one in row) == list(range(len(labels)))
        assert sorted(map(len, part)) == sorted(
            length for _, size in SIZES for length in [4] * (size // 4) + [size % 4] if length
        )
    whole = partition(labels, 4, 5, PRIOR, rng.generator(0), groups)
    assert whole.lengths is None
    assert whole.indices.shape[1] == sum(size // 4 for _, size in SIZES)


def test_groups_of_one_size_give_tuples_of_one_size():
    labels, groups = torch.tensor([0] * 6 + [1] * 6), torch.arange(12) // 3
    prior = torch.tensor([0.5, 0.5])
    assert sequences(labels, 3, 1, prior, rng.generator(0), groups).lengths is None
    usual, short = (partition(labels, 3, 2, prior, rng.generator(0), groups, short=one) for one in (False, True))
    torch.testing.assert_close(usual.indices, short.indices)
    assert short.lengths is None


def test_an_instance_twice_is_refused_but_for_padding():
    labels = torch.zeros(4, dtype=torch.int64)
    padded = Tuples(
        torch.tensor([[[0, 1, 2], [3, 3, 3]]]), labels[None, :2], torch.ones(1, 2) / 2, torch.tensor([3, 1])
    )
    check(padded, labels)
    with pytest.raises(DataError, match="no instance twice"):
        check(Tuples(padded.indices, padded.labels, padded.weights, torch.tensor([3, 2])), labels)


@pytest.mark.parametrize(
    ("n", "options", "message"),
    [
        (6, {}, "at least n = 6 instances, got 5 in the largest group of class 'c'; use n <= 5 or add instances"),
        (4, {"stride": 2}, "n = 4 instances at a stride of 2, got 3 .*'c'; use n <= 3, a smaller stride or add"),
        (2, {"stride": 0}, "a stride of at least 1, got 0"),
        (2, {"groups": None}, "expected groups, whose instances have an order, got none"),
    ],
)
def test_what_no_tuple_comes_from_is_refused(n, options, message):
    labels, groups, positions = drawn_from()
    given = {"groups": groups, "class_names": ("a", "b", "c"), "positions": positions, **options}
    with pytest.raises(DataError, match=message):
        sequences(labels, n, 1, PRIOR, rng.generator(0), **given)
