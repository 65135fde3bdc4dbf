from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sharedlabel import rng
from sharedlabel.config import schema
from sharedlabel.config.sections import SplitConfig
from sharedlabel.data.splits import folds, split
from sharedlabel.errors import ConfigError, DataError
from sharedlabel.types import ROLES, Dataset

CONFIG = SplitConfig(backbone=0.7, aggregator=0.2, validation=0.1, test=0.2)
DIVIDED = dataclasses.replace(CONFIG, groups="divided")


def make(labels: Tensor, groups: Tensor | None = None, holdout: Tensor | None = None) -> Dataset:
    names = tuple(f"class {index}" for index in range(int(labels.max()) + 1))
    images = torch.zeros(labels.numel(), 1, 1, 1, dtype=torch.uint8)
    return Dataset("toy", images, labels, names, groups, holdout, "0")


def shuffled(sizes: list[int], seed: int = 0) -> Tensor:
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    return labels[torch.randperm(labels.numel(), generator=rng.generator(seed))]


@settings(max_examples=50, deadline=None)
@given(
    sizes=st.lists(st.integers(4, 60), min_size=2, max_size=5),
    test=st.floats(0.05, 0.9),
    weights=st.tuples(*[st.floats(0.05, 3.0)] * 3),
    seed=st.integers(0, 50),
)
def test_roles_are_disjoint_exhaustive_sorted_and_hold_every_class(
    sizes: list[int], test: float, weights: tuple[float, float, float], seed: int
) -> None:
    labels = shuffled(sizes, seed)
    roles = split(make(labels), SplitConfig(*weights, test=test, seed=seed))
    assert tuple(roles) == ROLES
    assert torch.cat(list(roles.values())).sort().values.tolist() == list(range(labels.numel()))
    for indices in roles.values():
        assert torch.equal(indices, indices.sort().values)
        assert labels[indices].unique().numel() == len(sizes)


def test_shares_hold_in_every_class() -> None:
    labels = shuffled([100, 200, 1000])
    roles = split(make(labels), CONFIG)
    counts = {role: torch.bincount(labels[indices]).tolist() for role, indices in roles.items()}
    assert counts == {
        "backbone": [56, 112, 560],
        "aggregator": [16, 32, 160],
        "validation": [8, 16, 80],
        "test": [20, 40, 200],
    }


def test_shares_are_relative_to_each_other() -> None:
    dataset = make(shuffled([100, 100]))
    fractions = split(dataset, CONFIG)
    parts = split(dataset, dataclasses.replace(CONFIG, backbone=7.0, aggregator=2.0, validation=1.0))
    assert all(torch.equal(fractions[role], parts[role]) for role in ROLES)


def test_four_instances_of_a_class_are_one_for_every_role_whatever_the_shares() -> None:
    labels = torch.arange(2).repeat(4)
    for test in (0.02, 0.9):
        roles = split(make(labels), dataclasses.replace(CONFIG, test=test))
        assert [sorted(labels[indices].tolist()) for indices in roles.values()] == [[0, 1]] * 4


def test_holdout_is_the_test_role() -> None:
    labels = torch.arange(2).repeat(500)
    holdout = torch.arange(1000) >= 800
    roles = split(make(labels, holdout=holdout), CONFIG)
    assert roles["test"].tolist() == list(range(800, 1000))
    assert [roles[role].numel() for role in ROLES[:3]] == [560, 160, 80]


def test_a_validation_side_is_the_validation_role_and_the_others_share_the_rest() -> None:
    labels = torch.arange(2).repeat(500)
    sides = torch.arange(1000) // 100  # the last hundred are test, those before them validation
    dataset = dataclasses.replace(make(labels, holdout=sides == 9), validation=sides == 8)
    roles = split(dataset, CONFIG)
    assert roles["test"].tolist() == list(range(900, 1000))
    assert roles["validation"].tolist() == list(range(800, 900))
    # .7 and .2 of what is left, as shares of each other
    assert [roles[role].numel() for role in ("backbone", "aggregator")] == [622, 178]


def test_seed_decides() -> None:
    dataset = make(shuffled([50, 50]))
    first, again, other = (split(dataset, dataclasses.replace(CONFIG, seed=seed)) for seed in (0, 0, 1))
    assert all(torch.equal(first[role], again[role]) for role in ROLES)
    assert not torch.equal(first["test"], other["test"])


def test_selection_is_random_within_a_class() -> None:
    dataset = make(torch.tensor([0, 1]).repeat_interleave(20))
    counts = torch.zeros(40)
    for seed in range(400):
        counts[split(dataset, dataclasses.replace(CONFIG, test=0.25, seed=seed))["test"]] += 1
    assert (counts / 400).tolist() == pytest.approx([0.25] * 40, abs=0.1)


def straddling(groups: Tensor, roles: dict[str, Tensor]) -> int:
    homes = torch.stack([torch.isin(groups.unique(), groups[indices]) for indices in roles.values()])
    return int((homes.sum(0) > 1).sum())


