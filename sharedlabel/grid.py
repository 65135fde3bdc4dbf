r"""A configuration becomes a grid of cells, each the end of a chain of stage calls; plan, run and resume them.

```
dense -> prune (-> prune ...) -> features -> calibrate -> aggregate -> evaluate, adaptive
     |        \-> latency, last                                   \-> joint -> features -> evaluate, adaptive
     \-> margin
```
Chains share their beginnings: one pruned backbone feeds every aggregator and protocol. Distillation also reads the
`features`, `calibrate` and `aggregate` of the dense network. With cross-fitting the calls up to `features` are made
once on all images and once without each fold, and `crossfit` joins their features:
```
dense -> prune -> features (of every fold) -> crossfit -> calibrate -> aggregate -> evaluate, adaptive
```
"""

from __future__ import annotations

import dataclasses
import functools
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch

from sharedlabel import cost, memory, plugins, provenance, sizes, sources, stages
from sharedlabel.backbones._base import Backbone
from sharedlabel.config import (
    ComparisonConfig,
    Experiment,
    JointConfig,
    Plugin,
    Training,
    canonical,
    plugins_in,
    resolve,
    trainings,
)
from sharedlabel.data import _small, splits, tuples
from sharedlabel.data._copies import copies
from sharedlabel.errors import CompressionError, ConfigError, DataError, home, nearest
from sharedlabel.inputs import FEATURE_ROLES, SCORED_ROLES, Crossfit, Data, crossfitted, data_key
from sharedlabel.plugins import load
from sharedlabel.pruners._base import rounded_down
from sharedlabel.pruners._masks import prunable
from sharedlabel.stages import STAGES
from sharedlabel.store import Artifact, Store, artifact_key
from sharedlabel.training import callbacks, compression, resume, search, trainer
from sharedlabel.training.resume import Workplace
from sharedlabel.types import Dataset, Role, Tuples

RESERVED = ("none", "exact", "dense")
CROSSFIT = "crossfit"
MAX_CELLS = 1_000_000


@dataclass(frozen=True)
class Node:
    """One call of a stage: its configuration and the calls whose outputs it reads."""

    stage: str
    config: Any
    inputs: tuple[tuple[str, Node], ...]
    data_key: str

    @functools.cached_property
    def key(self) -> str:
        """Content address of the output."""
        return artifact_key(self.stage, STAGES[self.stage].version, self.config, self.input_keys(), self.code())

    def input_keys(self) -> dict[str, str]:
        """Return the keys of the inputs by role."""
        return {role: node.key for role, node in self.inputs} | {"data": self.data_key}

    def code(self) -> dict[str, str]:
        """Return the digests of the code that computes the output: the stage's, and those of the plugins it names."""
        return {"stage": sources.digest(stages.__name__, self.stage)} | plugins.code(plugins_in(self.config))

    def chain(self) -> Iterator[Node]:
        """Yield the calls needed for this one, inputs first, itself last."""
        for _, node in self.inputs:
            yield from node.chain()
        yield self


@dataclass(frozen=True)
class Cell:
    """One point of the grid, by its labels, and the stage calls that hold its numbers."""

    backbone: str
    pruner: str
    ratio: float
    aggregator: str
    training: str
    protocol: str
    seed: int
    pruned: Node
    latency: Node
    margin: Node | None
    aggregate: Node | None
    adaptive: Node | None
    evaluate: Node

    @property
    def id(self) -> str:
        """Short content address."""
        return self.evaluate.key[:16]

    def calls(self) -> tuple[Node, ...]:
        """Return the stage calls that end in the cell's numbers, but for the measured time; they bring others along.

        The call `latency` is made once those of every cell are, so that nothing else of the run is at work then.
        """
        return *self._optional(), self.evaluate

    def read(self) -> tuple[Node, ...]:
        """Return the stage calls whose outputs the cell's rows are made from; times may be missing, they come last."""
        aggregate = [] if self.aggregate is None else [self.aggregate]
        return self.pruned, *self._optional(), *aggregate, self.evaluate

    def _optional(self) -> list[Node]:
        return [node for node in (self.margin, self.adaptive) if node is not None]

    def __str__(self) -> str:
        how = "" if self.training == "frozen" else f" {self.training}"
        return f"{self.backbone} {self.pruner} {self.ratio:g}x {self.aggregator}{how} {self.protocol} seed {self.seed}"


