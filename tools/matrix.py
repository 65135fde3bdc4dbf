"""`python -m tools.matrix dist/*.whl`: the wheel in empty environments, with the oldest and newest packages.

For each Python there are two environments, with the lowest and the highest versions of the package's dependencies that
its metadata allow and that exist as wheels. Each runs the demo and other commands of the documentation in an empty
folder; then all extras are installed, and what they are for is run. `make matrix` writes what comes of it into
`docs/results/matrix.md`. It takes about 10 GB of downloads and, while it runs, as much of a disk.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tools._page import ROOT, done, gigabytes, machine, run, table, today

PYTHONS = ("3.11", "3.12", "3.13")
RESOLUTIONS = {"oldest": "lowest-direct", "newest": "highest"}
_TUPLES = """
import pathlib, numpy, PIL.Image, sklearn.datasets
digits = sklearn.datasets.load_digits()
for label in range(10):
    folder = pathlib.Path("tuples") / str(label)
    folder.mkdir(parents=True)
    for at, image in enumerate(digits.images[digits.target == label][:4]):
        PIL.Image.fromarray((image * 15.9375).astype(numpy.uint8)).save(folder / f"{at}.png")
"""
DEMO = "sharedlabel train"
SMALL = f"{DEMO} --pruners [unit] --ratios [1,16] --aggregators [log_pool,lstm]"  # of the demo's grid
_CELL = "--aggregator lstm --pruner unit --ratio 16"
COMMANDS = (
    "sharedlabel train --config mnist --print_config",
    "sharedlabel train --plan",
    "sharedlabel evaluate",
    "sharedlabel report runs/digits",
    "sharedlabel choose runs/digits --budget 0.5",
    f"sharedlabel export {_CELL} --format torch --output model",
    "sharedlabel predict model tuples --runtime torch --trust",
    "sharedlabel new aggregator my_pool",
    "sharedlabel check ./my_pool.py",
    "sharedlabel verify runs/store",
    "sharedlabel completion bash",
)
WITH_EXTRAS = (
    f"sharedlabel export {_CELL} --output model-onnx",
    "sharedlabel predict model-onnx tuples --error 0.05",
    "sharedlabel train --name searched --pruners [unit] --ratios [4] --aggregators [attention] --fit.trials 2",
    "sharedlabel train --name ray --ratios [1,2] --pruners [random] --aggregators [log_pool] --executor ray",
    "sharedlabel dashboards runs/digits --offline",
    "python -c 'import sharedlabel as sl; print(sl.load_results(\"runs/digits\").summaries.shape)'",
)


@dataclass
class Environment:
    """An empty environment, and what came of it.

    Attributes:
        python: as `uv venv --python` takes it: a version, or the path of an interpreter.
        age: `oldest` or `newest`, of the dependencies.
        versions: what was installed, by name.
        size: of the environment before there were extras, in GB.
        outcomes: of commands: `ok`, or what failed.
    """

    python: str
    age: str
    versions: dict[str, str] = field(default_factory=dict)
    size: float = 0.0
    outcomes: dict[str, str] = field(default_factory=dict)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 0, or 1 if a command failed anywhere."""
    options = _parser().parse_args(arguments)
    tried = []
    for python in options.python:
        for age in options.age:
            environment = Environment(python, age)
            with tempfile.TemporaryDirectory(prefix="matrix-", dir=options.folder) as folder:
                grid = SMALL if options.small else DEMO
                _try(environment, options.wheel.resolve(), options.uv, Path(folder), (grid, *COMMANDS))
            tried.append(environment)
    print("\n".join(page(tried, options.wheel.name)))
    return int(any(outcome != "ok" for one in tried for outcome in one.outcomes.values()))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.matrix", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("wheel", type=Path, help="that `make package` has built")
    parser.add_argument("--python", nargs="+", default=PYTHONS, help="versions or paths (default: 3.11 3.12 3.13)")
    parser.add_argument("--age", nargs="+", choices=RESOLUTIONS, default=tuple(RESOLUTIONS), help="default: both")
    parser.add_argument("--small", action="store_true", help="run a part of the demo's grid in its place")
    parser.add_argument("--uv", default=str(Path(sys.executable).with_name("uv")), help="default: that beside Python")
    parser.add_argument("--folder", type=Path, help="where environments are made (default: the temporary folder)")
    return parser


