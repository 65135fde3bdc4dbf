"""Shared fixtures: a grid small enough to run in seconds, on real images."""

from __future__ import annotations

import gc

gc.disable()  # what is imported and collected now lives until the end: nothing to look for among it

import functools
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jaxtyping
import pytest

_with_shapes = jaxtyping.jaxtyped
_ARRAY = re.compile(r"\[(Tensor|np\.ndarray),")


def _checked(function: Any = None, **options: Any) -> Any:
    """Check what functions that state shapes get and return; mypy checks all others, which would take long here."""
    if function is None:
        return functools.partial(_checked, **options)
    inner = getattr(function, "fget", None) or getattr(function, "__func__", function)
    stated = any(_ARRAY.search(str(annotation)) for annotation in getattr(inner, "__annotations__", {}).values())
    return _with_shapes(function, **options) if stated else function


jaxtyping.jaxtyped = _checked  # the import hook puts it around every function of the packages that it is told of

if TYPE_CHECKING:  # imported where they are used: the process that hands out the tests needs none of it
    from sharedlabel.config import Experiment
    from sharedlabel.grid import Grid
    from sharedlabel.records import Results
    from sharedlabel.store import Store

# A shell without job control starts what runs in the background with Ctrl-C ignored, and tests would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ["SHAREDLABEL_WORKERS"] = "1"  # grids of a second need no processes; tests of these ask for them
os.environ["SHAREDLABEL_PATIENCE"] = "0"  # a disk that is full stays full; tests of waits pretend to wait

SMALL = (
    "--backbones=[{name: mlp, label: mlp, widths: [32, 16]}]",
    "--pruners=[magnitude]",
    "--ratios=[1, 2]",
    "--aggregators=[mean_vote, log_pool, lstm]",
    "--dense.epochs=2",
    "--retrain.epochs=1",
    "--fit.epochs=2",
    "--evaluation.n=[1, 2, 4]",
    "--evaluation.partitions=2",
    "--sweet_spot.replicates=20",
    "--tracking=none",
)


def pytest_collection_finish() -> None:
    """From here on, look for garbage among what the tests make."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    gc.enable()


def pytest_unconfigure() -> None:
    """Let all be taken apart at the end, or libraries warn of what is left."""
    gc.unfreeze()


@dataclass(frozen=True)
class Finished:
    """A grid that has run."""

    experiment: Experiment
    grid: Grid
    store: Store
    results: Results


def run(experiment: Experiment) -> Finished:
    """Run a grid without printing."""
    import torch
    from rich.console import Console

    from sharedlabel import train
    from sharedlabel.grid import prepare
    from sharedlabel.store import Store

    torch.set_num_threads(1)
    grid, store = prepare(experiment), Store(Path(experiment.output) / "store")
    return Finished(experiment, grid, store, train.run(grid, store, Console(quiet=True)))


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what tests read and note out of the cache of whoever runs them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHAREDLABEL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _one_thread():
    """Small tensors are faster on one thread, and results do not depend on how busy the machine is."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _few_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw figures against the ratio alone: tests of grids look at no others, and all together take a while."""
    from sharedlabel.report import plots
    from sharedlabel.report.figures import ratio

    monkeypatch.setattr(plots, "_KINDS", [ratio])


@pytest.fixture
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Work in a folder of its own that modules can be imported from, and forget what was taken from it."""
    from sharedlabel import plugins
    from sharedlabel.code import digests

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(plugins, "_taken", {})
    monkeypatch.setenv("SHAREDLABEL_PLUGIN_FILES", "{}")
    before = set(sys.modules)
    yield
    digests.forget()
    for name in set(sys.modules) - before:
        places = [getattr(sys.modules[name], "__file__", ""), *getattr(sys.modules[name], "__path__", ())]
        if any(str(tmp_path) in str(place) for place in places):
            del sys.modules[name]


@pytest.fixture
def small(tmp_path: Path) -> tuple[str, ...]:
    """Command-line arguments of a small grid that writes below a temporary folder."""
    return (*SMALL, f"--output={tmp_path / 'runs'}", f"--data_root={tmp_path / 'data'}")


@pytest.fixture
def experiment(small: tuple[str, ...]) -> Experiment:
    """The small grid as an experiment."""
    from sharedlabel.config import parse

    return parse(small)[0]


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The small grid, run once for all tests that only read it."""
    from sharedlabel.config import parse
    from sharedlabel.report import plots

    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "_KINDS", [])
        return run(parse([*SMALL, f"--output={folder / 'runs'}", f"--data_root={folder / 'data'}"])[0])


@pytest.fixture
def done(finished: Finished, small: tuple[str, ...], experiment: Experiment) -> Store:
    """A copy of the finished grid where the small grid would be computed, for tests that go on from there."""
    from sharedlabel.store import Store

    shutil.copytree(finished.experiment.output, experiment.output)
    return Store(Path(experiment.output) / "store")


@pytest.fixture(name="run", scope="session")
def run_fixture() -> Callable[[Experiment], Finished]:
    """Run a grid without printing, and without figures, which nobody looks at."""
    from sharedlabel.report import plots

    def without_figures(experiment: Experiment) -> Finished:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(plots, "_KINDS", [])
            return run(experiment)

    return without_figures