@dataclass(frozen=True)
class Grid:
    """An experiment with its data loaded, its plugins checked and its cells laid out.

    Attributes:
        experiment: the configuration.
        data: with the splits of the configuration.
        cells: the points of the grid.
        backbones: networks as they are initialised, by label.
        data_by_key: what the stage calls read, cross-fitting included.
        remarks: what users should know of the data: copies of images, and classes that were left out.
    """

    experiment: Experiment
    data: Data
    cells: tuple[Cell, ...]
    backbones: dict[str, Backbone] = field(repr=False)
    data_by_key: Mapping[str, Data] = field(repr=False)
    remarks: tuple[str, ...] = ()


def prepare(experiment: Experiment) -> Grid:
    """Load the data, check everything that can be checked before the first training step, and lay out the cells.

    Raises:
        SharedLabelError: a plugin, option, ratio, tuple size or device that cannot work.
    """
    trainer.trainer(experiment.trainer, epochs=1)
    callbacks.check(experiment.trainer)
    plugin = resolve("data", experiment.data)
    backbones = tuple(resolve("backbones", spec) for spec in experiment.backbones)
    pruners = tuple(resolve("pruners", spec) for spec in experiment.pruners)
    aggregators = tuple(resolve("aggregators", spec) for spec in experiment.aggregators)
    for plugins_of_kind in (backbones, pruners, aggregators):
        _check_labels(plugins_of_kind)
    _check_endpoint(experiment, [aggregator.label for aggregator in aggregators])
    if experiment.fit.trials:
        search.check(aggregators)
    _check_count(experiment)
    code = _code(plugin, *backbones, *pruners, *aggregators)
    with memory.fitting(f"data: {plugin.label}", "choose a smaller data set"):
        dataset = load("data", plugin.name).load(plugin.config, home(experiment.data_root))
    if isinstance(experiment.data, dict) and experiment.data.get("label") is not None:
        dataset = dataclasses.replace(dataset, name=plugin.label)
    kinds = {entry.name for entry in trainings(experiment)}
    dataset, split, remarks = _split(dataset, experiment, kinds)
    known = torch.cat(
        [indices for role, indices in split.items() if role != "test"]
    )  # a choice may not depend on test labels
    prior = tuples.prior(dataset.labels[known], experiment.evaluation.prior, dataset.num_classes)
    data = Data(dataset, split, prior, data_key(dataset, split, code))
    crossfit = None
    if CROSSFIT in kinds:
        crossfit = crossfitted(data, experiment.split, experiment.crossfit.folds, code)
        _check_tuples(crossfit.whole, experiment)
    if kinds != {CROSSFIT}:
        _check_tuples(data, experiment)
    sizes.check_tuples(data, experiment.evaluation)
    _check_images(experiment, dataset)
    dense = {}
    for backbone in backbones:
        sizes.check_backbone(backbone, dataset.image_shape, dataset.num_classes)
        fitting = memory.fitting(f"backbones: {backbone.label}", "choose smaller options")
        with fitting, torch.random.fork_rng(devices=[]):
            network = load("backbones", backbone.name).build(backbone.config, dataset.image_shape, dataset.num_classes)
        dense[backbone.label] = network
        prunable(network)  # refuses layers that share a weight
        cost.macs(network, dataset.image_shape)  # refuses operations that cannot be counted
        for pruner in pruners:
            compression.check_schedule(pruner, experiment.retrain)
            _check_ratios(network, backbone, pruner, experiment.ratios)
        for aggregator in aggregators:
            sizes.check_aggregator(aggregator, network.embedding_dim, dataset.num_classes)
    cells = lay_out(experiment, data, crossfit)
    parts = (data,) if crossfit is None else (data, crossfit.whole, *crossfit.folds)
    return Grid(experiment, data, cells, dense, {part.key: part for part in parts}, remarks)


