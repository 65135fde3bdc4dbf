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
    """Time the zoo at one ratio with three seeds, then a training step of several networks both ways."""
    batched = [_batched(name, quick) for name in available("aggregators") if _trained(name)]
    sizes = ((64, 8, 266, 64), (64, 8, 76, 64), (64, 16, 74, 64), (16, 8, 74, 32))  # those of the demo come first
    return [_zoo(quick), *batched, *(_recurrences(quick, *size) for size in sizes)]


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


def _recurrences(quick: bool, batch: int, n: int, width: int, hidden: int) -> Result:
    """Time outputs and gradients of eight LSTMs one after the other, and of a recurrence of their stacked weights."""
    count, stream = 8, rng.generator(0, "benchmarks", "lstm")
    with rng.seeded(0, "benchmarks", "lstm"):
        layers = [torch.nn.LSTM(width, hidden, batch_first=True) for _ in range(count)]
    inputs = torch.randn(count, batch, n, width, generator=stream)
    stacked = stack_module_state(layers)[0]

    def one_by_one() -> None:
        for layer, own in zip(layers, inputs, strict=True):
            layer.zero_grad()
            layer(own)[0].square().mean().backward()

    def together() -> None:
        for weight in stacked.values():
            weight.grad = None
        _recurrent(stacked, inputs).square().mean((1, 2, 3)).sum().backward()

    with torch.no_grad():
        expected = torch.stack([layer(own)[0] for layer, own in zip(layers, inputs, strict=True)])
        torch.testing.assert_close(_recurrent(stacked, inputs), expected, rtol=1e-4, atol=1e-5)
    slow, fast = interleaved(one_by_one, together, 1 if quick else 15)
    return summarize(
        f"training step of {count} LSTMs, stacked against one by one: {hidden} units, {width} inputs",
        "x",
        ratios(slow, fast),
        note=f"{batch} tuples of {n}: {1e3 * min(fast):.1f} ms against {1e3 * min(slow):.1f} ms (best)",
    )


def _recurrent(weights: dict[str, Tensor], inputs: Tensor) -> Tensor:
    """Return the outputs `[k b n h]` of several LSTMs, each for its own inputs `[k b n f]`, step by step."""
    bias = (weights["bias_ih_l0"] + weights["bias_hh_l0"])[:, None]
    driven = torch.baddbmm(bias, inputs.flatten(1, 2), weights["weight_ih_l0"].mT).unflatten(1, inputs.shape[1:3])
    output = cell = torch.zeros(len(inputs), inputs.shape[1], driven.shape[-1] // 4)
    steps: list[Tensor] = []
    for drive in driven.unbind(2):
        gates = torch.baddbmm(drive, output, weights["weight_hh_l0"].mT) if steps else drive
        enter, forget, candidate, leave = gates.chunk(4, -1)
        cell = forget.sigmoid() * cell + enter.sigmoid() * candidate.tanh()
        output = leave.sigmoid() * cell.tanh()
        steps.append(output)
    return torch.stack(steps, dim=2)


def _step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def _optimizer(parameters: list[Tensor]) -> torch.optim.Optimizer:
    return torch.optim.AdamW([parameter for parameter in parameters if parameter.requires_grad], lr=0.003)


def _shape() -> SetShape:
    return SetShape(torch.zeros(WIDTH), torch.ones(WIDTH), torch.full((CLASSES,), 1 / CLASSES).log())
