"""How much of the package a change touches, and how its files are made: read from git and from the source itself.

A commit that adds one thing of a kind, and nothing else, says so in the last line of its message, such as
`Adds: metric`. The newest of each kind is counted here: how many files of the package it touches, tests and
documentation aside. What a stage takes is counted in the source of today, too: the files that name the classes of its
records and options. `python -m benchmarks.structure` prints the page `docs/results/structure.md`, with what vulture
(unused code) and pylint's similarity checker (repeated code) report; both come with `requirements-tools.lock`.
"""

from __future__ import annotations

import ast
import dataclasses
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks._measure import ROOT, Result
from sharedlabel.config import sections
from sharedlabel.errors import ConfigError, guarded
from sharedlabel.records import TABLES
from sharedlabel.stages import STAGES, Stage

PACKAGE = "sharedlabel"
TOUCHED = {"metric": 2, "column": 2, "plot": 1, "option": 2, "stage": 5}  # files, at most
NAMED = {"layers": 3, "margin": 5}  # files, at most: a stage with a table, and one with options of its own besides
MEDIAN, LONGEST = 120, 400  # lines of a file, at most
ALIKE = 10  # lines that two files have in common to be listed
# What frameworks call by name, and what is read by name from a file of a stage, a figure or a plugin.
CALLED = (
    "on_*", "*_step", "*_dataloader", "configure_*", "setup", "extra_repr", "state_dict", "load_state_dict", "visit_*",
    "generic_visit", "__*__", "_should_skip_dynamo", "higher_is_better", "plot_*", "columns", "records", "configure",
    "work", "pytest_*", "runtest", "reportinfo", "get_code", "*_extra_state", "prune_in_channels", "get_*_channels",
    "persistent_id", "persistent_load", "reducer_override", "get_renderer", "_configure_launcher",
)  # fmt: skip
# Why what vulture sees no use of is there.
EXPLAINED = {
    "dense_weight": "what a butterfly layer computes, for readers; tests compare the layer with it",
    "confusion": "what decisions are scored by, for readers; tests compare all partitions, counted at once, with it",
    "do": "what processes of a crew are told to do, by its name",
    "serve": "what the program of a process that forks calls, which is a text",
    "of_tensors": "public: a data module from tensors",
    "of_data": "public: a data module from the data of a grid",
}


@dataclass(frozen=True)
class Change:
    """A commit that adds one thing.

    Attributes:
        kind: one of `TOUCHED`.
        commit: short name.
        subject: first line of its message.
        files: of the package that it touches.
    """

    kind: str
    commit: str
    subject: str
    files: tuple[str, ...]


def run(quick: bool) -> list[Result]:
    """Count files touched, and lines of files."""
    del quick  # it takes no time
    lengths = list(lines().values())
    results = [
        _counted("lines of the median file", float(statistics.median(lengths)), MEDIAN, f"{len(lengths)} files"),
        _counted("lines of the longest file", float(max(lengths)), LONGEST, ""),
    ]
    for change in changes():
        said = f"files of the package touched by adding a {change.kind}"
        results.append(_counted(said, float(len(change.files)), TOUCHED[change.kind], f"{change.commit}"))
    for stage, bound in NAMED.items():
        said = f"files of the package that know the records and options of the stage {stage}"
        results.append(_counted(said, float(len(naming(STAGES[stage]))), bound, ""))
    return results


def _counted(what: str, measured: float, bound: float, note: str) -> Result:
    return Result(f"structure: {what}", measured, "", measured, measured, bound=bound, note=note)


def lines() -> dict[str, int]:
    """Count the lines of every file of the package."""
    paths = sorted((ROOT / PACKAGE).rglob("*.py"))
    return {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in paths}


def changes() -> Iterator[Change]:
    """Yield the newest commit of every kind.

    Raises:
        ConfigError: the history holds none of a kind, as a shallow clone does.
    """
    for kind in TOUCHED:
        logged = _git("log", "-1", "--format=%h %s", f"--grep=^Adds: {kind}$").strip()
        if not logged:
            raise ConfigError(
                f"expected a commit that says 'Adds: {kind}' in the history, got none; fetch all of it (git fetch "
                "--unshallow)"
            )
        commit, _, subject = logged.partition(" ")
        names = _git("show", "--format=", "--name-only", commit).split()
        yield Change(kind, commit, subject, tuple(name for name in names if name.startswith(f"{PACKAGE}/")))