def _split(
    dataset: Dataset, experiment: Experiment, kinds: set[str]
) -> tuple[Dataset, dict[Role, torch.Tensor], tuple[str, ...]]:
    """Share the images out, and leave out what the configuration says is to be dropped.

    Returns:
        The data set, indices of each role, and what users should know of both.
    """
    scoring = experiment.evaluation
    split = splits.split(dataset, experiment.split)
    remarks: tuple[str, ...] = ()
    if scoring.classes_smaller_than_n == "drop":
        drawn = [split[role] for role in FEATURE_ROLES]
        if kinds == {CROSSFIT}:
            drawn[0] = torch.cat([split["backbone"], drawn[0]])
        grouped = "grouped" in scoring.protocols
        dataset, split, gone = _small.without_small_classes(dataset, split, drawn, max(scoring.n), grouped=grouped)
        if gone:
            remarks = (f"left out {len(gone):,} classes without a tuple of n = {max(scoring.n)}: {', '.join(gone)}",)
    return dataset, split, (*remarks, *copies(dataset, split, experiment.split.leaks))


def lay_out(experiment: Experiment, data: Data, crossfit: Crossfit | None) -> tuple[Cell, ...]:
    """Return the cells of an experiment on some data.

    Args:
        experiment: checked.
        data: with the splits to use.
        crossfit: the data of cross-fitting; None without it.
    """
    plugin = resolve("data", experiment.data)
    backbones, pruners, aggregators = (
        tuple(resolve(kind, spec) for spec in getattr(experiment, kind))
        for kind in ("backbones", "pruners", "aggregators")
    )
    return tuple(_cells(experiment, data, crossfit, plugin, backbones, pruners, aggregators))


def _code(data: Plugin, *others: Plugin) -> dict[str, str]:
    """Read all code that keys depend on, at once: loading data takes time, in which files may be edited.

    Returns:
        Digests of the data set's plugin.
    """
    sources.refresh()
    for stage in STAGES:
        sources.digest(stages.__name__, stage)
    plugins.code(set().union(*map(plugins_in, others)))
    return plugins.code(plugins_in(data))


def run_node(node: Node, grid: Grid, store: Store, progress: Callable[[Node, float | None], None]) -> Artifact:
    """Return a call's artifact, computing it and what it needs where the store has none.

    Args:
        node: the call.
        grid: holds the data that stages read, and says on which devices to run.
        store: where artifacts lie.
        progress: told of each call before it is computed (None) and after it (seconds).
    """
    if store.has(node.stage, node.key):
        return store.load(node.stage, node.key)
    inputs = {role: run_node(needed, grid, store, progress) for role, needed in node.inputs}
    progress(node, None)
    started, runtime = time.perf_counter(), grid.experiment.trainer
    with resume.at(_workplace(node, grid, store)) as workplace:
        output = STAGES[node.stage](node.config, grid.data_by_key[node.data_key], inputs, runtime)
    record = {
        "version": STAGES[node.stage].version,
        "config": json.loads(canonical(node.config)),
        "inputs": node.input_keys(),
        "code": node.code(),
        "provenance": provenance.collect(str(trainer.device(runtime))),
    }
    artifact = store.save(node.stage, node.key, output, record, workplace.started)
    progress(node, time.perf_counter() - started)
    return artifact


def _workplace(node: Node, grid: Grid, store: Store) -> Workplace:
    """Return where a call keeps the states of its trainings, and where it logs."""
    experiment = grid.experiment
    logs = home(experiment.output) / experiment.name / "logs" / f"{node.stage}-{node.key[:12]}"
    return Workplace(store.unfinished(node.stage, node.key), experiment.trainer.checkpoint_seconds, logs)


def missing(grid: Grid, store: Store) -> list[Node]:
    """List the stage calls that are not stored yet, in the order they would run."""
    seen: dict[str, Node] = {}
    computed = [call for cell in grid.cells for call in cell.calls()]
    for call in (*computed, *(cell.latency for cell in grid.cells)):
        for node in call.chain():
            seen.setdefault(node.key, node)
    return [node for node in seen.values() if not store.has(node.stage, node.key)]


