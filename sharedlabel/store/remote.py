"""Artifacts at a URL, and a folder of this machine that they pass through.

The folder, a store itself, holds what was computed here and what was read here: tensors are mapped from it, and no
process fetches them twice. At the URL nothing is renamed: `artifacts/<stage>/<key>/<sha256>.safetensors` are the
shards, each called by its content, so that two who write the same artifact never write into each other's files. The
manifest comes last and is created by one alone; it is what makes an artifact whole.
"""

from __future__ import annotations

import contextlib
import errno
import json
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sharedlabel.errors import StoreError, WriteError
from sharedlabel.files import leases, unfinished
from sharedlabel.files.claims import Claims
from sharedlabel.files.plain import read_file
from sharedlabel.files.remote import Remote
from sharedlabel.files.unfinished import Unfinished
from sharedlabel.store.artifacts import FORMAT, MANIFEST, Artifact, Output, called
from sharedlabel.store.checks import CACHE, cache, hashed, read_manifest
from sharedlabel.store.local import MARKER, Store

_LISTED = 60.0  # seconds for which a list of all artifacts is used
_AT_ONCE = 1000  # manifests that are fetched together
_ABANDONED = 86_400.0  # seconds after which shards without a manifest are those of a run that was killed
_SHA256 = re.compile("[0-9a-f]{64}")
Sizes = Mapping[str, int]


