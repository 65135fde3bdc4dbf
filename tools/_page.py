"""What the commands of this folder share: where the checkout is, running programs, and tables of a page."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def today() -> str:
    """Return the date, as pages show it."""
    return datetime.now(UTC).date().isoformat()


def machine() -> str:
    """Return the system and the processor's name, in a few words."""
    listed = Path("/etc/os-release").read_text().splitlines()
    system = next(line.partition("=")[2].strip('"') for line in listed if line.startswith("PRETTY_NAME="))
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return f"{system}, {next(names, platform.machine())}, {os.cpu_count()} cores"


def run(
    command: Sequence[str], folder: Path | None = None, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, whatever its exit code; what it prints, errors too, is in `stdout`.

    Args:
        command: the program and its arguments.
        folder: where it runs; here if None.
        environment: its variables; those of this process if None.
    """
    return subprocess.run(
        command,
        cwd=folder,
        env=None if environment is None else dict(environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def done(command: Sequence[str]) -> str:
    """Run a program and return what it prints.

    Raises:
        RuntimeError: it failed; with all that it has printed.
    """
    finished = run(command)
    if finished.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit code {finished.returncode}\n{finished.stdout}")
    return finished.stdout


def gigabytes(folder: Path) -> float:
    """Return what the files of a folder take on the disk, links to a file once, in GB."""
    return int(done(["du", "--summarize", "--block-size=1", str(folder)]).split()[0]) / 1e9


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table in Markdown.

    >>> list(table(["a", "b"], [["1", "2"]]))
    ['| a | b |', '| --- | --- |', '| 1 | 2 |']
    """
    for cells in (head, ["---"] * len(head), *rows):
        yield f"| {' | '.join(cells)} |"
