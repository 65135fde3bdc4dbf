"""Train and ask a submission, one process in the sandbox for every network and seed; its answers become predictions.

One process is trained and asked a second time, in other batches: what it says of a tuple must not depend on the company
it comes in, nor on what it was asked before.
"""

from __future__ import annotations

import itertools
import secrets
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass

import torch
from torch import Tensor

from sharedlabel import rng
from sharedlabel.leaderboard.cost import Cost
from sharedlabel.leaderboard.folder import Board
from sharedlabel.leaderboard.protocol import SCORED, Network, Protocol
from sharedlabel.leaderboard.sandbox import process
from sharedlabel.leaderboard.sandbox.asking import Asked, ask
from sharedlabel.leaderboard.sandbox.limits import Kind, SandboxError
from sharedlabel.leaderboard.sandbox.messages import mounted
from sharedlabel.leaderboard.submission.reading import Submission

AUDITED = 1e-3  # largest difference of a probability between two batches
LEAST = torch.finfo(torch.float16).min  # of a log-posterior; what is less likely would become -inf in the file


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
        with mounted(submission) as folder:
            answer = ask(folder, protocol, features, indices, seed, kind, (secret, network.name, seed), "first")
            if job == audited and not stopped.is_set():
                again = ask(folder, protocol, features, indices, seed, kind, (secret, network.name, seed), "again")
                _compare(answer, again)
        if cost is not None and answer.macs != cost.macs:
            raise SandboxError(f"expected {cost.macs} MACs by n once trained, as in the check, got {answer.macs}")
        trained, asked = answer.seconds
        progress(
            f"{next(ended)}/{len(jobs)} {network.name} seed {seed}: trained in {trained:.1f} s, asked in {asked:.1f} s"
        )
        return answer

    with ThreadPoolExecutor(workers) as pool:
        waiting = [pool.submit(one, job) for job in jobs]
        try:
            for done in wait(waiting, return_when=FIRST_EXCEPTION).done:
                done.result()
            answered = [done.result() for done in waiting]
        except BaseException:  # the first failure, or an interrupt, ends them all
            pool.shutdown(wait=False, cancel_futures=True)
            stopped.set()
            process.stop()
            raise
    names = [f"{network.name}.{seed}" for network, seed in jobs]
    tensors = {
        f"{name}.{role}": asked.posterior[role].clamp(min=LEAST).half()
        for name, asked in zip(names, answered, strict=True)
        for role in SCORED
    }
    seconds = {name: asked.seconds for name, asked in zip(names, answered, strict=True)}
    return Predictions(tensors, seconds, secret)


def _compare(first: Asked, second: Asked) -> None:
    for role in SCORED:
        apart = float((first.posterior[role].exp() - second.posterior[role].exp()).abs().max())
        if not apart <= AUDITED:
            raise SandboxError(
                f"expected the same posterior of a tuple in two runs with other batches, got {apart:.2g} apart; "
                "it must not depend on the other tuples, their order or the time"
            )
