"""Which sandbox there is on this system, and which boards it may stand beside.

`bwrap` (bubblewrap, Linux) is the default, a container the alternative; `trusted` runs without either, for code of
one's own.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from sharedlabel.errors import ConfigError
from sharedlabel.leaderboard.sandbox.libraries import prefixes
from sharedlabel.leaderboard.sandbox.limits import KINDS, Kind

IMAGE = "sharedlabel-sandbox"
_PROBE_SECONDS = 60


def choose(kind: str | None) -> Kind:
    """Return the sandbox to use: the one asked for, else the first that this system has.

    Raises:
        ConfigError: there is none of the kind, or none at all.
    """
    if kind == "trusted":
        return "trusted"
    asked = (kind,) if kind else ("bwrap", "docker", "podman")
    unusables = {}
    for name in asked:
        why = unusable(name)
        if why is None and name in KINDS:
            return name
        unusables[name] = why
    reasons = "; ".join(f"{name}: {why}" for name, why in unusables.items())
    raise ConfigError(
        f"expected a sandbox to run submitted code in, got none ({reasons}); install bubblewrap "
        "(apt install bubblewrap), or docker with the image `sandbox` of docker/Dockerfile; code that you trust runs "
        "without one with --trust, and its row stays self-reported"
    )


def unusable(kind: str) -> str | None:
    """Say why a sandbox cannot be used on this system; None if it can."""
    if kind not in KINDS:
        return f"unknown; available: {', '.join(KINDS)}"
    if kind == "trusted":
        return None
    executable = shutil.which(kind)
    if executable is None:
        return "not installed"
    probe = [executable, "image", "inspect", IMAGE]
    if kind == "bwrap":
        probe = [executable, "--unshare-all", "--ro-bind", "/", "/", "--", sys.executable, "-c", ""]
    try:
        tried = subprocess.run(probe, capture_output=True, text=True, check=False, timeout=_PROBE_SECONDS)
    except subprocess.TimeoutExpired:
        return f"not answering within {_PROBE_SECONDS} s"
    return None if tried.returncode == 0 else " ".join(tried.stderr.split()) or f"exit code {tried.returncode}"


def keep_apart(kind: Kind, board: Path) -> None:
    """Refuse a board, which holds the answers, in a folder that a sandbox shows.

    Raises:
        ConfigError: says which folder it has to leave.
    """
    for folder in map(Path, ("/usr", *prefixes())) if kind == "bwrap" else ():
        if board.resolve().is_relative_to(folder.resolve()):
            raise ConfigError(
                f"expected the leaderboard outside of {folder}, which the sandbox shows with all it holds, got "
                f"{board}; keep the checkout and the environment apart"
            )
