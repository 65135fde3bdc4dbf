"""Bursts: dependent views of the images of another data set."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sharedlabel.config import build
from sharedlabel.data import bursts, digits
from sharedlabel.data.bursts import Config, load
from sharedlabel.errors import ConfigError, DataError

HERE = Path()


def test_without_jitter_every_view_is_the_image_itself() -> None:
    base = digits.load(digits.Config(), HERE)
    dataset = load(Config(images=3, views=2, jitter=0.0), HERE)
    assert dataset.images.shape == (10 * 3 * 2, 1, 8, 8)
    assert torch.equal(dataset.images[::2], dataset.images[1::2])
    known = {(int(label), image.numpy().tobytes()) for image, label in zip(base.images, base.labels, strict=True)}
    assert {
        (int(label), image.numpy().tobytes()) for image, label in zip(dataset.images, dataset.labels, strict=True)
    } <= known


@pytest.mark.parametrize("sources", [1, 2, 5])
def test_a_group_holds_its_images_of_one_class_all_views(sources: int) -> None:
    dataset = load(Config(images=5, views=3, sources=sources, jitter=0.0), HERE)
    groups, sizes = torch.unique(dataset.groups, return_counts=True)
    assert len(groups) == 10 * (5 // sources)
    assert (sizes == 3 * sources).all()
    for group in groups:
        inside = dataset.groups == group
        assert dataset.labels[inside].unique().numel() == 1
        assert dataset.images[inside].flatten(1).unique(dim=0).shape[0] == sources


def test_views_of_one_image_are_more_alike_the_less_they_are_jittered() -> None:
    def distance(jitter: float) -> float:
        dataset = load(Config(images=20, views=2, jitter=jitter), HERE)
        return float((dataset.images[::2].float() - dataset.images[1::2].float()).square().mean())

    between = load(Config(images=20, views=2, jitter=0.0), HERE).images[::2].float()
    near, far = distance(0.1), distance(0.6)
    assert 0 < near < far
    assert near < float((between - between.roll(1, 0)).square().mean())


def test_draws_are_the_seeds_own() -> None:
    config = Config(images=4, views=2)
    assert load(config, HERE).fingerprint == load(config, HERE).fingerprint
    assert load(config, HERE).fingerprint != load(Config(images=4, views=2, seed=1), HERE).fingerprint


def test_the_test_set_of_the_base_stays_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    import dataclasses

    base = digits.load(digits.Config(), HERE)
    holdout = torch.arange(len(base.labels)) % 3 == 0
    images = base.images.clone()
    images[holdout] = 255
    images[~holdout] = 0
    marked = dataclasses.replace(base, holdout=holdout, images=images)
    monkeypatch.setattr(digits, "load", lambda config, root: marked)
    dataset = load(Config(images=6, views=2, sources=3, jitter=0.0), HERE)
    assert dataset.holdout is not None
    assert torch.bincount(dataset.labels[dataset.holdout]).tolist() == [12] * 10
    assert (dataset.images[dataset.holdout] == 255).all()
    assert (dataset.images[~dataset.holdout] == 0).all()
    for group in dataset.groups.unique():
        assert dataset.holdout[dataset.groups == group].unique().numel() == 1


def test_a_square_covers_part_of_a_view() -> None:
    images = torch.zeros(50, 1, 8, 8, dtype=torch.uint8)
    config = Config(jitter=1.0, shift=0.0, light=0.0, noise=0.0, cover=0.5)
    covered = bursts._view(images, config, torch.Generator().manual_seed(0)) == 128
    assert (covered.flatten(1).sum(1) == 16).all()
    assert (covered.any(3).sum(2) == 4).all()
    assert (covered.any(2).sum(2) == 4).all()


def test_a_shift_repeats_the_border() -> None:
    images = torch.arange(8, dtype=torch.uint8).expand(40, 1, 8, 8).contiguous()
    config = Config(jitter=1.0, shift=0.25, light=0.0, noise=0.0, cover=0.0)
    moved = bursts._view(images, config, torch.Generator().manual_seed(0))
    offsets = moved[:, 0, 0, 4].int() - 4
    assert set(offsets.tolist()) == {-2, -1, 0, 1, 2}
    expected = (torch.arange(8)[None] + offsets[:, None]).clamp(0, 7)
    assert torch.equal(moved[:, 0, 0].int(), expected.int())


@pytest.mark.parametrize(
    ("config", "kind", "message"),
    [
        (Config(base="bursts"), ConfigError, "another data set as base, got 'bursts'"),
        (Config(base="digitz"), ConfigError, "digitz"),
        (Config(base="gaussian"), DataError, "uint8 images, got float32 of 'gaussian'"),
        (Config(images=2, sources=3), DataError, "at least 3 images of every class, got 2 of"),
    ],
)
def test_what_cannot_be_done_is_refused(config: Config, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        load(config, HERE)


@pytest.mark.parametrize("options", [{"jitter": 1.5}, {"views": 0}, {"cover": -0.1}, {"images": -1}])
def test_options_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(options))}: expected a (whole )?number"):
        build(Config, options, "data set 'bursts'")
