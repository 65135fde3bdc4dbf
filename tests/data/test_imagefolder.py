from __future__ import annotations

import dataclasses
import io
import os
import shutil
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from sharedlabel.data import _cache, _decode, imagefolder
from sharedlabel.data.imagefolder import Config
from sharedlabel.decoding import Decoding
from sharedlabel.errors import DataError
from sharedlabel.machine import cores, crew
from sharedlabel.types import Dataset

Make = Callable[..., Path]


def load(path: Path, root: Path | None = None, **options: object) -> Dataset:
    return imagefolder.load(Config(path=str(path), **options), root or path.parent / "root")  # type: ignore[arg-type]


def shades(dataset: Dataset) -> list[int]:
    return dataset.images[:, 0, 0, 0].tolist()


def renamed(files: dict[str, bytes], train: str, test: str) -> dict[str, bytes]:
    sides = {"train": train, "test": test}
    return {"/".join([sides[side], *rest]): data for name, data in files.items() for side, *rest in [name.split("/")]}


def test_reads_split_class_file_in_sorted_order(make: Make, files: dict[str, bytes]) -> None:
    dataset = load(make(files))
    assert dataset.images.shape == (8, 1, 4, 4)
    assert dataset.images.dtype == torch.uint8
    assert shades(dataset) == [5, 15, 25, 35, 45, 55, 65, 75]
    assert dataset.class_names == ("cat", "dog")
    assert dataset.labels.tolist() == [0, 0, 1, 1, 0, 0, 1, 1]
    assert dataset.holdout is not None
    assert dataset.holdout.tolist() == [True] * 4 + [False] * 4
    assert dataset.groups is None
    assert dataset.name == "pets"


def test_reads_training_and_test_as_split(make: Make, files: dict[str, bytes]) -> None:
    dataset = load(make({name.replace("train/", "training/"): data for name, data in files.items()}))
    assert dataset.holdout is not None
    assert dataset.holdout.sum() == 4


@pytest.mark.parametrize("prefix", ["", "wrapper/"])
@pytest.mark.parametrize(("train", "test"), [("Train", "Test"), ("TRAINING", "testing")])
def test_case_of_split_names_makes_no_difference(
    make: Make, files: dict[str, bytes], train: str, test: str, prefix: str
) -> None:
    dataset = load(make(renamed(files, prefix + train, prefix + test)))
    assert dataset.class_names == ("cat", "dog")
    assert dataset.holdout is not None
    assert [shade < 45 for shade in shades(dataset)] == dataset.holdout.tolist()


@pytest.mark.parametrize("name", ["val", "valid", "validation", "dev", "Val"])
def test_validation_folder_is_the_test_set_if_there_is_no_other(make: Make, files: dict[str, bytes], name: str) -> None:
    dataset = load(make(renamed(files, "train", name)))
    assert dataset.class_names == ("cat", "dog")
    assert dataset.holdout is not None
    assert [shade < 45 for shade in shades(dataset)] == dataset.holdout.tolist()


@pytest.mark.parametrize("prefix", ["", "wrapper/"])
def test_reads_class_file_without_a_holdout(make: Make, png: Callable[..., bytes], prefix: str) -> None:
    dataset = load(make({f"{prefix}{label}/{index}.png": png(index) for label in "ab" for index in range(2)}))
    assert dataset.holdout is None
    assert dataset.labels.tolist() == [0, 0, 1, 1]
    assert dataset.class_names == ("a", "b")


def test_a_wrapping_folder_makes_no_difference_to_pixels_and_labels(make: Make, files: dict[str, bytes]) -> None:
    wrapped = load(make({f"pets-1.0/{name}": data for name, data in files.items()} | {"README.md": b"x"}))
    plain = load(make(files, name="plain"))
    assert torch.equal(wrapped.images, plain.images)
    assert torch.equal(wrapped.labels, plain.labels)
    assert wrapped.class_names == plain.class_names


def test_ignores_what_systems_leave_behind(make: Make, files: dict[str, bytes]) -> None:
    junk = {"__MACOSX/train/cat/._0.png": b"x", "train/cat/.DS_Store": b"x", "train/dog/Thumbs.db": b"x"}
    clean, dirty = load(make(files)), load(make(files | junk | {"licence.txt": b"x"}, name="dirty"))
    assert torch.equal(clean.images, dirty.images)
    assert clean.fingerprint == dirty.fingerprint


