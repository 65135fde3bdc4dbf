"""What a researcher would write instead of a grid: one script that trains, prunes, embeds, fits and scores.

It uses the package's networks, pruner, aggregators, tuples and metrics, and plain loops of PyTorch around them. It
stores nothing and checks nothing, and gives the numbers that the grid gives.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from sharedlabel import plugins, rng
from sharedlabel.aggregators._base import prefix_loss, statistics
from sharedlabel.config import Experiment, resolve
from sharedlabel.config.sections import FitConfig, TrainConfig
from sharedlabel.data import tuples
from sharedlabel.metrics.accuracy import n_accuracy
from sharedlabel.metrics.calibration import (
    apply_temperature,
    calibrate_logits,
    log_correction,
    single_temperature,
    temperatures,
)
from sharedlabel.metrics.information import floor_posterior, label_entropy, log2_posterior_of_label
from sharedlabel.pruners._methods import prune
from sharedlabel.scoring.data import Data
from sharedlabel.training import compression, search
from sharedlabel.training.loaders import ImageLoader, TupleLoader
from sharedlabel.types import Role, SetShape

Numbers = dict[tuple[float, str, str, int], tuple[float, float]]  # n-accuracy and RI by ratio, aggregator, split and n


def run(experiment: Experiment, data: Data) -> Numbers:
    """Compute the n-accuracy and the RI of every cell of a small experiment: one backbone, one pruner, one seed."""
    (backbone,), (pruner,) = experiment.backbones, experiment.pruners
    plugin, seed = resolve("backbones", backbone), experiment.seeds[0]
    with rng.seeded(seed, "dense"):
        dense = compression.initial(plugin, data)
        _train(dense, experiment.dense, data, seed)
    numbers: Numbers = {}
    for name, ratio in (("none", 1.0), *((pruner, float(ratio)) for ratio in experiment.ratios if ratio > 1)):
        method = resolve("pruners", name)
        needed = compression.BackboneTrainer(data, experiment.trainer, experiment.dense, experiment.retrain, seed)
        module = plugins.load("pruners", method.name)
        with rng.seeded(seed, "retrain"):
            small = prune(module, dense, ratio, method.config, compression.context(module, method.name, needed))
            small = copy.deepcopy(small)
            _train(small, experiment.retrain, data, rng.derive(seed, "retrain"))
        for aggregator, split, values in _scored(small, experiment, data, seed):
            for n, *both in zip(experiment.evaluation.n, *values, strict=True):
                numbers[ratio, aggregator, split, n] = (float(both[0]), float(both[1]))
    return numbers


def _train(network: nn.Module, recipe: TrainConfig, data: Data, seed: int) -> None:
    """Train a network on single images."""
    dataset, indices = data.dataset, data.splits["backbone"]
    loader = ImageLoader(dataset.images, dataset.labels, indices, recipe.batch_size, seed)
    network.train()
    for images, labels in _steps(network, recipe, loader, recipe.epochs, recipe.warmup):
        nn.functional.cross_entropy(network(images), labels, label_smoothing=recipe.label_smoothing).backward()
    network.eval()


def _steps(
    network: nn.Module,
    recipe: TrainConfig | FitConfig,
    loader: Iterable[Sequence[Tensor]],
    epochs: int,
    warmup: float = 0.1,
    clip: float = 0.0,
    after_epoch: Callable[[], bool] = lambda: True,
) -> Iterator[Sequence[Tensor]]:
    """Yield batches; take a step of AdamW by the gradients that are there when the next one is asked for."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    decayed = [parameter for parameter in trained if parameter.ndim > 1]
    others = [parameter for parameter in trained if parameter.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate, fused=True)
    steps = max(1, epochs * len(loader))  # type: ignore[arg-type]
    rising = max(1, round(warmup * steps))

    def scale(step: int) -> float:
        if step < rising:
            return (step + 1) / rising
        return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, scale)
    for _ in range(epochs):
        for batch in loader:
            optimizer.zero_grad()
            yield batch
            if clip:
                nn.utils.clip_grad_norm_([*decayed, *others], clip)
            optimizer.step()
            schedule.step()
        if not after_epoch():
            return


