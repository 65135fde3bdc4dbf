"""The stages of a grid: pure functions from a configuration and stored inputs to an output.

A stage knows no paths and no store. What it computes depends only on its configuration (seed included), the data and
its inputs; the `runtime` says where it runs. Every stage carries an integer version: raise it when the code changes
what is computed, and stored artifacts of the old version are no longer used.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, runtime_checkable
from typing import Protocol as Interface

import torch
from torch import Tensor

from sharedlabel import cost, rng
from sharedlabel.aggregators._base import Aggregator
from sharedlabel.backbones._base import Backbone
from sharedlabel.backbones._restore import restore, state
from sharedlabel.config import FitConfig, JointConfig, Plugin, TrainConfig, TrainerConfig
from sharedlabel.data import tuples
from sharedlabel.errors import TrainingError
from sharedlabel.evaluation import Scores, posterior_over
from sharedlabel.inputs import FEATURE_ROLES, SCORED_ROLES, Data
from sharedlabel.loaders import ImageLoader, TupleLoader
from sharedlabel.logs import log_normalize
from sharedlabel.metrics.calibration import fit_temperature
from sharedlabel.modules import AggregatorModule, BackboneModule, SharedLabelModule, device, fit
from sharedlabel.plugins import load
from sharedlabel.pruners._base import Context
from sharedlabel.pruners._masks import enforce
from sharedlabel.store import Artifact, Output
from sharedlabel.types import Dataset, Role, SetShape, Tuples

SHARD_IMAGES = 16_384
EMBED_BATCH = 512
STOPPING_PARTITIONS = 4
_LEARNED = "aggregator."  # prefix of the aggregator's tensors in the output of `joint`


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


@stage(version=1)
def dense(config: DenseConfig, data: Data, inputs: Mapping[str, Artifact], runtime: TrainerConfig) -> Output:
    """Train the dense backbone on the backbone split."""
    del inputs
    with rng.seeded(config.seed, "dense"):
        dataset = data.dataset
        backbone = load("backbones", config.backbone.name).build(
            config.backbone.config, dataset.image_shape, dataset.num_classes
        )
        _set_statistics(backbone, dataset, data.splits["backbone"])
        losses = _train_backbone(backbone, config.train, data, runtime, config.seed)
    return Output(state(backbone), {"losses": losses, "validation_accuracy": _accuracy(backbone, data, runtime)})


@dataclass(frozen=True)
class PruneConfig:
    """What `prune` depends on."""

    backbone: Plugin
    pruner: Plugin
    ratio: float
    retrain: TrainConfig
    precision: str
    seed: int


@stage(version=1)
def prune(config: PruneConfig, data: Data, inputs: Mapping[str, Artifact], runtime: TrainerConfig) -> Output:
    """Prune the dense backbone to a compression ratio and retrain what is left."""
    original = _backbone(config.backbone, data, inputs["dense"])
    context = Context(generator=rng.generator(config.seed, "prune", config.pruner.name))
    pruned = load("pruners", config.pruner.name).prune(original, config.ratio, config.pruner.config, context)
    before = _accuracy(pruned, data, runtime)
    with rng.seeded(config.seed, "retrain"):
        losses = _train_backbone(pruned, config.retrain, data, runtime, rng.derive(config.seed, "retrain"))
    enforce(pruned)
    return Output(
        state(pruned),
        {
            "costs": dataclasses.asdict(cost.costs(original, pruned, data.dataset.image_shape)),
            "losses": losses,
            "validation_accuracy_before_retrain": before,
            "validation_accuracy": _accuracy(pruned, data, runtime),
        },
    )


@dataclass(frozen=True)
class LatencyConfig:
    """What `latency` depends on, besides the machine."""

    backbone: Plugin
    batch: int


@stage(version=1)
def latency(config: LatencyConfig, data: Data, inputs: Mapping[str, Artifact], runtime: TrainerConfig) -> Output:
    """Measure how long the pruned backbone takes; a stage of its own, to be measured again on a quiet machine."""
    backbone = _backbone(config.backbone, data, inputs["backbone"])
    found = cost.measure_latency(backbone, data.dataset.image_shape, config.batch, device(runtime))
    return Output({}, dataclasses.asdict(found))


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
    return Output(_embed(backbone, data.dataset.images, order, device(runtime)), {"lengths": lengths})


@dataclass(frozen=True)
class CalibrateConfig:
    """What `calibrate` depends on; the prior is part of the data's key."""

    scale_floor: float = 1e-6


