"""The kinds of sandboxes, and what a process in one may use."""

from __future__ import annotations

from typing import Literal, TypeAlias

from pydantic import PositiveInt

from sharedlabel.errors import SharedLabelError
from sharedlabel.leaderboard.schema import Strict

Kind: TypeAlias = Literal["bwrap", "docker", "podman", "trusted"]
KINDS: tuple[Kind, ...] = ("bwrap", "docker", "podman", "trusted")


class Limits(Strict):
    """What one process in the sandbox may use.

    Attributes:
        seconds: wall-clock time of training and prediction together.
        memory_mb: resident memory, in MB.
        processes: processes and threads.
        disk_mb: files in its temporary folder, in MB.
        log_kb: what it may print, in kB; more ends the run.
    """

    seconds: PositiveInt
    memory_mb: PositiveInt
    processes: PositiveInt
    disk_mb: PositiveInt
    log_kb: PositiveInt


class SandboxError(SharedLabelError):
    """A submission that did not do what was asked of it within its limits."""
