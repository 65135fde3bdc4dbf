"""What every aggregator promises: see `aggregators/_base.py`."""

from __future__ import annotations

import itertools
import json
from typing import Any

import torch
from torch import Tensor

from sharedlabel import plugins, rng
from sharedlabel.aggregators import _contract
from sharedlabel.aggregators import _space as space
from sharedlabel.aggregators._base import Aggregator, prefix_loss
from sharedlabel.aggregators._space import LogRange, with_options
from sharedlabel.config import Plugin, canonical, remade
from sharedlabel.conformance._promise import Promises, expect
from sharedlabel.measurements import counts
from sharedlabel.scoring.scores import posterior_over
from sharedlabel.training import search
from sharedlabel.types import SetShape, Tuples

TUPLES, INSTANCES, WIDTH, CLASSES = 6, 5, 7, 4
RESNET20_MACS = 40_800_000  # of one 32 x 32 image
_SHARE = 0.02
_HALF = {"atol": 0.2, "rtol": 0.1}
PROMISES = Promises()


class Subject:
    """An aggregator that is tried, built for a few features and labels.

    Args:
        plugin: with its options.
    """

    def __init__(self, plugin: Plugin) -> None:
        self.plugin = plugin

    def build(self, dtype: torch.dtype = torch.float64, *, shake: bool = True) -> Aggregator:
        """Build it; `shake` moves every parameter off its start, so that no zero hides anything."""
        with rng.seeded(0, "conformance", self.plugin.name):
            built = plugins.load("aggregators", self.plugin.name).build(self.plugin.config, set_shape(dtype))
            aggregator: Aggregator = built.to(dtype)
            if shake:
                with torch.no_grad():
                    for parameter in aggregator.parameters():
                        parameter.add_(0.3 * torch.randn_like(parameter))
        return aggregator.eval()

    def choices(self) -> dict[str, tuple[Any, ...]]:
        """Return values of every option that a search may change."""
        return {option: space.samples(choices) for option, choices in space.space_of(self.plugin).items()}


def set_shape(dtype: torch.dtype = torch.float64) -> SetShape:
    """Return what aggregators are built for."""
    return SetShape(
        embedding_mean=torch.full((WIDTH,), 0.5, dtype=dtype),
        embedding_scale=torch.full((WIDTH,), 1.5, dtype=dtype),
        log_prior=torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=dtype).log(),
    )