def test_fingerprint_depends_on_content_and_options_not_on_place_or_date(
    both: Callable[..., tuple[Path, Path]], files: dict[str, bytes], png: Callable[..., bytes], tmp_path: Path
) -> None:
    folder, archive = both(files)
    reference = load(folder).fingerprint
    assert load(archive).fingerprint == reference
    moved = Path(shutil.copytree(folder, tmp_path / "elsewhere" / "renamed"))
    os.utime(moved / "train/cat/0.png", (0, 0))
    assert load(moved).fingerprint == reference
    (moved / "train/cat/0.png").write_bytes(png(200))
    assert load(moved).fingerprint != reference
    assert load(folder, size=2).fingerprint != reference
    assert load(folder, channels=3).fingerprint != reference
    table = "path,group\n" + "".join(f"{name},{name[:5]}\n" for name in files)
    (tmp_path / "groups.csv").write_text(table)
    assert load(folder, groups="groups.csv").fingerprint != reference
    (folder / "train/cat/0.png").rename(folder / "train/dog/9.png")
    assert load(folder).fingerprint != reference


def test_second_load_never_decodes(make: Make, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(files)
    first = load(path)
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("decoded again"))
    second = load(path)
    assert torch.equal(first.images, second.images)
    assert first.fingerprint == second.fingerprint


def test_writing_to_loaded_images_leaves_the_cache_alone(make: Make, files: dict[str, bytes]) -> None:
    path = make(files)
    load(path).images.zero_()
    assert shades(load(path)) == [5, 15, 25, 35, 45, 55, 65, 75]


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-3])


def overwrite(file: Path) -> None:
    file.write_bytes(b"\0" * file.stat().st_size)


@pytest.mark.parametrize("damage", [truncate, overwrite, Path.unlink])
@pytest.mark.parametrize("suffix", ["npy", "json"])
def test_damaged_cache_is_decoded_again_with_a_warning(
    make: Make, files: dict[str, bytes], tmp_path: Path, damage: Callable[[Path], None], suffix: str
) -> None:
    path = make(files)
    expected = load(path).images.clone()
    (cache,) = tmp_path.glob(f"root/**/*.{suffix}")
    damage(cache)
    with pytest.warns(RuntimeWarning, match="damaged .* decoding again"):
        repaired = load(path)
    assert torch.equal(repaired.images, expected)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(path)