class RemoteStore(Store):
    """A store at a URL, shared by any number of machines.

    Args:
        url: with a protocol that fsspec knows.
        readonly: read what is there, write and remove nothing there.
        sweep: remove what processes have left that are gone.

    Raises:
        StoreError: the URL cannot be used, is that of no store, or a newer version of this package wrote it.
    """

    again = "it is put there again from the cache of this machine, or computed again"

    def __init__(self, url: str, readonly: bool = False, sweep: bool = True) -> None:
        self.place = Remote(url)
        try:
            self._here = _Cache(cache() / "store", sweep=sweep)
        except StoreError as error:
            raise StoreError(f"{error}; it is the cache of {url}, which {CACHE} moves elsewhere") from error
        self._trained: set[tuple[str, str]] = set()  # calls of which there are states of trainings
        self._list: tuple[float, dict[tuple[str, str], dict[str, int]]] | None = None
        super().__init__(self._here.root, readonly, sweep)

    @property
    def where(self) -> str:
        """Its URL."""
        return self.place.url

    def _make(self, marker: Path) -> None:
        self.place.create(marker.name, json.dumps({"format": FORMAT}))

    def _marker(self) -> bytes:
        return self.place.read(MARKER).encode()

    def claims(self) -> Claims:
        """Return the claims on what is to be computed for it."""
        return Claims(self.place)

    def unfinished(self, stage: str, key: str) -> Unfinished:
        """Return the states of the trainings of a stage call."""
        return _RemoteUnfinished(self.place, self.root, (stage, key), self._trained)

    def has(self, stage: str, key: str) -> bool:
        """Tell whether the artifact is there, whole by its manifest and the sizes of its shards.

        What this machine has in its cache and the place has not, or has damaged, is put there.
        """
        return (stage, key) in self._verified or self._holds(stage, key, self._sizes(stage, key))

    def among(self, places: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
        """Return which of these artifacts are there; their manifests are fetched together."""
        listing, asked = self._listing(), set(places)
        self._expect(asked - self._verified)
        return {one for one in asked if one in self._verified or self._holds(*one, listing.get(one, {}))}

    def _holds(self, stage: str, key: str, sizes: Sizes) -> bool:
        """Tell whether an artifact of files of these sizes is whole; put it there if not, and if the cache has it."""
        if MANIFEST in sizes:
            problem = self._problem(stage, key, sizes)
            if not problem:
                self._verified.add((stage, key))
                return True
            self._drop(stage, key, problem)
            sizes = {}
        if self.readonly or not self._here.has(stage, key):
            return False
        return self._put(stage, key, sizes)

    def load(self, stage: str, key: str) -> Artifact:
        """Open a stored artifact; its tensors are fetched when they are first read.

        Raises:
            StoreError: there is none.
        """
        if not self.has(stage, key):
            raise StoreError(f"no {called(stage, key)} in {self.where}; run the grid to compute it")
        manifest = json.loads(self._manifest_path(stage, key).read_bytes())
        return Artifact(key, manifest, self._here._folder(stage, key), lambda: self._fetch(stage, key))

    def save(self, stage: str, key: str, output: Output, record: Mapping[str, Any], started: float) -> Artifact:
        """Write an artifact into the cache, then put it there.

        Raises:
            StoreError: the store is only read.
            WriteError: a place cannot be written; what was computed stays in the cache.
        """
        if self.readonly:
            raise StoreError(f"expected a store to write {called(stage, key)} to, got {self.where} to read only")
        self._here.save(stage, key, output, record, started)
        self._put(stage, key, {})
        if (stage, key) in self._trained:
            self.unfinished(stage, key).remove()
        return self.load(stage, key)

    def remove(self, stage: str, key: str) -> None:
        """Remove an artifact there; the manifest first, so that nobody takes the rest for whole."""
        self._verified.discard((stage, key))
        if self._list is not None:
            self._list[1].pop((stage, key), None)
        names = self.place.sizes(_folder(stage, key))
        for name in sorted(names, key=lambda name: name != MANIFEST):
            self.place.remove(f"{_folder(stage, key)}/{name}")
        self._manifest_path(stage, key).unlink(missing_ok=True)

    def names(self, stage: str = "*", digits: str = "") -> list[tuple[str, str]]:
        """List the stages and keys of what lies among the artifacts, damaged or not."""
        whole = (place for place, sizes in self._listing().items() if MANIFEST in sizes)
        return sorted(place for place in whole if stage in {"*", place[0]} and place[1].startswith(digits))

    def verify(self) -> Iterator[tuple[str, str, str]]:
        """Fetch and read every byte of every artifact, and yield the stage and key of each, with what is wrong."""
        self._list = None
        self._expect(self._listing())
        for (stage, key), sizes in sorted(self._listing().items()):
            if MANIFEST in sizes:
                yield stage, key, self._problem(stage, key, sizes) or self._read_all(stage, key)
            elif all(self.place.expired(f"{_folder(stage, key)}/{name}", _ABANDONED) for name in sizes):
                yield stage, key, "its manifest was never written"

    def _read_all(self, stage: str, key: str) -> str:
        """Fetch all shards and say which does not match its checksum."""
        manifest = json.loads(self._manifest_path(stage, key).read_bytes())
        with leases.claimed(self.root / "partial") as folder:
            for name, checksum in manifest["files"].items():
                self.place.get(_shard(stage, key, checksum), folder / name)
                if hashed(folder / name) != checksum:
                    return f"{name} does not match its checksum"
                (folder / name).unlink()
        return ""

    def _listing(self) -> dict[tuple[str, str], dict[str, int]]:
        """Return the files of all artifacts with their bytes, as they were less than a minute ago."""
        if self._list is None or time.monotonic() - self._list[0] > _LISTED:
            began, places = time.monotonic(), dict[tuple[str, str], dict[str, int]]()
            for name, size in self.place.sizes("artifacts").items():
                stage, _, rest = name.partition("/")
                key, _, file = rest.partition("/")
                places.setdefault((stage, key), {})[file] = size
            self._list = began, places
        return self._list[1]

    def _sizes(self, stage: str, key: str) -> dict[str, int]:
        """Return the files of an artifact with their bytes; none where there is none."""
        sizes = {} if self._list is None else self._list[1].get((stage, key), {})
        if MANIFEST in sizes:
            return sizes
        try:
            self._fetch_manifests([(stage, key)])
        except FileNotFoundError:
            return {}
        return self.place.sizes(_folder(stage, key))

    def _problem(self, stage: str, key: str, sizes: Sizes) -> str:
        """Say what is wrong with an artifact there, by its manifest and the sizes of its shards; empty if nothing."""
        try:
            manifest = read_manifest(self._manifest(stage, key, sizes[MANIFEST]), stage, key)
            for name, checksum in manifest["files"].items():
                if not _SHA256.fullmatch(checksum) or sizes.get(f"{checksum}.safetensors") != manifest["bytes"][name]:
                    return f"{name} is not there with its size"
        except (FileNotFoundError, ValueError, KeyError, AttributeError, TypeError) as error:
            return f"{type(error).__name__}: {error}"
        return ""

    def _manifest_path(self, stage: str, key: str) -> Path:
        return self.root / "manifests" / stage / f"{key}.json"

    def _manifest(self, stage: str, key: str, size: int) -> bytes:
        """Return the content of a manifest, from the cache if it is there with its size."""
        path = self._manifest_path(stage, key)
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_size == size:
                return read_file(path)
        self._fetch_manifests([(stage, key)])
        return read_file(path)

    def _expect(self, places: Iterable[tuple[str, str]]) -> None:
        """Fetch the manifests of these artifacts that are listed and not in the cache."""
        listing = self._listing()
        there = (place for place in places if MANIFEST in listing.get(place, {}))
        with contextlib.suppress(FileNotFoundError):  # one was removed meanwhile: each is looked at later
            self._fetch_manifests([place for place in there if not self._manifest_path(*place).exists()])

    def _fetch_manifests(self, places: Sequence[tuple[str, str]]) -> None:
        """Bring manifests into the cache, many at a time."""
        for begin in range(0, len(places), _AT_ONCE):
            some = places[begin : begin + _AT_ONCE]
            with leases.claimed(self.root / "partial") as folder:
                made = {place: folder / f"{number}.json" for number, place in enumerate(some)}
                self.place.get_all({f"{_folder(*place)}/{MANIFEST}": path for place, path in made.items()})
                for place, path in made.items():
                    self._manifest_path(*place).parent.mkdir(parents=True, exist_ok=True)
                    path.replace(self._manifest_path(*place))

    def _put(self, stage: str, key: str, there: Sizes) -> bool:
        """Put an artifact of the cache there, unless another one is first; return whether one is there then."""
        folder, manifest = self._here._folder(stage, key), self._here.load(stage, key).manifest
        for name, checksum in manifest["files"].items():
            if there.get(f"{checksum}.safetensors") != (folder / name).stat().st_size:
                self.place.put(folder / name, _shard(stage, key, checksum))
        if not self.place.create(f"{_folder(stage, key)}/{MANIFEST}", (folder / MANIFEST).read_text()):
            self._here.remove(stage, key)
            return self.has(stage, key)
        _placed(self._manifest_path(stage, key), lambda made: shutil.copyfile(folder / MANIFEST, made))
        self._verified.add((stage, key))
        return True

    def _fetch(self, stage: str, key: str) -> None:
        """Bring an artifact into the cache, unless it is there.

        Raises:
            StoreError: it is damaged, which its size did not show.
        """
        folder, path = self._here._folder(stage, key), self._manifest_path(stage, key)
        if self._here.has(stage, key):
            if (folder / MANIFEST).read_bytes() == path.read_bytes():
                return
            self._here.remove(stage, key)  # computed here, while another one was first there
        with contextlib.ExitStack() as stack:
            partial = self._here._begun(stack, key)
            for name, checksum in json.loads(path.read_bytes())["files"].items():
                self.place.get(_shard(stage, key, checksum), partial / name)
                if hashed(partial / name) != checksum:
                    self._drop(stage, key, f"{name} does not match its checksum")
                    raise StoreError(f"{called(stage, key)} in {self.where} was damaged; run the same command again")
            shutil.copyfile(path, partial / MANIFEST)
            self._here.take(partial, stage, key)

    def _remove_leftovers(self) -> None:
        """Remove the states of trainings that nobody has written for a month."""
        for name in self.place.sizes("unfinished"):
            with contextlib.suppress(FileNotFoundError):  # another one removes it
                if self.place.expired(f"unfinished/{name}", unfinished.KEPT):
                    self.place.remove(f"unfinished/{name}")


class _Cache(Store):
    """The folder of this machine that artifacts pass through."""

    again = "it is fetched or computed again"


class _RemoteUnfinished(Unfinished):
    """States of the trainings of one stage call, put where others find them."""

    def __init__(self, place: Remote, root: Path, call: tuple[str, str], known: set[tuple[str, str]]) -> None:
        super().__init__(root.joinpath("unfinished", *call), root / "partial")
        self._place, self._call, self._known, self._there = place, call, known, "/".join(("unfinished", *call))

    def path(self, number: int) -> Path:
        """Fetch the state of a training if there is one, and return where it lies."""
        path = super().path(number)
        with contextlib.suppress(OSError, WriteError):  # no state, or none that can be had: the training begins anew
            _placed(path, lambda made: self._place.get(f"{self._there}/{path.name}", made))
            self._known.add(self._call)
        return path

    def write(self, number: int, save: Callable[[Path], None]) -> None:
        """Replace the state of a training."""
        super().write(number, save)
        path = super().path(number)
        self._known.add(self._call)
        try:
            self._place.put(path, f"{self._there}/{path.name}")
        except WriteError as error:  # no reason to stop the training
            raise OSError(errno.EIO, str(error)) from error

    def remove(self) -> None:
        """Remove all states."""
        super().remove()
        for name in self._place.sizes(self._there):
            self._place.remove(f"{self._there}/{name}")


def _folder(stage: str, key: str) -> str:
    return f"artifacts/{stage}/{key}"


def _shard(stage: str, key: str, checksum: str) -> str:
    return f"{_folder(stage, key)}/{checksum}.safetensors"


def _placed(path: Path, make: Callable[[Path], Any]) -> None:
    """Make a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / path.name
        make(made)
        made.replace(path)
