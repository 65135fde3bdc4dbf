"""The data module of tuples: what its batches hold, for which split, device and epoch."""

from __future__ import annotations

import re

import jaxtyping
import pytest
import torch

from sharedlabel.config.sections import SplitConfig
from sharedlabel.data import splits, tuples
from sharedlabel.errors import DataError
from sharedlabel.scoring.data import Data
from sharedlabel.training.datamodule import FixedTuples, Instances, SharedLabelDataModule
from sharedlabel.types import Dataset

CLASSES = 3
LABELS = torch.arange(180) % CLASSES
IDS = torch.arange(180)
GROUPS = IDS % 30  # 6 instances each, of one class


def seen(loader) -> torch.Tensor:
    return torch.cat([batch[0] for batch in loader])


def test_parts_share_no_instance_and_tuples_share_a_label():
    module = SharedLabelDataModule.of_tensors(IDS, LABELS, n=4, batch_size=5, partitions=2)
    loaders = {"train": module.train_dataloader(), "val": module.val_dataloader(), "test": module.test_dataloader()}
    parts = {}
    for name, loader in loaders.items():
        for ids, labels, weights in loader:
            assert torch.equal(LABELS[ids], labels[:, None].expand(-1, 4))
            assert weights.shape == labels.shape
        parts[name] = set(seen(loader).flatten().tolist())
    assert not parts["train"] & parts["val"]
    assert not parts["test"] & (parts["train"] | parts["val"])
    assert [len(module.instances[name].labels) for name in ("train", "validation", "test")] == [108, 36, 36]


def test_training_tuples_are_new_every_epoch_and_others_never():
    module = SharedLabelDataModule.of_tensors(IDS, LABELS, n=4, batch_size=5)
    train, validation = module.train_dataloader(), module.val_dataloader()
    assert not torch.equal(seen(train), seen(train))
    assert torch.equal(seen(validation), seen(validation))
    assert torch.equal(seen(validation), seen(module.val_dataloader()))
    assert len(seen(validation)) == 4 * 36 // 4
    again = SharedLabelDataModule.of_tensors(IDS, LABELS, n=4, batch_size=5)
    again.load_state_dict(module.state_dict())
    assert torch.equal(seen(again.train_dataloader()), seen(train))


def test_grouped_tuples_stay_within_groups_and_groups_within_parts():
    module = SharedLabelDataModule.of_tensors(IDS, LABELS, GROUPS, n=3, batch_size=4, protocol="grouped")
    for loader in (module.train_dataloader(), module.val_dataloader(), module.test_dataloader()):
        members = GROUPS[seen(loader)]
        assert torch.equal(members, members[:, :1].expand_as(members))
    groups = [set(module.instances[name].groups.tolist()) for name in ("train", "validation", "test")]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 30


def test_classes_weigh_their_prior():
    instances = Instances((IDS,), LABELS)
    prior = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)
    module = SharedLabelDataModule(instances, instances, n=3, batch_size=8, prior=prior)
    for loader in (module.train_dataloader(), module.val_dataloader()):
        _, labels, weights = (torch.cat(part) for part in zip(*loader, strict=True))
        if loader is not module._training:  # training leaves an incomplete batch out
            mass = torch.zeros(CLASSES).index_add(0, labels, weights) / weights.sum()
            torch.testing.assert_close(mass, prior.float())
        assert {round(float(weight), 3) for weight in weights} == {2.1, 0.6, 0.3}


@pytest.mark.parametrize("world", [1, 2, 3])
def test_devices_share_all_tuples_and_none_comes_twice(world, monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: world > 1)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: world)
    loader, shares = FixedTuples((IDS,), torch.arange(46).view(23, 2), (LABELS[:23],), 6), []
    for rank in range(world):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        shares.append(seen(loader))
        assert len(list(loader)) == len(loader)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert sorted(torch.cat(shares).flatten().tolist()) == list(range(46))


def test_tuples_to_predict_need_no_labels():
    module = SharedLabelDataModule.of_tensors(IDS, LABELS, n=4, predict=torch.arange(30).view(10, 3), batch_size=4)
    batches = list(module.predict_dataloader())
    assert [len(batch) for batch in batches] == [1, 1, 1]
    assert torch.equal(seen(module.predict_dataloader()), torch.arange(30).view(10, 3))
    without = SharedLabelDataModule.of_tensors(IDS, LABELS, n=4)
    assert torch.equal(seen(without.predict_dataloader()), seen(without.test_dataloader()))


def test_the_data_of_a_grid_keep_their_splits_and_prior():
    images = IDS[:, None, None, None].float()
    dataset = Dataset("ids", images, LABELS, ("a", "b", "c"), GROUPS, None, "")
    roles = splits.split(dataset, SplitConfig())
    data = Data(dataset, roles, tuples.prior(LABELS, "uniform", CLASSES), "key")
    module = SharedLabelDataModule.of_data(data, n=2, batch_size=3, protocol="grouped")
    loaders = {"aggregator": module.train_dataloader(), "validation": module.val_dataloader()}
    for role, loader in {**loaders, "test": module.test_dataloader()}.items():
        ids = seen(loader).flatten().long()
        assert set(ids.tolist()) <= set(roles[role].tolist())
        assert torch.equal(GROUPS[ids[::2]], GROUPS[ids[1::2]])