def test_images_are_decoded_again_by_other_code(
    make: Make, files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(files)
    first = load(path).fingerprint
    monkeypatch.setattr(imagefolder.digests, "digest", lambda *_: "other code")
    assert load(path).fingerprint == first  # of the files; the code is in the key of the data beside it
    assert len(list(tmp_path.glob("root/**/*.npy"))) == 2


def test_failed_decoding_leaves_no_cache(make: Make, files: dict[str, bytes], tmp_path: Path) -> None:
    path = make(files | {"train/dog/1.png": b"not an image"})
    with pytest.raises(DataError, match=r"train/dog/1\.png"):
        load(path)
    assert not [file for file in tmp_path.glob("root/**/*") if file.is_file()]


def test_decoding_holds_one_image_at_a_time(tmp_path: Path) -> None:
    held: list[str] = []
    names = [str(index) for index in range(50)]

    def image(name: str) -> np.ndarray:
        held.append(name)
        # What is written so far is on its way to the disk: the writer asks for the next image only then.
        return np.array([[[int(name), 1], [2, 3]]], dtype=np.uint8)

    stored = _cache.cached(tmp_path, "key", names, lambda some: (image(name) for name in some))
    assert held == names
    assert stored.images[:, 0, 0, 0].tolist() == list(range(50))


def test_channels(make: Make, png: Callable[..., bytes]) -> None:
    grey = {f"{label}/{index}.png": png(100) for label in "ab" for index in range(2)}
    colour = {name: png(100, mode="RGB") for name in grey}
    assert load(make(grey, name="grey")).image_shape == (1, 4, 4)
    assert load(make(grey, name="grey"), channels=3).image_shape == (3, 4, 4)
    assert load(make(colour, name="colour")).image_shape == (3, 4, 4)
    assert load(make(colour, name="colour"), channels=1).image_shape == (1, 4, 4)
    clear = {name: png(100, mode="RGBA") for name in grey}
    assert load(make(clear, name="clear")).images[:, :, 0, 0].unique().tolist() == [194]  # on white
    assert load(make(clear, name="clear"), background="black").images[:, :, 0, 0].unique().tolist() == [39]


def test_colour_images_are_channels_first(make: Make, noise_png: Callable[[int], bytes], tmp_path: Path) -> None:
    path = make({f"{label}/0.png": noise_png(seed) for seed, label in enumerate("ab")})
    (tmp_path / "reference.png").write_bytes(noise_png(1))
    with Image.open(tmp_path / "reference.png") as image:
        expected = np.asarray(image)
    assert np.array_equal(load(path).images[1].permute(1, 2, 0).numpy(), expected)


def test_size_cuts_the_centre_square(make: Make, tmp_path: Path) -> None:
    pixels = np.zeros((4, 12), dtype=np.uint8)
    pixels[:, 2:10] = 200
    pixels[:, 4:6] = 100
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    data = (tmp_path / "wide.png").read_bytes()
    dataset = load(make({"a/0.png": data, "b/0.png": data}), size=2)
    assert dataset.images.shape == (2, 1, 2, 2)
    left, right = dataset.images[0, 0, 0].tolist()
    assert 100 < left < right < 200  # nothing of the black margins
    assert left > 120


@pytest.mark.parametrize("inside", [True, False])
def test_groups_from_a_table(make: Make, files: dict[str, bytes], tmp_path: Path, inside: bool) -> None:
    rows = "".join(f"{name},{'zoe' if name.endswith('0.png') else 'adam'}\n" for name in files)
    table = f"path,group\n{rows}not/there.png,nobody\n".encode()
    path = make(files | ({"groups.csv": table} if inside else {}))
    if not inside:
        (tmp_path / "groups.csv").write_bytes(table)
    dataset = load(path, groups="groups.csv")
    assert dataset.groups is not None
    assert dataset.groups.tolist() == [1, 0] * 4


def test_groups_may_repeat_a_row(make: Make, files: dict[str, bytes]) -> None:
    table = "path,group\n" + "".join(f"{name},{name[-5]}\n" for name in files) * 2
    dataset = load(make(files | {"groups.csv": table.encode()}), groups="groups.csv")
    assert dataset.groups is not None
    assert dataset.groups.tolist() == [0, 1] * 4


def placed(files: dict[str, bytes], positions: list[object]) -> dict[str, bytes]:
    """The files, of one group, with a table of their positions."""
    rows = "".join(f"{place},all,{name}\n" for name, place in zip(sorted(files), positions, strict=True))
    return files | {"groups.csv": f"position,group,path\n{rows}".encode()}


def test_a_table_may_say_where_in_its_group_an_image_stands(make: Make, files: dict[str, bytes]) -> None:
    positions = [3, 1.5, -2, 10, 0, 7, "1e2", 4]
    dataset = load(make(placed(files, positions)), groups="groups.csv")
    assert dataset.positions is not None
    assert dataset.positions.tolist() == [float(place) for place in positions]  # type: ignore[arg-type]
    other = load(make(placed(files, positions[::-1]), name="other"), groups="groups.csv")
    without = load(make(files | {"groups.csv": placed(files, positions)["groups.csv"].replace(b"position", b"note")},
                        name="without"), groups="groups.csv")  # fmt: skip
    assert without.positions is None
    assert len({one.fingerprint for one in (dataset, other, without)}) == 3


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        (
            [1, "first", *range(2, 8)],
            "a number as the position of 'test/cat/1.png' in row 3 of groups.csv, got 'first'",
        ),
        ([1, "", *range(2, 8)], "row 3 of groups.csv, got ''; write the number"),
        ([1, "nan", *range(2, 8)], "row 3 of groups.csv, got 'nan'"),
        (
            [4, 4.0, *range(5, 11)],
            "differ within a group, got 4 for both 'test/cat/0.png' and 'test/cat/1.png' of group",
        ),
    ],
)
def test_positions_that_are_none_are_refused(
    make: Make, files: dict[str, bytes], positions: list[object], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        load(make(placed(files, positions)), groups="groups.csv")


def test_an_image_has_one_position(make: Make, files: dict[str, bytes]) -> None:
    given = placed(files, list(range(8)))
    given["groups.csv"] += b"5,all,test/cat/0.png\n"
    with pytest.raises(
        DataError, match=r"one position for each path in groups\.csv, got 0\.0 in row 2 and, in row 10, 5"
    ):
        load(make(given), groups="groups.csv")


def test_dark_edges_are_cut_off_before_an_image_is_scaled() -> None:
    pixels = np.full((12, 20, 3), 9, dtype=np.uint8)
    pixels[2:8, 3:9] = [200, 10, 10]
    pixels[4, 5] = 0  # dark inside
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    whole = _decode.decode(buffer.getvalue(), Decoding(trim=16))
    assert whole.shape == (3, 6, 6)
    assert np.array_equal(whole, pixels[2:8, 3:9].transpose(2, 0, 1))
    assert _decode.decode(buffer.getvalue(), Decoding(3, None, "white", 16)).shape == (3, 3, 3)
    assert _decode.decode(buffer.getvalue(), Decoding(trim=200)).shape == (3, 12, 20)  # nothing would be left
    assert _decode.decode(buffer.getvalue(), Decoding()).shape == (3, 12, 20)


def test_trimmed_images_need_a_size_and_are_other_data(make: Make, files: dict[str, bytes]) -> None:
    path = make(files)
    with pytest.raises(DataError, match="expected a size beside trim, got none"):
        load(path, trim=10)
    usual, trimmed = load(path, size=4), load(path, size=4, trim=10)
    assert usual.fingerprint != trimmed.fingerprint
    assert trimmed.decoding.trim == 10


def test_groups_from_a_level_of_the_path(make: Make, png: Callable[..., bytes]) -> None:
    files = {f"{label}/{track}/{index}.png": png(index) for label in "ab" for track in "xy" for index in range(2)}
    dataset = load(make(files), groups="level:1")
    assert dataset.groups is not None
    assert dataset.groups.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert dataset.group_names == ("a/x", "a/y", "b/x", "b/y")
    assert dataset.labels.tolist() == [0] * 4 + [1] * 4


def test_absent_path_names_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"folder or a zip .* at .*/nowhere\.zip, got nothing"):
        load(tmp_path / "nowhere.zip")
    with pytest.raises(DataError, match="set `path`"):
        imagefolder.load(Config(), tmp_path)


