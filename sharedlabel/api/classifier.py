"""`sharedlabel.SharedLabelClassifier`: everything in one estimator, by the conventions of scikit-learn."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from numbers import Real
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn

from sharedlabel import rng
from sharedlabel.api import _arguments, _groups, _instances
from sharedlabel.api.backbone import SplitClassifier, last_layer
from sharedlabel.api.fusion import Fusion, aggregator
from sharedlabel.api.pruning import prune
from sharedlabel.backbones._base import Backbone
from sharedlabel.config import anew, build, resolve
from sharedlabel.config.sections import FitConfig
from sharedlabel.data import tuples
from sharedlabel.errors import ConfigError, DataError
from sharedlabel.metrics import _checks
from sharedlabel.metrics.calibration import log_correction
from sharedlabel.plugins import load
from sharedlabel.training import search

_VECTORS = {"name": "mlp", "widths": [128, 64]}
_IMAGES = {"name": "resnet_cifar", "depth": 8}
_DECAY = 0.0005
_BATCH = 512  # instances at once where nothing is trained


class SharedLabelClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Classify instances, or groups of instances that share a label, with a compressed network and an aggregator.

    One half of the instances trains the network, which is pruned and trained on; the aggregator is fitted to what the
    network says of the other half, which it has not seen, in tuples that share a label. Groups stay whole. Where
    classes or groups are too few for that, the network learns from all instances, the log-pool stands in for the
    aggregator, and a warning says so.

    A row of `X` is one instance: a vector `[N d]` or an image `[N C H W]`. `groups` say which rows share a label.
    Without groups each row is alone. With them every row is answered by all rows of its group together.

    Args:
        backbone: the network, as its name or as a mapping with its options; or a module that maps `[b ...]` to logits
            `[b c]`, classes in sorted order, of which a copy is trained. A small multilayer perceptron for vectors and
            a ResNet-8 for images if None.
        aggregator: what fuses the instances of a group, as its name or as a mapping with its options.
        ratio: compression ratio of the network, over all parameters; 1 leaves it dense.
        pruner: how it is compressed.
        n: instances per tuple that the aggregator is fitted to; fewer where groups or classes are smaller.
        epochs: passes over the instances that train the network; half as many follow pruning. 0 trains nothing.
        batch_size: instances per step.
        learning_rate: peak of its schedule.
        prior: `empirical` takes labels to be as frequent as in training, `uniform` all alike.
        recipe: options of the aggregator's training, such as `{"epochs": 20}`; None for the usual ones.
        device: where the network is trained and run, as torch names it (`cpu`, `cuda`, `cuda:1`), or `auto`.
        random_state: seed, as of any estimator.

    Attributes:
        classes_: labels, sorted.
        n_features_in_: values of a vector, or channels of an image.
        network_: the trained and pruned module.
        fusion_: the fitted aggregator, from embeddings and logits to posteriors.
        n_: instances per tuple that it was fitted to; 1 where the log-pool stands in.

    >>> import numpy as np
    >>> draw = np.random.default_rng(0)
    >>> y = np.repeat([0, 1], 100)
    >>> X = draw.normal(size=(200, 2)) + y[:, None]
    >>> groups = np.arange(200) // 5  # five views of the same thing
    >>> model = SharedLabelClassifier(aggregator="log_pool", random_state=0).fit(X, y, groups=groups)
    >>> bool(model.score(X, y, groups=groups) > model.score(X, y))
    True
    """

    def __init__(
        self,
        backbone: Any = None,
        aggregator: Any = "crafted_lstm",
        *,
        ratio: Any = 1.0,
        pruner: Any = "magnitude",
        n: Any = 8,
        epochs: Any = 20,
        batch_size: Any = 64,
        learning_rate: Any = 0.003,
        prior: Any = "empirical",
        recipe: Any = None,
        device: Any = "cpu",
        random_state: Any = None,
    ) -> None:
        self.backbone = backbone
        self.aggregator = aggregator
        self.ratio = ratio
        self.pruner = pruner
        self.n = n
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.prior = prior
        self.recipe = recipe
        self.device = device
        self.random_state = random_state

    @anew()
    def fit(self, X: Any, y: Any, groups: Any = None) -> SharedLabelClassifier:
        """Train, prune and fit.

        Args:
            X: `[N d]` or `[N C H W]`, numbers; with a module of your own, whatever that takes.
            y: label of each row.
            groups: group of each row, numbers or names; the rows of a group share their label.

        Raises:
            ValueError: arguments that scikit-learn refuses, fewer than two classes, or a group of two labels.
            SharedLabelError: an option that cannot work, or a backbone with other outputs than classes.
        """
        for name, check in _OPTIONS.items():
            check(name, getattr(self, name))
        X, y = validate_data(self, X, y, dtype=np.float32, allow_nd=True)
        self._check_axes(X)
        check_classification_targets(y)
        self.classes_, encoded = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"expected at least two classes, got one class alone, {self.classes_[0]!r}; add another")
        own = _groups.numbered(groups, len(X))
        labels, inputs = torch.from_numpy(encoded.astype(np.int64)), torch.from_numpy(X)
        if own is not None:
            _groups.check_shared(own, labels)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        rows = _divided(labels, own, seed)
        learnt = labels if rows is None else labels[rows[0]]
        self.network_ = self._network(inputs if rows is None else inputs[rows[0]], learnt, seed)
        self._last_layer = last_layer(self.network_, inputs[:1])
        prior = tuples.prior(labels, self.prior, len(self.classes_))
        frequencies = tuples.prior(learnt, "empirical", len(self.classes_))
        if rows is None:
            self.fusion_, self.n_ = _pooled(prior, frequencies), 1
            warnings.warn(
                "too few instances or groups of a class to fit the aggregator to some that the network has not seen; "
                "their answers are pooled (log_pool) instead",
                stacklevel=2,
            )
            return self
        embeddings, logits = self._embed(inputs)
        seen = search.Images(embeddings, logits, labels, own)
        parts = [_instances.some(seen, part) for part in rows[1:]]
        self.n_ = min(int(self.n), *(int(tuples.largest(p.labels, p.groups, len(prior)).min()) for p in parts))
        self.fusion_ = aggregator(self.aggregator).fitted(
            *parts[0],
            n=self.n_,
            validation=tuple(part for part in parts[1] if part is not None),
            prior=prior,
            frequencies=frequencies,
            seed=seed,
            **(self.recipe or {}),
        )
        return self

    def predict_proba(self, X: Any, groups: Any = None) -> Any:
        """Return the probability of each label for every row, `[N c]`; rows of a group have the same.

        Args:
            X: as for `fit`.
            groups: group of each row; each is alone if None.
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float32, allow_nd=True, reset=False)
        if X.ndim != self._axes:
            raise ValueError(f"X: expected {self._axes} axes, as in fit, got shape {list(X.shape)}; reshape it")
        own = _groups.numbered(groups, len(X))
        embeddings, logits = self._embed(torch.from_numpy(X))
        probabilities = torch.empty(len(X), len(self.classes_), dtype=torch.float64)
        for rows in _groups.rows_by_size(torch.arange(len(X)) if own is None else own):
            for batch in rows.split(_BATCH):
                with torch.no_grad():
                    last = self.fusion_(embeddings[batch], logits[batch])[:, -1].double().softmax(-1)
                probabilities[batch] = last[:, None].expand(-1, batch.shape[1], -1)
        return probabilities.numpy()

    def predict(self, X: Any, groups: Any = None) -> Any:
        """Return the most probable label of every row; rows of a group have the same.

        Args:
            X: as for `fit`.
            groups: group of each row; each is alone if None.
        """
        probabilities = self.predict_proba(X, groups)
        return self.classes_[probabilities.argmax(axis=1)]

    def score(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> float:
        """Return the share of rows whose label is right; with groups, that of their groups' answers.

        Args:
            X: as for `fit`.
            y: label of each row.
            sample_weight: weight of each row.
            groups: group of each row; each is alone if None.
        """
        return float(accuracy_score(y, self.predict(X, groups), sample_weight=sample_weight))

    def _check_axes(self, X: Any) -> None:
        """Refuse what are no vectors and no images; a module of somebody's own may take anything else."""
        self._axes = X.ndim
        if X.ndim not in (2, 4) and not isinstance(self.backbone, nn.Module):
            raise ValueError(
                f"X: expected vectors [N d] or images [N C H W], got shape {list(X.shape)}; reshape it, or pass a "
                "module that takes it as backbone"
            )

    def _network(self, inputs: Tensor, labels: Tensor, seed: int) -> nn.Module:
        """Return the trained network, compressed and trained on."""
        with rng.seeded(seed, "classifier"):
            network = self._built(inputs)
            self._check_outputs(network, inputs[:1])
            self._train(network, inputs, labels, float(self.learning_rate), int(self.epochs))
            if float(self.ratio) != 1:
                network = prune(
                    network, float(self.ratio), self.pruner, data=(inputs, labels), validation=inputs, seed=seed
                )
                self._train(network, inputs, labels, float(self.learning_rate) / 3, int(self.epochs) // 2)
        return network.eval()

    @torch.no_grad()
    def _check_outputs(self, network: nn.Module, inputs: Tensor) -> None:
        """Refuse a network that does not return a score for each class."""
        returned, expected = network.eval()(inputs), [len(inputs), len(self.classes_)]
        given = list(returned.shape) if isinstance(returned, Tensor) else type(returned).__name__
        if given != expected:
            raise DataError(
                f"backbone: expected logits {expected}, one for each class of y, got {given}; change its last layer"
            )

    def _built(self, inputs: Tensor) -> nn.Module:
        """Build the network, or copy the one that was given."""
        if isinstance(self.backbone, nn.Module):
            return copy.deepcopy(self.backbone)
        images = inputs if inputs.ndim == 4 else inputs.flatten(1)[:, :, None, None]
        usual = _VECTORS if inputs.ndim != 4 else _IMAGES
        plugin = resolve("backbones", usual if self.backbone is None else self.backbone)
        shape = tuple(images.shape[1:])
        built: Backbone = load("backbones", plugin.name).build(plugin.config, shape, len(self.classes_))
        scale, mean = torch.std_mean(images.double(), dim=(0, 2, 3), correction=0)
        built.normalize.mean.copy_(mean)
        built.normalize.std.copy_(scale.where(scale > 0, 1.0))
        return built if inputs.ndim == 4 else nn.Sequential(nn.Unflatten(1, shape), built)

    def _train(self, network: nn.Module, inputs: Tensor, labels: Tensor, rate: float, epochs: int) -> None:
        """Train in place: AdamW on the cross-entropy, warmed up and annealed."""
        trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
        steps = epochs * -(-len(inputs) // int(self.batch_size))
        if not trainable or not steps:
            return
        device = _arguments.device(self.device)
        network.to(device).train()
        optimiser = torch.optim.AdamW(trainable, lr=rate, weight_decay=_DECAY)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps)
        for _ in range(epochs):
            for rows in torch.randperm(len(inputs)).split(int(self.batch_size)):
                if len(rows) > 1 or len(inputs) == 1:  # batch normalisation takes no single instance
                    logits = network(inputs[rows].to(device))
                    optimiser.zero_grad()
                    nn.functional.cross_entropy(logits, labels[rows].to(device)).backward()
                    optimiser.step()
                schedule.step()
        network.cpu()

    @torch.no_grad()
    def _embed(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return the embeddings and logits of instances; logits stand for both where a module has no linear end."""
        device = _arguments.device(self.device)
        network = self.network_.to(device).eval()
        split = SplitClassifier(network, self._last_layer) if self._last_layer else None
        parts = []
        for rows in inputs.split(_BATCH):
            batch = rows.to(device)
            pair = split.both(batch) if split is not None else (network(batch),) * 2
            parts.append([part.cpu() for part in pair])
        network.cpu()
        embeddings, logits = map(torch.cat, zip(*parts, strict=True))
        return embeddings, logits


def _number(name: str, value: Any) -> float:
    if not isinstance(value, Real):
        raise DataError(f"expected {name} as a number, got {value!r}; pass one")
    return float(value)


def _check_prior(name: str, value: Any) -> None:
    if value not in ("empirical", "uniform"):
        raise ValueError(f"{name}: expected 'empirical' or 'uniform', got {value!r}; choose one")


def _check_recipe(name: str, value: Any) -> None:
    if value is not None and not isinstance(value, Mapping):
        raise ConfigError(f"{name}: expected a mapping of options, got {value!r}; write them as {{'epochs': 20}}")
    build(FitConfig, value or {}, name)


# What refuses an option that cannot work, before anything is trained.
_OPTIONS: dict[str, Callable[[str, Any], Any]] = {
    "n": partial(_checks.whole, low=1),
    "epochs": partial(_checks.whole, low=0),
    "batch_size": partial(_checks.whole, low=1),
    "learning_rate": lambda name, value: _checks.positive(name, _number(name, value)),
    "ratio": lambda name, value: _checks.number(name, _number(name, value), 1),
    "pruner": lambda _, spec: resolve("pruners", spec),
    "aggregator": lambda _, spec: resolve("aggregators", spec),
    "prior": _check_prior,
    "recipe": _check_recipe,
    "device": lambda _, given: _arguments.device(given),
}


def _divided(labels: Tensor, groups: Tensor | None, seed: int) -> tuple[Tensor, Tensor, Tensor] | None:
    """Return the rows that train the network, that fit the aggregator and that stop it; None where they are too few."""
    try:
        rest = _instances.held_out(labels, groups, seed, 2).nonzero()[:, 0]
        watched = _instances.held_out(labels[rest], None if groups is None else groups[rest], seed)
    except DataError:
        return None
    learn = torch.ones_like(labels, dtype=torch.bool)
    learn[rest] = False
    return learn.nonzero()[:, 0], rest[~watched], rest[watched]


def _pooled(prior: Tensor, frequencies: Tensor) -> Fusion:
    """Return the log-pool of posteriors that a network gives, moved from the frequencies that it has seen."""
    pool = aggregator("log_pool", log_prior=prior.log())
    pool.log_correction = log_correction(prior, frequencies)
    return pool
