"""Load the data, check all that can be checked, and lay out the cells."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

import torch

from sharedlabel import plugins
from sharedlabel.backbones._base import Backbone
from sharedlabel.config import Experiment, Plugin, plugins_in, refresh, resolve, trainings
from sharedlabel.config.names import CROSSFIT, IID, SEQUENCE
from sharedlabel.config.sections import TrainerConfig
from sharedlabel.data import _small, splits, tuples
from sharedlabel.data._copies import copies
from sharedlabel.errors import ConfigError, ContractError, home
from sharedlabel.grid import checks, sizes
from sharedlabel.grid.layout import lay_out
from sharedlabel.grid.nodes import Grid
from sharedlabel.machine import memory
from sharedlabel.measurements import counts
from sharedlabel.plugins import load
from sharedlabel.pruners._masks import prunable
from sharedlabel.scoring.data import FEATURE_ROLES, Data, crossfitted, data_key
from sharedlabel.stages import STAGES
from sharedlabel.training import compression, search
from sharedlabel.training.devices import takes_several
from sharedlabel.types import Dataset, Role

Made = TypeVar("Made")
# Options of the trainer that Lightning is not asked for, or takes as they are.
_OURS = ("gradient_clip", "channels_last", "compile", "cudnn_benchmark", "checkpoint_seconds", "networks")


def prepare(experiment: Experiment) -> Grid:
    """Load the data, check everything that can be checked before the first training step, and lay out the cells.

    Raises:
        SharedLabelError: as for `opened` and `check_networks`.
    """
    grid = opened(experiment)
    check_networks(grid)
    return grid


@plugins.blamed()
def check_networks(grid: Grid) -> None:
    """Refuse backbones whose MACs cannot be counted, ratios that they cannot reach, and aggregators that are too large.

    To find out, networks are run without values, for which torch imports its compiler: that takes a second, which a
    grid that has nothing to compute need not wait for.

    Raises:
        SharedLabelError: such a backbone, ratio or aggregator, or code of a plugin from outside that raises.
    """
    experiment = grid.experiment
    for backbone in (resolve("backbones", spec) for spec in experiment.backbones):
        network = grid.backbones[backbone.label]
        counts.macs(network, grid.data.dataset.image_shape)
        for pruner in (resolve("pruners", spec) for spec in experiment.pruners):
            checks.check_ratios(network, backbone, pruner, experiment.ratios)
        for aggregator in (resolve("aggregators", spec) for spec in experiment.aggregators):
            sizes.check_aggregator(aggregator, network.embedding_dim, grid.data.dataset.num_classes)


@plugins.blamed()
def opened(experiment: Experiment) -> Grid:
    """Load the data, check everything but what `check_networks` does, and lay out the cells.

    Raises:
        SharedLabelError: a plugin, option, ratio, tuple size or device that cannot work, or code of a plugin from
            outside that raises.
    """
    _check_trainer(experiment.trainer)
    refresh()
    plugin = resolve("data", experiment.data)
    backbones = tuple(resolve("backbones", spec) for spec in experiment.backbones)
    pruners = tuple(resolve("pruners", spec) for spec in experiment.pruners)
    aggregators = tuple(resolve("aggregators", spec) for spec in experiment.aggregators)
    for plugins_of_kind in (backbones, pruners, aggregators):
        checks.check_labels(plugins_of_kind)
    checks.check_endpoint(experiment, [aggregator.label for aggregator in aggregators])
    if experiment.fit.trials:
        search.check(aggregators)
    checks.check_count(experiment)
    code = _code(plugin, *backbones, *pruners, *aggregators)
    with memory.fitting(f"data: {plugin.label}", "choose a smaller data set"):
        dataset = _made(Dataset, plugin, load("data", plugin.name).load(plugin.config, home(experiment.data_root)))
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
        checks.check_tuples(crossfit.whole, experiment)
    if kinds != {CROSSFIT}:
        checks.check_tuples(data, experiment)
    sizes.check_tuples(data, experiment.evaluation)
    checks.check_images(experiment, dataset)
    checks.check_augmentation(experiment, dataset)
    networks = {backbone.label: _network(backbone, dataset) for backbone in backbones}
    for pruner in pruners:
        compression.check_schedule(pruner, experiment.retrain)
    cells = lay_out(experiment, data, crossfit)
    parts = (data,) if crossfit is None else (data, crossfit.whole, *crossfit.folds)
    return Grid(experiment, data, cells, networks, {part.key: part for part in parts}, remarks)


def _check_trainer(config: TrainerConfig) -> None:
    """Refuse devices, options, loggers and callbacks that cannot work here.

    What is usual works everywhere, and need not wait for Lightning, which takes seconds to import.

    Raises:
        ConfigError: such a device, option, logger or callback.
    """
    if config.networks > 1 and not takes_several(config):
        raise ConfigError(
            "trainer.networks: expected 1 where devices, strategy, compile, channels_last, options, 16-mixed, a logger "
            f"or callbacks say how a single network is trained, got {config.networks}; set it to 1, or leave those out"
        )
    if config == TrainerConfig(**{name: getattr(config, name) for name in _OURS}):
        return
    from sharedlabel.training import callbacks, trainer

    trainer.trainer(config, epochs=1)
    callbacks.check(config)


def _made(kind: type[Made], plugin: Plugin, value: Any) -> Made:
    """Return what a plugin has made; refuse something else."""
    if not isinstance(value, kind):
        raise ContractError(
            f"{plugin.kind}: expected a {kind.__name__} from {plugin.name}, got a {type(value).__name__}; return one"
        )
    return value


def _network(plugin: Plugin, dataset: Dataset) -> Backbone:
    """Return a backbone as it is initialised, once it is known to fit into memory and to be prunable."""
    sizes.check_backbone(plugin, dataset.image_shape, dataset.num_classes)
    with memory.fitting(f"backbones: {plugin.label}", "choose smaller options"), torch.random.fork_rng(devices=[]):
        build = load("backbones", plugin.name).build
        network = _made(Backbone, plugin, build(plugin.config, dataset.image_shape, dataset.num_classes))
    prunable(network)  # refuses layers that share a weight
    return network


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
        grouped = set(scoring.protocols) != {IID}
        stride = scoring.stride if SEQUENCE in scoring.protocols else 1
        most = max(scoring.n)
        dataset, split, gone = _small.without_small_classes(dataset, split, drawn, most, grouped=grouped, stride=stride)
        if gone:
            remarks = (f"left out {len(gone):,} classes without a tuple of n = {max(scoring.n)}: {', '.join(gone)}",)
    return dataset, split, (*remarks, *copies(dataset, split, experiment.split.leaks))


def _code(data: Plugin, *others: Plugin) -> dict[str, str]:
    """Read all code that keys depend on, at once: loading data takes time, in which files may be edited.

    Returns:
        Digests of the data set's plugin.
    """
    for stage in STAGES.values():
        stage.code()
    plugins.code(set().union(*map(plugins_in, others)))
    return plugins.code(plugins_in(data))