def _try(environment: Environment, wheel: Path, uv: str, folder: Path, commands: Sequence[str]) -> None:
    """Make an environment, and run the commands in it, then those that need extras."""
    place, empty = folder / "environment", folder / "empty"
    empty.mkdir()
    done([uv, "venv", "--quiet", "--python", environment.python, str(place)])
    if not _installed(environment, wheel, uv, place, ""):
        return
    environment.size = gigabytes(place)
    _commands(environment, commands, place, empty)
    if _installed(environment, wheel, uv, place, "[all]"):
        _commands(environment, WITH_EXTRAS, place, empty)
    listed = json.loads(done([uv, "pip", "list", "--quiet", "--python", str(place), "--format", "json"]))
    environment.versions = {one["name"]: one["version"] for one in listed}
    environment.python = done([str(place / "bin" / "python"), "--version"]).split()[1]


def _installed(environment: Environment, wheel: Path, uv: str, place: Path, extras: str) -> bool:
    """Install the wheel, and say whether that went well."""
    # What the wheel asks for is given beside it, since uv takes the lowest versions of what is given alone.
    given = [f"sharedlabel{extras} @ {wheel.as_uri()}", *dependencies(extras=bool(extras)).values()]
    how = ["--resolution", RESOLUTIONS[environment.age], "--no-build"]
    finished = run([uv, "pip", "install", "--quiet", "--python", str(place), *how, *given])
    _note(environment, f"pip install sharedlabel{extras}", finished.returncode, finished.stdout)
    return finished.returncode == 0


def _commands(environment: Environment, commands: Sequence[str], place: Path, empty: Path) -> None:
    """Run commands in the empty folder, with nothing of this process around them."""
    around = {"PATH": f"{place / 'bin'}:/usr/bin:/bin", "HOME": str(empty.parent), "LANG": "C.UTF-8"}
    if not (empty / "tuples").exists():
        run([str(place / "bin" / "python"), "-c", _TUPLES], empty, around)
    for command in commands:
        finished = run(["/bin/sh", "-c", command], empty, around)
        _note(environment, command, finished.returncode, finished.stdout)


def _note(environment: Environment, command: str, code: int, printed: str) -> None:
    """Keep what came of a command; what failed is printed whole, beside the page."""
    name = f"{environment.python} {environment.age}: {command}"
    last = (printed.strip().splitlines() or [""])[-1]
    environment.outcomes[command] = "ok" if code == 0 else f"exit code {code}: {last[:160]}"
    print(f"{name}: {environment.outcomes[command]}", file=sys.stderr, flush=True)
    if code:
        print(printed, file=sys.stderr, flush=True)


def dependencies(extras: bool) -> dict[str, str]:
    """Return what the package depends on: requirements of `pyproject.toml`, by name.

    Args:
        extras: those of all extras for users, too.

    >>> dependencies(extras=False)["torchmetrics"]
    'torchmetrics>=1.9'
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    chosen = re.findall(r"\w+", optional["all"][0].partition("[")[2]) if extras else []
    required = [*project["dependencies"], *(one for name in chosen for one in optional[name])]
    return {re.split(r"[<>=~! ]", one)[0]: one for one in required}


def page(tried: Sequence[Environment], wheel: str) -> Iterator[str]:
    """Yield the lines of the page."""
    head = ["", *(f"{one.python}, {one.age}" for one in tried)]
    yield "# The wheel in empty environments"
    yield ""
    yield f"Written by `make matrix` ({wheel}; {today()}; {machine()}; on the CPU)."
    yield ""
    yield "*Oldest* are the lowest versions that `pyproject.toml` allows and that exist as wheels for that Python, with"
    yield "what they ask for in turn at its newest; *newest* are the highest of everything on that day."
    yield ""
    yield from table(["installed", *head[1:]], [*_versions(tried), _row("size without extras", tried, _sized)])
    yield ""
    yield "Commands run in an empty folder, in this order; those after the second installation need extras."
    yield ""
    yield from table(["command", *head[1:]], list(_outcomes(tried)))


def _row(name: str, tried: Sequence[Environment], shown: Callable[[Environment], str]) -> list[str]:
    return [name, *(shown(one) for one in tried)]


def _sized(environment: Environment) -> str:
    return f"{environment.size:.1f} GB"


def _versions(tried: Sequence[Environment]) -> Iterator[list[str]]:
    for name, requirement in dependencies(extras=True).items():
        yield [f"`{requirement}`", *(one.versions.get(name, "-") for one in tried)]


def _outcomes(tried: Sequence[Environment]) -> Iterator[list[str]]:
    commands: Mapping[str, None] = dict.fromkeys(command for one in tried for command in one.outcomes)
    for command in commands:
        yield [f"`{command}`", *(one.outcomes.get(command, "-").replace("|", "/") for one in tried)]


if __name__ == "__main__":
    sys.exit(main())
