"""What a process and all that descend from it use, as the kernel tells in /proc."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def descendants(root: int) -> list[int]:
    """List a process and all that descend from it."""
    family, rest = [], [root]
    while rest:
        pid = rest.pop()
        family.append(pid)
        for task in _listed(Path(f"/proc/{pid}/task")):
            rest += [int(child) for child in _text(task / "children").split()]
    return family


def threads(pid: int) -> int:
    """Count the threads of a process."""
    return len(_listed(Path(f"/proc/{pid}/task")))


def resident(pid: int) -> int:
    """Return the bytes that a process holds alone or shared in memory, files it has mapped left out."""
    fields = dict(line.split(":", 1) for line in _text(Path(f"/proc/{pid}/status")).splitlines() if ":" in line)
    return sum(int(fields.get(name, "0 kB").split()[0]) * 1024 for name in ("RssAnon", "RssShmem"))


def _listed(folder: Path) -> Sequence[Path]:
    try:
        return list(folder.iterdir())
    except OSError:  # it ended meanwhile
        return ()


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # it ended meanwhile
        return ""