def test_whole_groups_never_straddle_roles() -> None:
    labels = torch.arange(3).repeat_interleave(200)
    groups = torch.arange(600) // 5
    roles = split(make(labels, groups), CONFIG)
    assert straddling(groups, roles) == 0  # type: ignore[arg-type]
    assert torch.bincount(labels[roles["test"]]).tolist() == [40, 40, 40]
    assert torch.bincount(labels[roles["validation"]]).tolist() == [15, 15, 15]


def test_whole_groups_that_span_classes() -> None:
    # Ten speakers say every word, two more say only the first two.
    labels = torch.cat([torch.arange(3).repeat(100), torch.arange(2).repeat(20)])
    groups = torch.cat([torch.arange(300) // 30, 10 + torch.arange(40) // 20])
    roles = split(make(labels, groups), CONFIG)
    assert straddling(groups, roles) == 0  # type: ignore[arg-type]
    assert all(labels[indices].unique().numel() == 3 for indices in roles.values())


def test_divided_groups_have_their_share_in_every_role() -> None:
    labels = torch.arange(3).repeat(200)
    groups = torch.tensor([4, 9]).repeat_interleave(300)
    roles = split(make(labels, groups), DIVIDED)
    for role, expected in zip(ROLES, (56, 16, 8, 20), strict=True):
        indices = roles[role]
        cells = torch.bincount(labels[indices] * 10 + groups[indices])
        assert cells[cells > 0].tolist() == [expected] * 6


def test_small_divided_groups_do_not_starve_a_role() -> None:
    # A tenth of three is less than half an instance, so rounding within each group would leave validation empty.
    labels = torch.arange(2).repeat_interleave(300)
    groups = torch.arange(600) // 3
    roles = split(make(labels, groups), DIVIDED)
    counts = [torch.bincount(labels[roles[role]]).tolist() for role in ROLES]
    assert counts == [[168, 168], [48, 48], [24, 24], [60, 60]]
    assert torch.bincount(groups[roles["validation"]]).max() == 1


def test_uneven_divided_groups_get_within_one_of_their_share() -> None:
    sizes = [7, 34, 34, 21, 50, 3]
    groups = torch.arange(6).repeat_interleave(torch.tensor(sizes)).repeat(2)
    labels = torch.arange(2).repeat_interleave(sum(sizes))
    roles = split(make(labels, groups), DIVIDED)
    for role, share in (("test", 0.2), ("validation", 0.08)):
        for label in range(2):
            indices = roles[role][labels[roles[role]] == label]
            counts = torch.bincount(groups[indices], minlength=6)
            assert ((counts - share * torch.tensor(sizes)).abs() < 1.2).all(), (role, counts)


def test_holdout_that_divides_groups_needs_divided() -> None:
    labels = torch.arange(2).repeat(100)
    groups = torch.arange(200) // 50
    dataset = make(labels, groups, holdout=torch.arange(200) % 5 == 0)
    with pytest.raises(DataError, match=r"group 0 is on several sides \(4 groups in all\); set split.groups"):
        split(dataset, CONFIG)
    assert split(dataset, DIVIDED)["test"].numel() == 40


def test_holdout_of_whole_groups() -> None:
    labels = torch.arange(2).repeat(100)
    groups = torch.arange(200) // 10
    dataset = make(labels, groups, holdout=groups >= 16)
    roles = split(dataset, CONFIG)
    assert straddling(groups, roles) == 0  # type: ignore[arg-type]
    assert roles["test"].tolist() == list(range(160, 200))


@pytest.mark.parametrize("limit", [8, 13, 99, 100, 1000])
def test_limit_caps_every_class_and_thins_test_set_and_groups_alike(limit: int) -> None:
    labels = torch.arange(2).repeat_interleave(torch.tensor([100, 12]))
    groups = torch.arange(112) % 4
    holdout = torch.arange(112) % 5 == 0
    roles = split(make(labels, groups, holdout), dataclasses.replace(DIVIDED, limit=limit))
    kept = torch.cat(list(roles.values()))
    assert kept.unique().numel() == kept.numel()
    assert torch.bincount(labels[kept]).tolist() == [min(limit, 100), min(limit, 12)]
    large = kept[labels[kept] == 0]
    assert abs(holdout[large].sum().item() - 0.2 * min(limit, 100)) <= 1
    per_group = torch.bincount(groups[large])
    assert per_group.max() - per_group.min() <= 3


def test_class_too_small_for_every_role_is_named() -> None:
    with pytest.raises(DataError, match=r"'class 1' has no instance in '\w+' \(3 instances in all\)"):
        split(make(torch.tensor([0] * 50 + [1] * 3)), CONFIG)


def test_class_without_test_images_is_named() -> None:
    labels = torch.arange(2).repeat(50)
    with pytest.raises(DataError, match="'class 1' has no instance in 'test'"):
        split(make(labels, holdout=(labels == 0) & (torch.arange(100) < 20)), CONFIG)


def test_class_of_one_whole_group_is_named() -> None:
    labels = torch.arange(2).repeat_interleave(50)
    groups = torch.where(labels == 0, torch.arange(100) // 5, 99)
    with pytest.raises(DataError, match=r"'class 1' has no .* or set split.groups to divided"):
        split(make(labels, groups), CONFIG)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("backbone", 0.0, "backbone: expected a number above 0 and at most 1000000, got 0.0; the default is 0.5"),
        ("validation", -1.0, "validation: expected a number above 0 and at most 1000000, got -1.0"),
        ("test", 1.0, "test: expected a number above 0 and below 1, got 1.0; the default is 0.25"),
        ("test", 0.0, "test: expected a number above 0 and below 1, got 0.0"),
        ("limit", -1, "limit: expected a whole number of at least 0, got -1"),
    ],
)
def test_bad_shares(name: str, value: float, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        schema.read(SplitConfig, {name: value})


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(5, 40), min_size=2, max_size=4), count=st.integers(2, 5), seed=st.integers(0, 50))
def test_folds_hold_every_instance_once_and_equal_shares_of_every_class(
    sizes: list[int], count: int, seed: int
) -> None:
    dataset = make(shuffled(sizes, seed))
    kept = torch.arange(dataset.labels.numel())
    config = dataclasses.replace(CONFIG, seed=seed)
    cut = folds(dataset, kept, count, config)
    assert torch.equal(torch.cat(cut).sort().values, kept)
    assert all(torch.equal(fold, fold.sort().values) for fold in cut)
    shares = torch.stack([torch.bincount(dataset.labels[fold], minlength=len(sizes)) for fold in cut])
    assert (shares.max(0).values - shares.min(0).values <= 1).all()
    assert all(torch.equal(*pair) for pair in zip(cut, folds(dataset, kept, count, config), strict=True))
    other = folds(dataset, kept, count, dataclasses.replace(config, seed=seed + 1))
    assert not all(torch.equal(*pair) for pair in zip(cut, other, strict=True))


