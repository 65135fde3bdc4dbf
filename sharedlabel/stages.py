"""The stages of a grid: pure functions from a configuration and stored inputs to an output.

A stage knows no paths and no store. What it computes depends only on its configuration (seed included), the data and
its inputs; the `runtime` says where it runs. The keys of outputs hold a digest of the code that a stage reaches
(`sources.py`), so whoever edits it need not think of stored artifacts. Every stage also carries an integer version:
raise it when something else changes what is computed, such as a library.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, runtime_checkable
from typing import Protocol as Interface

import torch
from torch import Tensor

from sharedlabel import adaptive as stopping
from sharedlabel import cost, error_margin, measure, rng, timing
from sharedlabel.aggregators import _contract
from sharedlabel.aggregators._base import LEAST_DEVIATION, Aggregator, statistics
from sharedlabel.aggregators._pool import pooled
from sharedlabel.backbones._base import Backbone
from sharedlabel.backbones._masking import enforce
from sharedlabel.backbones._restore import state
from sharedlabel.config import (
    CrossfitConfig,
    FitConfig,
    JointConfig,
    LatencyConfig,
    MarginConfig,
    Plugin,
    TrainConfig,
    TrainerConfig,
)
from sharedlabel.data import tuples
from sharedlabel.evaluation import Scores, posterior_over
from sharedlabel.inputs import FEATURE_ROLES, SCORED_ROLES, Data, score_tuples
from sharedlabel.logs import log_normalize
from sharedlabel.metrics._temperature import anchors
from sharedlabel.metrics.calibration import calibrate_logits, fit_temperature, temperatures
from sharedlabel.plugins import load
from sharedlabel.store import Artifact, Output
from sharedlabel.stored import LEARNED, searched, stored_aggregator, stored_backbone, stored_shape
from sharedlabel.training import compression, search
from sharedlabel.training.alignment import align
from sharedlabel.training.embedding import accuracy, embed
from sharedlabel.training.joint import SharedLabelModule
from sharedlabel.training.loaders import Lookup, TupleLoader
from sharedlabel.training.trainer import device, fit
from sharedlabel.types import Role, SetShape, Tuples

FITTED_ROLES: tuple[Role, ...] = ("aggregator", "validation")
_COUNTED: cost.Counted = {}  # in this process, by structure: networks and seeds share their aggregators
TEACHER = ("teacher_features", "teacher_calibrate", "teacher_aggregate")  # further inputs of `joint` that distils


@runtime_checkable
class Stage(Interface):
    """A stage function with its name and version."""

    name: str
    version: int

    def __call__(self, config: Any, data: Data, inputs: Mapping[str, Artifact], runtime: TrainerConfig) -> Output:
        """Compute the stage's output."""


STAGES: dict[str, Stage] = {}


def stage(version: int) -> Callable[[Callable[..., Output]], Stage]:
    """Give a stage function its version and list it under its name."""

    def register(function: Any) -> Stage:
        function.name, function.version = function.__name__, version
        STAGES[function.name] = function
        return function  # type: ignore[no-any-return]

    return register


@dataclass(frozen=True)
class DenseConfig:
    """What `dense` depends on."""

    backbone: Plugin
    train: TrainConfig
    precision: str
    seed: int

    @property
    def epochs(self) -> float:
        """Passes over the backbone split."""
        return float(self.train.epochs)


@stage(version=1)
def dense(config: DenseConfig, data: Data, inputs: Mapping[str, Artifact], runtime: TrainerConfig) -> Output:
    """Train the dense backbone on the backbone split."""
    del inputs
    return _dense(config, data, runtime, 1.0)


@dataclass(frozen=True)
class EarlyConfig(DenseConfig):
    """What `early` depends on."""

    share: float

    @property
    def epochs(self) -> float:
        """Passes over the backbone split."""
        return self.share * self.train.epochs


@stage(version=1)
def early(config: EarlyConfig, data: Data, inputs: Mapping[str, Artifact], runtime: TrainerConfig) -> Output:
    """Repeat the beginning of the dense training: the point that rewinding goes back to."""
    del inputs
    return _dense(config, data, runtime, config.share)


def _dense(config: DenseConfig, data: Data, runtime: TrainerConfig, share: float) -> Output:
    with rng.seeded(config.seed, "dense"):
        backbone = compression.initial(config.backbone, data)
        losses = compression.train(backbone, config.train, data, runtime, config.seed, (0.0, share))
    return Output(state(backbone), {"losses": losses, "validation_accuracy": accuracy(backbone, data, runtime)})


