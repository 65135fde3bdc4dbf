"""Artifacts in a folder.

An artifact is a folder `artifacts/<stage>/<key>` of safetensors shards and a `manifest.json`. It is written to a
temporary folder and renamed into place last, so it is whole or absent. Its key says everything that its content depends
on, code included; paths, devices and worker counts are not in it. What its manifest says it is must be where it lies.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import json
import shutil
import socket
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from sharedlabel.config import canonical, digest
from sharedlabel.errors import StoreError, WriteError
from sharedlabel.files import leases, together, unfinished
from sharedlabel.files.claims import Claims
from sharedlabel.files.patience import patiently
from sharedlabel.files.plain import read_file, read_json
from sharedlabel.files.unfinished import Unfinished
from sharedlabel.store import locks
from sharedlabel.store.artifacts import FORMAT, MANIFEST, Artifact, Output, called, serialized
from sharedlabel.store.checks import Notes, backdate, damage, state

MARKER = "store.json"
_AT_WORK = "at-work@"  # begins the names of the lock files that keep measuring apart from computing
_FORMER = ".+@.*@[0-9]+"  # folders below `partial` as versions before leases named them
_Value = TypeVar("_Value")


class Store:
    """Artifacts in a folder, shared by any number of runs, processes, containers and machines.

    Args:
        root: the folder; made when absent, unless it is only read.
        readonly: read what is there, write and remove nothing.
        sweep: remove what processes have left that are gone.

    Raises:
        StoreError: the folder cannot be written or read, is no store, or a newer version of this package wrote it.
    """

    again = "it is computed again"  # what becomes of a damaged artifact

    def __init__(self, root: Path, readonly: bool = False, sweep: bool = True) -> None:
        self.root, self.readonly = root, readonly
        self._verified: set[tuple[str, str]] = set()
        self._notes = Notes(root)
        if self._begin() and sweep and not readonly:
            self._remove_leftovers()

    def _begin(self) -> bool:
        """Make the store unless we only read; return whether there is one that this version can use."""
        try:
            if not self.readonly:
                self._make(self.root / MARKER)
            version = format_of(self._marker())
        except (OSError, ValueError) as error:
            if self.readonly and isinstance(error, FileNotFoundError):  # nothing is stored yet
                return False
            named = isinstance(error, OSError) and error.filename is None and error.strerror
            raise StoreError(
                f"expected a store that can be read{'' if self.readonly else ' and written'} at {self.where}, got: "
                f"{named or error}; choose another folder with --output, or another place with --store"
            ) from error
        if version > FORMAT:
            raise StoreError(
                f"{self.where} has store format {version}, this version reads up to {FORMAT}; "
                "upgrade sharedlabel or choose another --output or --store"
            )
        return True

    def exists(self) -> bool:
        """Tell whether there is a store, which one that is only read need not be."""
        try:
            return bool(self._marker())
        except FileNotFoundError:
            return False

    def _marker(self) -> bytes:
        return read_file(self.root / MARKER)

    def _make(self, marker: Path) -> None:
        for part in ("artifacts", "partial"):
            (self.root / part).mkdir(parents=True, exist_ok=True)
        if not marker.exists():
            with leases.claimed(self.root / "partial") as folder:
                made = folder / marker.name
                made.write_text(json.dumps({"format": FORMAT}))
                made.replace(marker)

    @property
    def where(self) -> str:
        """What messages call it, and what opens it again."""
        return str(self.root)

    def claims(self) -> Claims:
        """Return the claims on what is to be computed for it."""
        return Claims(self.root)

    def has(self, stage: str, key: str) -> bool:
        """Tell whether the artifact is there, whole and intact.

        Its bytes are read where this machine has not read them yet, or where their sizes or times have changed since;
        `verify` reads those of all. A damaged one, or another one in its place, is removed with a warning: everything
        in a store can be computed again, and a long run need not wait for somebody who looks. A store that is only read
        keeps it.
        """
        folder = self._folder(stage, key)
        if (stage, key) in self._verified:
            return folder.exists()
        if self._notes.hold(folder):
            self._verified.add((stage, key))
            return True
        if not folder.exists():
            return False
        problem = self._damage(folder)
        if problem:
            self._drop(stage, key, problem)
            return False
        self._verified.add((stage, key))
        return True

    def among(self, places: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
        """Return which of these artifacts, each a stage and a key, are there, whole and intact.

        Asks for all at once, where one after the other takes long; one that was stored in the last minute may be
        overlooked.
        """
        return {place for place in places if self.has(*place)}

    def _damage(self, folder: Path) -> str:
        """Say what is wrong with an artifact's folder, every byte read; empty if nothing is.

        Raises:
            StoreError: it cannot be read, such as for lack of a right, so nothing is known of it.
        """
        before = state(folder)
        try:
            problem = patiently(lambda: damage(folder), f"read {folder}")
        except OSError as error:
            if error.errno == errno.EIO:  # the device has lost it
                return f"{type(error).__name__}: {error}"
            raise StoreError(
                f"expected an artifact that can be read at {folder}, got: {error.strerror or error}; it is kept, since "
                "that says nothing of what it holds: correct it and run the same command again"
            ) from error
        self._notes.note(folder, "" if problem else before)
        return problem

    def _drop(self, stage: str, key: str, problem: str) -> None:
        """Remove a damaged artifact, with a warning; keep it where we only read."""
        then = "the next run computes it again" if self.readonly else self.again
        warnings.warn(f"{called(stage, key)} is damaged ({problem}); {then}", RuntimeWarning, stacklevel=4)
        if not self.readonly:
            self.remove(stage, key)

    def remove(self, stage: str, key: str) -> None:
        """Remove an artifact, or what lies in its place."""
        self._verified.discard((stage, key))
        _remove(self._folder(stage, key))

    def verify(self) -> Iterator[tuple[str, str, str]]:
        """Read every byte of every artifact, and yield the stage and key of each, with what is wrong; empty if nothing.

        Nothing is removed.
        """
        for stage, key in self.names():
            yield stage, key, self._damage(self._folder(stage, key))

    def names(self, stage: str = "*", digits: str = "") -> list[tuple[str, str]]:
        """List the stages and keys of what lies among the artifacts, damaged or not.

        Args:
            stage: name of the stage; of all if left out.
            digits: that the keys begin with.
        """
        return sorted((path.parent.name, path.name) for path in (self.root / "artifacts").glob(f"{stage}/{digits}*"))

    def load(self, stage: str, key: str) -> Artifact:
        """Open a stored artifact.

        Raises:
            StoreError: there is none.
        """
        if not self.has(stage, key):
            raise StoreError(f"no {called(stage, key)} in {self.where}; run the grid to compute it")
        folder = self._folder(stage, key)
        return Artifact(key, read_json(read_file(folder / MANIFEST)), folder)

    def find(self, key: str) -> Artifact:
        """Open the one artifact, of whatever stage, whose key begins with these hexadecimal digits.

        Raises:
            StoreError: there is none, or several.
        """
        places = self.names(digits=key) if key.isalnum() else []
        if len(places) != 1:
            raise StoreError(
                f"expected one artifact whose key begins with {key!r} in {self.where}, got {len(places)}; "
                "run the grid to compute it, or give more digits"
            )
        return self.load(*places[0])

    def save(self, stage: str, key: str, output: Output, record: Mapping[str, Any], started: float) -> Artifact:
        """Write an artifact; whole or not at all.

        Args:
            stage: name of the stage.
            key: its key.
            output: what the stage returned.
            record: provenance to keep in the manifest, such as config, versions and device.
            started: `time.perf_counter()` when the stage began, for the seconds it took.

        Raises:
            StoreError: the store is only read.
            WriteError: the disk is full or not writable; nothing half-written stays.
        """
        what = called(stage, key)
        if self.readonly:
            raise StoreError(f"expected a store to write {what} to, got {self.where} to read only")
        with contextlib.ExitStack() as stack:
            partial = self._written(what, lambda: self._begun(stack, key))
            files: dict[str, str] = {}
            sizes: dict[str, int] = {}
            for content in serialized(output.tensors):  # what fails in making them is the stage's error, not ours
                path = partial / f"shard-{len(files):05d}.safetensors"
                sizes[path.name] = self._written(what, functools.partial(path.write_bytes, content[0]))
                files[path.name] = hashlib.sha256(content.pop()).hexdigest()  # gone before the next shard is made
            created = datetime.now(UTC).isoformat(timespec="seconds")
            facts = {"format": FORMAT, "key": key, "stage": stage, "created": created, **record}
            facts |= {"seconds": round(time.perf_counter() - started, 3), "meta": output.meta}
            manifest = json.loads(canonical({**facts, "files": files, "bytes": sizes}))
            self._written(what, lambda: self._finish(partial, manifest))
        self.unfinished(stage, key).remove()
        return self.load(stage, key)

    def _begun(self, stack: contextlib.ExitStack, key: str) -> Path:
        """Return a folder to write an artifact into."""
        partial = stack.enter_context(leases.claimed(self.root / "partial")) / key
        partial.mkdir()
        return partial

    def _finish(self, partial: Path, manifest: dict[str, Any]) -> None:
        """Write the manifest, and put the whole in its place, unless another process was first."""
        whole = {"sha256": digest(manifest), **manifest}
        lines = (f"{json.dumps(name)}: {json.dumps(value)}" for name, value in whole.items())
        (partial / MANIFEST).write_text("{\n " + ",\n ".join(lines) + "\n}\n")
        self.take(partial, manifest["stage"], manifest["key"])

    def take(self, partial: Path, stage: str, key: str) -> None:
        """Put a folder, all of whose bytes are what they should be, in its place, unless another process was first."""
        for path in partial.iterdir():
            backdate(path)
        _flush(partial)
        folder, written = self._folder(stage, key), state(partial)
        self._publish(partial, folder)
        if not partial.exists():
            self._notes.note(folder, written)

    def unfinished(self, stage: str, key: str) -> Unfinished:
        """Return the states of the trainings of a stage call, which are there until its artifact is."""
        return Unfinished(self.root / "unfinished" / stage / key, self.root / "partial")

    def _written(self, what: str, write: Callable[[], _Value]) -> _Value:
        """Write something, and again while the place is full, read-only or away for a while.

        Raises:
            WriteError: it stays so.
        """
        with self.writing(what):
            return patiently(write, f"write {what} to {self.where}")

    @contextlib.contextmanager
    def writing(self, what: str) -> Iterator[None]:
        """Say in one sentence that the store cannot be written, if it cannot in the block.

        Raises:
            WriteError: in the place of an OSError.
        """
        try:
            yield
        except OSError as error:
            raise WriteError(
                f"could not write {what} to {self.where}: {error.strerror or error}; "
                "nothing is lost, free some space or fix the permissions and run the same command again"
            ) from error

    @contextlib.contextmanager
    def at_work(self, measuring: bool, waiting: Callable[[], None]) -> Iterator[None]:
        """Mark this process as one that computes, as many may, or as the one that measures times, while none computes.

        Holds for the processes of this machine that use this store, in whatever container. What a process marks ends
        with it.

        Args:
            measuring: wait until no process computes or measures, and keep others waiting; otherwise wait until none
                measures.
            waiting: told before a wait.
        """
        with contextlib.ExitStack() as stack:
            self._written("locks", lambda: stack.enter_context(locks.locked(self._at_work(), measuring, waiting)))
            yield

    def _at_work(self) -> Path:
        return self.root / f"{_AT_WORK}{leases.machine() or socket.gethostname()}"

    def manifests(self, stage: str) -> list[dict[str, Any]]:
        """Read the manifests of all intact artifacts of a stage, in key order."""
        return [self.load(*place).manifest for place in sorted(self.among(self.names(stage)))]

    def _folder(self, stage: str, key: str) -> Path:
        return self.root / "artifacts" / stage / key

    @staticmethod
    def _publish(partial: Path, final: Path) -> None:
        final.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.rename(final)
        except OSError:
            if not final.exists():  # another process finished the same artifact first: its content is the same
                raise

    def _remove_leftovers(self) -> None:
        """Remove what processes left behind that are gone, and the lock files of machines that are."""
        leases.sweep(self.root / "partial", former=_FORMER)
        unfinished.sweep(self.root / "unfinished")
        for path in self.root.glob(f"{_AT_WORK}*"):
            with contextlib.suppress(OSError):
                if path != self._at_work():
                    locks.remove_left(path)


def format_of(marker: bytes) -> int:
    """Read the format of a store from its marker.

    Raises:
        ValueError: it is no marker.
    """
    content = read_json(marker)
    version = content.get("format") if isinstance(content, dict) else None
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise ValueError(f'{MARKER} that does not state a format as in {{"format": {FORMAT}}}')
    return version


def _remove(place: Path) -> None:
    """Remove what lies in the place of an artifact: a folder, a link to one, or a file."""
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    else:
        place.unlink()


def _flush(folder: Path) -> None:
    """Force a folder's files to disk, so that a power cut after the rename leaves a whole artifact."""
    for path in (*folder.iterdir(), folder):
        together.flush(path)
