"""Content-addressed artifacts: has / load / save. The one file that knows paths.

An artifact is a folder `artifacts/<stage>/<key>` of safetensors shards and a `manifest.json`. It is written to a
temporary folder and renamed into place last, so it is whole or absent. Its key says everything that its content depends
on, code included; paths, devices and worker counts are not in it. What its manifest says it is must be where it lies.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import socket
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from sharedlabel.config import canonical, digest
from sharedlabel.errors import StoreError, WriteError
from sharedlabel.files import leases, together, unfinished
from sharedlabel.files.plain import read_file, read_json
from sharedlabel.files.unfinished import Unfinished

FORMAT = 1
_AT_WORK = "at-work@"  # begins the names of the lock files that keep measuring apart from computing
_FORMER = ".+@.*@[0-9]+"  # folders below `partial` as versions before leases named them
_SHARD = re.compile(r"shard-[0-9]{5,}\.safetensors")
Shard = Mapping[str, Tensor]


@dataclass(frozen=True)
class Output:
    """What a stage returns.

    Attributes:
        tensors: one shard, or an iterable of shards that are written as they are made; shards are concatenated along
            the first axis when they are read.
        meta: JSON-able facts; may be filled while the shards are being made.
    """

    tensors: Shard | Iterable[Shard]
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Artifact:
    """A stored output.

    Attributes:
        key: sha256 of all it depends on.
        manifest: config, versions, device, seconds, checksums.
        folder: where it lies.
    """

    key: str
    manifest: dict[str, Any]
    folder: Path

    @property
    def meta(self) -> dict[str, Any]:
        """What the stage reported besides its tensors."""
        facts: dict[str, Any] = self.manifest["meta"]
        return facts

    def tensors(self) -> dict[str, Tensor]:
        """Read all tensors; a single shard is memory-mapped, several are concatenated."""
        shards = [safetensors.torch.load_file(self.folder / name) for name in self.manifest["files"]]
        if len(shards) == 1:
            return shards[0]
        return {name: torch.cat([shard[name] for shard in shards]) for name in shards[0]}


def artifact_key(stage: str, version: int, config: Any, inputs: Mapping[str, str], code: Mapping[str, str]) -> str:
    """Return the key of a stage call.

    Args:
        stage: name of the stage.
        version: the stage's version; raised when it computes something else for a reason that no digest sees.
        config: every value that the stage reads, defaults and seed included.
        inputs: keys of its inputs by name.
        code: digests of the code that computes it, the stage's own and those of its plugins, by module.
    """
    return digest({"stage": stage, "version": version, "config": config, "inputs": dict(inputs), "code": dict(code)})


class Store:
    """Artifacts in a folder, shared by any number of runs, processes, containers and machines.

    Args:
        root: the folder; made when absent, unless it is only read.
        readonly: read what is there, write and remove nothing.
        sweep: remove what processes have left that are gone.

    Raises:
        StoreError: the folder cannot be written or read, is no store, or a newer version of this package wrote it.
    """

    def __init__(self, root: Path, readonly: bool = False, sweep: bool = True) -> None:
        self.root, self.readonly = root, readonly
        self._verified: set[tuple[str, str]] = set()
        marker = root / "store.json"
        try:
            if not readonly:
                self._make(marker)
            version = _format(marker)
        except FileNotFoundError:  # nothing is stored yet
            return
        except (OSError, ValueError) as error:
            raise StoreError(
                f"expected a store that can be read{'' if readonly else ' and written'} at {root}, got: {error}; "
                "choose another folder with --output"
            ) from error
        if version > FORMAT:
            raise StoreError(
                f"{root} has store format {version}, this version reads up to {FORMAT}; "
                "upgrade sharedlabel or choose another --output"
            )
        if sweep and not readonly:
            self._remove_leftovers()

    def _make(self, marker: Path) -> None:
        for part in ("artifacts", "partial"):
            (self.root / part).mkdir(parents=True, exist_ok=True)
        if not marker.exists():
            with leases.claimed(self.root / "partial") as folder:
                made = folder / marker.name
                made.write_text(json.dumps({"format": FORMAT}))
                made.replace(marker)

    def has(self, stage: str, key: str) -> bool:
        """Tell whether the artifact is there, whole and with intact checksums.

        A damaged one, or another one in its place, is removed with a warning: everything in a store can be computed
        again, and a long run need not wait for somebody who looks. A store that is only read keeps it.
        """
        folder = self._folder(stage, key)
        if not folder.exists():
            return False
        if (stage, key) in self._verified:
            return True
        problem = _damage(folder)
        if problem:
            then = "the next run computes it again" if self.readonly else "it is computed again"
            warnings.warn(f"artifact {stage}/{key[:12]} is damaged ({problem}); {then}", RuntimeWarning, stacklevel=2)
            if not self.readonly:
                _remove(folder)
            return False
        self._verified.add((stage, key))
        return True

    def load(self, stage: str, key: str) -> Artifact:
        """Open a stored artifact.

        Raises:
            StoreError: there is none.
        """
        if not self.has(stage, key):
            raise StoreError(f"no artifact {stage}/{key[:12]} in {self.root}; run the grid to compute it")
        folder = self._folder(stage, key)
        return Artifact(key, read_json(read_file(folder / "manifest.json")), folder)

    def find(self, key: str) -> Artifact:
        """Open the one artifact, of whatever stage, whose key begins with these hexadecimal digits.

        Raises:
            StoreError: there is none, or several.
        """
        folders = sorted((self.root / "artifacts").glob(f"*/{key}*")) if key.isalnum() else []
        if len(folders) != 1:
            raise StoreError(
                f"expected one artifact whose key begins with {key!r} in {self.root}, got {len(folders)}; "
                "run the grid to compute it, or give more digits"
            )
        return self.load(folders[0].parent.name, folders[0].name)

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
        if self.readonly:
            raise StoreError(f"expected a store to write artifact {stage}/{key[:12]} to, got {self.root} to read only")
        with contextlib.ExitStack() as stack:
            with self.writing(_called(stage, key)):
                partial = stack.enter_context(leases.claimed(self.root / "partial")) / key
                partial.mkdir()
            files: dict[str, str] = {}
            for content in _serialized(output.tensors):  # what fails in making them is the stage's error, not ours
                with self.writing(_called(stage, key)):
                    name = f"shard-{len(files):05d}.safetensors"
                    (partial / name).write_bytes(content[0])
                files[name] = hashlib.sha256(content.pop()).hexdigest()  # gone before the next shard is made
            created = datetime.now(UTC).isoformat(timespec="seconds")
            facts = {"format": FORMAT, "key": key, "stage": stage, "created": created, **record}
            facts |= {"seconds": round(time.perf_counter() - started, 3), "meta": output.meta}
            manifest = json.loads(canonical({**facts, "files": files}))
            with self.writing(_called(stage, key)):
                (partial / "manifest.json").write_text(json.dumps({"sha256": digest(manifest), **manifest}, indent=1))
                _flush(partial)
                self._publish(partial, self._folder(stage, key))
        self.unfinished(stage, key).remove()
        return self.load(stage, key)

    def unfinished(self, stage: str, key: str) -> Unfinished:
        """Return the states of the trainings of a stage call, which are there until its artifact is."""
        return Unfinished(self.root / "unfinished" / stage / key, self.root / "partial")

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
                f"could not write {what} to {self.root}: {error.strerror or error}; "
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
        with _opened(self._at_work(), fcntl.LOCK_EX if measuring else fcntl.LOCK_SH, waiting) as (file, locked):
            try:
                with leases.alive(file):
                    yield
            finally:
                if locked and not file.closed:
                    fcntl.flock(file, fcntl.LOCK_UN)

    def _at_work(self) -> Path:
        return self.root / f"{_AT_WORK}{leases.machine() or socket.gethostname()}"

    def manifests(self, stage: str) -> list[dict[str, Any]]:
        """Read the manifests of all intact artifacts of a stage, in key order."""
        folder = self.root / "artifacts" / stage
        keys = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
        return [self.load(stage, key).manifest for key in keys if self.has(stage, key)]

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
                if path != self._at_work() and leases.expired(path):
                    with path.open("a") as file:
                        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        path.unlink()


def _called(stage: str, key: str) -> str:
    return f"artifact {stage}/{key[:12]}"


def _format(marker: Path) -> int:
    """Read the format of a store.

    Raises:
        OSError: its marker cannot be read.
        ValueError: it is no marker.
    """
    content = read_json(read_file(marker))
    version = content.get("format") if isinstance(content, dict) else None
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise ValueError(f'{marker.name} that does not state a format as in {{"format": {FORMAT}}}')
    return version


@contextlib.contextmanager
def _opened(path: Path, kind: int, waiting: Callable[[], None]) -> Iterator[tuple[IO[str], bool]]:
    """Open a file and lock it, once more where it was removed before it was locked; False where there are no locks."""
    while True:
        with path.open("a") as file:
            locked = _locked(file, kind, waiting)
            if locked and not _lies_at(path, file):
                continue
            yield file, locked
            return


def _lies_at(path: Path, file: IO[str]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _locked(file: IO[str], kind: int, waiting: Callable[[], None]) -> bool:
    """Lock a file, and tell before a wait; False where the file system has no locks."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        waiting()
        fcntl.flock(file, kind)
    except OSError as error:
        warnings.warn(
            f"expected a file system with locks at {file.name}, got: {error.strerror}; runs that share this store are "
            "not kept apart while times are measured",
            RuntimeWarning,
            stacklevel=2,
        )
        return False
    return True