def finished(grid: Grid, store: Store) -> Grid:
    """Return the part of a grid whose numbers are stored: whole methods with all seeds and their dense network.

    A method counts once every seed of it is done, so that summaries never mix different numbers of seeds.
    """
    absent = {node.key for node in missing(grid, store)}

    def method(cell: Cell) -> tuple[str, str, float, str, str, str]:
        return cell.backbone, cell.pruner, cell.ratio, cell.aggregator, cell.training, cell.protocol

    unfinished = {method(cell) for cell in grid.cells if any(node.key in absent for node in cell.read())}
    done = [cell for cell in grid.cells if method(cell) not in unfinished]
    dense = {(cell.backbone, *method(cell)[3:]) for cell in done if cell.ratio == 1}
    return dataclasses.replace(grid, cells=tuple(cell for cell in done if (cell.backbone, *method(cell)[3:]) in dense))


def training_macs(node: Node, grid: Grid) -> float:
    """Estimate the MACs of training a backbone: three forward passes per image and epoch; 0 for other calls.

    Masked weights are counted, since training executes them.
    """
    epochs = float(getattr(node.config, "epochs", 0.0))
    if not epochs:
        return 0.0
    forward = cost.macs(grid.backbones[node.config.backbone.label], grid.data.dataset.image_shape).executed
    return 3.0 * forward * len(grid.data_by_key[node.data_key].splits["backbone"]) * epochs


Point: TypeAlias = tuple[Plugin, float, Node]


def _cells(
    experiment: Experiment,
    data: Data,
    crossfit: Crossfit | None,
    plugin: Plugin,
    backbones: tuple[Plugin, ...],
    pruners: tuple[Plugin, ...],
    aggregators: tuple[Plugin, ...],
) -> Iterator[Cell]:
    scoring = experiment.evaluation
    for seed in experiment.seeds:
        for backbone in backbones:
            networks = list(_networks(experiment, data, crossfit, backbone, pruners, seed))
            for network in networks:
                for protocol in scoring.protocols:
                    for aggregator in aggregators:
                        yield from _chains(experiment, networks[0], network, aggregator, protocol, seed)
    if hasattr(load("data", plugin.name), "exact_log_posterior"):
        dense = next(_networks(experiment, data, crossfit, backbones[0], pruners, experiment.seeds[0]))
        for protocol in scoring.protocols:
            config = stages.ExactConfig(plugin, scoring.prior, scoring.n, protocol, scoring.partitions, scoring.seed)
            scored = Node("exact", config, (), data.key)
            yield Cell(
                dense.backbone.label,
                dense.pruner.label,
                dense.ratio,
                "exact",
                "frozen",
                protocol,
                experiment.seeds[0],
                dense.pruned,
                dense.latency,
                dense.margin,
                None,
                None,
                scored,
            )


@dataclass(frozen=True)
class _Network:
    """A compressed backbone, the calls that measure it whatever the aggregator, and what aggregators learn from.

    Attributes:
        data_key: of the data that the calls for aggregators read.
        features: call whose output holds the images of aggregators as the network sees them.
        trainings: kinds of training that start from here.
    """

    backbone: Plugin
    pruner: Plugin
    ratio: float
    pruned: Node
    latency: Node
    margin: Node | None
    data_key: str
    features: Node
    trainings: tuple[Training, ...]


def _networks(
    experiment: Experiment,
    data: Data,
    crossfit: Crossfit | None,
    backbone: Plugin,
    pruners: tuple[Plugin, ...],
    seed: int,
) -> Iterator[_Network]:
    """Yield the networks of the configured splits, then those of cross-fitting."""
    entries = trainings(experiment)
    usual = tuple(entry for entry in entries if entry.name != CROSSFIT)
    if usual:
        points = list(_pruned(experiment, data, backbone, pruners, seed))
        features = [_features(backbone, node, data) for _, _, node in points]
        yield from _measured(experiment, data, backbone, points, features, usual)
    if crossfit is not None:
        points = list(_pruned(experiment, crossfit.whole, backbone, pruners, seed))
        features = _crossfitted(experiment, crossfit, backbone, pruners, points, seed)
        others = tuple(entry for entry in entries if entry.name == CROSSFIT)
        yield from _measured(experiment, crossfit.whole, backbone, points, features, others)


def _features(backbone: Plugin, node: Node, data: Data) -> Node:
    return Node("features", stages.FeaturesConfig(backbone), (("backbone", node),), data.key)


