"""`sharedlabel.aggregator`: from what a network saw of each instance to one posterior, as a module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from sharedlabel import rng
from sharedlabel.aggregators._base import LEAST_DEVIATION, Aggregator, statistics
from sharedlabel.api import _arguments, _instances
from sharedlabel.config import Plugin, anew, build, resolve
from sharedlabel.config.names import GROUPED, IID
from sharedlabel.config.sections import FitConfig, TrainerConfig
from sharedlabel.data import tuples
from sharedlabel.errors import ConfigError
from sharedlabel.metrics import _checks
from sharedlabel.metrics.calibration import calibrate_logits, log_correction, single_temperature
from sharedlabel.plugins import load
from sharedlabel.training import search
from sharedlabel.types import SetShape, Tuples


class Fusion(nn.Module):
    """An aggregator that takes embeddings and logits as a network makes them.

    Made by `sharedlabel.aggregator`, and by its method `fitted`. It calibrates the logits of single instances, then
    aggregates: what a grid does, in one module with buffers, to be moved, copied, pickled and trained like any other.
    Its state is loaded into one that is made with the same options, number of classes and width.

    Args:
        plugin: the aggregator and its options.

    Attributes:
        aggregator: fuses embeddings and calibrated logits; None as long as its shape is not known.
        log_correction: `[c]`, added to logits: from the class frequencies that the network was trained on to the prior.
        temperature: divides the corrected logits.
        facts: of the training: losses by epoch, the best epoch; empty where there was none.
    """

    log_correction: Tensor
    temperature: Tensor
    aggregator: Aggregator | None

    def __init__(self, plugin: Plugin) -> None:
        super().__init__()
        self.plugin = plugin
        self.aggregator = None
        self.register_buffer("log_correction", torch.zeros(0))
        self.register_buffer("temperature", torch.ones(()))
        self.facts: dict[str, Any] = {}
        self._prior: Tensor | None = None  # `[c]`, if it was made with one
        self._width: int | None = None  # of the embeddings that it was made for; None where it does not look at them

    def forward(self, embeddings: Float[Tensor, "t n d"], logits: Float[Tensor, "t n c"]) -> Float[Tensor, "t n c"]:
        """Return the log-posterior after every prefix, natural log, normalised.

        Args:
            embeddings: of t tuples of n instances each, d values.
            logits: class scores of every instance, as the network returns them.

        Raises:
            ConfigError: the aggregator was made by name alone, and not fitted.
        """
        if self.aggregator is None:
            raise ConfigError(
                f"expected an aggregator that is fitted, or made for a number of classes, got {self.plugin.name!r} "
                "alone; call .fitted(embeddings, logits, labels), or pass num_classes"
            )
        sizes = {} if self._width is None else {"d": self._width}
        _checks.shape("embeddings", embeddings, "t n d", t=len(logits), n=logits.shape[1], **sizes)
        posterior: Tensor = self.aggregator(embeddings, self.calibrated(logits))
        return posterior

    def calibrated(self, logits: Float[Tensor, "*batch c"]) -> Float[Tensor, "*batch c"]:
        """Return the calibrated log-posterior of single instances: what the aggregator is given."""
        return calibrate_logits(logits, self.log_correction, float(self.temperature))

    def fitted(
        self,
        embeddings: Float[Tensor, "m d"],
        logits: Float[Tensor, "m c"],
        labels: Int64[Tensor, "m"],
        groups: Int64[Tensor, "m"] | None = None,
        *,
        n: int = 8,
        validation: tuple[Tensor, ...] | None = None,
        prior: Float[Tensor, "c"] | None = None,
        frequencies: Float[Tensor, "c"] | None = None,
        seed: int = 0,
        device: str | torch.device = "cpu",
        **recipe: Any,
    ) -> Fusion:
        """Return a copy of this aggregator that is fitted to instances which the network was not trained on.

        It does what a grid does: the logits of single instances are calibrated, the embeddings' means and scales
        taken, tuples of instances with one label are drawn anew for every epoch, and the epoch is kept that is best on
        the tuples of other instances.

        Args:
            embeddings: of m instances, d values each.
            logits: class scores of each, as the network returns them.
            labels: class index of each.
            groups: group of each, such as the object that images show: tuples are then drawn within a group. None draws
                from all instances of a class.
            n: instances per tuple; it predicts for fewer and more, too.
            validation: embeddings, logits, labels, and groups where there are some, of other instances, for early
                stopping; a quarter of the instances is held out if None, groups whole.
            prior: `[c]`, probability of each label for tuples; if None, that which the aggregator was made with
                (`log_prior`), else all alike.
            frequencies: `[c]`, share of each label among what the network was trained on; that among `labels` if None.
            seed: of everything random.
            device: where to train, as torch names it (`cpu`, `cuda`, `cuda:1`), or `auto`. The result is on the CPU.
            recipe: options of the training, such as `epochs=20`, as of the section `fit` of an experiment.

        Raises:
            ConfigError: an unknown option, or a device that is not here.
            DataError: arguments that do not belong together, or a class with too few instances for n.
            TrainingError: the loss is not finite.

        >>> draw = torch.Generator().manual_seed(0)
        >>> labels = torch.arange(60) % 3
        >>> logits = torch.randn(60, 3, generator=draw) + 2 * torch.nn.functional.one_hot(labels, 3)
        >>> agg = aggregator("log_pool").fitted(logits, logits, labels, n=4)
        >>> agg(logits[None, :4], logits[None, :4]).shape
        torch.Size([1, 4, 3])
        """
        options: FitConfig = build(FitConfig, recipe, "fit")
        _checks.whole("n", n, 1)
        place = _arguments.device(device)
        every = _instances.instances(embeddings, logits, labels, groups)
        usual, classes = _instances.frequencies(every), every.logits.shape[1]
        learn, watch = _instances.divided(every, validation, seed)
        alike = tuples.prior(learn.labels, "uniform", classes)
        wanted = _instances.distribution("a prior", self._prior if prior is None else prior, classes, alike)
        copy = Fusion(self.plugin)
        copy._prior = self._prior
        copy._calibrate(learn, wanted, _instances.distribution("frequencies", frequencies, classes, usual))
        learn, watch = (part._replace(logits=copy.calibrated(part.logits)) for part in (learn, watch))
        copy._train(learn, watch, n, wanted, options, seed, TrainerConfig(accelerator=str(place)))
        return copy.eval()

    def _calibrate(self, learn: search.Images, prior: Tensor, frequencies: Tensor) -> None:
        """Fit what moves logits of single instances to the prior, and their temperature."""
        self.log_correction = log_correction(prior, frequencies)
        single = single_temperature(learn.logits + self.log_correction, learn.labels, prior)
        self.temperature = torch.tensor(single, dtype=torch.float64)

    def _train(
        self,
        learn: search.Images,
        watch: search.Images,
        n: int,
        prior: Tensor,
        recipe: FitConfig,
        seed: int,
        runtime: TrainerConfig,
    ) -> None:
        """Train the aggregator on tuples of some calibrated instances, and stop by those of others."""
        protocol = IID if watch.groups is None else GROUPED

        def watched() -> Tuples:
            draw = rng.generator(rng.derive(seed, "stopping"), "evaluation", "validation", protocol)
            return tuples.partition(watch.labels, n, search.STOPPING_PARTITIONS, prior, draw, watch.groups)

        task = search.task(
            SetShape(*statistics(learn.embeddings, LEAST_DEVIATION), prior.log().float()),
            learn,
            watch,
            watched,
            n=n,
            prior=prior,
            recipe=recipe,
            gradient_clip=float(runtime.gradient_clip),
            seed=seed,
            runtime=runtime,
        )
        fitted = search.fit(self.plugin, recipe, task)
        self._width = learn.embeddings.shape[1]
        self.plugin, self.aggregator, self.facts = fitted.plugin, fitted.aggregator.eval(), fitted.meta

    def _load_from_state_dict(self, state_dict: Mapping[str, Tensor], prefix: str, *rest: Any) -> None:
        """Refuse the state of a fitted aggregator where there is none to load it into."""
        held = state_dict.get(f"{prefix}log_correction")
        if self.aggregator is None and held is not None and held.numel():
            raise ConfigError(
                f"expected an aggregator that is made for {held.numel()} classes, to load a state into it, got "
                f"{self.plugin.name!r} alone; pass num_classes={held.numel()}, and embedding_dim= where it looks at "
                "embeddings, to sl.aggregator"
            )
        super()._load_from_state_dict(state_dict, prefix, *rest)


def aggregator(
    name: str | Mapping[str, Any],
    *,
    num_classes: int | None = None,
    embedding_dim: int | None = None,
    log_prior: Float[Tensor, "c"] | None = None,
    **options: Any,
) -> Fusion:
    """Return an aggregator as a module: `agg(embeddings, logits)` is the log-posterior after every instance.

    Those without parameters (`log_pool`, `mean_vote`, ...) are ready once the number of classes is known; others are to
    be `fitted`.

    Args:
        name: of an aggregator, or a mapping with `name` and its options; whatever a YAML file takes in its place.
        num_classes: number of labels, c; it need not be said if the aggregator is fitted next.
        embedding_dim: width of the embeddings, d; it need not be said if the aggregator is fitted next, nor of those
            that do not look at them.
        log_prior: `[c]`, natural log of the prior over labels, for `fitted`, too; all alike if None.
        options: options of the aggregator, such as `hidden=32`.

    Raises:
        ConfigError: an unknown aggregator or option, or no width for one that looks at embeddings.
        DataError: a number of classes or a width that is none.

    >>> agg = aggregator("log_pool", num_classes=2)
    >>> logits = torch.tensor([[[0.0, 1.0], [0.0, 1.0]]])
    >>> agg(torch.zeros(1, 2, 1), logits).exp()[0, :, 1]
    tensor([0.7311, 0.8808])
    """
    with anew():
        plugin = resolve("aggregators", {**name, **options} if isinstance(name, Mapping) else {"name": name, **options})
    made = Fusion(plugin)
    if num_classes is None and log_prior is None:
        return made
    classes = len(log_prior) if num_classes is None and log_prior is not None else num_classes
    _checks.whole("a number of classes", classes, 2)
    assert classes is not None
    given, alike = None if log_prior is None else log_prior.exp(), torch.full((classes,), 1 / classes)
    prior = _instances.distribution("a prior", given, classes, alike)
    made._prior = None if log_prior is None else prior
    made.log_correction = torch.zeros(classes)
    made._width = embedding_dim
    made.aggregator = _built(plugin, prior.log().float(), embedding_dim)
    return made


def _built(plugin: Plugin, log_prior: Tensor, width: int | None) -> Aggregator:
    """Build an aggregator for embeddings of a width; None for one that does not look at them."""
    build = load("aggregators", plugin.name).build
    if width is not None:
        _checks.whole("a width of embeddings", width, 1)
        built: Aggregator = build(plugin.config, SetShape(torch.zeros(width), torch.ones(width), log_prior))
        return built
    with torch.random.fork_rng(devices=[]):
        narrow, wide = (_built(plugin, log_prior, tried) for tried in (1, 2))
    if _sizes(narrow) != _sizes(wide):
        raise ConfigError(
            f"embedding_dim: expected the width of the embeddings, which {plugin.name} looks at, got none; pass "
            "embedding_dim=, or fit it: .fitted(embeddings, logits, labels)"
        )
    return narrow


def _sizes(module: nn.Module) -> dict[str, torch.Size]:
    """Return the shapes of parameters and buffers."""
    return {name: tensor.shape for name, tensor in [*module.named_parameters(), *module.named_buffers()]}