def test_folds_of_a_part_leave_the_rest_alone() -> None:
    dataset = make(shuffled([30, 30]))
    kept = torch.arange(0, 60, 3)
    assert torch.equal(torch.cat(folds(dataset, kept, 3, CONFIG)).sort().values, kept)


def test_groups_lie_in_one_fold_or_are_shared_out() -> None:
    labels, groups = torch.arange(2).repeat(60), torch.arange(120) // 10
    dataset, kept = make(labels, groups), torch.arange(120)
    whole = folds(dataset, kept, 3, CONFIG)
    assert [fold.numel() for fold in whole] == [40, 40, 40]
    assert sum(groups[fold].unique().numel() for fold in whole) == 12
    divided = folds(dataset, kept, 5, DIVIDED)
    assert all(groups[fold].unique().numel() == 12 for fold in divided)


@pytest.mark.parametrize(
    ("groups", "config", "message"),
    [
        (
            None,
            CONFIG,
            r"'class 1' has no instance in fold \d of 4 \(3 instances of it .*; use fewer folds or add inst",
        ),
        (torch.arange(53) // 2, DIVIDED, r"'class 1' has no .* of 4 \(3 instances of it"),
        (
            torch.arange(53).clamp(max=51),
            CONFIG,
            r"'class 1' has no .* of 4 \(2 groups of it .* or split.groups=divided",
        ),
    ],
)
def test_a_class_with_too_little_for_the_folds_is_named(groups: Tensor, config: SplitConfig, message: str) -> None:
    dataset = make(torch.tensor([0] * 50 + [1] * 3), groups)
    with pytest.raises(DataError, match=message):
        folds(dataset, torch.arange(53), 4, config)


def test_a_seed_gives_the_split_that_it_always_gave() -> None:
    """Stored results are of these images: other streams of random numbers would be other experiments."""
    dataset = make(torch.arange(2).repeat(8))
    assert {role: indices.tolist() for role, indices in split(dataset, CONFIG).items()} == {
        "backbone": [2, 3, 6, 7, 8, 9, 12, 13],
        "aggregator": [10, 15],
        "validation": [4, 11],
        "test": [0, 1, 5, 14],
    }
    limited = split(dataset, dataclasses.replace(CONFIG, limit=5))
    assert {role: indices.tolist() for role, indices in limited.items()} == {
        "backbone": [5, 10, 13, 14],
        "aggregator": [8, 9],
        "validation": [1, 2],
        "test": [0, 7],
    }
    cut = folds(dataset, torch.arange(16), 3, CONFIG)
    assert [fold.tolist() for fold in cut] == [[0, 4, 5, 7, 9, 14], [2, 3, 8, 13], [1, 6, 10, 11, 12, 15]]


def test_the_fold_without_a_class_is_numbered_from_1() -> None:
    dataset = make(torch.tensor([0] * 9 + [1]))
    with pytest.raises(DataError, match=r"'class 1' has no instance in fold 2 of 2 \(1 instances of it"):
        folds(dataset, torch.arange(10), 2, CONFIG)


def test_a_class_too_small_without_groups_is_not_told_of_groups() -> None:
    with pytest.raises(DataError, match=r"\(3 instances in all\); add instances$"):
        split(make(torch.tensor([0] * 50 + [1] * 3)), CONFIG)
