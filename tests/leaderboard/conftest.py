"""A small board whose features say nothing about the labels: who scores above chance has seen what it must not see."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Callable
from typing import cast

import pytest
import safetensors.torch
import torch

from sharedlabel import rng
from sharedlabel.leaderboard.board import commands, records, standings, writing
from sharedlabel.leaderboard.folder import ANSWERS, TUPLES, Board
from sharedlabel.leaderboard.protocol import METRICS, Protocol
from sharedlabel.leaderboard.sandbox import kinds, limits
from sharedlabel.leaderboard.schema import to_toml
from sharedlabel.leaderboard.submission import reading
from sharedlabel.leaderboard.submission.metadata import Metadata
from sharedlabel.leaderboard.submission.reading import Submission

CLASSES, WIDTH, IMAGES, N = 4, 6, 96, 4
KIND = cast("limits.Kind", os.environ.get("SHAREDLABEL_SANDBOX", "bwrap"))  # what is attacked
USABLE = kinds.unusable(KIND)
needs_sandbox = pytest.mark.skipif(USABLE is not None, reason=f"NO SANDBOX, CHEATS NOT TRIED: {KIND} is {USABLE}")


def stored(path, tensors) -> str:
    content = safetensors.torch.save({name: tensor.clone() for name, tensor in tensors.items()})
    path.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def make_board(root, signal: float = 0.0, **changed) -> Board:
    """Write a protocol; tuples come class by class, so that their order would give the label away."""
    folder = root / "protocols" / "toy-v1"
    folder.mkdir(parents=True)
    draw = rng.generator(0, "board")
    labels = torch.arange(CLASSES).repeat_interleave(IMAGES // CLASSES)
    tensors, indices = {}, torch.arange(IMAGES, dtype=torch.int32).view(-1, N)
    for role in ("aggregator", "validation", "test"):
        logits = torch.randn(IMAGES, CLASSES, generator=draw) + signal * torch.nn.functional.one_hot(labels, CLASSES)
        tensors[f"{role}.embeddings"] = torch.randn(IMAGES, WIDTH, generator=draw).half()
        tensors[f"{role}.logits"] = logits.log_softmax(-1).half()
        if role != "test":
            tensors[f"{role}.labels"] = labels.to(torch.uint8)
    own = labels[:: IMAGES // CLASSES].repeat_interleave(len(indices) // CLASSES).to(torch.uint8)
    images = {"count": IMAGES, "sha256": "0" * 64}
    network = {"pruner": "none", "ratio": 1.0, "achieved_ratio": 1.0, "theoretical_speedup": 1.0, "macs": 100}
    protocol = {
        "id": "toy-v1",
        "title": "Toy",
        "about": "Noise.",
        "command": "tests/leaderboard/conftest.py",
        "n": (1, N),
        "seeds": (0,),
        "prior": "uniform",
        "metrics": METRICS,
        "tolerance": 0.05,
        "tuples": stored(folder / TUPLES, {f"{role}.indices": indices for role in ("validation", "test")}),
        "answers": stored(folder / ANSWERS, {f"{role}.labels": own for role in ("validation", "test")}),
        "source": {"name": "toy", "fingerprint": "", "classes": CLASSES}
        | dict.fromkeys(("backbone", "aggregator", "validation", "test"), images),
        "recipe": {
            "epochs": 1,
            "steps": 1,
            "batch_size": 64,
            "learning_rate": 0.001,
            "weight_decay": 0.0,
            "patience": 1,
            "gradient_clip": 1.0,
        },
        "limits": {"seconds": 120, "memory_mb": 3000, "processes": 64, "disk_mb": 16, "log_kb": 100},
        "networks": [
            {
                **network,
                "name": "dense",
                "cell": "0" * 64,
                "file": "dense.safetensors",
                "sha256": stored(folder / "dense.safetensors", tensors),
            }
        ],
    }
    protocol["limits"] = protocol["limits"] | changed.pop("limits", {})
    checked = Protocol.model_validate(protocol | changed)
    (root / "protocols" / "toy-v1.toml").write_text(to_toml(checked.model_dump()))
    return Board(root)


@pytest.fixture
def board(tmp_path) -> Board:
    return make_board(tmp_path / "leaderboard")


METADATA = Metadata.model_validate(
    {
        "title": "Toy",
        "description": "An aggregator of the tests, honest or not.",
        "license": "MIT",
        "external_data": False,
        "tuning": {"trials": 0, "selected_on": "nothing"},
        "authors": [{"name": "Nobody"}],
    }
)

AGGREGATOR = """
from dataclasses import dataclass
import torch
from sharedlabel.aggregators._base import Aggregator, normalize
{top}

