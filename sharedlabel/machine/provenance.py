"""Where a number comes from: commit, versions, device."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import shutil
import subprocess
from pathlib import Path

import torch

from sharedlabel import __version__

_LIBRARIES = ("torch", "torchvision", "pytorch-lightning", "torchmetrics", "numpy", "scikit-learn")


@functools.cache
def collect(device: str) -> dict[str, str | int]:
    """Return the commit (empty outside a checkout), library versions, device, CPU and threads of this process."""
    versions = {name: importlib.metadata.version(name) for name in _LIBRARIES}
    cuda = torch.cuda.get_device_name() if device.startswith("cuda") else ""
    return {
        "sharedlabel": __version__,
        "commit": _commit(),
        "python": platform.python_version(),
        **versions,
        "device": cuda or device,
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
    }


def _commit() -> str:
    """Return the commit of the checkout this package lies in, with `+` if it has uncommitted changes."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return ""
    # Without optional locks: a run that may not write, or is killed here, would leave the index of the checkout locked.
    changes = _git(folder, "--no-optional-locks", "status", "--porcelain", "--untracked-files=no")
    return _git(folder, "rev-parse", "--short=12", "HEAD") + ("+" if changes else "")


def _git(folder: Path, *arguments: str) -> str:
    """Return what git prints, empty where git is absent or refuses."""
    executable = shutil.which("git")
    if executable is None:
        return ""
    return subprocess.run(
        [executable, *arguments], cwd=folder, capture_output=True, text=True, check=False
    ).stdout.strip()


def _processor() -> str:
    """Return the CPU's name where the system tells it."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
