from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Files = Mapping[str, bytes]


def png(value: int, size: tuple[int, int] = (4, 4), mode: str = "L") -> bytes:
    """A PNG of one shade but for its last pixel; `size` is width, height."""
    buffer = io.BytesIO()
    colour, other = ((v if mode in {"L", "I;16"} else (v,) * len(mode)) for v in (value, (value + 100) % 256))
    image = Image.new(mode, size, colour)
    image.putpixel((size[0] - 1, size[1] - 1), other)
    image.save(buffer, "png")
    return buffer.getvalue()


def noise_png(seed: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


@pytest.fixture(name="png")
def png_fixture() -> Callable[..., bytes]:
    return png


@pytest.fixture(name="noise_png")
def noise_png_fixture() -> Callable[[int], bytes]:
    return noise_png


@pytest.fixture
def files() -> dict[str, bytes]:
    """Two classes, two training images and one test image each, every image of its own shade."""
    names = [
        f"{split}/{label}/{index}.png" for split in ("train", "test") for label in ("cat", "dog") for index in "01"
    ]
    return {name: png(10 * shade + 5) for shade, name in enumerate(sorted(names))}


@pytest.fixture(params=["folder", "zip"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Path]:
    """Write files to a folder or to a zip and return its path."""

    def build(files: Files, name: str = "pets", empty: tuple[str, ...] = ()) -> Path:
        return (write_zip if request.param == "zip" else write_folder)(tmp_path, files, name, empty)

    return build


def write_folder(parent: Path, files: Files, name: str, empty: tuple[str, ...] = ()) -> Path:
    for folder in empty:
        (parent / name / folder).mkdir(parents=True)
    for file, data in files.items():
        (parent / name / file).parent.mkdir(parents=True, exist_ok=True)
        (parent / name / file).write_bytes(data)
    return parent / name


def write_zip(parent: Path, files: Files, name: str, empty: tuple[str, ...] = ()) -> Path:
    path = parent / f"{name}.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for folder in empty:
            archive.writestr(f"{folder}/", b"")
        # Reversed, because a zip keeps any order and a loader must not depend on it.
        for file, data in reversed(files.items()):
            archive.writestr(file, data)
    return path


@pytest.fixture
def both(tmp_path: Path) -> Callable[[Files], tuple[Path, Path]]:
    """Write the same files as a folder and as a zip."""
    return lambda files: (write_folder(tmp_path, files, "pets"), write_zip(tmp_path, files, "pets"))
