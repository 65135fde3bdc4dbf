"""What is stored: the output of a stage call, as shards of tensors and a manifest, and the key that it is called by."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from sharedlabel.config import digest

FORMAT = 1
MANIFEST = "manifest.json"
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
        folder: where it lies, on this machine.
        fetch: brings its tensors there first, where they lie elsewhere.
    """

    key: str
    manifest: dict[str, Any]
    folder: Path
    fetch: Callable[[], None] | None = field(default=None, repr=False, compare=False)

    @property
    def meta(self) -> dict[str, Any]:
        """What the stage reported besides its tensors."""
        facts: dict[str, Any] = self.manifest["meta"]
        return facts

    def tensors(self) -> dict[str, Tensor]:
        """Read all tensors; a single shard is memory-mapped, several are concatenated."""
        if self.fetch is not None:
            self.fetch()
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


def called(stage: str, key: str) -> str:
    """Return what messages call an artifact."""
    return f"artifact {stage}/{key[:12]}"


def serialize(shard: Shard) -> bytes:
    """Return the content of a shard's file."""
    return safetensors.torch.save({key: value.detach().cpu().contiguous() for key, value in shard.items()})


def serialized(tensors: Shard | Iterable[Shard]) -> Iterator[list[bytes]]:
    """Yield the content of every shard in a list of its own, which whoever takes it out empties."""
    for shard in [tensors] if isinstance(tensors, Mapping) else tensors:
        content = [serialize(shard)]
        del shard  # before the next shard is made
        yield content
