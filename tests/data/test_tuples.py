from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sharedlabel import rng
from sharedlabel.data._shuffle import joint_cells, shuffle_within
from sharedlabel.data.tuples import check, largest, partition, prior
from sharedlabel.errors import DataError
from sharedlabel.types import Tuples

LABELS = torch.tensor([0] * 11 + [1] * 7 + [2] * 20)[torch.randperm(38, generator=rng.generator(1))]


@settings(max_examples=50, deadline=None)
@given(
    sizes=st.lists(st.integers(4, 30), min_size=2, max_size=5),
    n=st.integers(1, 4),
    partitions=st.integers(1, 3),
    seed=st.integers(0, 100),
)
def test_tuples_are_disjoint_pure_and_as_many_as_fit(sizes: list[int], n: int, partitions: int, seed: int) -> None:
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    labels = labels[torch.randperm(labels.numel(), generator=rng.generator(seed))]
    tuples = partition(labels, n, partitions, prior(labels, "uniform", len(sizes)), rng.generator(seed))
    assert tuples.indices.shape == (partitions, sum(size // n for size in sizes), n)
    for indices, tuple_labels in zip(tuples.indices, tuples.labels, strict=True):
        assert indices.unique().numel() == indices.numel()
        assert (labels[indices] == tuple_labels[:, None]).all()
        assert torch.bincount(tuple_labels).tolist() == [size // n for size in sizes]


@pytest.mark.parametrize("kind", ["uniform", "empirical"])
def test_weights_of_a_class_add_up_to_its_prior(kind: str) -> None:
    declared = prior(LABELS, kind, 3)  # type: ignore[arg-type]
    tuples = partition(LABELS, 3, 2, declared, rng.generator(0))
    for weights, labels in zip(tuples.weights, tuples.labels, strict=True):
        for label in range(3):
            assert weights[labels == label].sum().item() == pytest.approx(declared[label].item(), abs=1e-15)
            assert weights[labels == label].unique().numel() == 1
    assert declared.tolist() == pytest.approx([1 / 3] * 3 if kind == "uniform" else [11 / 38, 7 / 38, 20 / 38])


def test_grouped_tuples_stay_within_one_class_and_group() -> None:
    # Every speaker says every word: the cell is the pair.
    labels = torch.arange(3).repeat(40)
    groups = torch.tensor([7, 2]).repeat_interleave(60)
    tuples = partition(labels, 6, 4, prior(labels, "uniform", 3), rng.generator(0), groups=groups)
    assert tuples.indices.shape == (4, 3 * 2 * (20 // 6), 6)
    members = tuples.indices
    assert (groups[members] == groups[members[:, :, :1]]).all()
    assert (labels[members] == tuples.labels[:, :, None]).all()
    assert tuples.weights.sum(1).tolist() == pytest.approx([1.0] * 4)
    free = partition(labels, 6, 4, prior(labels, "uniform", 3), rng.generator(0))
    assert (groups[free.indices] != groups[free.indices[:, :, :1]]).any()


def test_a_group_of_just_n_instances_is_one_tuple() -> None:
    labels, groups = torch.zeros(4, dtype=torch.int64), torch.tensor([0, 0, 1, 1])
    tuples = partition(labels, 2, 1, torch.ones(1), rng.generator(0), groups=groups)
    assert sorted(sorted(pair) for pair in tuples.indices[0].tolist()) == [[0, 1], [2, 3]]


def test_a_class_without_instances_has_a_prior_of_its_own() -> None:
    assert prior(torch.tensor([0, 0]), "empirical", 3).tolist() == [1.0, 0.0, 0.0]
    assert prior(torch.tensor([0, 0]), "uniform", 3).dtype == torch.float64


def test_same_stream_same_tuples_other_stream_other_tuples() -> None:
    def draw(seed: int) -> torch.Tensor:
        return partition(LABELS, 2, 2, prior(LABELS, "uniform", 3), rng.generator(seed)).indices

    assert torch.equal(draw(0), draw(0))
    assert not torch.equal(draw(0), draw(1))
    assert not torch.equal(draw(0)[0], draw(0)[1])


def test_position_gives_neither_label_nor_instance_away() -> None:
    labels = torch.tensor([0, 1]).repeat_interleave(torch.tensor([5, 5]))
    tuples = partition(labels, 2, 4000, prior(labels, "uniform", 2), rng.generator(0))
    # Each position holds each class half of the time, and one instance of the five is left over, each as often.
    assert tuples.labels.double().mean(0).tolist() == pytest.approx([0.5] * 4, abs=0.04)
    used = torch.bincount(tuples.indices.flatten(), minlength=10) / 4000
    assert used.tolist() == pytest.approx([0.8] * 10, abs=0.04)
    first = torch.bincount(tuples.indices[:, :, 0].flatten(), minlength=10) / 4000
    assert first.tolist() == pytest.approx([0.4] * 10, abs=0.04)


@pytest.mark.parametrize(
    ("n", "partitions", "message"),
    [
        (8, 1, r"at least n = 8 instances, got 7 in class 'dog'; use n <= 7"),
        (0, 1, "n >= 1 and partitions >= 1, got n = 0"),
        (1, 0, "got n = 1 and partitions = 0"),
    ],
)
def test_bad_sizes(n: int, partitions: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        partition(
            LABELS, n, partitions, prior(LABELS, "uniform", 3), rng.generator(0), class_names=("cat", "dog", "eel")
        )


def test_class_without_instances() -> None:
    with pytest.raises(DataError, match="got 0 in class '3'; add instances"):
        partition(LABELS, 2, 1, prior(LABELS, "uniform", 4), rng.generator(0))


def test_label_without_a_prior() -> None:
    with pytest.raises(DataError, match="labels from 0 to 1, got 0 to 2"):
        partition(LABELS, 2, 1, torch.tensor([0.5, 0.5]), rng.generator(0))


def test_groups_that_are_too_small_have_no_tuple_and_change_no_other() -> None:
    labels = torch.tensor([0] * 8 + [1] * 8)
    groups = torch.tensor([0] * 4 + [1] * 4 + [0] * 5 + [6] * 3)
    drawn = partition(labels, 4, 3, prior(labels, "uniform", 2), rng.generator(0), groups=groups)
    assert drawn.labels.sort().values.tolist() == [[0, 0, 1]] * 3
    assert 6 not in groups[drawn.indices]
    assert drawn.weights.sum(1).tolist() == pytest.approx([1] * 3)


def test_a_class_whose_groups_are_all_too_small_is_named() -> None:
    labels = torch.tensor([0] * 8 + [1] * 6)
    groups = torch.tensor([0] * 4 + [1] * 4 + [0] * 3 + [6] * 3)
    message = "at least n = 4 instances, got 3 in the largest group of class '1'; use n <= 3"
    with pytest.raises(DataError, match=message):
        partition(labels, 4, 1, prior(labels, "uniform", 2), rng.generator(0), groups=groups)


def test_shuffle_within_keeps_many_cells_apart() -> None:
    cells = torch.arange(50_000) // 2
    order = shuffle_within(cells, 1, rng.generator(0))[0]
    assert torch.equal(cells[order], cells)
    # Of 25,000 pairs about half are swapped.
    assert (order[::2] > order[1::2]).double().mean().item() == pytest.approx(0.5, abs=0.02)


def test_joint_cells_number_combinations_in_order() -> None:
    first, second = torch.tensor([2, 0, 2, 2]), torch.tensor([-1, 9, -5, -1])
    assert joint_cells(first, second).tolist() == [2, 0, 1, 2]


def mixed(**changes: Any) -> Tuples:
    """Two tuples of two, of labels 1 and 0, with some of their facts replaced."""
    facts = {"indices": [[[2, 3], [0, 1]]], "labels": [[1, 0]], "weights": [[0.5, 0.5]]} | changes
    return Tuples(*(torch.tensor(facts[name]) for name in ("indices", "labels", "weights")))


def test_tuples_as_they_should_be_pass_the_check() -> None:
    check(mixed(), torch.tensor([0, 0, 1, 1]))
    check(mixed(indices=[[[1]]], labels=[[0]], weights=[[1.0]]), torch.tensor([0, 0, 1, 1]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"indices": [[[2, 3], [0, 2]]]}, r"share label 0, got labels \[0, 1\] in tuple 1 of partition 0"),
        ({"labels": [[0, 0]]}, r"share label 0, got labels \[1\] in tuple 0 of partition 0"),
        ({"indices": [[[2, 0], [0, 1]]]}, r"share label 1, got labels \[0, 1\] in tuple 0 of partition 0"),
        ({"indices": [[[2, 3], [1, 1]]]}, r"no instance twice in a tuple, got \[1, 1\] in tuple 1"),
        ({"indices": [[[2, 4], [0, 1]]]}, "indices from 0 to 3, got 0 to 4"),
        ({"indices": [[[2, 3], [0, -1]]]}, "indices from 0 to 3, got -1 to 3"),
    ],
)
def test_tuples_that_are_none_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        check(mixed(**changes), torch.tensor([0, 0, 1, 1]))


def test_the_tuple_that_is_wrong_is_found_in_its_partition() -> None:
    facts = {"labels": [[1, 0, 0]] * 2, "weights": [[0.5, 0.25, 0.25]] * 2}
    right = [[4, 5, 6], [0, 1, 2], [1, 2, 3]]
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 1])
    check(mixed(indices=[right, right], **facts), labels)
    with pytest.raises(DataError, match=r"got labels \[0, 1\] in tuple 2 of partition 1"):
        check(mixed(indices=[right, [*right[:2], [1, 2, 4]]], **facts), labels)
    with pytest.raises(DataError, match=r"got \[0, 2, 2\] in tuple 1 of partition 1"):
        check(mixed(indices=[right, [right[0], [0, 2, 2], right[2]]], **facts), labels)


def test_tuples_without_instances_are_refused() -> None:
    empty = Tuples(torch.zeros(1, 2, 0, dtype=torch.int64), torch.tensor([[1, 0]]), torch.tensor([[0.5, 0.5]]))
    with pytest.raises(DataError, match="at least one instance in every tuple, got n = 0"):
        check(empty, torch.tensor([0, 0, 1, 1]))


def test_the_largest_tuple_of_a_class_is_all_of_it_or_its_largest_group() -> None:
    labels, groups = torch.tensor([0, 0, 0, 1, 1]), torch.tensor([0, 0, 1, 2, 3])
    assert largest(labels, None, 3).tolist() == [3, 2, 0]
    assert largest(labels, groups, 3).tolist() == [2, 1, 0]