@dataclass(frozen=True)
class Config:
    pass

class Entry(Aggregator):
    permutation_invariant = True

    def __init__(self):
        super().__init__()
        self.asked = 0
{start}

    def forward(self, embeddings, logits):
        self.asked += 1
        posterior = normalize(logits.cumsum(dim=1))
{forward}
        return posterior

def build(config, shape):
    return Entry()
"""


@pytest.fixture
def written() -> Callable[..., Submission]:
    """Return a submission that does something on import (`top`), when built (`start`) or when asked (`forward`)."""

    def write(top: str = "", start: str = "", forward: str = "") -> Submission:
        def indented(text: str) -> str:
            return "\n".join(f"        {line}" for line in text.strip("\n").splitlines())

        code = AGGREGATOR.format(top=top, start=indented(start), forward=indented(forward))
        return Submission("toy", METADATA, code, code, "", "0" * 64)

    return write


def git(board, *arguments: str) -> str:
    home = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", "-C", board.root, *home, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


SOURCE = '"""One of the zoo."""\n\nfrom sharedlabel.aggregators.log_pool import Config, LogPool, build\n'


def submit(board: Board, name: str, skill: float, title: str = "") -> None:
    """Put a submission and predictions of some skill on the board, as `run` would have left them."""
    folder = board.root / "submissions" / name
    folder.mkdir(parents=True)
    (folder / "aggregator.py").write_text(SOURCE)
    (folder / "README.md").write_text(f"# {name}\n")
    metadata = METADATA.model_dump() | {
        "title": title or name,
        "authors": [{"name": "A. Nobody", "affiliation": "", "url": ""}],
    }
    (folder / "submission.toml").write_text(to_toml(metadata))
    for identifier in board.ids():
        protocol = board.protocol(identifier)
        predicted(board, protocol, name, skill, folder.parent.parent / "predictions" / identifier / name)


def predicted(board: Board, protocol: Protocol, name: str, skill: float, out) -> None:
    draw, tensors = rng.generator(0, "predictions", name), {}
    for role, drawn in board.answers(protocol).items():
        labels = drawn.labels[0]
        for network in protocol.networks:
            for seed in protocol.seeds:
                noise = torch.randn(len(labels), len(protocol.n), CLASSES, generator=draw)
                signal = (
                    torch.nn.functional.one_hot(labels, CLASSES)[:, None] * torch.tensor(protocol.n)[:, None] ** 0.5
                )
                tensors[f"{network.name}.{seed}.{role}"] = (noise + skill * signal).log_softmax(-1).half()
    content, digest = writing.serialized(tensors)
    facts = {
        "protocol": protocol.id,
        "name": name,
        "submission": reading.named(board.root, name).sha256,
        "features": protocol.files,
        "predictions": digest,
        "cost": {"macs": {n: 10 * n * len(name) for n in protocol.n}, "parameters": 3},
        "seconds": {f"{n.name}.{s}": (1.0, 0.5) for n in protocol.networks for s in protocol.seeds},
        "sandbox": "bwrap",
        "secret": 1,
        "provenance": {"sharedlabel": "0", "commit": "0"},
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / records.PREDICTIONS).write_bytes(content)
    (out / commands.RUN).write_text(json.dumps(facts))


def listed(board: Board, name: str, status: str = "verified") -> None:
    """Score a submission's predictions on every protocol, and verify it."""
    for identifier in board.ids():
        protocol = board.protocol(identifier)
        commands.store(board, protocol, name, board.root / "predictions" / identifier / name)
        if status != "self-reported":
            commands.entry(board, protocol, name).record(status, "tests", 0.5)


def place_of(board: Board, name: str) -> records.Entry:
    """Return the entry of a submission on a board of any version of the metrics."""
    return commands.entry(board, board.protocol("toy-v1", oldest=1), name)


def aged(board: Board) -> None:
    """Make a board one that was scored by an older version of the metrics, by which everybody had .01 RI less."""
    protocol = board.protocol("toy-v1")
    for one in standings.entries(board, protocol):
        place, former = commands.entry(board, protocol, one.result.name), one.result
        scores, digest = writing.serialized({"information": one.scores["information"] - 0.02})
        cells = tuple(cell.model_copy(update={"ri": cell.ri - 0.01}) for cell in former.cells)
        older = former.model_copy(update={"ri": former.ri - 0.01, "cells": cells, "scores": digest})
        place.write(older, place.predictions(former), scores, records.BY_AUTHOR, one.history[-1].status)
    board.path("toy-v1").write_text(board.path("toy-v1").read_text().replace(f"metrics = {METRICS}", "metrics = 1"))
