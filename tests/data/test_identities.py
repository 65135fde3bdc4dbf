"""Files that have not changed are not read again."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sharedlabel.data import _identities, imagefolder
from sharedlabel.data._source import Source
from sharedlabel.data.imagefolder import Config
from sharedlabel.types import Dataset

Make = Callable[..., Path]


@pytest.fixture(autouse=True)
def _settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trust the times of files that were just written."""
    monkeypatch.setattr(_identities, "SETTLED", -(10**12))


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are read."""
    names: list[str] = []
    whole = Source.read

    def noted(source: Source, name: str, *limit: int) -> bytes:
        names.append(name)
        return whole(source, name, *limit)

    monkeypatch.setattr(Source, "read", noted)
    return names


def load(path: Path) -> Dataset:
    return imagefolder.load(Config(path=str(path)), path.parent / "root")


def note(path: Path) -> Path:
    (only,) = (path.parent / "root" / ".cache" / "imagefolder").glob("*.identities")
    return only


def test_a_second_load_reads_only_what_is_new_or_touched(
    both: Callable[..., tuple[Path, Path]], files: dict[str, bytes], png: Callable[..., bytes], read: list[str]
) -> None:
    folder, _ = both(files)
    first = load(folder)
    assert sorted(set(read)) == sorted(files)
    read.clear()
    assert load(folder).fingerprint == first.fingerprint
    assert read == []
    changed = folder / "train/cat/0.png"
    status = changed.stat()
    changed.write_bytes(bytes(reversed(changed.read_bytes())))  # as long as before,
    os.utime(changed, ns=(status.st_atime_ns, status.st_mtime_ns))  # and made as old: an unpacker may do that
    with Source(folder) as source:
        _identities.look(source, sorted(files), note(folder).parent)
    assert read == ["train/cat/0.png"]
    read.clear()
    changed.write_bytes(png(200))
    (folder / "train/dog/9.png").write_bytes(png(210))
    assert load(folder).fingerprint != first.fingerprint
    assert sorted(set(read) & {"train/cat/0.png", "train/dog/9.png"}) == ["train/cat/0.png", "train/dog/9.png"]


def test_fingerprints_and_copies_are_those_of_a_full_look(make: Make, files: dict[str, bytes], read: list[str]) -> None:
    path = make(files | {"train/dog/copy.png": files["train/cat/0.png"]})
    first = load(path)
    read.clear()
    second = load(path)
    assert read == []
    assert (second.fingerprint, second.content.tolist()) == (first.fingerprint, first.content.tolist())  # type: ignore[union-attr]
    assert len(set(first.content.tolist())) == len(files)  # type: ignore[union-attr]


@pytest.mark.parametrize("content", [b"", b"[]", b'{"train/cat/0.png": 3}', b'{"train/cat/0.png": ["x", "y", 1, ""]}'])
def test_without_the_note_or_with_a_damaged_one_all_is_read(
    both: Callable[..., tuple[Path, Path]], files: dict[str, bytes], read: list[str], content: bytes
) -> None:
    folder, _ = both(files)
    first = load(folder)
    whole = note(folder).read_bytes()
    for damage in (lambda: note(folder).unlink(), lambda: note(folder).write_bytes(content)):
        damage()
        read.clear()
        assert load(folder).fingerprint == first.fingerprint
        assert sorted(read) == sorted(files)
        assert note(folder).read_bytes() == whole


def test_what_was_written_just_now_is_read_again(
    both: Callable[..., tuple[Path, Path]], files: dict[str, bytes], read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_identities, "SETTLED", 10**12)
    folder, _ = both(files)
    load(folder)
    read.clear()
    load(folder)
    assert sorted(read) == sorted(files)


def test_a_file_that_cannot_be_read_is_tried_again(
    both: Callable[..., tuple[Path, Path]], files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = both(files)
    with monkeypatch.context() as patch:
        patch.setattr("sharedlabel.data._source.FILE_BYTES", 10)
        patch.setattr(Source.read, "__defaults__", (10,))
        with Source(folder) as source:
            assert _identities.look(source, sorted(files), folder.parent / "note")[0] == [(0, -1)] * len(files)
    with Source(folder) as source:
        identities, content = _identities.look(source, sorted(files), folder.parent / "note")
    assert min(length for _, length in identities) > 10
    assert content == list(range(len(files)))


def test_a_place_that_cannot_be_written_is_no_error(
    both: Callable[..., tuple[Path, Path]], files: dict[str, bytes]
) -> None:
    folder, _ = both(files)
    (folder.parent / "occupied").write_text("a file, not a folder")
    with Source(folder) as source:
        identities, _ = _identities.look(source, sorted(files), folder.parent / "occupied")
    assert len(set(identities)) == len(files)
