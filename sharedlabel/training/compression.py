"""Train a backbone, and prune it when its schedule says.

- `trained`: dense network -> prune -> retrain.
- `initial`: initialised network -> prune -> train -> retrain.
- `iterative`: previous round (or dense network) -> prune a little more -> retrain; or, with rewinding, -> set the
  survivors back to an early point of the dense training -> repeat the dense training from there -> retrain.
- `gradual`: dense network -> retrain, pruned a little more at every step of the schedule.

So every network ends with the retraining that the dense one gets too.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from sharedlabel import rng
from sharedlabel.backbones._base import Backbone
from sharedlabel.backbones._masking import enforce
from sharedlabel.config import Plugin
from sharedlabel.config.sections import Schedule, TrainConfig, TrainerConfig
from sharedlabel.errors import CompressionError
from sharedlabel.plugins import load
from sharedlabel.pruners._base import Context
from sharedlabel.pruners._masks import apply_masks, masked
from sharedlabel.pruners._methods import prune
from sharedlabel.scoring.data import Data
from sharedlabel.training.backbone import BackboneTraining
from sharedlabel.training.devices import device
from sharedlabel.training.fit import fit, kind
from sharedlabel.training.loaders import ImageLoader, looked_up
from sharedlabel.training.resident import resident
from sharedlabel.training.steps import AfterStep
from sharedlabel.types import Dataset

SAMPLE = 4096  # images that a pruner may look at
_AT_ONCE = 256  # images that statistics are counted of
WHOLE = (0.0, 1.0)


@dataclass(frozen=True)
class BackboneTrainer:
    """How the backbones of one grid are trained.

    Attributes:
        data: images of the `backbone` split.
        runtime: where.
        dense: the recipe of the dense network.
        retrain: the recipe after pruning.
        seed: training seed.
    """

    data: Data
    runtime: TrainerConfig
    dense: TrainConfig
    retrain: TrainConfig
    seed: int

    def from_start(self, network: Backbone, span: tuple[float, float] = WHOLE) -> list[float]:
        """Train by the dense recipe, or by the part of it between two shares; return the loss of every epoch."""
        return train(network, self.dense, self.data, self.runtime, rng.derive(self.seed, "train"), span)

    def again(self, network: Backbone, after_step: AfterStep | None = None) -> list[float]:
        """Retrain; `after_step` is told the share of the steps done."""
        seed = rng.derive(self.seed, "retrain")
        return train(network, self.retrain, self.data, self.runtime, seed, after_step=after_step)

    def fully(self, network: Backbone) -> None:
        """Train as a dense network is trained and retrained."""
        self.from_start(network)
        self.again(network)


def train(
    backbone: Backbone,
    recipe: TrainConfig,
    data: Data,
    runtime: TrainerConfig,
    seed: int,
    span: tuple[float, float] = WHOLE,
    after_step: AfterStep | None = None,
) -> list[float]:
    """Train in place whatever requires a gradient.

    Args:
        backbone: dense or pruned.
        recipe: how.
        data: its `backbone` split is used.
        runtime: where.
        seed: seed of the order of images.
        span: the part of the recipe's steps to train, as shares in [0, 1].
        after_step: called after every step with the share of the steps done.

    Returns:
        Mean loss of every epoch, nats; empty if nothing is to be trained.
    """
    if span[0] >= span[1] or not any(parameter.requires_grad for parameter in backbone.parameters()):
        return []
    if runtime.channels_last:
        backbone.to(memory_format=torch.channels_last)
    module = kind(BackboneTraining, runtime).of(backbone, recipe, runtime.compile, span, after_step)
    images = resident(data.dataset.images, device(runtime)) if runtime.devices == 1 else data.dataset.images
    loader = ImageLoader(images, data.dataset.labels, data.splits["backbone"], recipe.batch_size, seed, recipe.balanced)
    fit(module, loader, runtime, recipe.epochs)
    return module.losses()


def initial(plugin: Plugin, data: Data) -> Backbone:
    """Build a backbone whose images are normalised by the statistics of the backbone split."""
    dataset = data.dataset
    build = load("backbones", plugin.name).build
    backbone: Backbone = build(plugin.config, dataset.image_shape, dataset.num_classes)
    _set_statistics(backbone, dataset, data.splits["backbone"])
    return backbone


def context(pruner: ModuleType, name: str, training: BackboneTrainer) -> Context:
    """Gather what a pruner needs, and no more."""
    needs, data = pruner.NEEDS, training.data
    needed = Context(generator=rng.generator(training.seed, "prune", name))
    chosen = _sample(data.splits["backbone"], training.seed, "images")
    if needs & {"data", "labels"}:
        needed = dataclasses.replace(needed, images=data.dataset.images[chosen])
    if "labels" in needs:
        needed = dataclasses.replace(needed, labels=data.dataset.labels[chosen])
    if "validation" in needs:
        held_out = _sample(data.splits["validation"], training.seed, "validation")
        needed = dataclasses.replace(needed, validation=data.dataset.images[held_out])
    return dataclasses.replace(needed, train=training.fully) if "trainer" in needs else needed


def compress(
    start: Backbone, ratio: float, plugin: Plugin, training: BackboneTrainer, early: Mapping[str, Tensor] | None
) -> tuple[Backbone, Backbone, list[float]]:
    """Prune a network to a compression ratio and train it, as the pruner's schedule says.

    Args:
        start: the network to prune: dense, initialised, or that of the previous round.
        ratio: compression ratio over all parameters of `start`, masked ones included.
        plugin: pruner, options and schedule.
        training: how networks are trained.
        early: the tensors that survivors are set back to, if the schedule rewinds.

    Returns:
        The network right after pruning, the trained one, and the losses of its training by epoch, nats.
    """
    schedule = schedule_of(plugin)
    if schedule.when == "gradual":
        apply = functools.partial(_apply, plugin, training)
        trained = apply(start, 1.0)
        steps = _GradualPruning(apply, ratio, schedule)
        return start, trained, training.again(trained, steps)
    pruned = cut(start, ratio, plugin, training, early)
    trained = copy.deepcopy(pruned)
    losses: list[float] = []
    for recipe, salt, span in course(plugin, training.dense, training.retrain):
        losses += train(trained, recipe, training.data, training.runtime, rng.derive(training.seed, salt), span)
    return pruned, trained, losses


def cut(
    start: Backbone, ratio: float, plugin: Plugin, training: BackboneTrainer, early: Mapping[str, Tensor] | None
) -> Backbone:
    """Return a network pruned at once, and set back if the schedule rewinds; the arguments are those of `compress`."""
    pruned = _apply(plugin, training, start, ratio)
    if early is not None:
        pruned.load_state_dict({**pruned.state_dict(), **early})  # removed weights stay zero
    return pruned


def course(
    plugin: Plugin, dense: TrainConfig, retrain: TrainConfig
) -> list[tuple[TrainConfig, str, tuple[float, float]]]:
    """Return the trainings of a network that was pruned at once: recipe, salt of the seed, part of the steps."""
    schedule, again = schedule_of(plugin), (retrain, "retrain", WHOLE)
    if schedule.when == "initial":
        return [(dense, "train", WHOLE), again]
    if schedule.when == "iterative" and schedule.rewind is not None:
        return [(dense, "train", (schedule.rewind, 1.0)), again]
    return [again]


def keeps_shapes(plugin: Plugin) -> bool:
    """Tell whether all networks that a pruner leaves to be trained differ by masks and numbers alone."""
    return not (load("pruners", plugin.name).STRUCTURED or _trains(plugin) or schedule_of(plugin).when == "gradual")


def schedule_of(plugin: Plugin) -> Schedule:
    """Return when a pruner prunes."""
    return plugin.schedule or Schedule()


def rounds(ratio: float, schedule: Schedule) -> tuple[float, ...]:
    """Return the compression ratios after each round; only `iterative` has several.

    >>> rounds(8.0, Schedule(when="iterative", growth=2.0))
    (2.0, 4.0, 8.0)
    >>> rounds(8.0, Schedule())
    (8.0,)
    """
    if schedule.when != "iterative":
        return (ratio,)
    ratios, after = [], schedule.growth
    while after < ratio * (1 - 1e-9):
        ratios.append(after)
        after = schedule.growth ** (len(ratios) + 1)
    return (*ratios, ratio)


def epochs(plugin: Plugin, dense: TrainConfig, retrain: TrainConfig) -> float:
    """Return the epochs that one call of `compress` trains, those of the pruner itself included."""
    if _trains(plugin):  # by both recipes; nothing is left to be trained after it
        return float(dense.epochs + retrain.epochs)
    return sum((end - start) * recipe.epochs for recipe, _, (start, end) in course(plugin, dense, retrain))


def check_schedule(plugin: Plugin, retrain: TrainConfig) -> None:
    """Refuse a schedule that a pruner cannot follow.

    Raises:
        CompressionError: rounds or steps of a pruner that cannot prune what it has pruned; weights to rewind or to
            prune step by step where the pruner removes layers' channels or trains itself; or gradual pruning without
            retraining.
    """
    schedule, pruner = schedule_of(plugin), load("pruners", plugin.name)
    gradual, rewinds = schedule.when == "gradual", schedule.when == "iterative" and schedule.rewind is not None
    what = "gradual" if gradual else "iterative with rewinding" if rewinds else "iterative"
    if schedule.when in ("gradual", "iterative") and not getattr(pruner, "REPEATABLE", True):
        raise CompressionError(
            f"pruner {plugin.label!r}: expected a schedule that prunes once, got {what}: this pruner cannot prune "
            "again what it has pruned; use trained or initial, or another pruner"
        )
    if pruner.STRUCTURED and (gradual or rewinds):
        raise CompressionError(
            f"pruner {plugin.label!r}: expected a schedule for physically smaller layers, got {what}, which needs "
            "weights that keep their places; use trained, initial or iterative without rewind, or a pruner of single "
            "weights"
        )
    if _trains(plugin) and (gradual or rewinds):
        raise CompressionError(
            f"pruner {plugin.label!r}: expected a schedule for a pruner that trains, got {what}: it would train within "
            "the retraining, or its result would be set back; use trained, initial or iterative without rewind"
        )
    if gradual and not retrain.epochs:
        raise CompressionError(
            f"pruner {plugin.label!r}: the schedule gradual prunes while retraining, got retrain.epochs=0; "
            "set it above 0"
        )


def _trains(plugin: Plugin) -> bool:
    return "trainer" in load("pruners", plugin.name).NEEDS


class _GradualPruning:
    """Prune during training; sparsity rises from 0 to its end value along a cubic curve.

    Reference: Zhu & Gupta, "To prune, or not to prune: exploring the efficacy of pruning for model compression" (2017).
    """

    def __init__(self, apply: Callable[[Backbone, float], Backbone], ratio: float, schedule: Schedule) -> None:
        self.apply, self.ratio, self.schedule, self.done = apply, ratio, schedule, 0

    def __call__(self, network: Backbone, share: float) -> None:
        """Prune a network in place if a step of the schedule is due."""
        steps = self.schedule.steps
        due = min(int(steps * share / self.schedule.until + 1e-9), steps)
        if due == self.done:
            return
        self.done = due
        enforce(network)  # the optimiser's momentum is older than the masks of the step before
        removed = (1 - 1 / self.ratio) * (1 - (1 - due / steps) ** 3)
        pruned = self.apply(network, self.ratio if due == steps else 1 / (1 - removed))
        masks = {name: mask for name, _, mask in masked(pruned)}
        apply_masks(network, masks)
        network.load_state_dict(pruned.state_dict())

    def state(self, network: Backbone) -> dict[str, Any]:
        """Return how far it is, and the masks, which a network that goes on has to have before its weights."""
        return {"done": self.done, "masks": {name: mask for name, _, mask in masked(network)}}

    def restore(self, network: Backbone, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.done = state["done"]
        apply_masks(network, state["masks"])


def _apply(plugin: Plugin, training: BackboneTrainer, network: Backbone, ratio: float) -> Backbone:
    """Prune a network where training runs; the result is where the network was."""
    pruner = load("pruners", plugin.name)
    home = next(network.parameters()).device
    target = device(training.runtime)
    moved = network if home == target else copy.deepcopy(network).to(target)
    pruned = prune(pruner, moved, ratio, plugin.config, context(pruner, plugin.name, training))
    return pruned.to(home)


def _sample(split: Tensor, seed: int, salt: str) -> Tensor:
    """Draw the images that a pruner may look at."""
    return split[torch.randperm(len(split), generator=rng.generator(seed, "prune", salt))[:SAMPLE]]


def _set_statistics(backbone: Backbone, dataset: Dataset, split: Tensor, sample: int = 10_000) -> None:
    """Set the channel statistics from the backbone split (evenly spaced images, at most `sample`)."""
    if backbone.normalize.by == "image":
        return
    chosen = split[torch.linspace(0, len(split) - 1, min(sample, len(split))).long()]
    if dataset.images.dtype == torch.uint8:
        mean, std = _of_bytes(looked_up(dataset.images, chosen.split(_AT_ONCE)))
    else:
        images = dataset.images[chosen].double()
        mean, std = images.mean((0, 2, 3)), images.std((0, 2, 3))
    backbone.normalize.mean.copy_(mean)
    backbone.normalize.std.copy_(std.clamp(min=1e-3))


def _of_bytes(batches: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each channel of images, in units of 255, from exact sums.

    >>> mean, std = _of_bytes([torch.tensor([[[[0, 255]]]], dtype=torch.uint8)])
    >>> float(mean), round(float(std), 4)
    (0.5, 0.7071)
    """
    count, sums, squares = 0, torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)
    for images in batches:
        values = images.transpose(0, 1).flatten(1).to(torch.int32)
        count, sums, squares = count + values.shape[1], sums + values.sum(1), squares + (values * values).sum(1)
    totals = list(zip(sums.tolist(), squares.tolist(), strict=True))
    variances = [(count * square - total**2) / max(count * (count - 1), 1) for total, square in totals]
    mean = torch.tensor([total / count for total, _ in totals], dtype=torch.float64)
    return mean / 255, torch.tensor(variances, dtype=torch.float64).sqrt() / 255
