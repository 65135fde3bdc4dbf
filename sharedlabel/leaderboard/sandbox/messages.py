"""Messages to the program in the sandbox, and what comes back."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import safetensors.torch
from pydantic import ValidationError
from torch import Tensor

from sharedlabel.leaderboard.sandbox.limits import SandboxError
from sharedlabel.leaderboard.sandbox.process import Process
from sharedlabel.leaderboard.schema import Read, explain
from sharedlabel.leaderboard.submission.reading import Submission

MODULE = "submitted.py"
MESSAGE = 1_000_000  # most bytes of a message that is no posterior


def read(process: Process, model: type[Read]) -> Read:
    """Read JSON with its length in front.

    Raises:
        SandboxError: it is too long, or something else.
    """
    size = int.from_bytes(process.receive(8), "little")
    if size > MESSAGE:
        raise SandboxError(f"expected a message of at most {MESSAGE:,} bytes, got {size:,}; only return posteriors")
    try:
        return model.model_validate_json(process.receive(size))
    except ValidationError as error:
        raise SandboxError(f"expected {model.__name__}, got something else: {explain(error)}") from error


def packed(job: dict[str, object], tensors: dict[str, Tensor]) -> bytes:
    """Write a message: what to do, and tensors."""
    return safetensors.torch.save(tensors, {"job": json.dumps(job)})


@contextlib.contextmanager
def mounted(submission: Submission) -> Iterator[Path]:
    """Write the code of a submission, and nothing else of it, into a folder that a sandbox can show."""
    with tempfile.TemporaryDirectory(prefix="sharedlabel-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / MODULE).write_text(submission.code, encoding="utf-8")
        yield folder