@dataclass(frozen=True)
class PruneConfig:
    """What `prune` depends on."""

    backbone: Plugin
    pruner: Plugin
    ratio: float
    train: TrainConfig
    retrain: TrainConfig
    precision: str
    seed: int

    @property
    def epochs(self) -> float:
        """Passes over the backbone split."""
        return compression.epochs(self.pruner, self.train, self.retrain)


@stage(version=2)
def prune(config: PruneConfig, data: Data, inputs: Mapping[str, Artifact], runtime: TrainerConfig) -> Output:
    """Prune a backbone to a compression ratio and train what is left, as the pruner's schedule says.

    The network to prune is that of the `previous` round, else the `dense` one, else the one just initialised.
    """
    with rng.seeded(config.seed, "dense"):
        initialised = compression.initial(config.backbone, data)
    original = _backbone(config.backbone, data, inputs["dense"]) if "dense" in inputs else initialised
    start = _backbone(config.backbone, data, inputs["previous"]) if "previous" in inputs else original
    # The ratio is over all parameters of the dense network; the previous round may have made layers smaller.
    ratio = config.ratio * _parameters(start) / _parameters(original)
    if "previous" in inputs:  # which may have removed a part of a channel too much: then there is nothing to remove
        ratio = max(1.0, ratio)
    with rng.seeded(config.seed, "retrain"):
        pruned, trained, losses = compression.compress(
            start,
            ratio,
            config.pruner,
            compression.BackboneTrainer(data, runtime, config.train, config.retrain, config.seed),
            inputs["early"].tensors() if "early" in inputs else None,
        )
    enforce(trained)  # gradual pruning leaves the optimiser momentum of weights that it removes
    trained_before = config.train.epochs if "dense" in inputs else 0.0
    if "previous" in inputs:
        trained_before = inputs["previous"].meta["training_epochs"]
    return Output(
        state(trained),
        {
            "costs": dataclasses.asdict(cost.costs(original, trained, data.dataset.image_shape)),
            "losses": losses,
            "training_epochs": trained_before + config.epochs,
            "validation_accuracy_before_retrain": accuracy(pruned, data, runtime),
            "validation_accuracy": accuracy(trained, data, runtime),
        },
    )


def _parameters(network: Backbone) -> int:
    """Count the parameters, masked ones included."""
    return sum(parameter.numel() for parameter in network.parameters())


@dataclass(frozen=True)
class TimingConfig:
    """What `latency` depends on, besides the machine."""

    backbone: Plugin
    latency: LatencyConfig


@stage(version=3)
def latency(config: TimingConfig, data: Data, inputs: Mapping[str, Artifact], runtime: TrainerConfig) -> Output:
    """Measure time and memory of the pruned backbone; a stage of its own, to be measured again on a quiet machine.

    The dense network takes turns with it, unless it is the dense network. Nothing else of a run is at work meanwhile.
    """
    load = timing.load()
    backbone = _backbone(config.backbone, data, inputs["backbone"])
    same = inputs["dense"].key == inputs["backbone"].key
    dense = None if same else _backbone(config.backbone, data, inputs["dense"])
    shape, options = data.dataset.image_shape, config.latency
    places = {"trainer": device(runtime), "cpu": torch.device("cpu")}
    found = []
    for place in dict.fromkeys(places[name] for name in options.devices):
        memory = {batch: measure.peak_memory(backbone, shape, batch, place) for batch in options.batches}
        for mode, batch in itertools.product(options.modes, options.batches):
            taken = measure.latency(
                backbone,
                shape,
                batch,
                place,
                mode=mode,
                reference=dense,
                repeats=options.repeats,
                seconds=float(options.seconds),
            )
            peak = memory[batch] if mode == "eager" else None
            found.append(dataclasses.asdict(taken) | {"peak_memory_bytes": peak, "load": load})
    return Output({}, {"latencies": found, "file_bytes": dataclasses.asdict(cost.file_bytes(backbone))})


@dataclass(frozen=True)
class ErrorMarginConfig:
    """What `margin` depends on."""

    backbone: Plugin
    margin: MarginConfig


