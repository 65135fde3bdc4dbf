"""The command lines that start the program inside a sandbox: without network, files, environment or other processes."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from sharedlabel.leaderboard.sandbox.kinds import IMAGE
from sharedlabel.leaderboard.sandbox.libraries import libraries, library_folders, prefixes
from sharedlabel.leaderboard.sandbox.limits import Kind, Limits

LIBRARY, SUBMISSION = "/library", "/submission"  # where the package and the submission lie inside
_PROGRAM = "sharedlabel.leaderboard.sandbox.child"


def command(kind: Kind, submission: Path, limits: Limits, threads: int, name: str) -> list[str]:
    """Return the command line that starts the program inside a sandbox.

    Args:
        kind: of the sandbox.
        submission: folder with the code.
        limits: what it may use.
        threads: that torch computes with.
        name: of the container.
    """
    package = Path(__file__).resolve().parents[2]
    start = f"from {_PROGRAM} import main; main()"
    program = ["-c", start, str(limits.memory_mb), str(limits.disk_mb)]
    if kind == "trusted":
        start = f"import sys; sys.path.insert(0, {str(package.parent)!r}); {start}"
        return [sys.executable, "-I", "-c", start, *program[2:], str(submission)]
    program.append(SUBMISSION)
    if kind == "bwrap":
        return [shutil.which(kind) or kind, *_view(package, submission, limits), "--", sys.executable, *program]
    options = {
        "name": name,
        "network": "none",
        "cap-drop": "ALL",
        "security-opt": "no-new-privileges",
        "user": "65534:65534",
        "pids-limit": limits.processes,
        "memory": f"{limits.memory_mb}m",
        "memory-swap": f"{limits.memory_mb}m",
        "tmpfs": f"/tmp:size={limits.disk_mb}m",
        "pull": "never",
        "log-driver": "none",
    }
    given = [f"--{option}={value}" for option, value in options.items()]
    given += [f"--env={name}={value}" for name, value in {"OMP_NUM_THREADS": threads, "PYTHONPATH": LIBRARY}.items()]
    shown = {package: f"{LIBRARY}/sharedlabel", submission.resolve(): SUBMISSION}
    given += [f"--volume={outside}:{inside}:ro" for outside, inside in shown.items()]
    return [
        shutil.which(kind) or kind,
        "run",
        "--rm",
        "--interactive",
        "--read-only",
        *given,
        IMAGE,
        "python",
        *program,
    ]


def _view(package: Path, submission: Path, limits: Limits) -> list[str]:
    """Return what bubblewrap shows: system libraries, Python, this package's code and one submission, all read-only."""
    disk = str(limits.disk_mb * 1_000_000)
    shown: list[str] = ["--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    shown += ["--uid", "65534", "--gid", "65534", "--hostname", "sandbox"]
    for folder in ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64"):
        path = Path(folder)
        if path.is_symlink():
            shown += ["--symlink", str(path.readlink()), folder]
        elif path.exists():
            shown += ["--ro-bind", folder, folder]
    for name in ("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "alternatives"):
        shown += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    # Before what may lie below them: an environment in a temporary folder would be hidden by an empty one.
    shown += ["--proc", "/proc", "--dev", "/dev"]
    # Settings of the kernel belong to root, who runs the sandbox where root does; bubblewrap may leave them writable.
    for name in ("sys", "sysrq-trigger", "irq", "bus"):
        shown += ["--ro-bind-try", f"/proc/{name}", f"/proc/{name}"]
    for folder in ("/tmp", "/dev/shm"):
        shown += ["--size", disk, "--tmpfs", folder]
    shown += ["--remount-ro", "/dev"]
    for prefix in prefixes():
        if not Path(prefix).is_relative_to("/usr"):
            shown += ["--ro-bind", prefix, prefix]
    folders = [place for place in library_folders() if place.is_dir()]
    for place in folders:
        shown += ["--tmpfs", str(place)]
    for library in libraries():
        shown += ["--ro-bind", str(library), str(library)]
    for place in folders:
        shown += ["--remount-ro", str(place)]
    shown += ["--ro-bind", str(package), f"{LIBRARY}/sharedlabel"]
    shown += ["--ro-bind", str(submission.resolve()), SUBMISSION]
    return [*shown, "--chdir", "/tmp", "--remount-ro", "/"]


def environment(kind: Kind, threads: int) -> dict[str, str]:
    """Return the only variables that the process has."""
    shown = {"PATH": "/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8", "OMP_NUM_THREADS": str(threads)}
    shown |= {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1", "PYTHONNOUSERSITE": "1"}
    return shown | ({"PYTHONPATH": LIBRARY} if kind == "bwrap" else {})