def _crossfitted(
    experiment: Experiment,
    crossfit: Crossfit,
    backbone: Plugin,
    pruners: tuple[Plugin, ...],
    deployed: Sequence[Point],
    seed: int,
) -> list[Node]:
    """Return, for each deployed network, the call that joins the features of the same networks of all folds."""
    folds = [
        [_features(backbone, node, fold) for _, _, node in _pruned(experiment, fold, backbone, pruners, seed)]
        for fold in crossfit.folds
    ]
    config, found = stages.CrossfittingConfig(experiment.crossfit, experiment.evaluation.prior), []
    for (_, _, node), *features in zip(deployed, *folds, strict=True):
        inputs = tuple((f"fold {number}", one) for number, one in enumerate(features, start=1))
        # The deployed network comes last, since what is said of a chain is said of its last network.
        inputs += (("features", _features(backbone, node, crossfit.whole)),)
        found.append(Node("crossfit", config, inputs, crossfit.whole.key))
    return found


def _measured(
    experiment: Experiment,
    data: Data,
    backbone: Plugin,
    points: Sequence[Point],
    features: Sequence[Node],
    starting: tuple[Training, ...],
) -> Iterator[_Network]:
    """Yield the dense network first, then every pruner at every ratio above 1."""
    dense = points[0][2]
    margin = None
    if experiment.margin.epsilons:
        margin_config = stages.ErrorMarginConfig(backbone, experiment.margin)
        margin = Node("margin", margin_config, (("dense", dict(dense.inputs)["dense"]),), data.key)
    timing = stages.TimingConfig(backbone, experiment.latency)
    for (pruner, ratio, node), embedded in zip(points, features, strict=True):
        latency = Node("latency", timing, (("dense", dense), ("backbone", node)), data.key)
        yield _Network(backbone, pruner, ratio, node, latency, margin, data.key, embedded, starting)


def _pruned(
    experiment: Experiment, data: Data, backbone: Plugin, pruners: tuple[Plugin, ...], seed: int
) -> Iterator[Point]:
    """Yield the dense network, retrained like the others, then every pruner at every ratio above 1."""
    precision = experiment.trainer.precision
    dense = Node("dense", stages.DenseConfig(backbone, experiment.dense, precision, seed), (), data.key)
    points = [(resolve("pruners", "none"), 1.0)]
    points += [
        (pruner, float(ratio))
        for pruner in pruners
        if pruner.name != "none"
        for ratio in sorted(experiment.ratios)
        if ratio > 1
    ]
    for pruner, ratio in points:
        yield pruner, ratio, _rounds(experiment, data, backbone, pruner, ratio, dense)


def _rounds(experiment: Experiment, data: Data, backbone: Plugin, pruner: Plugin, ratio: float, dense: Node) -> Node:
    """Return the call that prunes to a ratio; with an iterative schedule it follows those of the rounds before."""
    schedule, precision, seed = compression.schedule_of(pruner), experiment.trainer.precision, dense.config.seed
    inputs: tuple[tuple[str, Node], ...] = () if schedule.when == "initial" else (("dense", dense),)
    if schedule.when == "iterative" and schedule.rewind is not None:
        early = stages.EarlyConfig(backbone, experiment.dense, precision, seed, schedule.rewind)
        inputs += (("early", Node("early", early, (), data.key)),)
    previous: tuple[tuple[str, Node], ...] = ()
    for reached in compression.rounds(ratio, schedule):
        config = stages.PruneConfig(backbone, pruner, reached, experiment.dense, experiment.retrain, precision, seed)
        node = Node("prune", config, inputs + previous, data.key)
        previous = (("previous", node),)
    return node