@stage(version=1)
def margin(config: ErrorMarginConfig, data: Data, inputs: Mapping[str, Artifact], runtime: TrainerConfig) -> Output:
    """Find how many weights of each layer of the dense backbone can go before the output moves by epsilon."""
    backbone = _backbone(config.backbone, data, inputs["dense"])
    split, options = data.splits["validation"], config.margin
    chosen = split[torch.linspace(0, len(split) - 1, min(options.inputs, len(split))).long()]
    found = error_margin.margins(
        backbone, data.dataset.images[chosen], options.epsilons, float(options.alpha), device(runtime)
    )
    return Output({}, {"margins": [dataclasses.asdict(layer) for layer in found]})


@dataclass(frozen=True)
class FeaturesConfig:
    """What `features` depends on."""

    backbone: Plugin


@stage(version=1)
def features(config: FeaturesConfig, data: Data, inputs: Mapping[str, Artifact], runtime: TrainerConfig) -> Output:
    """Embed the aggregator, validation and test images once; shards are made one at a time."""
    backbone = _backbone(config.backbone, data, inputs["backbone"])
    lengths = {role: len(data.splits[role]) for role in FEATURE_ROLES}
    order = torch.cat([data.splits[role] for role in FEATURE_ROLES])
    return Output(embed(backbone, data.dataset.images, order, device(runtime)), {"lengths": lengths})


@dataclass(frozen=True)
class CrossfittingConfig:
    """What `crossfit` depends on; how the folds are cut is part of the keys of their features.

    Attributes:
        prior: class prior of tuples, as configured.
    """

    crossfit: CrossfitConfig
    prior: str


@stage(version=2)
def crossfit(config: CrossfittingConfig, data: Data, inputs: Mapping[str, Artifact], runtime: TrainerConfig) -> Output:
    """Join the features of images by networks trained without them, brought into the space of the deployed network.

    Fitted on validation, which no network saw: an affine map of the embeddings, and the temperature that makes logits
    as sharp as the deployed network's. Validation and test keep the deployed network's features. The output is like
    that of `features`, whose embeddings of images that the deployed network was trained on are not used.
    """
    del runtime
    embeddings, logits = (torch.empty_like(tensor) for tensor in _role(inputs["features"], "aggregator"))
    target, target_logits = _role(inputs["features"], "validation")
    every, labels = data.labels("backbone"), data.labels("validation")
    correction = _log_correction(data, every)
    temperature = _temperature(data, target_logits + correction, labels)
    fitted = []
    for number, fold in enumerate(data.folds, start=1):
        source, source_logits = _role(inputs[f"fold {number}"], "validation")
        inside = torch.isin(data.splits["aggregator"], fold)  # both are sorted
        own_correction = _log_correction(data, every[~inside])
        own_temperature = _temperature(data, source_logits + own_correction, labels)
        alignment = align(source, target, config.crossfit.ridge)
        out_of_fold, out_of_fold_logits = _role(inputs[f"fold {number}"], "aggregator")
        embeddings[inside] = alignment(out_of_fold)
        logits[inside] = (out_of_fold_logits + own_correction) * (temperature / own_temperature) - correction
        facts = {"r2": alignment.r2, "ridge": alignment.strength, "temperature": own_temperature}
        fitted.append({"fold": number, "images": len(fold), **facts})
    kept = [_role(inputs["features"], role) for role in SCORED_ROLES]
    joined = zip((embeddings, logits), *kept, strict=True)
    return Output(
        dict(zip(("embeddings", "logits"), map(torch.cat, joined), strict=True)),
        {"lengths": inputs["features"].meta["lengths"], "temperature": temperature, "folds": fitted},
    )


@dataclass(frozen=True)
class CalibrateConfig:
    """What `calibrate` depends on.

    Attributes:
        prior: class prior of tuples, as configured; stages that read what this one stores need not name it again.
        least_deviation: smallest scale of an embedding unit, as a share of its layer's.
    """

    prior: str
    least_deviation: float = LEAST_DEVIATION


@stage(version=2)
def calibrate(config: CalibrateConfig, data: Data, inputs: Mapping[str, Artifact], runtime: TrainerConfig) -> Output:
    """Fit on the aggregator split what all aggregators get: a temperature, the prior shift, the embeddings' scale."""
    del runtime
    embeddings, logits = _role(inputs["features"], "aggregator")
    labels = data.labels("aggregator")
    correction = _log_correction(data, data.labels("backbone"))
    temperature = _temperature(data, logits + correction, labels)
    mean, scale = statistics(embeddings, config.least_deviation)
    return Output(
        {"embedding_mean": mean, "embedding_scale": scale, "log_correction": correction}, {"temperature": temperature}
    )


