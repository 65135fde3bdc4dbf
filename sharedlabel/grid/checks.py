"""What can be checked of a grid before the first training step."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sharedlabel.backbones._base import Backbone
from sharedlabel.config import Experiment, Plugin, canonical
from sharedlabel.config.names import DENSE, DENSE_NETWORK, EXACT, IID, SEQUENCE
from sharedlabel.config.sections import ComparisonConfig
from sharedlabel.data import _small, tuples
from sharedlabel.errors import CompressionError, ConfigError, DataError, nearest
from sharedlabel.grid import sizes
from sharedlabel.machine import memory
from sharedlabel.plugins import load
from sharedlabel.pruners._base import rounded_down
from sharedlabel.pruners._methods import ceiling
from sharedlabel.scoring.data import FEATURE_ROLES, SCORED_ROLES, Data
from sharedlabel.training import augmenting
from sharedlabel.types import Dataset, Role, Tuples

RESERVED = (DENSE, EXACT, DENSE_NETWORK)
MAX_CELLS = 1_000_000


def check_images(experiment: Experiment, dataset: Dataset) -> None:
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


def check_count(experiment: Experiment) -> None:
    """Refuse grids of more cells than could be laid out."""
    networks = len(experiment.backbones) * (1 + len(experiment.pruners) * len(experiment.ratios))
    methods = len(experiment.aggregators) * len(experiment.training) * len(experiment.evaluation.protocols)
    cells = networks * methods * len(experiment.seeds)
    if cells > MAX_CELLS:
        raise ConfigError(
            f"expected a grid of at most {MAX_CELLS} cells, got about {cells}: {networks} networks, {methods} "
            f"aggregators and trainings, {len(experiment.seeds)} seeds; leave some out"
        )


def check_labels(plugins_of_kind: tuple[Plugin, ...]) -> None:
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


def check_ratios(network: Backbone, backbone: Plugin, pruner: Plugin, ratios: tuple[float, ...]) -> None:
    """Refuse ratios above what the network can reach before anything is trained."""
    if pruner.name == DENSE or max(ratios) == 1:
        return
    highest = ceiling(load("pruners", pruner.name), network, pruner.config)
    if max(ratios) > highest:
        raise CompressionError(
            f"ratios: {pruner.label} on {backbone.label} reaches at most {rounded_down(highest)}x over all parameters "
            f"(weights of the classifier, biases and norms stay), got {max(ratios):g}; "
            "leave out ratios above the ceiling or use a wider backbone"
        )


def check_endpoint(experiment: Experiment, aggregators: Sequence[str]) -> None:
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


def check_augmentation(experiment: Experiment, dataset: Dataset) -> None:
    """Refuse transforms that are not known, or that turn an image into something else."""
    for section in ("dense", "retrain"):
        specs = getattr(experiment, section).augment
        if specs:
            augmenting.check(specs, dataset.images[torch.tensor([0])][0], f"{section}.augment")


def check_tuples(data: Data, experiment: Experiment) -> None:
    """Refuse tuple sizes that a split cannot fill, and protocols of groups without groups."""
    scoring = experiment.evaluation
    for protocol in scoring.protocols:
        if protocol != IID and data.dataset.groups is None:
            raise DataError(
                f"evaluation.protocols: {protocol!r} needs group ids, and {data.dataset.name} has none; "
                "use [iid] or a data set with groups"
            )
        if protocol == SEQUENCE and experiment.split.groups == "divided":
            raise ConfigError(
                "evaluation.protocols: 'sequence' needs whole groups, and split.groups shares each out; "
                "set split.groups to whole, or leave 'sequence' out"
            )
        for role in FEATURE_ROLES:
            try:
                if protocol != IID and scoring.groups_smaller_than_n == "error":
                    stride = scoring.stride if protocol == SEQUENCE else 1
                    _small.check_groups(data.dataset, data.splits[role], max(scoring.n), stride)
                drawn = data.tuples(role, protocol, max(scoring.n), 1, 0, tuples.asked(scoring, protocol))
            except DataError as error:
                where = data.part if data.part and role == "aggregator" else f"the {role} split"
                raise DataError(f"evaluation.n on {where}, protocol {protocol}: {error}") from error
            if role in SCORED_ROLES:
                _check_spread(data, drawn.reaching(max(scoring.n)), role, protocol, scoring.partitions)


def _check_spread(data: Data, drawn: Tuples, role: Role, protocol: str, partitions: int) -> None:
    """Refuse what no interval could be given for: a class with one tuple in all, or one group in every class."""
    counts = torch.bincount(drawn.labels.flatten(), minlength=data.dataset.num_classes)
    groups = data.groups(role, protocol)
    if groups is None and int(counts.min()) * partitions < 2:
        name = data.dataset.class_names[int(counts.argmin())]
        raise DataError(
            f"evaluation.partitions on the {role} split: expected two tuples or more of every class, "
            f"got one of {name!r}; use more partitions or a smaller n"
        )
    if groups is not None:
        cells = torch.stack([drawn.labels.flatten(), groups[drawn.indices[:, :, 0]].flatten()]).unique(dim=1)[0]
        if int(torch.bincount(cells).max()) < 2:
            raise DataError(
                f"evaluation.protocols on the {role} split: {protocol!r} needs two groups of a class or more, "
                f"got one of each; give it more groups or a larger share (split.{role}), or use split.groups=divided "
                "or [iid]"
            )
