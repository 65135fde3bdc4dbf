"""Train one process in the sandbox and ask it about all tuples, a few at a time, later instances last.

The process is told labels of training and validation images only, never of test. Its classes are renamed, and the
tuples of validation and test are mixed and shuffled; a tuple's instances are handed over one size at a time, in small
batches of random size.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int64
from pydantic import PositiveInt, RootModel
from torch import Tensor

from sharedlabel import rng
from sharedlabel.aggregators._base import statistics
from sharedlabel.leaderboard.cost import Whole
from sharedlabel.leaderboard.folder import Features
from sharedlabel.leaderboard.protocol import SCORED, Protocol, uniform
from sharedlabel.leaderboard.sandbox.limits import Kind, SandboxError
from sharedlabel.leaderboard.sandbox.messages import packed, read
from sharedlabel.leaderboard.sandbox.process import Process

BATCH = 16  # most tuples of a question: a split in one question would be there to be balanced as a whole
NORMALISED = 1e-3  # of the log of the sum of a posterior


@dataclass(frozen=True)
class Asked:
    """What one process answered.

    Attributes:
        posterior: by role, log-posteriors of the tuples after each n, in the order and the classes of the protocol.
        macs: of one tuple by n, once trained.
        seconds: of training and of prediction, as seen from outside.
    """

    posterior: dict[str, Float[Tensor, "t k c"]]
    macs: dict[int, int]
    seconds: tuple[float, float]


class Counted(RootModel[dict[PositiveInt, Whole]]):
    """MACs of one tuple by n."""


def ask(
    folder: Path,
    protocol: Protocol,
    features: Features,
    indices: dict[str, Int64[Tensor, "t n"]],
    seed: int,
    kind: Kind,
    salt: tuple[int, str, int],
    turn: str,
) -> Asked:
    """Train one process and ask it about all tuples."""
    classes = torch.randperm(protocol.source.classes, generator=rng.generator(*salt, "classes"))
    tuples = [(role, row) for role in SCORED for row in range(len(indices[role]))]
    posterior = {role: torch.empty(len(rows), len(protocol.n), len(classes)) for role, rows in indices.items()}
    started = time.perf_counter()
    with Process(kind, folder, protocol.limits) as process:
        process.send(packed(_job(protocol, seed), _training(protocol, features, classes)))
        counted = read(process, Counted)
        trained = time.perf_counter()
        for batch in batches(len(tuples), rng.generator(*salt, "order", turn)):
            members = [tuples[position] for position in batch]
            answers = _question(process, protocol, features, indices, members, classes)
            for (role, row), answer in zip(members, answers, strict=True):
                posterior[role][row] = answer
        process.finish()
    return Asked(posterior, counted.root, (trained - started, time.perf_counter() - trained))


def batches(count: int, draw: torch.Generator) -> Iterator[list[int]]:
    """Yield all numbers below a count, shuffled, in batches of random sizes."""
    order = torch.randperm(count, generator=draw).tolist()
    while order:
        size = int(torch.randint(1, BATCH + 1, (), generator=draw))
        yield order[:size]
        del order[:size]


def _question(
    process: Process,
    protocol: Protocol,
    features: Features,
    indices: dict[str, Int64[Tensor, "t n"]],
    members: Sequence[tuple[str, int]],
    classes: Int64[Tensor, "c"],
) -> Float[Tensor, "b k c"]:
    """Hand over the instances of a batch of tuples, and read the posterior after each n before the next ones."""
    embeddings, logits = (
        torch.stack([source[role][indices[role][row]] for role, row in members])
        for source in (features.embeddings, features.logits)
    )
    answers, before = [], 0
    for n in protocol.n:
        part = {
            "embeddings": embeddings[:, before:n].contiguous(),
            "logits": logits[:, before:n][..., classes].contiguous(),
        }
        process.send(packed({"first": before == 0}, part))
        values = process.receive(4 * len(members) * len(classes))
        answers.append(posterior_of(values, len(members), len(classes), n))
        before = n
    posterior = torch.stack(answers, dim=1)
    return posterior[..., classes.argsort()]


def posterior_of(values: bytes, tuples: int, classes: int, n: int) -> Float[Tensor, "t c"]:
    """Read log-posteriors from the bytes of a process, and believe nothing of them.

    Raises:
        SandboxError: NaN, Inf or values that do not sum to 1.
    """
    posterior = torch.frombuffer(bytearray(values), dtype=torch.float32).view(tuples, classes)
    if not bool(posterior.isfinite().all()):
        raise SandboxError(f"expected finite log-posteriors after {n} instances, got NaN or Inf")
    apart = float(posterior.double().logsumexp(-1).abs().max())
    if not apart <= NORMALISED:
        raise SandboxError(
            f"expected posteriors that sum to 1 after {n} instances, got a log of their sum of {apart:.2g}"
        )
    return posterior


def _job(protocol: Protocol, seed: int) -> dict[str, object]:
    recipe = protocol.recipe.model_dump()
    clip = recipe.pop("gradient_clip")
    return {
        "task": "run",
        "seed": seed,
        "n": max(protocol.n),
        "sizes": protocol.n,
        "recipe": recipe,
        "gradient_clip": clip,
    }


def _training(protocol: Protocol, features: Features, classes: Int64[Tensor, "c"]) -> dict[str, Tensor]:
    """Return what a process learns from, its classes renamed."""
    mean, scale = statistics(features.embeddings["aggregator"])
    tensors = {
        "embedding_mean": mean,
        "embedding_scale": scale,
        "log_prior": uniform(protocol).log(),
    }
    for role in ("aggregator", "validation"):
        tensors[f"{role}.embeddings"] = features.embeddings[role]
        tensors[f"{role}.logits"] = features.logits[role][:, classes].contiguous()
        tensors[f"{role}.labels"] = classes.argsort()[features.labels[role]]
    return tensors