@dataclass(frozen=True)
class AggregateConfig:
    """What `aggregate` depends on."""

    aggregator: Plugin
    fit: FitConfig
    gradient_clip: float
    n_max: int
    protocol: str
    seed: int


@stage(version=1)
def aggregate(config: AggregateConfig, data: Data, inputs: Mapping[str, Artifact], runtime: TrainerConfig) -> Output:
    """Train an aggregator on the frozen features of images that the backbone did not see."""
    n, shape, recipe = config.n_max, _shape(data, inputs["calibrate"]), config.fit
    learn, watch = (
        search.Images(
            *_calibrated(inputs["features"], inputs["calibrate"], role),
            data.labels(role),
            data.groups(role, config.protocol),
        )
        for role in FITTED_ROLES
    )

    def watched() -> Tuples:
        seed = rng.derive(config.seed, "stopping")
        return data.tuples("validation", config.protocol, n, search.STOPPING_PARTITIONS, seed)

    task = search.task(
        shape,
        learn,
        watch,
        watched,
        n=n,
        prior=data.prior,
        recipe=recipe,
        gradient_clip=config.gradient_clip,
        seed=config.seed,
        runtime=runtime,
    )
    fitted = search.fit(config.aggregator, recipe, task)
    parameters = sum(parameter.numel() for parameter in fitted.aggregator.parameters())
    return Output(dict(fitted.aggregator.state_dict()), {**fitted.meta, "parameters": parameters})


@dataclass(frozen=True)
class JointTrainingConfig:
    """What `joint` depends on."""

    backbone: Plugin
    aggregator: Plugin
    joint: JointConfig
    gradient_clip: float
    n_max: int
    protocol: str
    precision: str
    seed: int


@stage(version=1)
def joint(config: JointTrainingConfig, data: Data, inputs: Mapping[str, Artifact], runtime: TrainerConfig) -> Output:
    """Train the pruned backbone and its fitted aggregator together on tuples of images of the aggregator split."""
    backbone = _backbone(config.backbone, data, inputs["backbone"])
    aggregator = _aggregator(config.aggregator, data, inputs["calibrate"], inputs["aggregate"])
    correction = inputs["calibrate"].tensors()["log_correction"]
    sources: tuple[Lookup, ...] = (_Indexed(data.dataset.images, data.splits["aggregator"]),)
    if config.joint.distill:
        sources += (_teacher(config.aggregator, data, inputs),)
    with rng.seeded(config.seed, "joint"):
        module = SharedLabelModule.of(
            backbone, aggregator, config.joint, inputs["calibrate"].meta["temperature"], correction
        )
        loader = TupleLoader(
            sources,
            data.labels("aggregator"),
            config.n_max,
            config.joint.batch_size,
            data.prior,
            rng.derive(config.seed, "joint"),
            data.groups("aggregator", config.protocol),
            batches=config.joint.batches,
        )
        fit(module, loader, runtime, config.joint.epochs, config.gradient_clip)
    _check_contract(module, next(iter(loader))[0], correction)
    learned = {f"{LEARNED}{name}": tensor for name, tensor in aggregator.state_dict().items()}
    return Output(
        {**state(backbone), **learned},
        {
            "losses": module.losses(),
            "validation_accuracy": accuracy(backbone, data, runtime),
            **searched(inputs["aggregate"]),
        },
    )


@dataclass(frozen=True)
class EvaluateConfig:
    """What `evaluate` depends on."""

    aggregator: Plugin
    n: tuple[int, ...]
    protocol: str
    partitions: int
    seed: int


@stage(version=2)
def evaluate(config: EvaluateConfig, data: Data, inputs: Mapping[str, Artifact], runtime: TrainerConfig) -> Output:
    """Score an aggregator on validation and, with the temperatures fitted there, on test; count what it costs."""
    del runtime
    aggregator = _aggregator(config.aggregator, data, inputs["calibrate"], inputs["aggregate"])

    def posterior(role: Role, drawn: Tuples, n: Sequence[int]) -> Tensor:
        return posterior_over(aggregator, _calibrated(inputs["features"], inputs["calibrate"], role), drawn, n)

    macs = cost.aggregator_macs(aggregator, _shape(data, inputs["calibrate"]), config.n, _COUNTED)
    found = _scored(config, data, posterior)
    return Output(found.tensors, {**found.meta, "macs": {str(n): count for n, count in macs.items()}})


