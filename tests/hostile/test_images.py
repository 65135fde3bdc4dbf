"""Image files and zips made to hang, to fill the machine, to run a program or to read what is not theirs."""

from __future__ import annotations

import contextlib
import io
import os
import re
import socket
import struct
import types
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from sharedlabel.data import _cache, _decode, _source, imagefolder
from sharedlabel.data.imagefolder import Config
from sharedlabel.decoding import Decoding
from sharedlabel.deployment.groups import read_groups
from sharedlabel.errors import ConfigError, DataError
from sharedlabel.machine import memory


def picture(seed: int = 0, kind: str = "png", mode: str = "L") -> bytes:
    shape = (6, 6) if mode == "L" else (6, 6, len(mode))
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8), mode).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    for index, name in enumerate(("cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png")):
        file = tmp_path / "pets" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(picture(index))
    return tmp_path / "pets"


def load(path: Path, **options: object):
    return imagefolder.load(Config(path=str(path), **options), path.parent / "root")  # type: ignore[arg-type]


def refused(path: Path, message: str, **options: object) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load(path, **options)
    assert "; " in str(caught.value)  # says what to do


def zipped(path: Path, members: dict[str, bytes], change: Callable[[zipfile.ZipInfo], None] = lambda _: None) -> Path:
    archive_path = path.parent / "pets.zip"
    with zipfile.ZipFile(archive_path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(path.rglob("*.png")):
            archive.write(file, file.relative_to(path))
        for name, data in members.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            change(info)
            archive.writestr(info, data)
    return archive_path


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(x) run\nshowpage\n%%EOF\n"


def test_pillow_is_given_a_list_of_formats(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.init()  # every reader is there, as after another library has used Pillow
    monkeypatch.setattr("PIL.EpsImagePlugin.EpsImageFile._open", lambda *_: pytest.fail("asked a reader of programs"))
    for data in (POSTSCRIPT, b"<svg/>", b"\0\0\1\0\1\0", picture(kind="jpeg2000")):
        (pets / "dog/0.png").write_bytes(data)
        refused(pets, r"'dog/0\.png', got: no image format that is read \(BMP, GIF, JPEG, .*convert, repair or remove")


def test_pipes_devices_and_sockets_are_refused_before_they_are_opened(
    pets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_source, "_read", lambda *_: pytest.fail("opened"))
    file = pets / "dog/2.png"
    os.mkfifo(file)
    refused(pets, "expected a plain file at '.*dog/2.png', got a pipe; leave it out, or put a file there")
    with pytest.raises(DataError, match="got a pipe"):
        read_groups(pets)
    file.unlink()
    monkeypatch.chdir(pets / "dog")  # the path of a socket is short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("2.png")
        refused(pets, "got a socket; leave it out, or put a file there")
    file.unlink()
    file.symlink_to("/dev/zero")
    refused(pets, "expected files inside .*, got 'dog/2.png', which leads to /dev/zero; copy it there")
    file.unlink()
    file.mkdir()  # is no image, and holds none
    monkeypatch.undo()
    assert len(load(pets).labels) == 4


def test_a_pipe_that_took_the_place_of_a_listed_file_is_not_waited_for(pets: Path) -> None:
    with _source.Source(pets) as source:
        assert "dog/0.png" in source.images()
        (pets / "dog/0.png").unlink()
        os.mkfifo(pets / "dog/0.png")
        with pytest.raises(DataError, match="got a pipe"):
            source.read("dog/0.png")


def test_a_pipe_in_the_place_of_the_data_or_of_a_table(pets: Path) -> None:
    os.mkfifo(pets.parent / "pets.zip")
    refused(pets.parent / "pets.zip", "expected a plain file at .*pets.zip', got a pipe; leave it out")
    os.mkfifo(pets.parent / "groups.csv")
    refused(pets, "expected a table of groups", groups="groups.csv")
    os.mkfifo(pets / "inside.csv")
    refused(pets, "got a pipe; leave it out, or put a file there", groups="inside.csv")
    with pytest.raises(DataError, match="got a pipe"):
        read_groups(pets.parent / "groups.csv")


def test_paths_that_no_file_can_have(pets: Path) -> None:
    refused(pets / "a\0b", "expected to read .*, got: embedded null byte; check the path")
    refused(pets / ("x" * 5000), r"expected to read .*, got: .*name too long.*; check the path")
    refused(pets, "expected a table of groups", groups="a\0b")


def test_links_lead_to_files_of_the_folder_only(pets: Path) -> None:
    secret = pets.parent / "secret.png"
    secret.write_bytes(picture(9))
    (pets / "dog/2.png").symlink_to("../cat/0.png")
    assert len(load(pets).labels) == 5
    (pets / "dog/3.png").symlink_to(secret)
    refused(pets, r"got 'dog/3\.png', which leads to .*secret\.png; copy it there")
    (pets / "dog/3.png").unlink()
    (pets / "eel").symlink_to(pets.parent / "elsewhere")
    (pets.parent / "elsewhere").mkdir()
    refused(pets, "got 'eel', which leads to .*elsewhere; copy it there")
    (pets / "eel").unlink()
    (pets / "dog/gone.png").symlink_to("nothing.png")
    refused(pets, "expected an image at 'dog/gone.png' .*, got a link to nothing; remove it")


def test_links_that_go_round_in_circles(pets: Path) -> None:
    (pets / "dog/more").symlink_to("..")
    refused(pets, "expected every folder once in .*, got a link that makes .* one; remove it")
    (pets / "dog/more").unlink()
    (pets / "dog/x.png").symlink_to("y.png")
    (pets / "dog/y.png").symlink_to("x.png")
    refused(pets, "expected an image at 'dog/[xy].png' .*, got a link to nothing; remove it")


def test_very_deep_folders(pets: Path) -> None:
    handle = os.open(pets / "dog", os.O_RDONLY)
    for _ in range(700):  # beyond the longest path that the system takes
        os.mkdir("deeper", dir_fd=handle)
        inner = os.open("deeper", os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle = inner
    os.close(handle)
    refused(pets, r"expected to read .*pets, got: .*name too long.*; check the path")


def test_a_member_that_inflates_without_end_is_refused_before_it_is_read(
    pets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = zipped(pets, {"dog/2.png": b"\0" * (1 << 24)})
    assert path.stat().st_size < 1 << 16
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *_, **__: pytest.fail("inflated"))
    with _source.Source(path) as source, pytest.raises(DataError, match=r"at most 1,048,576 bytes in .* of pets\.zip"):
        source.read("dog/2.png", 1 << 20)


def test_a_member_that_is_longer_than_it_says(pets: Path) -> None:
    path = zipped(pets, {"dog/2.png": b"\0" * (1 << 16)})
    data = path.read_bytes()
    path.write_bytes(data.replace(struct.pack("<I", 1 << 16), struct.pack("<I", 16)))
    refused(path, "expected to read 'dog/2.png' in pets.zip, got: .*; restore the file, or fetch the zip again")


def test_names_that_lead_out_of_a_zip(pets: Path) -> None:
    for name in ("../dog/2.png", "dog/../../2.png", "/dog/2.png", "C:/dog/2.png", "..\\2.png", "dog/.."):
        path = zipped(pets, {name: picture()})
        refused(path, "expected names of files inside the zip .*, got '.*'; pack it again without such names")
        with pytest.raises(DataError, match="names of files inside the zip"):
            read_groups(path)


def link(info: zipfile.ZipInfo) -> None:
    info.external_attr = 0o120777 << 16


def test_links_in_a_zip(pets: Path) -> None:
    refused(zipped(pets, {"dog/2.png": b"/etc/passwd"}, link), "expected plain files in the zip .*'dog/2.png', a link")


def test_zips_that_are_encrypted_or_packed_by_other_methods(pets: Path) -> None:
    path = zipped(pets, {"dog/2.png": picture()})
    data = bytearray(path.read_bytes())
    start = data.rindex(b"PK\x01\x02")
    data[start + 8] |= 1
    path.write_bytes(data)
    refused(path, "expected a zip without a password at .*, got 'dog/2.png' with one; pack it without")
    data[start + 8] &= ~1
    data[start + 10] = 14  # LZMA, whose header may ask for 4 GB
    path.write_bytes(data)
    refused(path, "compressed by deflate at .*, got 'dog/2.png' compressed by method 14; pack it again")


def test_damaged_zips_end_in_one_sentence(pets: Path) -> None:
    whole = zipped(pets, {}).read_bytes()
    path = pets.parent / "pets.zip"
    generator = np.random.default_rng(0)
    messages = set()
    for _ in range(150):
        data = bytearray(whole)
        for position in generator.integers(0, len(data), 3):
            data[position] = generator.integers(0, 256)
        path.write_bytes(data[: generator.integers(1, len(data) + 1)] if generator.random() < 0.2 else data)
        try:
            load(path)
        except DataError as error:
            messages.add(re.sub(r"'.*'|\d+", "", str(error)))
    assert len(messages) > 3


def test_names_of_a_zip_that_are_no_text(pets: Path) -> None:
    path = zipped(pets, {"dog/\u00e4.png": picture()})
    path.write_bytes(path.read_bytes().replace("\u00e4".encode(), b"\xff\xff"))
    refused(path, "expected a folder or a zip of images at .*, got a file that is not a zip .*; fetch it again")


def test_the_last_of_two_members_of_one_name_counts_as_in_every_unpacker(pets: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = zipped(pets, {"dog/1.png": picture(7)})
    (pets / "dog/1.png").write_bytes(picture(7))
    assert load(path).fingerprint == load(pets).fingerprint


def test_a_huge_size_says_what_it_needs_before_anything_is_decoded(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_decode, "decode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(
        ConfigError, match=r"one image of size 1000000: expected what fits into the .*10.9 TiB; set a small"
    ):
        load(pets, size=10**6)
    monkeypatch.setattr(memory, "total", lambda: 1 << 50)
    monkeypatch.setattr(_cache.shutil, "disk_usage", lambda _: types.SimpleNamespace(free=10**9))
    message = r"expected room for 4 decoded images in .*, 37\.3 GiB, got 953\.7 MiB free; set a smaller `size`"
    refused(pets, message, size=10**5)
    refused(pets, "expected a size of at least 1 pixel, got -1; set it higher", size=-1)


def test_images_that_do_not_fit_on_the_disk(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cache.shutil, "disk_usage", lambda _: types.SimpleNamespace(free=0))
    refused(pets, "expected room for 4 decoded images in .*, 144 bytes, got 128 bytes free; set a smaller `size`")
    assert not [file for file in (pets.parent / "root").rglob("*") if file.is_file()]


def header(width: int, height: int) -> bytes:
    """A PNG that claims to be large."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    facts = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", facts) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_pixel_bombs(pets: Path) -> None:
    for width, height in ((20_000, 20_000), (2**31 - 1, 1), (60_000, 60_000)):
        (pets / "dog/0.png").write_bytes(header(width, height))
        refused(pets, r"'dog/0\.png' that becomes 8 bits .*, got more than \S+ pixels; scale it down or leave it out")
    (pets / "dog/0.png").write_bytes(header(10_000, 9_000))  # large, but not too large; and cut short
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        refused(pets, r"'dog/0\.png', got: .*truncated.*; repair or remove it")


@pytest.mark.parametrize("kind", ["png", "jpeg", "gif", "bmp", "tiff", "webp", "ppm"])
def test_damaged_images_end_in_one_sentence(kind: str) -> None:
    whole, generator, failed = picture(3, kind), np.random.default_rng(1), 0
    for _ in range(150):
        data = bytearray(whole)
        for position in generator.integers(0, len(data), 4):
            data[position] = generator.integers(0, 256)
        cut = bytes(data[: generator.integers(1, len(data) + 1)])
        failed += 1
        with warnings.catch_warnings(), contextlib.suppress(DataError):
            warnings.simplefilter("ignore")
            _decode.decode_named("a.png", cut, Decoding())
            failed -= 1
    assert failed > 10  # and nothing else was raised


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def first_row(data: bytes, **options: object) -> list[int]:
    decoding = Decoding(**options)  # type: ignore[arg-type]
    return _decode.decode(data, decoding)[0, 0].tolist()


def test_sixteen_bits_and_floats_are_scaled() -> None:
    wide = Image.fromarray(np.array([[0, 257, 128 * 257, 65535]], dtype=np.uint16))
    for kind in ("png", "tiff", "ppm"):
        assert first_row(encoded(wide, kind)) == [0, 1, 128, 255]
    stated = TiffImagePlugin.ImageFileDirectory_v2()
    stated[281] = 4095
    some = Image.fromarray(np.array([[0, 1000, 4095]], dtype=np.uint16))
    assert first_row(encoded(some, "tiff", tiffinfo=stated)) == [0, 62, 255]
    unit = Image.fromarray(np.array([[0, 0.5, 1]], dtype=np.float32))
    assert first_row(encoded(unit, "tiff")) == [0, 128, 255]
    assert first_row(encoded(unit, "tiff"), channels=3) == [0, 128, 255]


@pytest.mark.parametrize("values", [[0, 300.0], [-1.0, 0.5], [0, float("nan")]])
def test_floats_without_a_range_are_no_broken_files(values: list[float]) -> None:
    data = encoded(Image.fromarray(np.array([values], dtype=np.float32)), "tiff")
    with pytest.raises(
        DataError, match=r"becomes 8 bits per channel, got values from .* where 0 to 1 are .*; scale them"
    ) as raised:
        _decode.decode_named("a.tif", data, Decoding())
    assert "repair" not in str(raised.value)


def test_transparency_is_laid_on_white_or_black() -> None:
    clear = Image.fromarray(np.array([[[10, 20, 30, 0], [10, 20, 30, 255], [0, 0, 0, 51]]], dtype=np.uint8), "RGBA")
    assert first_row(encoded(clear, "png")) == [255, 10, 204]
    assert first_row(encoded(clear, "png"), background="black") == [0, 10, 0]
    grey = Image.fromarray(np.array([[[10, 0], [10, 255]]], dtype=np.uint8), "LA")
    pixels = _decode.decode(encoded(grey, "png"), Decoding())
    assert pixels.tolist() == [[[255, 10]]]
    palette = Image.fromarray(np.array([[0, 1]], dtype=np.uint8), "P")
    palette.putpalette([1, 2, 3, 4, 5, 6])
    assert first_row(encoded(palette, "png", transparency=0)) == [255, 4]
    assert first_row(encoded(palette, "gif", transparency=0)) == [255, 4]


def test_images_of_one_colour_each_are_refused(pets: Path) -> None:
    for index, file in enumerate(sorted(pets.rglob("*.png"))):
        Image.new("RGBA", (5, 5), (index, 0, 0, 0)).save(file)
    refused(pets, "expected images that show something, got 4 images of one colour each, such as 'cat/0.png'; check")
    Image.fromarray(np.eye(5, dtype=np.uint8)).convert("RGB").save(pets / "cat/1.png")
    assert len(load(pets).labels) == 4


def test_links_that_lead_to_folders_again_and_again_are_refused(pets: Path) -> None:
    """Two links each, forty levels deep, would be a million million folders."""
    for level in range(40):
        folder = pets / f"dog/y{level}"
        folder.mkdir()
        for link in "pq":
            (folder / link).symlink_to(f"../y{level + 1}")
    (pets / "dog/y40").mkdir()
    refused(pets, "expected every folder once in .*, got a link that makes 'dog/y.*' and 'dog/y.*' one; remove it")


def test_a_member_that_inflates_without_a_bound_is_refused(pets: Path) -> None:
    path = pets.parent / "pets.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        for file in sorted(pets.rglob("*.png")):
            archive.write(file, file.relative_to(pets))
    refused(path, "compressed by deflate at .*, got '.*png' compressed by method 12; pack it again")