@stage(version=1)
def calibrate(config: CalibrateConfig, data: Data, inputs: Mapping[str, Artifact], runtime: TrainerConfig) -> Output:
    """Fit on the aggregator split what all aggregators get: a temperature, the prior shift, the embeddings' scale."""
    del runtime
    embeddings, logits = _role(inputs["features"], "aggregator")
    labels = data.labels("aggregator")
    frequencies = tuples.prior(data.labels("backbone"), "empirical", data.dataset.num_classes)
    correction = (data.prior.log() - frequencies.log()).float()
    weights = data.prior[labels] / torch.bincount(labels, minlength=data.dataset.num_classes)[labels]
    posterior = log_normalize(logits + correction)
    temperature = float(fit_temperature(posterior[:, None], labels, weights)[0])
    deviation, mean = torch.std_mean(embeddings, dim=0)
    return Output(
        {
            "embedding_mean": mean,
            "embedding_scale": deviation.clamp(min=config.scale_floor),
            "log_correction": correction,
        },
        {"temperature": temperature},
    )


@dataclass(frozen=True)
class AggregateConfig:
    """What `aggregate` depends on."""

    aggregator: Plugin
    fit: FitConfig
    gradient_clip: float
    n: tuple[int, ...]
    protocol: str
    seed: int


@stage(version=1)
def aggregate(config: AggregateConfig, data: Data, inputs: Mapping[str, Artifact], runtime: TrainerConfig) -> Output:
    """Train an aggregator on the frozen features of images that the backbone did not see."""
    n_max, shape = max(config.n), _shape(data, inputs["calibrate"])
    sources = _calibrated(inputs["features"], inputs["calibrate"], "aggregator")
    labels, groups = data.labels("aggregator"), data.groups("aggregator", config.protocol)
    with rng.seeded(config.seed, "aggregate", config.aggregator.name):
        aggregator: Aggregator = load("aggregators", config.aggregator.name).build(config.aggregator.config, shape)
        drawn = tuples.partition(
            labels, n_max, STOPPING_PARTITIONS, data.prior, rng.generator(config.seed, "fit"), groups
        )
        done = aggregator.fit(*_flat(sources, drawn))
        meta: dict[str, Any] = {}
        if not done and any(parameter.requires_grad for parameter in aggregator.parameters()):
            stopping = data.tuples(
                "validation", config.protocol, n_max, STOPPING_PARTITIONS, rng.derive(config.seed, "stopping")
            )
            validation = _flat(_calibrated(inputs["features"], inputs["calibrate"], "validation"), stopping)
            module = AggregatorModule(aggregator, config.fit, validation)
            loader = TupleLoader(sources, labels, n_max, config.fit.batch_size, data.prior, config.seed, groups)
            fit(module, loader, runtime, config.fit.epochs, config.gradient_clip, small=True)
            meta = {"losses": module.losses(), "best_epoch": module.best_epoch, "validation_loss": module.best}
    macs = cost.aggregator_macs(aggregator, shape, config.n)
    parameters = sum(parameter.numel() for parameter in aggregator.parameters())
    return Output(
        dict(aggregator.state_dict()),
        {**meta, "macs": {str(n): count for n, count in macs.items()}, "parameters": parameters},
    )


@dataclass(frozen=True)
class JointTrainingConfig:
    """What `joint` depends on."""

    backbone: Plugin
    aggregator: Plugin
    joint: JointConfig
    gradient_clip: float
    n: tuple[int, ...]
    protocol: str
    precision: str
    seed: int


