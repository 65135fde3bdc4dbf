"""Where a number comes from: commit, versions, device."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
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
    folder = Path(__file__).resolve().parent.parent
    if not (folder / ".git").exists():
        return ""
    commit = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], cwd=folder, capture_output=True, text=True, check=False)  # noqa: S607
    dirty = subprocess.run(["git", "status", "--porcelain", "--untracked-files=no"], cwd=folder, capture_output=True, text=True, check=False)  # noqa: S607
    return commit.stdout.strip() + ("+" if dirty.stdout.strip() else "")


def _processor() -> str:
    """Return the CPU's name where the system tells it."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
