"""All aggregators trained and evaluated on the features of one network; many networks in one batched program."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap

from benchmarks._measure import Result, interleaved, ratios, seconds, summarize
from benchmarks._synthetic import CLASSES, WIDTH, N
from sharedlabel import config, grid, rng
from sharedlabel.aggregators._base import prefix_loss
from sharedlabel.plugins import available, load
from sharedlabel.store import Store
from sharedlabel.types import SetShape

BOUND = 600.0
SEEDS = 3
BATCH = 64


def run(quick: bool) -> list[Result]:
    """Time the zoo at one ratio with three seeds, then a training step of three networks both ways."""
    return [_zoo(quick), *(_batched(name, quick) for name in available("aggregators") if _trained(name))]


def _zoo(quick: bool) -> Result:
    """Train and evaluate every aggregator but `janossy`, whose cost is a multiple of its base's."""
    names = [name for name in available("aggregators") if name != "janossy"]
    size, steps = (320, 2) if quick else (4_000, 600)
    with tempfile.TemporaryDirectory() as folder:
        experiment, _ = config.parse(
            [
                "--config",
                str(Path(__file__).parent.parent / "configs" / "aggregators-gaussian.yaml"),
                f"--data.instances_per_class={size}",
                "--ratios=[1]",
                f"--aggregators=[{', '.join(names)}]",
                "--evaluation.protocols=[iid]",
                "--dense.epochs=1",
                "--retrain.epochs=1",
                f"--fit.epochs={1 if quick else 60}",
                f"--fit.steps={steps}",
                f"--output={folder}",
                "--tracking=none",
            ]
        )
        planned, store = grid.prepare(experiment), Store(Path(folder) / "store")

        def finish(wanted: Callable[[grid.Cell], grid.Node]) -> None:
            for cell in planned.cells:
                if cell.aggregate is not None:
                    grid.run_node(wanted(cell), planned, store, _quiet)

        finish(lambda cell: dict(cell.aggregate.inputs)["calibrate"])  # type: ignore[union-attr]
        taken = seconds(lambda: finish(lambda cell: cell.evaluate))
    split = len(planned.data.splits["aggregator"])
    note = f"{len(names)} aggregators, {SEEDS} seeds, one process; {split} images to learn on, {steps} steps or more"
    return summarize(
        "zoo: every aggregator trained and evaluated on one network's features", "s", taken, bound=BOUND, note=note
    )


def _quiet(_: grid.Node, __: float | None) -> None:
    """Report no progress."""


def _trained(name: str) -> bool:
    """Tell whether an aggregator is trained by gradient descent and its layers can be batched.

    torch.func has no batching rule for the library's LSTM and GRU, and janossy is its base while it trains.
    """
    module = load("aggregators", name)
    built = module.build(module.Config(), _shape())
    recurrent = any(isinstance(part, torch.nn.RNNBase) for part in built.modules())
    embeddings, logits = torch.zeros(2, 2, WIDTH), torch.zeros(2, 2, CLASSES)
    labels, weights = torch.arange(2), torch.ones(2)
    learns = any(parameter.requires_grad for parameter in built.parameters())
    return learns and not recurrent and not built.fit(embeddings, logits, labels, weights)


def _batched(name: str, quick: bool) -> Result:
    """Time a training step of three networks one after the other, and of the three in one batched program."""
    module, stream = load("aggregators", name), rng.generator(0, "benchmarks", name)
    with rng.seeded(0, "benchmarks", name):
        networks = [module.build(module.Config(), _shape()).train() for _ in range(SEEDS)]
    embeddings = torch.randn(SEEDS, BATCH, N, WIDTH, generator=stream)
    logits = torch.randn(SEEDS, BATCH, N, CLASSES, generator=stream)
    labels = torch.randint(CLASSES, (SEEDS, BATCH), generator=stream)
    separate = [_optimizer(list(network.parameters())) for network in networks]
    template = copy.deepcopy(networks[0]).to("meta")
    parameters, buffers = stack_module_state(networks)
    together = _optimizer(list(parameters.values()))

    def loss(learned: dict[str, Tensor], fixed: dict[str, Tensor], *batch: Tensor) -> Tensor:
        return prefix_loss(functional_call(template, (learned, fixed), batch[:2]), batch[2]).mean()

    def one_by_one() -> None:
        for network, optimizer, *batch in zip(networks, separate, embeddings, logits, labels, strict=True):
            _step(optimizer, prefix_loss(network(*batch[:2]), batch[2]).mean())

    def batched() -> None:
        losses = vmap(loss, randomness="different")(parameters, buffers, embeddings, logits, labels)
        _step(together, losses.sum())

    slow, fast = interleaved(one_by_one, batched, 1 if quick else 15)
    return summarize(
        f"training step of {SEEDS} networks, batched against one by one: {name}",
        "x",
        ratios(slow, fast),
        note=f"{BATCH} tuples of {N}: {1e3 * min(fast):.1f} ms against {1e3 * min(slow):.1f} ms (best)",
    )


def _step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def _optimizer(parameters: list[Tensor]) -> torch.optim.Optimizer:
    return torch.optim.AdamW([parameter for parameter in parameters if parameter.requires_grad], lr=0.003)


def _shape() -> SetShape:
    return SetShape(torch.zeros(WIDTH), torch.ones(WIDTH), torch.full((CLASSES,), 1 / CLASSES).log())
