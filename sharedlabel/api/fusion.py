"""`sharedlabel.aggregator`: from what a network saw of each instance to one posterior, as a module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from sharedlabel import rng
from sharedlabel.aggregators._base import LEAST_DEVIATION, Aggregator, statistics
from sharedlabel.config import Plugin, anew, build, resolve
from sharedlabel.config.names import GROUPED, IID
from sharedlabel.config.sections import FitConfig, SplitConfig, TrainerConfig
from sharedlabel.data import splits, tuples
from sharedlabel.errors import ConfigError, DataError
from sharedlabel.metrics import _checks
from sharedlabel.metrics.calibration import calibrate_logits, log_correction, single_temperature
from sharedlabel.plugins import load
from sharedlabel.training import search
from sharedlabel.types import SetShape


class Fusion(nn.Module):
    """An aggregator that takes embeddings and logits as a network makes them.

    Made by `aggregator`. It calibrates the logits of single instances, then aggregates: what a grid does, in one module
    with buffers, to be moved, copied, pickled and trained like any other.

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
        accelerator: str = "cpu",
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
            prior: `[c]`, probability of each label for tuples; all alike if None.
            frequencies: `[c]`, share of each label among what the network was trained on; that among `labels` if None.
            seed: of everything random.
            accelerator: where to train: `cpu`, `gpu`, or `auto`. The result is on the CPU.
            recipe: options of the training, such as `epochs=20`, as of the section `fit` of an experiment.

        Raises:
            ConfigError: an unknown option.
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
        learn = _images(embeddings, logits, labels, groups)
        classes = learn.logits.shape[1]
        usual = tuples.prior(labels, "empirical", classes)
        if bool((usual == 0).any()):
            missing = int((usual == 0).nonzero()[0])
            raise DataError(
                f"expected instances of all {classes} labels that logits have scores of, got none of label {missing}; "
                "add some, or leave its scores out"
            )
        if validation is None:
            watched_ones = held_out(labels, groups, seed)
            learn, watch = some(learn, ~watched_ones), some(learn, watched_ones)
        else:
            if len(validation) not in (3, 4):
                raise DataError(
                    "validation: expected (embeddings, logits, labels), or these and groups, got "
                    f"{len(validation)} tensors; pass them in this order"
                )
            watch = _images(*validation)
            _checks.array("validation embeddings", watch.embeddings, "m d", d=learn.embeddings.shape[1])
            _checks.array("validation logits", watch.logits, "m c", c=classes)
        if (learn.groups is None) != (watch.groups is None):
            raise DataError("expected groups of validation where the others have some, got one without; pass both")
        wanted = _distribution("a prior", prior, classes, tuples.prior(learn.labels, "uniform", classes))
        seen = _distribution("frequencies", frequencies, classes, usual)
        copy = Fusion(self.plugin)
        copy.log_correction = log_correction(wanted, seen)
        single = single_temperature(learn.logits + copy.log_correction, learn.labels, wanted)
        copy.temperature = torch.tensor(single, dtype=torch.float64)
        learn, watch = (images._replace(logits=copy.calibrated(images.logits)) for images in (learn, watch))
        protocol = IID if groups is None else GROUPED

        def watched() -> Any:
            draw = rng.generator(rng.derive(seed, "stopping"), "evaluation", "validation", protocol)
            return tuples.partition(watch.labels, n, search.STOPPING_PARTITIONS, wanted, draw, watch.groups)

        runtime = TrainerConfig(accelerator=accelerator)
        task = search.task(
            SetShape(*statistics(learn.embeddings, LEAST_DEVIATION), wanted.log().float()),
            learn,
            watch,
            watched,
            n=n,
            prior=wanted,
            recipe=options,
            gradient_clip=float(runtime.gradient_clip),
            seed=seed,
            runtime=runtime,
        )
        fitted = search.fit(self.plugin, options, task)
        copy._width = learn.embeddings.shape[1]
        copy.plugin, copy.aggregator, copy.facts = fitted.plugin, fitted.aggregator.eval(), fitted.meta
        return copy.eval()


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
        log_prior: `[c]`, natural log of the prior over labels; all alike if None.
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
        plugin = resolve("aggregators", {**({"name": name} if isinstance(name, str) else name), **options})
    made = Fusion(plugin)
    if num_classes is None and log_prior is None:
        return made
    classes = len(log_prior) if num_classes is None and log_prior is not None else num_classes
    _checks.whole("a number of classes", classes, 2)
    assert classes is not None
    prior = _distribution(
        "a prior", None if log_prior is None else log_prior.exp(), classes, torch.full((classes,), 1 / classes)
    )
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


def _images(embeddings: Tensor, logits: Tensor, labels: Tensor, groups: Tensor | None = None) -> search.Images:
    """Check what belongs together."""
    _checks.array("embeddings", embeddings, "m d")
    _checks.array("logits", logits, "m c", m=len(embeddings))
    _checks.labels(labels, len(logits), logits.shape[1])
    if groups is not None:
        _checks.tensor("groups", groups, "m")
        if groups.dtype != torch.int64 or groups.shape != labels.shape:
            kind = str(groups.dtype).removeprefix("torch.")
            raise DataError(f"expected groups as int64 [{len(labels)}], got {kind} {list(groups.shape)}; number them")
    return search.Images(embeddings.float(), logits.float(), labels, groups)


def held_out(
    labels: Int64[Tensor, "m"], groups: Int64[Tensor, "m"] | None, seed: int, parts: int = 4
) -> Bool[Tensor, "m"]:
    """Mark one part in so many of the instances, each class in proportion, groups whole.

    Args:
        labels: class index of each; all of 0 to the largest occur.
        groups: group of each, or None.
        seed: of the division.
        parts: how many there are.

    Raises:
        DataError: a class has too few instances, or groups.
    """
    part = splits.folded(labels, groups, parts, SplitConfig(seed=seed))
    if splits.missing(labels, part, parts, int(labels.max()) + 1):
        raise DataError(
            f"validation: expected at least {parts} instances, or groups, of every label to hold some out, got fewer; "
            "add some, or pass validation=(embeddings, logits, labels)"
        )
    return part == 0


def some(images: search.Images, rows: Tensor) -> search.Images:
    """Return some of the instances."""
    return search.Images(*(None if part is None else part[rows] for part in images))  # type: ignore[arg-type]


def _distribution(name: str, given: Tensor | None, classes: int, usual: Tensor) -> Tensor:
    """Return probabilities of the classes, in float64, each above 0."""
    chosen = usual if given is None else given
    _checks.shape(name, chosen, "c", c=classes)
    _checks.positive(f"probabilities in {name}", chosen)
    _checks.distributions(name, chosen, axes=1)
    wide = chosen.double()
    return wide / wide.sum()