def test_home_folder(make: Make, files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(files)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    home = load(Path("~") / path.name, root=tmp_path / "root")
    assert home.name == "pets"
    assert home.fingerprint == load(path).fingerprint


def test_file_that_is_no_zip(tmp_path: Path, files: dict[str, bytes]) -> None:
    (tmp_path / "pets.zip").write_bytes(files["train/cat/0.png"])
    with pytest.raises(DataError, match=r"pets\.zip, got a file that is not a zip"):
        load(tmp_path / "pets.zip")


def test_no_permission(make: Make, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(files)

    def refuse(*_: object, **__: object) -> object:
        raise PermissionError(13, "Permission denied", str(path))

    # A test may run as root, whom the file system refuses nothing.
    monkeypatch.setattr(zipfile, "ZipFile", refuse)
    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=f"expected to read .*{path.name}, got: permission denied"):
        load(path)


def test_root_that_cannot_be_written(make: Make, files: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "occupied").write_text("a file, not a folder")
    with pytest.raises(DataError, match=r"expected to store the decoded images in .*occupied"):
        load(make(files), root=tmp_path / "occupied")


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        (("train/cat", "test/cat"), r"at least two class folders with images, got 1 \(cat\)"),
        ((), r"at least two class folders with images in .* got 1 \.txt; convert them"),
        (("train/",), "expected the folders train and test, got only 'train'; add 'test'"),
        (("test/",), "expected the folders train and test, got only 'test'; add 'train'"),
        (("train/", "test/cat"), r"'dog' has no images in test, only in train \(1 such classes\)"),
        (("train/cat", "test/"), r"'dog' has no images in train, only in test \(1 such classes\)"),
    ],
)
def test_missing_classes_and_sides(make: Make, files: dict[str, bytes], keep: tuple[str, ...], message: str) -> None:
    kept = {name: data for name, data in files.items() if name.startswith(keep)} if keep else {}
    with pytest.raises(DataError, match=message):
        load(make(kept | {"readme.txt": b"x"}))


def test_empty_class_folder_is_named(make: Make, files: dict[str, bytes]) -> None:
    with pytest.raises(DataError, match="got none in 'train/bird'; remove it"):
        load(make(files, empty=("train/bird",)))


def test_unknown_side_is_named(make: Make, files: dict[str, bytes]) -> None:
    with pytest.raises(DataError, match="got also extra;"):
        load(make(files | {"extra/cat/0.png": files["train/cat/0.png"]}))