def inputs(instances: int = INSTANCES, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Return embeddings `[t n d]` and logits `[t n c]` of random tuples."""
    generator = rng.generator(0, "inputs", instances)
    embeddings = torch.randn(TUPLES, instances, WIDTH, generator=generator, dtype=dtype)
    return embeddings, 2 * torch.randn(TUPLES, instances, CLASSES, generator=generator, dtype=dtype)


def toy(tuples: int = 128, instances: int = INSTANCES) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return tuples whose embeddings hold more about the label than the logits, which are over-confident."""
    generator = rng.generator(0, "toy")
    labels = torch.randint(CLASSES, (tuples,), generator=generator)
    embeddings = 1.5 * torch.randn(tuples, instances, WIDTH, generator=generator, dtype=torch.float64)
    embeddings[..., :CLASSES] += torch.nn.functional.one_hot(labels, CLASSES)[:, None]
    noise = torch.randn(tuples, instances, CLASSES, generator=generator, dtype=torch.float64)
    return embeddings, 3 * (embeddings[..., :CLASSES] + noise), labels, torch.full((tuples,), 1 / tuples).double()


def descend(aggregator: Aggregator, steps: int) -> None:
    """Train on the toy as the trainer does, without its schedule."""
    embeddings, logits, labels, weights = toy()
    optimizer = torch.optim.AdamW(aggregator.parameters(), lr=3e-3)
    aggregator.train()
    with rng.seeded(0, "dropout"):
        for _ in range(steps):
            optimizer.zero_grad()
            (weights @ prefix_loss(aggregator(embeddings, logits), labels)).mean().backward()
            optimizer.step()
    aggregator.eval()


def loss(aggregator: Aggregator) -> float:
    """Return the loss on the toy."""
    embeddings, logits, labels, weights = toy()
    with torch.no_grad():
        return float((weights @ prefix_loss(aggregator(embeddings, logits), labels)).mean())


def close(one: Tensor, other: Tensor, atol: float = 1e-9, rtol: float = 0.0) -> None:
    """Break a promise where two tensors differ."""
    torch.testing.assert_close(one, other, atol=atol, rtol=rtol)


def normalised(log_posterior: Tensor) -> None:
    """Break a promise where probabilities do not sum to 1."""
    close(log_posterior.logsumexp(-1), torch.zeros_like(log_posterior[..., 0]), atol=1e-5)


@PROMISES.add
def normalised_at_every_prefix(subject: Subject) -> None:
    """The posterior is normalised after every prefix, in both precisions."""
    for dtype, instances in itertools.product((torch.float32, torch.float64), (1, 2, INSTANCES, 64)):
        out = _contract.posterior(subject.build(dtype), *inputs(instances, dtype), tolerance=1e-5)
        expect(out.dtype == dtype, f"expected a posterior of {dtype}, got {out.dtype}")


@PROMISES.add
def finite(subject: Subject) -> None:
    """Extreme embeddings and logits give a finite posterior and finite gradients."""
    for instances in (1, 64):
        aggregator = subject.build(torch.float32)
        embeddings, logits = (x.requires_grad_() for x in inputs(instances, torch.float32))
        out = aggregator(1e6 * embeddings, (1e4 * logits).clamp(-1e4, 1e4))
        expect(out.isfinite().all(), "expected a finite posterior of extreme logits, got NaN or infinity")
        normalised(out)
        if out.requires_grad:
            out.mean().backward()
            grads = [p.grad for p in (*aggregator.parameters(), embeddings, logits) if p.grad is not None]
            expect(grads, "expected gradients, got none")
            expect(all(g.isfinite().all() for g in grads), "expected finite gradients, got NaN or infinity")


@PROMISES.add
def half_precision(subject: Subject) -> None:
    """Features of half precision give a posterior of single precision, much like theirs."""
    embeddings, logits = inputs(dtype=torch.float32)
    aggregator = subject.build(torch.float32)
    for dtype in (torch.bfloat16, torch.float16):
        out = aggregator(embeddings.to(dtype), logits.to(dtype))
        _is_like(out, aggregator(embeddings, logits))


@PROMISES.add
def autocast(subject: Subject) -> None:
    """Under autocast, the posterior is of single precision and much like that without it."""
    embeddings, logits = inputs(dtype=torch.float32)
    aggregator = subject.build(torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = aggregator(embeddings, logits)
    _is_like(out, aggregator(embeddings, logits))


def _is_like(out: Tensor, exact: Tensor) -> None:
    expect(out.dtype == torch.float32, f"expected a posterior of float32, got {out.dtype}")
    normalised(out)
    close(out, exact, **_HALF)


@PROMISES.add
def causal(subject: Subject) -> None:
    """Later instances change nothing before them, and something after."""
    for k in range(INSTANCES - 1):
        aggregator = subject.build()
        embeddings, logits = inputs()
        before = aggregator(embeddings, logits)
        embeddings[:, k + 1 :] = -3 * embeddings[:, k + 1 :] + 1
        logits[:, k + 1 :] = -4 * logits[:, k + 1 :] - 1
        after = aggregator(embeddings, logits)
        close(after[:, : k + 1], before[:, : k + 1])
        unmoved = torch.allclose(after[:, k + 1 :], before[:, k + 1 :], atol=1e-3)
        expect(not unmoved, f"expected the posterior to depend on instances after {k + 1}, got the same")


@PROMISES.add
def exact_contract(subject: Subject) -> None:
    """A prefix is a pass over it alone, a tuple is itself in other company, `at` and `last` are `forward`."""
    for instances in (1, 2, 17):
        aggregator, tuples = subject.build(), inputs(instances)
        for promise in (_contract.check_causal, _contract.check_separate, _contract.check_some):
            promise(aggregator, *tuples, tolerance=1e-9)
        close(aggregator.last(*tuples), aggregator(*tuples)[:, -1])


@PROMISES.add
def trained_contract(subject: Subject) -> None:
    """Trained weights keep the contract, in single precision."""
    aggregator = subject.build(shake=False)
    if list(aggregator.parameters()) and not aggregator.fit(*toy()):
        descend(aggregator, steps=40)
    embeddings, logits, *_ = toy(instances=16)
    _contract.check(aggregator.float(), embeddings.float(), logits.float())


@PROMISES.add
def some_prefixes(subject: Subject) -> None:
    """The posterior after some prefixes alone is that of all."""
    for prefixes in ([1], [2, 5], [1, 2, 4, INSTANCES]):
        aggregator = subject.build()
        expected = aggregator(*inputs())[:, [k - 1 for k in prefixes]]
        close(aggregator.at(*inputs(), prefixes), expected)


@PROMISES.add
def shared_instances(subject: Subject) -> None:
    """The posterior of tuples that share instances is that of each tuple alone."""
    embeddings, logits = (part.flatten(0, 1) for part in inputs())
    draw = rng.generator(0, "shared")
    index = torch.stack([torch.randperm(len(logits), generator=draw)[:INSTANCES] for _ in range(5)])
    aggregator = subject.build()
    for prefixes in ([1, INSTANCES], list(range(1, INSTANCES + 1))):
        expected = aggregator.at(embeddings[index], logits[index], prefixes)
        close(aggregator.over(embeddings, logits, index, prefixes), expected)


@PROMISES.add
def ragged(subject: Subject) -> None:
    """The posterior of a tuple is what it is alone, where tuples of other lengths stand beside it."""
    embeddings, logits = (part.flatten(0, 1) for part in inputs())
    lengths = torch.tensor([INSTANCES, 3, 3, 1])
    every = torch.randperm(len(logits), generator=rng.generator(0, "ragged"))[: int(lengths.sum())]
    rows = every.split(lengths.tolist())
    padded = torch.stack([torch.cat([row, row[-1:].expand(INSTANCES - len(row))]) for row in rows])
    drawn = Tuples(padded[None], torch.zeros(1, len(rows), dtype=torch.int64), torch.ones(1, len(rows)), lengths)
    aggregator, sizes = subject.build(), range(1, INSTANCES + 1)
    posterior = posterior_over(aggregator, (embeddings, logits), drawn, sizes)
    for own, row in zip(posterior, rows, strict=True):
        alone = aggregator(embeddings[row][None], logits[row][None])[0]
        close(own[: len(row)], alone)
        close(own[len(row) :], alone[-1:].expand(INSTANCES - len(row), -1))  # it stays as it is


@PROMISES.add
def prefix_weights(subject: Subject) -> None:
    """The weights of the loss sum to one and count the whole tuple."""
    for size in (1, 2, 7, 16):
        weights = subject.build().prefix_weights(size)
        expect(weights.shape == (size,), f"expected {size} weights, got {list(weights.shape)}")
        expect(abs(float(weights.sum()) - 1) < 1e-6, f"expected weights that sum to 1, got {float(weights.sum())}")
        expect(
            float(weights.min()) >= 0 < float(weights[-1]), f"expected weights of at least 0, got {weights.tolist()}"
        )


@PROMISES.add
def drafts(subject: Subject) -> None:
    """What early stopping sees is normalised."""
    draft = subject.build().draft(*inputs(), [1, 3, INSTANCES])
    expect(draft.shape == (TUPLES, 3, CLASSES), f"expected {[TUPLES, 3, CLASSES]}, got {list(draft.shape)}")
    normalised(draft)


@PROMISES.add
def cheap(subject: Subject) -> None:
    """Sixteen instances cost less than 2% of a pass of ResNet-20.

    64 features, 10 labels; an aggregator that averages over several orders may spend as much on each. Of what a search
    may choose, all sizes are the largest.
    """
    shape = SetShape(torch.zeros(64), torch.ones(64), torch.zeros(10))
    largest = {option: max(values) for option, values in subject.choices().items() if not isinstance(values[0], str)}
    for plugin in (subject.plugin, with_options(subject.plugin, largest)):
        built = plugins.load("aggregators", plugin.name).build(plugin.config, shape)
        spent = counts.aggregator_macs(built, shape, [16])[16] / getattr(plugin.config, "orders", 1)
        limit = _SHARE * RESNET20_MACS
        expect(spent < limit, f"expected at most {limit:,.0f} MACs, got {spent:,.0f} with {plugin.label}")


@PROMISES.add
def every_choice(subject: Subject) -> None:
    """Every setting that a search may choose can be built, and made again from what is stored."""
    values = subject.choices()
    for setting in itertools.product(*values.values()):
        chosen = dict(zip(values, setting, strict=True))
        plugin = with_options(subject.plugin, chosen)
        expect(
            {option: space.option(plugin, option) for option in chosen} == chosen, f"expected {chosen}, got {plugin}"
        )
        again = remade("aggregators", json.loads(canonical(plugin)))
        expect(canonical(again) == canonical(plugin), f"expected {plugin} again, got {again}")
        built = plugins.load("aggregators", plugin.name).build(plugin.config, set_shape(torch.float32))
        out = built.eval()(*inputs(2, torch.float32))
        expect(
            out.shape == (TUPLES, 2, CLASSES), f"expected {[TUPLES, 2, CLASSES]} with {chosen}, got {list(out.shape)}"
        )


@PROMISES.add
def default_among_choices(subject: Subject) -> None:
    """What a search may choose contains the default, and is plain."""
    for option, choices in space.space_of(subject.plugin).items():
        default = space.option(subject.plugin, option)
        if isinstance(choices, LogRange):
            expect(choices.low <= default <= choices.high, f"expected {option}={default} in {choices}")
        else:
            expect(default in choices, f"expected {option}={default} among {choices}")
            expect(len(set(choices)) == len(choices) > 1, f"expected several values of {option}, each once: {choices}")
            plain = all(isinstance(value, bool | int | float | str) for value in choices)
            expect(plain, f"expected numbers, texts or truths as {option}, got {choices}")


@PROMISES.add
def searched_if_trained(subject: Subject) -> None:
    """Only what is trained by gradient descent is searched."""
    expect(search.descends(subject.plugin) or not space.space_of(subject.plugin), "expected no SPACE where `fit` fits")


@PROMISES.add
def order(subject: Subject) -> None:
    """The order of instances matters exactly where `permutation_invariant` says so."""
    aggregator = subject.build()
    embeddings, logits = inputs()
    _contract.check_order(aggregator, embeddings, logits, tolerance=1e-9)
    if not aggregator.permutation_invariant:
        last, turned = aggregator(embeddings, logits)[:, -1], aggregator(embeddings.flip(1), logits.flip(1))[:, -1]
        expect(not torch.allclose(turned, last, atol=1e-3), "expected another posterior in another order, got the same")


@PROMISES.add
def deterministic(subject: Subject) -> None:
    """The same tuples give the same posterior."""
    _contract.check_repeatable(subject.build(), *inputs(), tolerance=1e-9)


@PROMISES.add
def copied(subject: Subject) -> None:
    """A copy with the same state gives the same posterior."""
    _contract.check_state(subject.build(), subject.build(shake=False), *inputs(), tolerance=1e-9)


@PROMISES.add
def without_values(subject: Subject) -> None:
    """It runs on tensors without values, on which costs are counted."""
    aggregator = subject.build(torch.float32).to("meta")
    out = aggregator(*(x.to("meta") for x in inputs(dtype=torch.float32)))
    expect(out.device.type == "meta", f"expected a posterior on meta, got one on {out.device.type}")
    expect(out.shape == (TUPLES, INSTANCES, CLASSES), f"expected {[TUPLES, INSTANCES, CLASSES]}, got {list(out.shape)}")


@PROMISES.add
def gradients(subject: Subject) -> None:
    """Gradients reach every parameter that `fit` does not set."""
    aggregator = subject.build(shake=False)
    embeddings, logits, labels, weights = toy()
    if aggregator.fit(embeddings, logits, labels, weights) or not list(aggregator.parameters()):
        return
    descend(aggregator, steps=1)  # a read-out that starts at zero hides what is before it from the first step
    aggregator.zero_grad()
    prefix_loss(aggregator(embeddings, logits), labels).mean().backward()
    still = [n for n, p in aggregator.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    expect(not still, f"expected a gradient of every parameter, got none of {', '.join(still)}")


@PROMISES.add
def learns(subject: Subject) -> None:
    """Training moves every parameter and lowers the loss."""
    aggregator = subject.build(shake=False)
    if not list(aggregator.parameters()):
        return
    before, start = loss(aggregator), {n: p.detach().clone() for n, p in aggregator.named_parameters()}
    if not aggregator.fit(*toy()):
        before = loss(aggregator)
        descend(aggregator, steps=40)
    expect(loss(aggregator) < 0.95 * before, f"expected a loss below {before:.4f}, got {loss(aggregator):.4f}")
    still = [n for n, p in aggregator.named_parameters() if torch.equal(p, start[n])]
    expect(not still, f"expected every parameter to move, got {', '.join(still)} as before")


@PROMISES.add
def fits_without_gradients(subject: Subject) -> None:
    """`fit` works where gradients are not enabled, with the same result."""
    fitted, under_no_grad = subject.build(shake=False), subject.build(shake=False)
    done = fitted.fit(*toy())
    with torch.inference_mode():
        expect(under_no_grad.fit(*toy()) == done, f"expected `fit` to return {done} without gradients, too")
    for a, b in zip(fitted.parameters(), under_no_grad.parameters(), strict=True):
        expect(torch.equal(a, b), "expected the same parameters without gradients, got others")