@dataclass(frozen=True)
class StoppingConfig:
    """What `adaptive` depends on."""

    aggregator: Plugin
    n_max: int
    protocol: str
    partitions: int
    seed: int
    rules: tuple[str, ...]
    errors: tuple[float, ...]


@stage(version=2)
def adaptive(config: StoppingConfig, data: Data, inputs: Mapping[str, Artifact], runtime: TrainerConfig) -> Output:
    """Fit on validation when to stop looking at further instances; on test, score every prefix and every stop."""
    del runtime
    shape = _shape(data, inputs["calibrate"])
    aggregator = _aggregator(config.aggregator, data, inputs["calibrate"], inputs["aggregate"])
    every = range(1, config.n_max + 1)
    seen, drawn = {}, {}
    temperatures: dict[stopping.Source, Tensor] = {}
    clusters = data.groups("validation", config.protocol)
    for role in SCORED_ROLES:
        sources = _calibrated(inputs["features"], inputs["calibrate"], role)
        drawn[role] = data.tuples(role, config.protocol, config.n_max, config.partitions, config.seed)
        found: dict[stopping.Source, Tensor] = {"aggregator": posterior_over(aggregator, sources, drawn[role], every)}
        if "log_pool" in stopping.sources(config.rules):
            logits = sources[1][drawn[role].indices.flatten(0, 1)]
            found["log_pool"] = pooled(logits, shape.log_prior)
        temperatures = temperatures or stopping.temperatures(found, drawn[role], clusters)
        seen[role] = stopping.watch(found, drawn[role], temperatures, config.rules)
    fitted = stopping.fit(seen["validation"], drawn["validation"], config.errors, clusters)
    stops = stopping.stop(seen["test"], fitted)
    tuples_of = drawn["test"].labels.shape
    return Output(
        {
            "correct": seen["test"].right.to(torch.uint8).unflatten(0, tuples_of),
            "information": seen["test"].information.float().unflatten(0, tuples_of),
            "instances": stops.instances.to(torch.int16).unflatten(0, tuples_of),
            "reached": stops.reached.unflatten(0, tuples_of),
        },
        {
            "thresholds": [dataclasses.asdict(one) for one in fitted],
            "temperature": temperatures["aggregator"].tolist(),
            "validation": stopping.means(seen["validation"], drawn["validation"]),
            "macs": list(cost.aggregator_macs(aggregator, shape, every, _COUNTED).values()),
            "anytime_macs": list(cost.anytime_macs(aggregator, shape, every, _COUNTED).values()),
        },
    )


@dataclass(frozen=True)
class ExactConfig:
    """What `exact` depends on.

    Attributes:
        prior: class prior of tuples, as configured.
    """

    data: Plugin
    prior: str
    n: tuple[int, ...]
    protocol: str
    partitions: int
    seed: int


@stage(version=2)
def exact(config: ExactConfig, data: Data, inputs: Mapping[str, Artifact], runtime: TrainerConfig) -> Output:
    """Score the exact posterior of a synthetic data set: what no aggregator can beat."""
    del inputs, runtime
    oracle = load("data", config.data.name).exact_log_posterior

    def posterior(role: Role, drawn: Tuples, n: Sequence[int]) -> Tensor:
        instances = data.splits[role][drawn.indices.flatten(0, 1)]
        every: Tensor = oracle(config.data.config, data.dataset, instances, data.prior.log())
        return every[:, torch.tensor(n) - 1]

    return _scored(config, data, posterior)


def _scored(
    config: EvaluateConfig | ExactConfig, data: Data, posterior: Callable[[Role, Tuples, Sequence[int]], Tensor]
) -> Output:
    """Score log-posteriors on validation and test; temperatures depend on validation and on the largest n alone."""
    n, protocol = config.n, config.protocol
    sizes = sorted({*n, *anchors(range(1, max(n) + 1))})
    results: dict[str, Scores] = {}
    temperature = None
    for role in SCORED_ROLES:
        drawn = data.tuples(role, protocol, max(n), config.partitions, config.seed)
        found = posterior(role, drawn, n if temperature is not None else sizes)
        if temperature is None:
            chosen = [sizes.index(size) for size in n]
            temperature = temperatures(found, drawn, sizes, data.groups(role, protocol))[chosen]
            found = found[:, chosen]
        results[role] = score_tuples(data, found, drawn, role, protocol, n, temperature)
    return scored(results, n)