@pytest.mark.parametrize("name", ["val", "Valid", "validation", "dev"])
def test_validation_beside_test_is_used_as_it_is(
    make: Make, files: dict[str, bytes], png: Callable[..., bytes], name: str
) -> None:
    more = {f"{name}/{label}/0.png": png(200 + index) for index, label in enumerate(("cat", "dog"))}
    dataset = load(make(files | more))
    assert dataset.holdout is not None
    assert dataset.validation is not None
    assert [shade >= 200 for shade in shades(dataset)] == dataset.validation.tolist()
    assert [shade < 45 for shade in shades(dataset)] == dataset.holdout.tolist()


@pytest.mark.parametrize(
    ("train", "test"), [("train", "holdout"), ("Training", "eval"), ("fit", "val"), ("fit", "test")]
)
def test_splits_never_pass_for_classes(make: Make, files: dict[str, bytes], train: str, test: str) -> None:
    with pytest.raises(DataError, match=r"both hold 'cat'; name them train and test, or rename '.*' if it is a class"):
        load(make(renamed(files, train, test)))
    some = {name: data for name, data in renamed(files, train, test).items() if not name.startswith(f"{test}/cat")}
    with pytest.raises(DataError, match="that both hold 'dog'"):
        load(make(some, name="some"))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("train", "Train"), "got only 'Train', 'train'; add 'test', or give the path of 'Train' itself"),
        (("val", "dev"), "got only 'dev', 'val'; add 'train'"),
        (("train", "Train", "test"), "one train, one test and .*, got also train;"),
        (("train", "val", "dev"), "one train, one test and .*, got also val;"),
    ],
)
def test_a_side_given_twice_is_refused(
    both: Callable[..., tuple[Path, Path]], png: Callable[..., bytes], names: tuple[str, ...], message: str
) -> None:
    # Only the zip, because some file systems do not tell train from Train.
    _, path = both({f"{name}/{label}/0.png": png(1) for name in names for label in "ab"})
    with pytest.raises(DataError, match=message):
        load(path)


def test_class_that_is_called_like_a_split(make: Make, png: Callable[..., bytes]) -> None:
    dataset = load(make({f"{label}/{label} 1/0.png": png(1) for label in ("bus", "tram", "train")}))
    assert dataset.class_names == ("bus", "train", "tram")
    assert dataset.holdout is None


def test_image_outside_a_class_folder_is_named(make: Make, files: dict[str, bytes]) -> None:
    with pytest.raises(DataError, match=r"images as split/class/file, got 'train/stray\.png'"):
        load(make(files | {"train/stray.png": files["train/cat/0.png"]}))


@pytest.mark.parametrize("broken", [b"hello", b"", "truncated"])
def test_broken_image_is_named(
    make: Make, files: dict[str, bytes], noise_png: Callable[[int], bytes], broken: bytes | str
) -> None:
    data = noise_png(0)[:-400] if isinstance(broken, str) else broken
    with pytest.raises(DataError, match=r"expected an image in 'test/cat/0\.png', got: .*(; |, )repair or remove"):
        load(make(files | {"test/cat/0.png": data}))


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "tiff"])
@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, 3), (8, 1)])
def test_images_are_turned_upright(make: Make, kind: str, orientation: int, turns: int) -> None:
    pixels = np.zeros((8, 16), dtype=np.uint8)
    pixels[:, :8] = 250
    data = {f"{label}/0.{kind}": oriented(pixels, kind, orientation) for label in "ab"}
    images = load(make(data), channels=1).images
    assert np.array_equal(images[0, 0].numpy() > 125, np.rot90(pixels, turns) > 125)


