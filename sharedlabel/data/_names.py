"""What the name of a file says: an image, a stray file beside images, or one that is hidden."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Iterable

FORMATS = ("BMP", "DIB", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # what Pillow may try, and nothing else
READ = "BMP, GIF, JPEG, PNG, PPM, TIFF or WebP"
# fmt: off
_IMAGES = frozenset({
    ".apng", ".bmp", ".dib", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pfm", ".pgm", ".png", ".pnm", ".ppm",
    ".tif", ".tiff", ".webp",
})
_OTHER_IMAGES = frozenset({
    ".avif", ".cr2", ".dcm", ".dng", ".exr", ".heic", ".heif", ".ico", ".j2k", ".jp2", ".jxl", ".nef", ".psd", ".raw",
    ".svg", ".tga",
})
# fmt: on
_SYSTEM_FOLDERS = frozenset({"@eadir", "$recycle.bin", "lost+found", "system volume information"})
_LISTED = 6


def hidden(name: str) -> bool:
    """Tell whether a path below the root is hidden, or what macOS adds to a zip."""
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def is_image(name: str) -> bool:
    """Tell whether a file is an image by its name, and not in a folder of thumbnails or of deleted files."""
    folder, _, file = name.rpartition("/")
    if folder and not _SYSTEM_FOLDERS.isdisjoint(folder.lower().split("/")):
        return False
    return posixpath.splitext(file)[1].lower() in _IMAGES


def unread(names: Iterable[str]) -> list[str]:
    """Return the files that are images by their names, but of formats that are not read."""
    return sorted(name for name in names if posixpath.splitext(name)[1].lower() in _OTHER_IMAGES)


def kinds(names: Iterable[str]) -> str:
    """Count files by their endings, the most frequent first.

    >>> kinds(["a/1.txt", "a/2.TXT", "Thumbs.db", "LICENCE"])
    '2 .txt, 1 .db, 1 LICENCE'
    """
    counts = Counter(_ending(name) for name in names)
    shown = [f"{count} {ending}" for ending, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    return ", ".join(shown[:_LISTED]) + (f" and {len(shown) - _LISTED} other kinds" if len(shown) > _LISTED else "")


def _ending(name: str) -> str:
    file = name.rpartition("/")[2]
    return posixpath.splitext(file)[1].lower() or file
