"""Batches are sent ahead, in order, and those that are on the device already stay as they are."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from sharedlabel.training.loaders import ImageLoader
from sharedlabel.training.sending import _ahead, sent

CPU, META = torch.device("cpu"), torch.device("meta")


def test_the_next_batch_is_on_its_way_when_one_is_used() -> None:
    asked: list[int] = []

    def sending() -> Iterator[Callable[[], list[Tensor]]]:
        for number in range(3):
            asked.append(number)
            yield functools.partial(list, [torch.tensor(number)])

    seen = []
    for (part,) in _ahead(sending()):
        seen.append((int(part), list(asked)))
    assert seen == [(0, [0, 1]), (1, [0, 1, 2]), (2, [0, 1, 2])]


def test_nothing_is_sent_of_nothing() -> None:
    assert list(sent([], CPU)) == []


def test_what_is_there_is_not_copied_and_all_else_is_brought_there() -> None:
    here = torch.ones(2)
    ((part,),) = sent([[here]], CPU)
    assert part is here
    ((part, other),) = sent([[here, torch.arange(3)]], META)
    assert [(one.device, one.dtype) for one in (part, other)] == [(META, torch.float32), (META, torch.int64)]


def test_an_epoch_that_is_sent_is_the_loaders_own() -> None:
    images, labels = torch.arange(20).view(20, 1, 1, 1).to(torch.uint8), torch.arange(20)
    loaders = [ImageLoader(images, labels, torch.arange(20), 4, seed=3) for _ in range(2)]
    for _ in range(2):
        for (own, mine), (there, yours) in zip(loaders[0], sent(loaders[1], CPU), strict=True):
            assert torch.equal(own, there)
            assert torch.equal(mine, yours)
    assert loaders[0].epoch == loaders[1].epoch == 2
