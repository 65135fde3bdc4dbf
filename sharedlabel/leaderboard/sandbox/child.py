"""The program inside the sandbox: it trains a submitted aggregator and answers questions about tuples.

Messages on standard input are safetensors with their length in front; answers on standard output are plain float32. A
tuple's instances arrive as they are asked about: the posterior after k of them is answered before the next arrives, so
none can be looked at early. Nothing here is trusted by what reads the answers.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from typing import TYPE_CHECKING, Any

from sharedlabel.leaderboard.sandbox import _seccomp

if TYPE_CHECKING:
    from torch import Tensor

    from sharedlabel.aggregators._base import Aggregator

MODULE = "submitted"  # the submission's name among the aggregators, inside
_MISSING = "expected a message, got the end of the input"


def main() -> None:
    """Lock this process in, do the job that comes on standard input, and end at once."""
    _work()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # Python would take a second to tidy up


def _work() -> None:
    memory_mb, disk_mb, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    answers = os.dup(1)
    os.dup2(2, 1)  # what submitted code prints is a log, and no answer
    _answer(answers, b"hello")
    _limit(memory_mb, disk_mb)
    _seccomp.apply()
    job, tensors = _message()
    if job["task"] == "check":
        from sharedlabel.leaderboard.sandbox import conformance

        findings = json.dumps(conformance.examine(folder, job)).encode()
        _answer(answers, len(findings).to_bytes(8, "little") + findings)
        return
    aggregator = _trained(folder, job, tensors)
    counted = json.dumps(_macs(aggregator, tensors, job["sizes"])).encode()
    _answer(answers, len(counted).to_bytes(8, "little") + counted)
    _converse(aggregator, answers)


def _limit(memory_mb: int, disk_mb: int) -> None:
    """Set what the kernel holds for each process: private memory, files, no dump of its memory."""
    memory, disk = memory_mb * 1_000_000, disk_mb * 1_000_000
    for kind, limit in (
        (resource.RLIMIT_DATA, memory),
        (resource.RLIMIT_FSIZE, disk),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 256),
    ):
        resource.setrlimit(kind, (limit, limit))


def _message() -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read a message: what to do, and tensors.

    Raises:
        EOFError: there is none, or a part of one.
    """
    import safetensors.torch

    size = int.from_bytes(_exactly(8), "little")
    content = _exactly(size)
    header = int.from_bytes(content[:8], "little")
    facts = json.loads(content[8 : 8 + header]).get("__metadata__", {})
    return json.loads(facts.get("job", "{}")), safetensors.torch.load(content)


def _exactly(size: int) -> bytes:
    content = bytearray()
    while len(content) < size:
        part = os.read(0, min(size - len(content), 1 << 20))
        if not part:
            raise EOFError(_MISSING)
        content += part
    return bytes(content)


def _answer(descriptor: int, content: bytes) -> None:
    done = 0
    while done < len(content):
        done += os.write(descriptor, content[done:])


def mount(folder: str) -> None:
    """Make the submitted file one of the aggregators, called `MODULE`."""
    import sharedlabel.aggregators

    sharedlabel.aggregators.__path__.append(folder)


def _trained(folder: str, job: dict[str, Any], tensors: dict[str, Tensor]) -> Aggregator:
    import torch

    from sharedlabel import rng
    from sharedlabel.config import resolve
    from sharedlabel.config.sections import FitConfig, TrainerConfig
    from sharedlabel.data import tuples
    from sharedlabel.training import search
    from sharedlabel.types import SetShape, Tuples

    shape = SetShape(tensors["embedding_mean"], tensors["embedding_scale"], tensors["log_prior"].float())
    learn, watch = (
        search.Images(*(tensors[f"{role}.{name}"] for name in ("embeddings", "logits", "labels")))
        for role in ("aggregator", "validation")
    )
    recipe, n, seed = FitConfig(**job["recipe"]), job["n"], job["seed"]
    prior = tensors["log_prior"].exp()

    def watched() -> Tuples:
        draw = rng.generator(seed, "stopping")
        return tuples.partition(watch.labels, n, search.STOPPING_PARTITIONS, prior, draw)

    task = search.task(
        shape,
        learn,
        watch,
        watched,
        n=n,
        prior=prior,
        recipe=recipe,
        gradient_clip=job["gradient_clip"],
        seed=seed,
        runtime=TrainerConfig(accelerator="cpu"),
    )
    with rng.seeded(seed, "leaderboard"):
        mount(folder)
        fitted = search.best(resolve("aggregators", MODULE), recipe, task)
    torch.set_grad_enabled(False)
    return fitted.aggregator.eval()


def _macs(aggregator: Aggregator, tensors: dict[str, Tensor], sizes: list[int]) -> dict[str, int]:
    """Count the MACs of one tuple of each size with the aggregator that answers, trained; fused kernels are off."""
    import torch

    from sharedlabel.measurements import counts

    width, classes = len(tensors["embedding_mean"]), len(tensors["log_prior"])
    aggregator.requires_grad_(True)
    with counts.plain_kernels():
        return {
            str(n): counts.call_macs(aggregator.last, torch.zeros(1, n, width), torch.zeros(1, n, classes))
            for n in sizes
        }


def _converse(aggregator: Aggregator, answers: int) -> None:
    """Answer until the input ends: instances of a batch of tuples, and the posterior after all of them so far."""
    import torch

    seen: list[tuple[Tensor, Tensor]] = []
    while True:
        try:
            job, tensors = _message()
        except EOFError:
            return
        if job["first"]:
            seen = []
        seen.append((tensors["embeddings"].float(), tensors["logits"].float()))
        embeddings, logits = (torch.cat(parts, dim=1) for parts in zip(*seen, strict=True))
        posterior = aggregator.last(embeddings, logits)
        if posterior.shape != logits[:, -1].shape:
            raise ValueError(f"expected posteriors {list(logits[:, -1].shape)}, got {list(posterior.shape)}")
        _answer(answers, posterior.float().contiguous().numpy().astype("<f4").tobytes())