@stage(version=1)
def joint(config: JointTrainingConfig, data: Data, inputs: Mapping[str, Artifact], runtime: TrainerConfig) -> Output:
    """Train the pruned backbone and its fitted aggregator together on tuples of images of the aggregator split."""
    backbone = _backbone(config.backbone, data, inputs["backbone"])
    aggregator = _aggregator(config.aggregator, data, inputs["calibrate"], inputs["aggregate"])
    correction = inputs["calibrate"].tensors()["log_correction"]
    split = data.splits["aggregator"]
    with rng.seeded(config.seed, "joint"):
        module = SharedLabelModule(
            backbone, aggregator, config.joint, inputs["calibrate"].meta["temperature"], correction
        )
        loader = TupleLoader(
            (_Indexed(data.dataset.images, split),),
            data.labels("aggregator"),
            max(config.n),
            config.joint.batch_size,
            data.prior,
            rng.derive(config.seed, "joint"),
            data.groups("aggregator", config.protocol),
        )
        fit(module, loader, runtime, config.joint.epochs, config.gradient_clip)
    enforce(backbone)
    learned = {f"{_LEARNED}{name}": tensor for name, tensor in aggregator.state_dict().items()}
    return Output(
        {**state(backbone), **learned},
        {"losses": module.losses(), "validation_accuracy": _accuracy(backbone, data, runtime)},
    )


@dataclass(frozen=True)
class EvaluateConfig:
    """What `evaluate` depends on."""

    aggregator: Plugin
    n: tuple[int, ...]
    protocol: str
    partitions: int
    seed: int


@stage(version=1)
def evaluate(config: EvaluateConfig, data: Data, inputs: Mapping[str, Artifact], runtime: TrainerConfig) -> Output:
    """Score an aggregator on validation and, with the temperatures fitted there, on test."""
    del runtime
    aggregator = _aggregator(config.aggregator, data, inputs["calibrate"], inputs["aggregate"])
    results: dict[str, Scores] = {}
    for role in SCORED_ROLES:
        sources = _calibrated(inputs["features"], inputs["calibrate"], role)
        drawn = data.tuples(role, config.protocol, max(config.n), config.partitions, config.seed)
        posterior = posterior_over(aggregator, sources, drawn, config.n)
        temperature = results["validation"].temperature if results else None
        results[role] = data.score(posterior, drawn, role, config.protocol, config.n, temperature)
    return scored(results, config.n)


@dataclass(frozen=True)
class ExactConfig:
    """What `exact` depends on."""

    data: Plugin
    n: tuple[int, ...]
    protocol: str
    partitions: int
    seed: int


@stage(version=1)
def exact(config: ExactConfig, data: Data, inputs: Mapping[str, Artifact], runtime: TrainerConfig) -> Output:
    """Score the exact posterior of a synthetic data set: what no aggregator can beat."""
    del inputs, runtime
    oracle = load("data", config.data.name).exact_log_posterior
    results: dict[str, Scores] = {}
    for role in SCORED_ROLES:
        drawn = data.tuples(role, config.protocol, max(config.n), config.partitions, config.seed)
        instances = data.splits[role][drawn.indices.flatten(0, 1)]
        posterior = oracle(config.data.config, data.dataset, instances, data.prior.log())
        prefixes = torch.tensor(config.n) - 1
        temperature = results["validation"].temperature if results else None
        results[role] = data.score(posterior[:, prefixes], drawn, role, config.protocol, config.n, temperature)
    return scored(results, config.n)


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


def _backbone(plugin: Plugin, data: Data, artifact: Artifact) -> Backbone:
    tensors = {name: tensor for name, tensor in artifact.tensors().items() if not name.startswith(_LEARNED)}
    return restore(plugin, data.dataset.image_shape, data.dataset.num_classes, tensors)


def _shape(data: Data, calibration: Artifact) -> SetShape:
    tensors = calibration.tensors()
    return SetShape(tensors["embedding_mean"], tensors["embedding_scale"], data.prior.log().float())


def _aggregator(plugin: Plugin, data: Data, calibration: Artifact, artifact: Artifact) -> Aggregator:
    """Rebuild a fitted aggregator from the output of `aggregate`, or of `joint`, which holds the backbone too."""
    tensors = artifact.tensors()
    if artifact.manifest["stage"] == joint.name:
        learned = {name: tensor for name, tensor in tensors.items() if name.startswith(_LEARNED)}
        tensors = {name.removeprefix(_LEARNED): tensor for name, tensor in learned.items()}
    with torch.random.fork_rng(devices=[]):
        aggregator: Aggregator = load("aggregators", plugin.name).build(plugin.config, _shape(data, calibration))
    aggregator.load_state_dict(tensors)
    return aggregator.eval()