@torch.inference_mode()
def _embedded(network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    parts = [network.embed(batch) for batch in images.split(512)]  # type: ignore[operator]
    return torch.cat(parts), torch.cat([network.classify(part) for part in parts])  # type: ignore[operator]


def _scored(
    network: nn.Module, experiment: Experiment, data: Data, seed: int
) -> Iterator[tuple[str, str, tuple[Tensor, Tensor]]]:
    """Fit the aggregators to a network, and yield what each scores on either split."""
    scoring, embeddings, logits = experiment.evaluation, {}, {}
    roles: tuple[Role, ...] = ("aggregator", "validation", "test")
    for role in roles:
        embeddings[role], logits[role] = _embedded(network, data.dataset.images[data.splits[role]])
    shift = log_correction(data.prior, tuples.prior(data.labels("backbone"), "empirical", data.dataset.num_classes))
    temperature = single_temperature(logits["aggregator"] + shift, data.labels("aggregator"), data.prior)
    for role in roles:
        logits[role] = calibrate_logits(logits[role], shift, temperature)
    shape = SetShape(*statistics(embeddings["aggregator"]), data.prior.log().float())
    for spec in experiment.aggregators:
        plugin = resolve("aggregators", spec)
        with rng.seeded(seed, "aggregate", plugin.name):
            aggregator = plugins.load("aggregators", plugin.name).build(plugin.config, shape)
            if any(parameter.requires_grad for parameter in aggregator.parameters()):
                _fit(aggregator, experiment, data, embeddings, logits, seed)
        aggregator.eval()
        fitted = None
        for role in ("validation", "test"):
            drawn = data.tuples(role, "iid", max(scoring.n), scoring.partitions, scoring.seed)
            index = drawn.indices.flatten(0, 1)
            with torch.inference_mode():
                chunks = index.split(512)
                made = [aggregator.at(embeddings[role][one], logits[role][one], scoring.n) for one in chunks]
                posterior = torch.cat(made)
            if fitted is None:
                fitted = temperatures(posterior, drawn, scoring.n, None)
            labels, weights = drawn.labels.flatten(), drawn.weights.flatten() / scoring.partitions
            calibrated = floor_posterior(apply_temperature(posterior, fitted))
            bits = weights @ log2_posterior_of_label(calibrated, labels).double()
            entropy = label_entropy(data.prior.log())
            yield plugin.label, role, (n_accuracy(posterior, labels, weights), 1 + bits / entropy)


def _fit(
    aggregator: nn.Module,
    experiment: Experiment,
    data: Data,
    embeddings: dict[Role, Tensor],
    logits: dict[Role, Tensor],
    seed: int,
) -> None:
    """Train an aggregator by the likelihood of every prefix, and keep the best epoch."""
    n, recipe = max(experiment.evaluation.n), experiment.fit
    sources = (embeddings["aggregator"], logits["aggregator"])
    loader = TupleLoader(sources, data.labels("aggregator"), n, recipe.batch_size, data.prior, seed, None)
    lasting = search.lasting(recipe, len(loader))
    drawn = data.tuples("validation", "iid", n, search.STOPPING_PARTITIONS, rng.derive(seed, "stopping"))
    index, labels = drawn.indices.flatten(0, 1), drawn.labels.flatten()
    weights = (drawn.weights.flatten() / drawn.weights.mean()).float()
    watched = embeddings["validation"][index], logits["validation"][index]
    best, state, waited = math.inf, copy.deepcopy(aggregator.state_dict()), 0

    def loss_of(parts: Sequence[Tensor], labels: Tensor, weights: Tensor) -> Tensor:
        losses: Tensor = prefix_loss(aggregator(*parts), labels)
        return (losses.mean(1) * weights).mean()

    @torch.no_grad()
    def better() -> bool:
        nonlocal best, state, waited
        aggregator.eval()
        loss = float(loss_of(watched, labels, weights))
        aggregator.train()
        waited += 1
        if loss < best:
            best, state, waited = loss, copy.deepcopy(aggregator.state_dict()), 0
        return waited < lasting.patience

    better()
    waited = 0
    aggregator.train()
    clip = float(experiment.trainer.gradient_clip)
    for batch in _steps(aggregator, recipe, loader, lasting.epochs, clip=clip, after_epoch=better):
        loss_of(batch[:2], batch[2], batch[3]).backward()
    aggregator.load_state_dict(state)
