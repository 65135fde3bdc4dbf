r"""From a configuration to the stage calls of its cells.

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
Stages that nothing else reads (`stages.leaves`) say themselves what they need; of these this file names `evaluate`
alone, which scores a cell.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from sharedlabel.config import Experiment, Plugin, Training, resolve, trainings
from sharedlabel.config.names import CROSSFIT, DENSE, FROZEN
from sharedlabel.data import tuples
from sharedlabel.grid.nodes import Cell, Node
from sharedlabel.scoring.data import Crossfit, Data
from sharedlabel.stages import (
    MethodSetting,
    NetworkSetting,
    ProtocolSetting,
    Setting,
    aggregate,
    calibrate,
    crossfit,
    dense,
    early,
    joint,
    leaves,
    prune,
)
from sharedlabel.stages import features as embedding
from sharedlabel.training import compression


def lay_out(experiment: Experiment, data: Data, crossfit_data: Crossfit | None) -> tuple[Cell, ...]:
    """Return the cells of an experiment on some data.

    Args:
        experiment: checked.
        data: with the splits to use.
        crossfit_data: the data of cross-fitting; None without it.
    """
    return tuple(_Layout(experiment, data, crossfit_data).cells())


class _Pruned(NamedTuple):
    """A network and the call that makes it."""

    setting: NetworkSetting
    node: Node


@dataclass(frozen=True)
class _Network:
    """A compressed backbone, the leaves that say something of it, and what aggregators learn from.

    Attributes:
        setting: plugins, ratio and seed.
        pruned: the call that makes it.
        ends: calls of its leaves, by stage.
        features: the call whose output holds the images of aggregators as the network sees them.
        calibrated: the call that calibrates its logits.
        trainings: kinds of training that start from here.
    """

    setting: NetworkSetting
    pruned: Node
    ends: Mapping[str, Node] = field(hash=False)
    features: Node
    calibrated: Node
    trainings: tuple[Training, ...]


class _Layout:
    """Lays the calls of one experiment out.

    Args:
        experiment: checked.
        data: with the splits to use.
        crossfit_data: the data of cross-fitting; None without it.
    """

    def __init__(self, experiment: Experiment, data: Data, crossfit_data: Crossfit | None) -> None:
        self.experiment, self.data, self.crossfit = experiment, data, crossfit_data
        self.backbones, self.pruners, self.aggregators = (
            tuple(resolve(kind, spec) for spec in getattr(experiment, kind))
            for kind in ("backbones", "pruners", "aggregators")
        )
        self.trainings = trainings(experiment)

    def cells(self) -> Iterator[Cell]:
        """Yield the cells of every seed, backbone, network, protocol and aggregator, then those of protocols alone."""
        experiment = self.experiment
        by_backbone = [list(self._networks(backbone, seed)) for seed in experiment.seeds for backbone in self.backbones]
        for networks in by_backbone:
            for network in networks:
                for protocol in experiment.evaluation.protocols:
                    for aggregator in self.aggregators:
                        setting = MethodSetting(**vars(network.setting), aggregator=aggregator, protocol=protocol)
                        yield from self._methods(networks[0], network, setting)
        for protocol in experiment.evaluation.protocols:
            for name, scored in self._ends("protocol", ProtocolSetting(protocol), {}, self.data.key).items():
                yield _cell(by_backbone[0][0], name, FROZEN, protocol, {name: scored}, scored)

    def _networks(self, backbone: Plugin, seed: int) -> Iterator[_Network]:
        """Yield the networks of the configured splits, then those of cross-fitting; of each the dense one first."""
        usual = tuple(entry for entry in self.trainings if entry.name != CROSSFIT)
        if usual:
            pruned = list(self._pruned(self.data, backbone, seed))
            yield from self._measured(self.data, pruned, [self._features(*one) for one in pruned], usual)
        if self.crossfit is not None:
            pruned = list(self._pruned(self.crossfit.whole, backbone, seed))
            features = self._crossfitted(self.crossfit, pruned)
            others = tuple(entry for entry in self.trainings if entry.name == CROSSFIT)
            yield from self._measured(self.crossfit.whole, pruned, features, others)

    def _crossfitted(self, parts: Crossfit, deployed: Sequence[_Pruned]) -> list[Node]:
        """Return, for each deployed network, the call that joins the features of the same networks of all folds."""
        backbone, seed = deployed[0].setting.backbone, deployed[0].setting.seed
        by_fold = [[self._features(*one) for one in self._pruned(fold, backbone, seed)] for fold in parts.folds]
        config = crossfit.Config(self.experiment.crossfit, self.experiment.evaluation.prior)
        joined = []
        for one, *features in zip(deployed, *by_fold, strict=True):
            inputs = tuple((f"fold {number}", node) for number, node in enumerate(features, start=1))
            # The deployed network comes last, since what is said of a chain is said of its last network.
            inputs += (("features", self._features(*one)),)
            joined.append(Node("crossfit", config, inputs, parts.whole.key))
        return joined

    def _measured(
        self, data: Data, pruned: Sequence[_Pruned], features: Sequence[Node], starting: tuple[Training, ...]
    ) -> Iterator[_Network]:
        """Yield networks with the calls of their leaves."""
        reference = pruned[0].node
        trained = dict(reference.inputs)["dense"]
        for (setting, node), embedded in zip(pruned, features, strict=True):
            made = {"dense": trained, "reference": reference, "backbone": node}
            scaling = calibrate.Config(self.experiment.evaluation.prior)
            calibrated = Node("calibrate", scaling, (("features", embedded),), node.data_key)
            ends = self._ends("network", setting, made, data.key)
            yield _Network(setting, node, ends, embedded, calibrated, starting)

    def _ends(self, per: str, setting: Setting, made: Mapping[str, Node], data_key: str) -> dict[str, Node]:
        """Return the calls of the leaves that the experiment asks for, which read what is made."""
        configs = {stage: stage.configure(self.experiment, setting) for stage in leaves(per)}
        return {
            stage.name: Node(stage.name, config, tuple((name, made[name]) for name in stage.inputs), data_key)
            for stage, config in configs.items()
            if config is not None
        }

    def _pruned(self, data: Data, backbone: Plugin, seed: int) -> Iterator[_Pruned]:
        """Yield the dense network, retrained like the others, then every pruner at every ratio above 1."""
        config = dense.Config(backbone, self.experiment.dense, self.experiment.trainer.precision, seed)
        trained = Node("dense", config, (), data.key)
        points = [(resolve("pruners", DENSE), 1.0)]
        points += [
            (pruner, float(ratio))
            for pruner in self.pruners
            if pruner.name != DENSE
            for ratio in sorted(self.experiment.ratios)
            if ratio > 1
        ]
        for pruner, ratio in points:
            setting = NetworkSetting(backbone, pruner, ratio, seed)
            yield _Pruned(setting, self._rounds(setting, trained))

    def _rounds(self, setting: NetworkSetting, trained: Node) -> Node:
        """Return the call that prunes to a ratio; with an iterative schedule it follows those of the rounds before."""
        experiment, schedule = self.experiment, compression.schedule_of(setting.pruner)
        precision, data_key = experiment.trainer.precision, trained.data_key
        inputs: tuple[tuple[str, Node], ...] = () if schedule.when == "initial" else (("dense", trained),)
        if schedule.when == "iterative" and schedule.rewind is not None:
            rewind = early.Config(setting.backbone, experiment.dense, precision, setting.seed, schedule.rewind)
            inputs += (("early", Node("early", rewind, (), data_key)),)
        previous: tuple[tuple[str, Node], ...] = ()
        for reached in compression.rounds(setting.ratio, schedule):
            recipes = experiment.dense, experiment.retrain
            config = prune.Config(setting.backbone, setting.pruner, reached, *recipes, precision, setting.seed)
            node = Node("prune", config, inputs + previous, data_key)
            previous = (("previous", node),)
        return node

    def _methods(self, dense_network: _Network, network: _Network, setting: MethodSetting) -> Iterator[Cell]:
        """Yield the cells of one aggregator on one compressed backbone, one per kind of training."""
        data_key = network.pruned.data_key
        aggregated = self._fitted(network, setting)
        for training in network.trainings:
            fitted, embedded = aggregated, network.features
            if training.joint is not None:
                inputs = {"backbone": network.pruned, "calibrate": network.calibrated, "aggregate": aggregated}
                if training.joint.distill:  # first, so that along the chain the student's calls are the last of a kind
                    teacher = dense_network.features, dense_network.calibrated, self._fitted(dense_network, setting)
                    inputs = dict(zip(joint.TEACHER, teacher, strict=True)) | inputs
                fitted = Node("joint", self._joint(setting, training), tuple(inputs.items()), data_key)
                embedded = self._features(setting, fitted)
            made = {"features": embedded, "calibrate": network.calibrated, "aggregate": fitted}
            ends = {"aggregate": aggregated, **self._ends("method", setting, made, data_key)}
            label = setting.aggregator.label
            yield _cell(network, label, training.label, setting.protocol, ends, ends["evaluate"])

    def _fitted(self, network: _Network, setting: MethodSetting) -> Node:
        """Return the call that fits an aggregator on the features of a fixed backbone."""
        experiment = self.experiment
        fitting = aggregate.Config(
            setting.aggregator,
            experiment.fit,
            float(experiment.trainer.gradient_clip),
            max(experiment.evaluation.n),
            setting.protocol,
            setting.seed,
            tuples.asked(experiment.evaluation, setting.protocol),
        )
        inputs = (("features", network.features), ("calibrate", network.calibrated))
        return Node("aggregate", fitting, inputs, network.pruned.data_key)

    def _features(self, network: NetworkSetting, trained: Node) -> Node:
        """Return the call that embeds the images of aggregators by a trained network."""
        config = embedding.Config(network.backbone, self.experiment.trainer.precision)
        return Node("features", config, (("backbone", trained),), trained.data_key)

    def _joint(self, setting: MethodSetting, training: Training) -> joint.Config:
        assert training.joint is not None
        return joint.Config(
            setting.backbone,
            setting.aggregator,
            training.joint,
            float(self.experiment.trainer.gradient_clip),
            max(self.experiment.evaluation.n),
            setting.protocol,
            self.experiment.trainer.precision,
            setting.seed,
            tuples.asked(self.experiment.evaluation, setting.protocol),
        )


def _cell(
    network: _Network, aggregator: str, training: str, protocol: str, ends: Mapping[str, Node], scored: Node
) -> Cell:
    """Return a cell of a network; `scored` is the one of its ends that scores."""
    setting = network.setting
    return Cell(
        backbone=setting.backbone.label,
        pruner=setting.pruner.label,
        ratio=setting.ratio,
        aggregator=aggregator,
        training=training,
        protocol=protocol,
        seed=setting.seed,
        ends={"prune": network.pruned, **network.ends, **ends},
        evaluate=scored,
    )