def naming(stage: Stage) -> tuple[str, ...]:
    """Return the files that name the class of a stage's records, or its section; the report's are its own choice."""
    classes = {TABLES[stage.table].__name__} | {
        entry.type for entry in dataclasses.fields(stage.module.Config) if hasattr(sections, str(entry.type))
    }
    return tuple(
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / PACKAGE).rglob("*.py"))
        if "report" not in path.parts
        and any(_names(node, classes) for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    )


def _names(node: ast.AST, classes: set[Any]) -> bool:
    """Tell whether code uses or defines one of the classes."""
    match node:
        case ast.Name(id=name) | ast.alias(name=name) | ast.ClassDef(name=name):
            return name in classes
    return False


def _git(*arguments: str) -> str:
    return subprocess.run(("git", *arguments), cwd=ROOT, check=True, capture_output=True, text=True).stdout


def unused() -> list[str]:
    """Return the functions and classes that vulture sees no use of, in the package or its benchmarks."""
    command = [sys.executable, "-m", "vulture", PACKAGE, "benchmarks", f"--ignore-names={','.join(CALLED)}"]
    command.append("--ignore-decorators=@PROMISES*")
    said = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    if said.stderr:
        raise ConfigError(f"vulture: {said.stderr.strip().splitlines()[-1]}; install requirements-tools.lock")
    kinds = re.compile(r"unused (function|class|method|import|code)|unreachable")
    return [line for line in said.stdout.splitlines() if kinds.search(line) and line.startswith(PACKAGE)]


def _explained(line: str) -> str:
    """Write where an unused name stands, without the line's number, and why."""
    place, _, said = line.partition(": ")
    name = said.split("'")[1]
    return f"`{name}` in `{place.partition(':')[0]}`: {EXPLAINED.get(name, 'no reason is known; delete it')}."


def repeated() -> list[tuple[int, list[str]]]:
    """Return the passages that several files have in common: their number of lines, and where each begins."""
    files = [str(path.relative_to(ROOT)) for path in sorted((ROOT / PACKAGE).rglob("*.py"))]
    options = ["--ignore-comments", "--ignore-docstrings", "--ignore-imports", "--ignore-signatures"]
    program = "import sys; from pylint.checkers.symilar import Run; Run(sys.argv[1:])"
    command = [sys.executable, "-c", program, f"--duplicates={ALIKE}", *options, *files]
    said = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    if "TOTAL lines" not in said.stdout:
        raise ConfigError(f"pylint: {said.stderr.strip().splitlines()[-1]}; install requirements-tools.lock")
    return list(_passages(said.stdout))


def _passages(said: str) -> Iterator[tuple[int, list[str]]]:
    for part in re.split(r"\n(?=\d+ similar lines in \d+ files)", said):
        head = re.match(r"(\d+) similar lines", part)
        if head:
            yield int(head[1]), re.findall(r"^==(\S+:\[\d+):\d+\]$", part, flags=re.MULTILINE)


def page() -> str:
    """Return `docs/results/structure.md`."""
    lengths = lines()
    longest = sorted(lengths.items(), key=lambda item: -item[1])[:10]
    parts = [
        "# Structure of the package",
        "",
        "Command: `python -m benchmarks.structure > docs/results/structure.md` (counts, no times; any machine).",
        "",
        f"{len(lengths)} files, {sum(lengths.values()):,} lines; median {statistics.median(lengths.values()):g}, "
        f"longest {longest[0][1]} (`{longest[0][0]}`).",
        "",
        "| adding a ... | files touched | bound | commit | which |",
        "| --- | --- | --- | --- | --- |",
        *(
            f"| {one.kind} | {len(one.files)} | {TOUCHED[one.kind]} | {one.commit} {one.subject} | "
            f"{', '.join(f'`{name}`' for name in one.files)} |"
            for one in changes()
        ),
        "",
        "Files that today name the class of a stage's records, or its section of options; those of the report are left "
        "out.",
        "",
        "| stage | files | bound | which |",
        "| --- | --- | --- | --- |",
        *(
            f"| {stage} | {len(files)} | {bound} | {', '.join(f'`{name}`' for name in files)} |"
            for stage, bound, files in ((name, bound, naming(STAGES[name])) for name, bound in NAMED.items())
        ),
        "",
        f"## Passages of {ALIKE} lines or more that files have in common",
        "",
        *(
            [f"- {count} lines: {', '.join(f'`{place}`' for place in places)}" for count, places in repeated()]
            or ["None."]
        ),
        "",
        "## What vulture sees no use of",
        "",
        *([f"- {_explained(line)}" for line in unused()] or ["Nothing."]),
    ]
    return "\n".join(parts)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the page; return the exit code."""
    del arguments
    return guarded(lambda: print(page()))


if __name__ == "__main__":
    sys.exit(main())
