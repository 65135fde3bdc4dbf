"""Images that stay in their files are those of the decoded copy, bit for bit."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sharedlabel.data import _cache, _undecoded, bursts, imagefolder
from sharedlabel.data._copies import copies
from sharedlabel.data.imagefolder import Config
from sharedlabel.errors import DataError
from sharedlabel.training.loaders import Chosen, ImageLoader, looked_up
from sharedlabel.types import Dataset

Make = Callable[..., Path]


def load(path: Path, **options: object) -> Dataset:
    return imagefolder.load(Config(path=str(path), **options), path.parent / "root")  # type: ignore[arg-type]


@pytest.fixture
def path(make: Make, noise_png: Callable[[int], bytes]) -> Path:
    return make(
        {f"{label}/{index}.png": noise_png(10 * index + len(label)) for label in ("a", "bb") for index in range(9)}
    )


def test_they_are_looked_up_like_a_tensor(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = load(path, size=8)
    monkeypatch.setattr(_cache, "cached", lambda *_, **__: pytest.fail("a copy is made"))
    kept = load(path, size=8, decoded=False)
    assert isinstance(kept.images, _undecoded.Undecoded)
    assert kept.fingerprint == whole.fingerprint
    assert (kept.images.shape, kept.images.dtype, len(kept.images)) == (whole.images.shape, whole.images.dtype, 18)
    assert kept.image_shape == whole.image_shape
    for index in (torch.tensor([], dtype=torch.int64), torch.tensor([3, 3, 17, 0]), torch.arange(18).view(3, 2, 3)):
        assert torch.equal(kept.images[index], whole.images[index])
        assert torch.equal(Chosen(kept.images, torch.arange(18).flip(0))[index], whole.images.flip(0)[index])
    indices = list(torch.arange(18).split(2))
    for images in (kept.images, Chosen(kept.images, torch.arange(18))):
        assert torch.equal(torch.cat(list(looked_up(images, iter(indices)))), whole.images)
    again = pickle.loads(pickle.dumps(kept))
    assert torch.equal(again.images[torch.arange(18)], whole.images)
    assert copies(kept, {"backbone": torch.arange(9), "test": torch.arange(9, 18)}, "error") == ()


def test_batches_are_those_of_the_copy_in_every_epoch(path: Path) -> None:
    loaders = [
        ImageLoader(one.images, one.labels, torch.arange(1, 18), 4, 0)
        for one in (load(path), load(path, decoded=False))
    ]
    for _ in range(2):
        for one, other in zip(*loaders, strict=True):
            assert all(map(torch.equal, one, other))
    next(iter(loaders[1]))  # who takes no more leaves nothing under way


def test_they_are_checked_once(make: Make, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load(path, decoded=False)
    monkeypatch.setattr(imagefolder.Reader, "__call__", lambda *_: pytest.fail("checked again"))
    assert len(load(path, decoded=False).labels) == 18


@pytest.mark.parametrize("content", ["", "{}", '{"shape": [3, 16, 16], "skipped": [], "count": 17}'])
def test_they_are_checked_again_where_the_note_is_damaged(path: Path, content: str) -> None:
    first = load(path, decoded=False)
    (note,) = path.parent.glob("root/**/*.checked")
    note.write_text(content)
    assert load(path, decoded=False).image_shape == first.image_shape
    assert note.read_text() != content


def test_what_cannot_be_decoded_is_an_error_or_is_skipped(make: Make, noise_png: Callable[[int], bytes]) -> None:
    files = {f"{label}/{index}.png": noise_png(index) for label in "ab" for index in range(3)} | {"a/1.png": b"x"}
    path = make(files, name="broken")
    with pytest.raises(DataError, match=r"expected an image in 'a/1\.png'"):
        load(path, decoded=False)
    whole, kept = (load(path, on_bad_image="skip", decoded=decoded) for decoded in (True, False))
    assert (kept.fingerprint, kept.skipped) == (whole.fingerprint, whole.skipped)
    assert torch.equal(kept.images[torch.arange(5)], whole.images)


def test_a_file_that_changes_meanwhile_is_named(
    both: Callable[..., tuple[Path, Path]], noise_png: Callable[[int], bytes]
) -> None:
    folder, _ = both({f"{label}/{index}.png": noise_png(index) for label in "ab" for index in range(3)})
    images = load(folder, decoded=False).images
    (folder / "b/1.png").write_bytes(noise_png(99))
    assert images[torch.tensor([0, 3])].shape == (2, 3, 16, 16)
    with pytest.raises(DataError, match=r"expected 'b/1\.png' in pets as it was when the run began"):
        images[torch.arange(6)]
    (folder / "b/1.png").unlink()
    with pytest.raises(DataError, match=r"expected to read 'b/1\.png' in pets"):
        images[torch.tensor([4])]


def test_a_place_that_cannot_be_written(path: Path) -> None:
    (path.parent / "occupied").write_text("a file, not a folder")
    with pytest.raises(DataError, match=r"expected to note in .*occupied"):
        imagefolder.load(Config(path=str(path), decoded=False), path.parent / "occupied")


def test_bursts_of_them_are_those_of_the_copy(path: Path) -> None:
    made = [
        bursts.load(bursts.Config(base={"name": "imagefolder", "path": str(path), "decoded": decoded}), path.parent)
        for decoded in (True, False)
    ]
    assert made[0].fingerprint == made[1].fingerprint