def test_a_class_that_a_part_lacks_is_named():
    labels = torch.cat([LABELS, torch.tensor([CLASSES, CLASSES])])
    with pytest.raises(DataError, match=f"in training, validation and test, got too few .* of class {CLASSES}; add"):
        SharedLabelDataModule.of_tensors(torch.arange(len(labels)), labels, n=2)


def test_fewer_classes_than_the_labels_have_are_refused():
    with pytest.raises(DataError, match="expected classes of at least 3, got 2"):
        SharedLabelDataModule(Instances((IDS,), LABELS), n=2, classes=2)


def test_without_validation_nothing_is_validated():
    module = SharedLabelDataModule(Instances((IDS,), LABELS), n=4)
    assert module.val_dataloader() == module.test_dataloader() == module.predict_dataloader() == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"n": 100}, "expected at least n = 100 instances, got 36 in class '0'; use n <= 36"),
        ({"n": 2, "protocol": "grouped"}, "expected groups for protocol='grouped', got None; pass groups"),
        ({"n": 0}, "expected n of at least 1, got 0"),
        ({"n": 2.5}, "expected n as a whole number of at least 1, got 2.5"),
        ({"n": 2, "batch_size": 0}, "expected batch_size of at least 1, got 0"),
        ({"n": 2, "partitions": 0}, "expected partitions of at least 1, got 0"),
        ({"n": 2, "protocol": "Grouped"}, "unknown protocol 'Grouped'; did you mean 'grouped'"),
        ({"n": 2, "prior": "empiric"}, "unknown prior 'empiric'; did you mean 'empirical'"),
        ({"n": 2, "prior": torch.ones(2) / 2}, r"expected prior \[c\] with c = 3, got \[2\]"),
        ({"n": 2, "prior": torch.tensor([2.0, -1.0, 0.0])}, r"expected prior in \[0, 1\], got 2"),
    ],
)
def test_what_makes_no_tuples_is_refused_when_the_module_is_made(options, said, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as it is for users
    with pytest.raises(DataError, match=said):
        SharedLabelDataModule.of_tensors(IDS, LABELS, **options)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (LABELS.float(), r"got torch\.float32 \[180\] from 0 on; pass labels.long\(\)"),
        (LABELS.int(), r"got torch\.int32 \[180\] from 0 on; pass labels.long\(\)"),
        (LABELS - 1, r"got torch\.int64 \[180\] from -1 on"),
        (LABELS[:0], r"got torch\.int64 \[0\]; number"),
    ],
)
def test_labels_that_are_no_class_indices_are_refused(labels, said):
    with pytest.raises(DataError, match=said):
        Instances((IDS[: len(labels)],), labels)


@pytest.mark.parametrize("shares", [(0.0, 0.2), (0.2, 0.0), (0.6, 0.4)])
def test_shares_that_leave_nothing_are_refused(shares):
    with pytest.raises(DataError, match="expected shares validation and test above 0 that leave some for training"):
        SharedLabelDataModule.of_tensors(IDS, LABELS, validation=shares[0], test=shares[1])


def test_arrays_of_numpy_are_refused(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    for arguments, name in (
        ((IDS.numpy(), LABELS.numpy()), "input 0"),
        ((IDS, LABELS.numpy()), "labels"),
        ((IDS, LABELS, GROUPS.numpy()), "groups"),
    ):
        said = rf"expected {name} as a tensor \[m.*\], got a ndarray; use torch.as_tensor"
        with pytest.raises(DataError, match=said):
            SharedLabelDataModule.of_tensors(*arguments, n=4)


def test_values_that_are_not_finite_are_refused():
    images = torch.zeros(180, 3)
    images[7, 1] = float("nan")
    with pytest.raises(DataError, match="expected finite values in input 0, got 1 that are NaN or infinite; remove"):
        SharedLabelDataModule.of_tensors(images, LABELS, n=4)


def test_it_says_what_it_holds():
    module = SharedLabelDataModule.of_tensors(IDS, LABELS, n=4, batch_size=2)
    said = re.fullmatch(
        r"SharedLabelDataModule\(train: (\d+) instances, validation: (\d+) instances, test: (\d+) instances; "
        r"\d+ classes, n=4, batch_size=2, protocol='iid'\)",
        str(module),
    )
    assert sum(map(int, said.groups())) == 180
    module.setup("fit")
    assert repr(module) == str(module)


def test_inputs_that_do_not_belong_together_are_refused():
    with pytest.raises(DataError, match="expected as many instances as labels, got 180 labels and input 1 of 179"):
        Instances((IDS, IDS[:-1]), LABELS)
    with pytest.raises(DataError, match="180 labels and groups of 2"):
        Instances((IDS,), LABELS, GROUPS[:2])