def _role(artifact: Artifact, role: Role) -> tuple[Tensor, Tensor]:
    """Return the embeddings and raw logits of one split."""
    lengths = [artifact.meta["lengths"][name] for name in FEATURE_ROLES]
    index, tensors = FEATURE_ROLES.index(role), artifact.tensors()
    return tensors["embeddings"].split(lengths)[index], tensors["logits"].split(lengths)[index]


def _calibrated(artifact: Artifact, calibration: Artifact, role: Role) -> tuple[Tensor, Tensor]:
    """Return embeddings, and logits whose softmax is the calibrated posterior under the prior of tuples."""
    embeddings, logits = _role(artifact, role)
    correction = calibration.tensors()["log_correction"]
    return embeddings, log_normalize((logits + correction) / calibration.meta["temperature"])


def _flat(sources: tuple[Tensor, Tensor], drawn: Tuples) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gather the tuples of all partitions: embeddings, logits, labels `[t]` and weights `[t]` of mean one."""
    index, weights = drawn.indices.flatten(0, 1), drawn.weights.flatten()
    return sources[0][index], sources[1][index], drawn.labels.flatten(), (weights / weights.mean()).float()


def _set_statistics(backbone: Backbone, dataset: Dataset, split: Tensor, sample: int = 10_000) -> None:
    """Set the channel statistics from the backbone split (evenly spaced images, at most `sample`)."""
    chosen = split[torch.linspace(0, len(split) - 1, min(sample, len(split))).long()]
    images = dataset.images[chosen]
    scaled = images.double() / (1 if images.is_floating_point() else 255)
    backbone.normalize.mean.copy_(scaled.mean((0, 2, 3)))
    backbone.normalize.std.copy_(scaled.std((0, 2, 3)).clamp(min=1e-3))


def _train_backbone(
    backbone: Backbone, train: TrainConfig, data: Data, runtime: TrainerConfig, seed: int
) -> list[float]:
    if runtime.channels_last:
        backbone.to(memory_format=torch.channels_last)
    module = BackboneModule(backbone, train, runtime.compile)
    loader = ImageLoader(data.dataset.images, data.dataset.labels, data.splits["backbone"], train.batch_size, seed)
    fit(module, loader, runtime, train.epochs)
    return module.losses()


def _embed(backbone: Backbone, images: Tensor, order: Tensor, target: torch.device) -> Iterator[dict[str, Tensor]]:
    """Yield embeddings and logits of the images in order, one shard after the other; none is kept."""
    network = backbone.to(target).eval()
    for shard in order.split(SHARD_IMAGES):
        yield _embed_shard(network, images, shard, target)


@torch.inference_mode()
def _embed_shard(network: Backbone, images: Tensor, shard: Tensor, target: torch.device) -> dict[str, Tensor]:
    made = {
        "embeddings": torch.empty(len(shard), network.embedding_dim),
        "logits": torch.empty(len(shard), network.classifier.out_features),
    }
    for rows in torch.arange(len(shard)).split(EMBED_BATCH):
        embedding = network.embed(images[shard[rows]].to(target))
        made["embeddings"][rows] = embedding.cpu()
        made["logits"][rows] = network.classify(embedding).cpu()
    for name, tensor in made.items():
        if not torch.isfinite(tensor).all():
            raise TrainingError(
                f"expected finite {name}, got NaN or Inf; lower the learning rate or the compression ratio"
            )
    return made


def _accuracy(backbone: Backbone, data: Data, runtime: TrainerConfig) -> float:
    """Return the accuracy of single validation images."""
    order = data.splits["validation"]
    shards = _embed(backbone, data.dataset.images, order, device(runtime))
    predicted = torch.cat([shard["logits"].argmax(-1) for shard in shards])
    backbone.to("cpu")
    return float((predicted == data.labels("validation")).double().mean())