def _chains(
    experiment: Experiment,
    dense: _Network,
    network: _Network,
    aggregator: Plugin,
    protocol: str,
    seed: int,
) -> Iterator[Cell]:
    """Yield the cells of one aggregator on one compressed backbone, one per kind of training."""
    backbone, pruned, data_key = network.backbone, network.pruned, network.data_key
    scoring = stages.EvaluateConfig(
        aggregator,
        experiment.evaluation.n,
        protocol,
        experiment.evaluation.partitions,
        experiment.evaluation.seed,
    )
    stopping = _stopping(experiment, scoring)
    calibrate, aggregate = _fitted(experiment, network, aggregator, protocol, seed)
    for training in network.trainings:
        fitted, embedded = aggregate, network.features
        if training.joint is not None:
            inputs = {"backbone": pruned, "calibrate": calibrate, "aggregate": aggregate}
            if training.joint.distill:  # first, so that along the chain the student's calls are the last of their kind
                teacher = (dense.features, *_fitted(experiment, dense, aggregator, protocol, seed))
                inputs = dict(zip(stages.TEACHER, teacher, strict=True)) | inputs
            config = _joint(experiment, backbone, training.joint, aggregator, protocol, seed)
            fitted = Node("joint", config, tuple(inputs.items()), data_key)
            embedded = Node("features", stages.FeaturesConfig(backbone), (("backbone", fitted),), data_key)
        trained = (("features", embedded), ("calibrate", calibrate), ("aggregate", fitted))
        yield Cell(
            backbone.label,
            network.pruner.label,
            network.ratio,
            aggregator.label,
            training.label,
            protocol,
            seed,
            pruned,
            network.latency,
            network.margin,
            aggregate,
            Node("adaptive", stopping, trained, data_key) if stopping else None,
            Node("evaluate", scoring, trained, data_key),
        )


def _fitted(
    experiment: Experiment, network: _Network, aggregator: Plugin, protocol: str, seed: int
) -> tuple[Node, Node]:
    """Return the calls that calibrate, and that fit an aggregator on the features of a fixed backbone."""
    n, clip = max(experiment.evaluation.n), float(experiment.trainer.gradient_clip)
    calibrating = stages.CalibrateConfig(experiment.evaluation.prior)
    calibrate = Node("calibrate", calibrating, (("features", network.features),), network.data_key)
    fitting = stages.AggregateConfig(aggregator, experiment.fit, clip, n, protocol, seed)
    inputs = (("features", network.features), ("calibrate", calibrate))
    return calibrate, Node("aggregate", fitting, inputs, network.data_key)


def _joint(
    experiment: Experiment, backbone: Plugin, recipe: JointConfig, aggregator: Plugin, protocol: str, seed: int
) -> stages.JointTrainingConfig:
    trainer = experiment.trainer
    return stages.JointTrainingConfig(
        backbone,
        aggregator,
        recipe,
        float(trainer.gradient_clip),
        max(experiment.evaluation.n),
        protocol,
        trainer.precision,
        seed,
    )


def _stopping(experiment: Experiment, scoring: stages.EvaluateConfig) -> stages.StoppingConfig | None:
    """Return how adaptive numbers of instances are fitted, on the tuples of the evaluation; None if there are none."""
    asked = experiment.adaptive
    if not asked.rules or max(scoring.n) == 1:
        return None
    return stages.StoppingConfig(
        aggregator=scoring.aggregator,
        n_max=max(scoring.n),
        protocol=scoring.protocol,
        partitions=scoring.partitions,
        seed=scoring.seed,
        rules=asked.rules,
        errors=tuple(float(error) for error in asked.errors),
    )


def _check_images(experiment: Experiment, dataset: Dataset) -> None:
    """Refuse crops that would leave nothing of an image, and batches of images that do not fit into memory."""
    side = min(dataset.image_shape[1:])
    for name, recipe in (("dense", experiment.dense), ("retrain", experiment.retrain)):
        if recipe.crop > side:
            raise ConfigError(
                f"{name}.crop: expected at most the {side} pixels of an image's side, got {recipe.crop}; 1/8 is usual"
            )
    largest = max(experiment.latency.batches)
    memory.check(
        f"latency.batches: {largest} images of {' x '.join(map(str, dataset.image_shape))}",
        sizes.batch_bytes(largest, dataset.image_shape),
        "use smaller batches",
    )


def _check_count(experiment: Experiment) -> None:
    """Refuse grids of more cells than could be laid out."""
    networks = len(experiment.backbones) * (1 + len(experiment.pruners) * len(experiment.ratios))
    methods = len(experiment.aggregators) * len(experiment.training) * len(experiment.evaluation.protocols)
    cells = networks * methods * len(experiment.seeds)
    if cells > MAX_CELLS:
        raise ConfigError(
            f"expected a grid of at most {MAX_CELLS} cells, got about {cells}: {networks} networks, {methods} "
            f"aggregators and trainings, {len(experiment.seeds)} seeds; leave some out"
        )


