"""A tiny grid, an aggregator that misbehaves when it is told to, and processes that fork workers, started once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sharedlabel.machine import forks
from tests.smallest import SMALLEST

if TYPE_CHECKING:
    from sharedlabel.config import Experiment

TINY = (*SMALLEST, "--dense.epochs=1", "--fit.epochs=1")
ODD = '''
import os, signal, sys, time, warnings
from dataclasses import dataclass
from pathlib import Path
from sharedlabel.aggregators._base import Aggregator, normalize

@dataclass(frozen=True)
class Config:
    """What it does while it is fitted, once for each file that the pattern names."""
    does: str = "nothing"
    flags: str = ""

class MuteError(Exception):
    def __str__(self):
        raise RuntimeError("nothing to say")


class Odd(Aggregator):
    permutation_invariant = True

    def __init__(self, config):
        super().__init__()
        self.config = config

    def forward(self, embeddings, logits):
        return normalize(logits.cumsum(1))

    def fit(self, embeddings, logits, labels, weights):
        folder = Path(self.config.flags or "/nowhere")
        for flag in sorted(folder.glob("flag*")):
            try:
                flag.rename(folder / f"seen-{flag.name}-{os.getpid()}")
            except FileNotFoundError:
                continue
            if self.config.does == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            elif self.config.does == "wait":
                while not (folder / "go").exists():
                    time.sleep(0.05)
        if self.config.does == "raise":
            raise RuntimeError("it rains")
        if self.config.does == "exit":
            sys.exit(7)
        if self.config.does == "mute":
            raise MuteError
        if self.config.does == "warn":
            warnings.warn("it may rain", type("OwnWarning", (UserWarning,), {}))  # which no other process knows
        return True

def build(config, shape):
    return Odd(config)
'''


class _Shared:
    """A process that forks workers, which tests do not close."""

    def __init__(self, process: forks.Forks) -> None:
        self.fork = process.fork

    def close(self) -> None:
        """Leave it to the next test."""


@pytest.fixture(scope="session")
def _process() -> Iterator[_Shared]:
    process = forks.Forks(forks.STAGE_CALLS, 1)
    yield _Shared(process)
    process.close()


@pytest.fixture
def quick_forks(_process: _Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all tests fork from one process, whose imports take seconds."""
    monkeypatch.setattr(forks, "taken", lambda *_: _process)
    monkeypatch.setattr(forks, "keep", lambda _: None)


@pytest.fixture(scope="session")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of the aggregator: one for all, since processes that live longer than a test have imported it."""
    path = tmp_path_factory.mktemp("plugins") / "odd.py"
    path.write_text(ODD)
    return path


@pytest.fixture
def arguments(apart: None, tmp_path: Path, odd: Path) -> Callable[..., tuple[str, ...]]:
    """Return the arguments of the tiny grid with an aggregator that does something; so many files tell it when."""

    def of(does: str = "nothing", flags: int = 0, *others: str) -> tuple[str, ...]:
        for number in range(flags):
            (tmp_path / f"flag{number}").touch()
        plugin = json.dumps({"name": str(odd), "label": "odd", "does": does, "flags": str(tmp_path)})
        folders = (f"--output={tmp_path / 'runs'}", f"--data_root={tmp_path / 'data'}")
        return (*TINY, f"--aggregators=[log_pool, tempered_log_pool, {plugin}]", *folders, *others)

    return of


@pytest.fixture
def tiny(arguments: Callable[..., tuple[str, ...]]) -> Callable[..., Experiment]:
    """Return the tiny grid as an experiment; the arguments are those of `arguments`."""
    from sharedlabel.config import parse

    return lambda *given: parse(arguments(*given))[0]