def serialize(shard: Shard) -> bytes:
    """Return the content of a shard's file."""
    return safetensors.torch.save({key: value.detach().cpu().contiguous() for key, value in shard.items()})


def _serialized(tensors: Shard | Iterable[Shard]) -> Iterator[list[bytes]]:
    """Yield the content of every shard in a list of its own, which whoever takes it out empties."""
    for shard in [tensors] if isinstance(tensors, Mapping) else tensors:
        content = [serialize(shard)]
        del shard  # before the next shard is made
        yield content


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


def _damage(folder: Path) -> str:
    """Say what is wrong with an artifact's folder; empty if it holds, intact, what its place says."""
    try:
        manifest = read_json(read_file(folder / "manifest.json"))
        expected = manifest.pop("sha256")
        if digest(manifest) != expected:
            return "its manifest was altered"
        stated = tuple(manifest[name] for name in ("stage", "key", "format"))
        if stated != (folder.parent.name, folder.name, FORMAT):
            return "its manifest is that of {}/{:.12}, format {}, which was put in its place".format(*stated)
        for name, checksum in manifest["files"].items():
            if not _SHARD.fullmatch(name) or not (folder / name).is_file():
                return f"{name!r} is no file of it"
            with (folder / name).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != checksum:
                    return f"{name} does not match its checksum"
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        return f"{type(error).__name__}: {error}"
    return ""
