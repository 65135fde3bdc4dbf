"""Seconds until `--help` is printed, and until `import sharedlabel` is done."""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks._measure import Result, python, summarize

HELP, IMPORT = 1.0, 0.3  # seconds, at most


def run(quick: bool) -> list[Result]:
    """Time both in fresh processes."""
    rounds = 1 if quick else 5
    commands = {
        "help: sharedlabel train --help": (["-m", "sharedlabel", "train", "--help"], HELP),
        "help: import sharedlabel": (["-c", "import sharedlabel"], IMPORT),
    }
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for what, (arguments, bound) in commands.items():
            times = [python(arguments, Path(folder))[0] for _ in range(rounds)]
            note = f"fresh process, median of {rounds}; best {min(times):.2f} s"
            results.append(summarize(what, "s", times, bound=bound, note=note))
    return results