def scored(results: Mapping[str, Scores], n: tuple[int, ...]) -> Output:
    """Pack the scores of both splits into an output: per-tuple scores as tensors, metrics as facts."""
    tensors, meta = {}, {}
    for role, scores in results.items():
        tensors[f"{role}.correct"], tensors[f"{role}.information"] = scores.correct, scores.information
        meta[role] = [{"n": size, **metrics} for size, metrics in zip(n, scores.metrics, strict=True)]
    return Output(tensors, {**meta, "reliability": results["test"].reliability})


class _Indexed:
    """Images of a split, looked up on demand so that a memory map stays on disk."""

    def __init__(self, images: Tensor, split: Tensor) -> None:
        self.images, self.split = images, split

    def __getitem__(self, index: Tensor) -> Tensor:
        return self.images[self.split[index]]


@torch.no_grad()
def _check_contract(module: SharedLabelModule, images: Tensor, correction: Tensor) -> None:
    """Try an aggregator that was trained together with its backbone on tuples of images `[t n C H W]`."""
    embeddings, logits = module.instances(images[: _contract.TUPLES])
    _contract.check(module.aggregator, embeddings, calibrate_logits(logits, correction, module.temperature))


class _Posteriors:
    """What an aggregator says about tuples of a split, from the stored features of its images."""

    def __init__(self, aggregator: Aggregator, sources: tuple[Tensor, Tensor]) -> None:
        self.aggregator, self.sources = aggregator, sources

    @torch.no_grad()
    def __getitem__(self, index: Tensor) -> Tensor:
        posterior: Tensor = self.aggregator(*(source[index] for source in self.sources))
        return posterior


def _teacher(plugin: Plugin, data: Data, inputs: Mapping[str, Artifact]) -> _Posteriors:
    """Return the posteriors of the dense network; joint training changes no image, so its stored features serve."""
    features, calibration, fitted = (inputs[role] for role in TEACHER)
    sources = _calibrated(features, calibration, "aggregator")
    return _Posteriors(_aggregator(plugin, data, calibration, fitted), sources)


def _log_correction(data: Data, trained_on: Tensor) -> Tensor:
    """Return the log of the prior of tuples over the class frequencies among the labels that a backbone learnt from."""
    frequencies = tuples.prior(trained_on, "empirical", data.dataset.num_classes)
    return (data.prior.log() - frequencies.log()).float()


def _temperature(data: Data, logits: Tensor, labels: Tensor) -> float:
    """Fit the temperature of single images; each class weighs its prior."""
    weights = data.prior[labels] / torch.bincount(labels, minlength=data.dataset.num_classes)[labels]
    return float(fit_temperature(log_normalize(logits)[:, None], labels, weights)[0])


def _backbone(plugin: Plugin, data: Data, artifact: Artifact) -> Backbone:
    return stored_backbone(plugin, data.dataset.image_shape, data.dataset.num_classes, artifact)


def _shape(data: Data, calibration: Artifact) -> SetShape:
    return stored_shape(data.prior, calibration)


def _aggregator(plugin: Plugin, data: Data, calibration: Artifact, artifact: Artifact) -> Aggregator:
    return stored_aggregator(plugin, _shape(data, calibration), artifact)


def _role(artifact: Artifact, role: Role) -> tuple[Tensor, Tensor]:
    """Return the embeddings and raw logits of one split."""
    lengths = [artifact.meta["lengths"][name] for name in FEATURE_ROLES]
    index, tensors = FEATURE_ROLES.index(role), artifact.tensors()
    return tensors["embeddings"].split(lengths)[index], tensors["logits"].split(lengths)[index]


def _calibrated(artifact: Artifact, calibration: Artifact, role: Role) -> tuple[Tensor, Tensor]:
    """Return embeddings, and logits whose softmax is the calibrated posterior under the prior of tuples."""
    embeddings, logits = _role(artifact, role)
    correction, temperature = calibration.tensors()["log_correction"], calibration.meta["temperature"]
    return embeddings, calibrate_logits(logits, correction, temperature)