def _check_labels(plugins_of_kind: tuple[Plugin, ...]) -> None:
    """Refuse names that tables could not tell apart, and one method under two names."""
    labels = [plugin.label for plugin in plugins_of_kind]
    methods: dict[str, str] = {}
    for plugin in plugins_of_kind:
        if plugin.label in RESERVED and plugin.name != plugin.label:
            raise ConfigError(f"{plugin.kind}: the label {plugin.label!r} has a meaning of its own; choose another")
        twin = methods.setdefault(canonical(plugin), plugin.label)
        if twin != plugin.label:
            raise ConfigError(
                f"{plugin.kind}: {twin!r} and {plugin.label!r} are the same method with the same options; remove one"
            )
        if labels.count(plugin.label) > 1:
            raise ConfigError(
                f"{plugin.kind}: two entries are called {plugin.label!r} in tables; give one of them a `label`"
            )


def _check_ratios(network: Backbone, backbone: Plugin, pruner: Plugin, ratios: tuple[float, ...]) -> None:
    """Refuse ratios above what the network can reach before anything is trained."""
    if pruner.name == "none" or max(ratios) == 1:
        return
    ceiling = load("pruners", pruner.name).ceiling(network, pruner.config)
    if max(ratios) > ceiling:
        raise CompressionError(
            f"ratios: {pruner.label} on {backbone.label} reaches at most {rounded_down(ceiling)}x over all parameters "
            f"(weights of the classifier, biases and norms stay), got {max(ratios):g}; "
            "leave out ratios above the ceiling or use a wider backbone"
        )


def _check_endpoint(experiment: Experiment, aggregators: Sequence[str]) -> None:
    """Refuse a primary endpoint at a tuple size that is not evaluated, and a reference that was asked for in vain."""
    reference = experiment.comparison.reference
    if reference not in aggregators and reference != ComparisonConfig().reference:
        raise ConfigError(
            f"comparison.reference: no aggregator is called {reference!r}; {nearest(reference, aggregators)}"
        )
    n, sizes = experiment.comparison.n, experiment.evaluation.n
    if n is not None and n not in sizes:
        raise ConfigError(
            f"comparison.n: expected one of the evaluated tuple sizes {', '.join(map(str, sizes))}, got {n}; "
            "add it to evaluation.n, or leave it out for the mean over all"
        )


def _check_tuples(data: Data, experiment: Experiment) -> None:
    """Refuse tuple sizes that a split cannot fill, and the grouped protocol without groups."""
    for protocol in experiment.evaluation.protocols:
        if protocol == "grouped" and data.dataset.groups is None:
            raise DataError(
                f"evaluation.protocols: 'grouped' needs group ids, and {data.dataset.name} has none; "
                "use [iid] or a data set with groups"
            )
        for role in FEATURE_ROLES:
            try:
                if protocol == "grouped" and experiment.evaluation.groups_smaller_than_n == "error":
                    _small.check_groups(data.dataset, data.splits[role], max(experiment.evaluation.n))
                drawn = data.tuples(role, protocol, max(experiment.evaluation.n), 1, 0)
            except DataError as error:
                where = data.part if data.part and role == "aggregator" else f"the {role} split"
                raise DataError(f"evaluation.n on {where}, protocol {protocol}: {error}") from error
            if role in SCORED_ROLES:
                _check_spread(data, drawn, role, protocol, experiment.evaluation.partitions)


def _check_spread(data: Data, drawn: Tuples, role: Role, protocol: str, partitions: int) -> None:
    """Refuse what no interval could be given for: a class with one tuple in all, or one group in every class."""
    counts = torch.bincount(drawn.labels.flatten(), minlength=data.dataset.num_classes)
    if int(counts.min()) * partitions < 2:
        name = data.dataset.class_names[int(counts.argmin())]
        raise DataError(
            f"evaluation.partitions on the {role} split: expected two tuples or more of every class, "
            f"got one of {name!r}; use more partitions or a smaller n"
        )
    groups = data.groups(role, protocol)
    if groups is not None:
        cells = torch.unique(torch.stack([data.labels(role), groups]), dim=1)[0]
        if int(torch.bincount(cells).max()) < 2:
            raise DataError(
                f"evaluation.protocols on the {role} split: 'grouped' needs two groups of a class or more, "
                "got one of each; use split.groups=divided, more groups or [iid]"
            )
