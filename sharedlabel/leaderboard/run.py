"""Train and ask a submission in the sandbox, one process for every network and seed; its answers become predictions.

The process is told labels of training and validation images only, never of test. For each run the classes are renamed,
and the tuples of validation and test are mixed and shuffled; a tuple's instances are handed over one size at a time.
Tuples are asked about in small batches of random size. One process is trained and asked a second time, in other
batches: what it says of a tuple must not depend on the company, nor on what it was asked before.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import secrets
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import safetensors.torch
import torch
from jaxtyping import Float, Int64
from pydantic import Field, PositiveInt, RootModel, ValidationError
from torch import Tensor

from sharedlabel import rng
from sharedlabel.aggregators._base import statistics
from sharedlabel.leaderboard import sandbox
from sharedlabel.leaderboard.protocol import SCORED, Board, Features, Network, Protocol, uniform
from sharedlabel.leaderboard.records import Cost, Count
from sharedlabel.leaderboard.sandbox import Kind, Process, SandboxError
from sharedlabel.leaderboard.schema import Read, Strict, explain
from sharedlabel.leaderboard.submission import Submission

BATCH = 16  # most tuples of a question: a split in one question would be there to be balanced as a whole
AUDITED = 1e-3  # largest difference of a probability between two batches
NORMALISED = 1e-3  # of the log of the sum of a posterior
MODULE = "submitted.py"
MESSAGE = 1_000_000  # most bytes of a message that is no posterior
LEAST = torch.finfo(torch.float16).min  # of a log-posterior; what is less likely would become -inf in the file


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


@dataclass(frozen=True)
class Predictions:
    """What a submission answered on every network and seed.

    Attributes:
        tensors: `<network>.<seed>.<role>`, log-posteriors `[t k c]` in float16.
        seconds: by `<network>.<seed>`: of training and of prediction.
        secret: made the names of the classes and the order of the tuples; published afterwards.
    """

    tensors: dict[str, Tensor]
    seconds: dict[str, tuple[float, float]]
    secret: int


class Findings(Strict):
    """What trying the contract gave.

    Attributes:
        problems: a line for each property that does not hold.
        costs: for each shape, if there is no problem.
    """

    problems: Annotated[tuple[Annotated[str, Field(max_length=1000)], ...], Field(max_length=100)]
    costs: tuple[Cost, ...]


class Counted(RootModel[dict[PositiveInt, Count]]):
    """MACs of one tuple by n."""


def examine(submission: Submission, protocols: Sequence[tuple[Protocol, int]], kind: Kind) -> Findings:
    """Try the contract in the sandbox, and count costs.

    Args:
        submission: what was read.
        protocols: with the width of their embeddings.
        kind: of the sandbox.

    Returns:
        Problems, and costs for each protocol.

    Raises:
        SandboxError: it broke a limit, or answered what are no findings.
    """
    shapes = [(width, protocol.source.classes, list(protocol.n)) for protocol, width in protocols]
    with _mounted(submission) as folder, Process(kind, folder, protocols[0][0].limits) as process:
        process.send(_packed({"task": "check", "shapes": shapes}, {}))
        found = _read(process, Findings)
        process.finish()
    return found


def _read(process: Process, model: type[Read]) -> Read:
    """Read JSON with its length in front.

    Raises:
        SandboxError: it is too long, or something else.
    """
    size = int.from_bytes(process.receive(8), "little")
    if size > MESSAGE:
        raise SandboxError(f"expected a message of at most {MESSAGE:,} bytes, got {size:,}; only return posteriors")
    try:
        return model.model_validate_json(process.receive(size))
    except ValidationError as error:
        raise SandboxError(f"expected {model.__name__}, got something else: {explain(error)}") from error


def run(
    submission: Submission,
    protocol: Protocol,
    board: Board,
    kind: Kind,
    workers: int,
    progress: Callable[[str], None],
    cost: Cost | None = None,
) -> Predictions:
    """Train and ask a submission on every network and seed of a protocol.

    Args:
        submission: what was read.
        protocol: what to train and ask it on.
        board: holds the features.
        kind: of the sandbox.
        workers: processes at a time, one core each.
        progress: told a line for every process that ends.
        cost: what the check counted, which the trained aggregators have to cost, too; None compares nothing.

    Raises:
        SandboxError: it broke a limit, failed, or answered what is no posterior.
        StoreError: features are missing or were altered.
    """
    secret = secrets.randbits(63)
    indices = board.indices(protocol)
    jobs = [(network, seed) for network in protocol.networks for seed in protocol.seeds]
    audited = jobs[int(torch.randint(len(jobs), (), generator=rng.generator(secret, "audit")))]

    ended, stopped = itertools.count(1), threading.Event()

    def one(job: tuple[Network, int]) -> Asked:
        network, seed = job
        if stopped.is_set():
            raise SandboxError("it was stopped")
        features = board.features(protocol, network)
        with _mounted(submission) as folder:
            found = _ask(folder, protocol, features, indices, seed, kind, (secret, network.name, seed), "first")
            if job == audited and not stopped.is_set():
                again = _ask(folder, protocol, features, indices, seed, kind, (secret, network.name, seed), "again")
                _compare(found, again)
        if cost is not None and found.macs != cost.macs:
            raise SandboxError(f"expected {cost.macs} MACs by n once trained, as in the check, got {found.macs}")
        trained, asked = found.seconds
        progress(
            f"{next(ended)}/{len(jobs)} {network.name} seed {seed}: trained in {trained:.1f} s, asked in {asked:.1f} s"
        )
        return found

    with ThreadPoolExecutor(workers) as pool:
        waiting = [pool.submit(one, job) for job in jobs]
        try:
            for done in wait(waiting, return_when=FIRST_EXCEPTION).done:
                done.result()
            found = [done.result() for done in waiting]
        except BaseException:  # the first failure, or an interrupt, ends them all
            pool.shutdown(wait=False, cancel_futures=True)
            stopped.set()
            sandbox.stop()
            raise
    names = [f"{network.name}.{seed}" for network, seed in jobs]
    tensors = {
        f"{name}.{role}": asked.posterior[role].clamp(min=LEAST).half()
        for name, asked in zip(names, found, strict=True)
        for role in SCORED
    }
    seconds = {name: asked.seconds for name, asked in zip(names, found, strict=True)}
    return Predictions(tensors, seconds, secret)


def _compare(first: Asked, second: Asked) -> None:
    for role in SCORED:
        apart = float((first.posterior[role].exp() - second.posterior[role].exp()).abs().max())
        if not apart <= AUDITED:
            raise SandboxError(
                f"expected the same posterior of a tuple in two runs with other batches, got {apart:.2g} apart; "
                "it must not depend on the other tuples, their order or the time"
            )


def _ask(
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
    found = {role: torch.empty(len(rows), len(protocol.n), len(classes)) for role, rows in indices.items()}
    started = time.perf_counter()
    with Process(kind, folder, protocol.limits) as process:
        process.send(_packed(_job(protocol, seed), _training(protocol, features, classes)))
        counted = _read(process, Counted)
        trained = time.perf_counter()
        for batch in _batches(len(tuples), rng.generator(*salt, "order", turn)):
            members = [tuples[position] for position in batch]
            answers = _question(process, protocol, features, indices, members, classes)
            for (role, row), answer in zip(members, answers, strict=True):
                found[role][row] = answer
        process.finish()
    return Asked(found, counted.root, (trained - started, time.perf_counter() - trained))


def _batches(count: int, draw: torch.Generator) -> Iterator[list[int]]:
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
        process.send(_packed({"first": before == 0}, part))
        values = process.receive(4 * len(members) * len(classes))
        answers.append(_posterior(values, len(members), len(classes), n))
        before = n
    posterior = torch.stack(answers, dim=1)
    return posterior[..., classes.argsort()]


def _posterior(values: bytes, tuples: int, classes: int, n: int) -> Float[Tensor, "t c"]:
    """Read log-posteriors from the bytes of a process, and believe nothing of them.

    Raises:
        SandboxError: NaN, Inf or values that do not sum to 1.
    """
    found = torch.frombuffer(bytearray(values), dtype=torch.float32).view(tuples, classes)
    if not bool(found.isfinite().all()):
        raise SandboxError(f"expected finite log-posteriors after {n} instances, got NaN or Inf")
    apart = float(found.double().logsumexp(-1).abs().max())
    if not apart <= NORMALISED:
        raise SandboxError(
            f"expected posteriors that sum to 1 after {n} instances, got a log of their sum of {apart:.2g}"
        )
    return found


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


def _packed(job: dict[str, object], tensors: dict[str, Tensor]) -> bytes:
    return safetensors.torch.save(tensors, {"job": json.dumps(job)})


@contextlib.contextmanager
def _mounted(submission: Submission) -> Iterator[Path]:
    """Write the code of a submission, and nothing else of it, into a folder that a sandbox can show."""
    with tempfile.TemporaryDirectory(prefix="sharedlabel-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / MODULE).write_text(submission.code, encoding="utf-8")
        yield folder