@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_damaged_exif_data_do_no_harm(kind: str) -> None:
    pixels = np.full((8, 16), 250, dtype=np.uint8)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    whole = exif.tobytes()
    assert _decode.decode(encoded(pixels, kind, whole), Decoding()).shape == (1, 16, 8)
    for damaged in (b"Exif\0\0nonsense", whole[:12], whole[:18].replace(b"II", b"??").replace(b"MM", b"??")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert _decode.decode(encoded(pixels, kind, damaged), Decoding()).shape == (1, 8, 16)


def oriented(pixels: np.ndarray, kind: str, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return encoded(pixels, kind, exif)


def encoded(pixels: np.ndarray, kind: str, exif: Image.Exif | bytes) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, exif=exif)
    return buffer.getvalue()


def test_zip_whose_checksum_does_not_fit(tmp_path: Path, both: Callable[..., tuple[Path, Path]]) -> None:
    marker = b"payload"
    _, path = both({"a/0.png": marker, "b/0.png": marker})
    path.write_bytes(path.read_bytes().replace(marker, b"changed"))
    with pytest.raises(DataError, match=r"expected to read '[ab]/0\.png' in .*pets\.zip, got: Bad CRC-32"):
        load(path)


def test_different_sizes_are_named_unless_scaled(
    make: Make, files: dict[str, bytes], png: Callable[..., bytes]
) -> None:
    path = make(files | {"train/dog/1.png": png(9, size=(6, 5))})
    with pytest.raises(DataError, match=r"4x4 in 'test/cat/0\.png' and 6x5 in 'train/dog/1\.png'; set `size`"):
        load(path)
    assert load(path, size=4).image_shape == (1, 4, 4)


def test_grey_among_colour_is_named_unless_asked_for(
    make: Make, files: dict[str, bytes], png: Callable[..., bytes]
) -> None:
    path = make(files | {"train/dog/1.png": png(9, mode="RGB")})
    with pytest.raises(DataError, match=r"1 in 'test/cat/0\.png' and 3 in 'train/dog/1\.png'; set `channels`"):
        load(path)
    assert load(path, channels=3).image_shape == (3, 4, 4)


@pytest.mark.parametrize(
    ("groups", "table", "message"),
    [
        ("groups.csv", None, r"table of groups 'groups\.csv' inside .* got none; add it"),
        ("groups.csv", "file,speaker\na,b\n", r"columns group and path in groups\.csv, got 'file', 'speaker'"),
        ("groups.csv", "", r"columns group and path in groups\.csv, got none"),
        ("groups.csv", "path,group\ntest/cat/0.png,x\n", r"none for 'test/cat/1\.png' \(7 images lack one\)"),
        ("groups.csv", "path,group\ntest/cat/0.png,x\n\na,\n", r"every row of groups\.csv, got none for 'a' in row 4"),
        ("groups.csv", "path,group\na, \n", r"got none for 'a' in row 2; fill it in or remove"),
        ("groups.csv", "path,group\na\n", r"got none for 'a' in row 2; fill it in or remove"),
        ("groups.csv", "path,group\na,x\nb,x\na,y\n", r"got 'x' in row 2 and, in row 4, 'y' for 'a'; remove one"),
        ("level:1", None, r"a CSV .*since 'test/cat/0.png' has 0 folders below its class folder, got 'level:1'"),
        ("level:0", None, r"a CSV .*got 'level:0'"),
        ("level:x", None, r"a CSV .*got 'level:x'"),
    ],
)
def test_bad_groups(make: Make, files: dict[str, bytes], groups: str, table: str | None, message: str) -> None:
    path = make(files if table is None else files | {"groups.csv": table.encode()})
    with pytest.raises(DataError, match=message):
        load(path, groups=groups)


def test_bad_size(make: Make, files: dict[str, bytes]) -> None:
    with pytest.raises(DataError, match="at least 1 pixel, got 0"):
        load(make(files), size=0)


def test_options_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().size = 3  # type: ignore[misc]


@pytest.mark.parametrize("skip", ["error", "skip"])
def test_processes_decode_what_one_process_does(
    make: Make, noise_png: Callable[[int], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, skip: str
) -> None:
    files = {f"{label}/{index:02}.png": noise_png(index) for label in "ab" for index in range(30)}
    bad = {"a/17.png": b"x", "b/03.png": b"y"}
    path = make(files | (bad if skip == "skip" else {}))
    alone = load(path, tmp_path / "alone", on_bad_image=skip)
    for name, value in {"ALONE": 0.0, "WORTH": 0.0, "PATIENCE": 60.0, "PIECE": 0.0}.items():
        monkeypatch.setattr(crew, name, value)
    monkeypatch.setattr(cores, "available", lambda: 2)
    together = load(path, tmp_path / "together", on_bad_image=skip)
    assert torch.equal(alone.images, together.images)
    assert (alone.fingerprint, alone.skipped) == (together.fingerprint, together.skipped)
    whole = [next(tmp_path.glob(f"{root}/**/*.npy")).read_bytes() for root in ("alone", "together")]
    assert whole[0] == whole[1]
    with pytest.raises(DataError, match=r"a/17\.png"):  # the first by its position
        load(make(files | bad, name="broken"), tmp_path / "together")
