"""The configuration of a grid: frozen dataclasses, strict YAML, overrides by dotted name, canonical JSON.

The defaults are the embedded experiment on handwritten digits. No plugin's options appear here: they live beside the
plugin, and `resolve` checks them when the plugin is loaded. This module imports no torch, so `--help` is quick.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, NonNegativeInt

from sharedlabel import plugins, schema
from sharedlabel.commandline import CommandLine, to_yaml
from sharedlabel.errors import ConfigError, nearest
from sharedlabel.schema import Count, Many

PluginSpec: TypeAlias = str | dict[str, Any]
Fraction: TypeAlias = Annotated[float, Field(ge=0, le=1)]
PositiveFloat: TypeAlias = Annotated[float, Field(gt=0, le=1_000_000)]
NonNegativeFloat: TypeAlias = Annotated[float, Field(ge=0, le=1_000_000)]
PositiveFraction: TypeAlias = Annotated[float, Field(gt=0, le=1)]
TRAININGS = ("frozen", "joint", "crossfit")
_LABEL = 100  # letters
_ADDED = "added"
_KIND = "kind"


def added(before: Any, *, default: Any = dataclasses.MISSING) -> Any:
    """Return a field for an option that did not exist when artifacts were first stored.

    Args:
        before: the value that computes what was computed before; while the option has it, keys leave it out, so that
            what is stored stays in use.
        default: if another one; `before` unless given.
    """
    return field(default=before if default is dataclasses.MISSING else default, metadata={_ADDED: before})


def nested(kind: str, name: str) -> Any:
    """Return a field for an option that holds a plugin, as its name or as a mapping with its options.

    In keys it stands as that plugin does: without the options `added` that change nothing, and with its code.

    Args:
        kind: plugin folder.
        name: the default.
    """
    return field(default_factory=lambda: name, metadata={_KIND: kind})


@dataclass(frozen=True)
class SplitConfig:
    """How images are shared out. Test images come from the source's own test set where it has one.

    Args:
        backbone: share of the images outside test that trains and retrains backbones, relative to the other two.
        aggregator: share that trains aggregators; backbones never see it.
        validation: share on which everything is chosen and calibrated.
        test: share of all images, used only where the source has no test set of its own; fraction in (0, 1).
        seed: seed of the split; the same for every training seed.
        groups: `whole` keeps each group within one split; `divided` shares every group out over all splits.
        limit: keep at most this many images per class, for quick trials; 0 keeps all.
        leaks: exact copies of an image in two splits, or in two classes, are a warning, `warn`, or an `error`.
    """

    backbone: PositiveFloat = 0.5
    aggregator: PositiveFloat = 0.25
    validation: PositiveFloat = 0.25
    test: Annotated[float, Field(gt=0, lt=1)] = 0.25
    seed: NonNegativeInt = 0
    groups: Literal["whole", "divided"] = "whole"
    limit: NonNegativeInt = 0
    leaks: Literal["warn", "error"] = added("warn")


@dataclass(frozen=True)
class TrainConfig:
    """How a backbone is trained (dense) or retrained after pruning.

    Args:
        epochs: passes over the backbone split; 0 trains nothing.
        batch_size: images per step, over all devices.
        optimizer: `sgd` (Nesterov momentum) or `adamw`.
        learning_rate: peak learning rate.
        momentum: momentum of `sgd`.
        weight_decay: L2 penalty of `sgd`, decoupled decay of `adamw`.
        schedule: `cosine` to zero, or `constant`; both after the warm-up.
        warmup: share of the steps with a linearly rising learning rate, in [0, 1].
        label_smoothing: in [0, 1].
        crop: pad by this many pixels and crop at random; 0 is off.
        flip: mirror left to right at random.
    """

    epochs: Many = 20
    batch_size: Count = 64
    optimizer: Literal["sgd", "adamw"] = "adamw"
    learning_rate: PositiveFloat = 0.003
    momentum: Fraction = 0.9
    weight_decay: NonNegativeFloat = 0.0005
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup: Fraction = 0.1
    label_smoothing: Fraction = 0.0
    crop: Many = 0
    flip: bool = False


@dataclass(frozen=True)
class Schedule:
    """When a network is pruned, relative to its training; an option of every pruner.

    Args:
        when: `trained` prunes the trained network once and retrains it; `initial` prunes the network as it was
            initialised, then trains and retrains it; `iterative` prunes the trained network in rounds with training
            after each; `gradual` prunes the trained network step by step while it is retrained.
        growth: factor by which the compression ratio grows with each round of `iterative`, at least 1.01; 1.25 leaves
            80% of the parameters.
        rewind: `iterative`: share of the dense training, in [0, 1), after which weights are taken that the survivors
            of each round are set back to before the dense training is repeated; 0 is the initialisation; null sets
            nothing back and retrains.
        steps: times that `gradual` prunes; the sparsity follows the cubic curve of Zhu & Gupta (2017).
        until: share of the retraining, in (0, 1], after which `gradual` has reached the ratio.
    """

    when: Literal["trained", "initial", "iterative", "gradual"] = "trained"
    growth: Annotated[float, Field(ge=1.01)] = 1.25
    rewind: Annotated[float, Field(ge=0, lt=1)] | None = None
    steps: Count = 10
    until: PositiveFraction = 0.5


@dataclass(frozen=True)
class FitConfig:
    """How aggregators with parameters are trained: AdamW on the likelihood of every prefix, stopped early.

    Args:
        epochs: passes over the aggregator split.
        batch_size: tuples per step.
        learning_rate: peak of a cosine schedule with 10% warm-up.
        weight_decay: decoupled.
        patience: stop after this many epochs without a better validation likelihood; the best epoch is kept.
        steps: take at least so many steps: on few images, epochs and patience grow in proportion; 0 is off.
        tuples: `fresh` forms the tuples anew for every epoch; `fixed` forms them once and shuffles them.
        trials: settings of the recipe and of the aggregator's own options that are tried, the given one first; the one
            with the best validation likelihood is kept. 0 trains the given one and searches nothing; needs optuna.
    """

    epochs: Count = 60
    batch_size: Count = 64
    learning_rate: PositiveFloat = 0.003
    weight_decay: NonNegativeFloat = 0.01
    patience: Count = 15
    steps: Many = 0
    tuples: Literal["fresh", "fixed"] = added("fresh")
    trials: Many = added(0)


@dataclass(frozen=True)
class JointConfig:
    """How a pruned backbone and its aggregator are trained together through the likelihood of the whole tuple.

    Args:
        epochs: passes over the aggregator split.
        batch_size: tuples per step; the backbone sees `batch_size * max(n)` images.
        learning_rate: peak of a cosine schedule with 10% warm-up, AdamW.
        weight_decay: decoupled.
        instance_loss: weight of the cross-entropy of each single instance beside the tuple loss.
        batch_norm: `frozen` keeps the running statistics, `running` updates them.
        batches: `shuffled`, or `diverse`, which deals the tuples of every class out evenly over the batches.
        distill: weight of KL(teacher || student) between the posteriors after every prefix; the teacher is the dense
            network with an aggregator of the same kind, fitted on its frozen features. 0 is off.
        set_loss: weight of the tuple loss. With 0 and without distillation the backbone learns from single instances
            alone: the control at equal compute. The aggregator follows it by the tuple loss, whose gradient stops at
            the backbone.
    """

    epochs: Count = 3
    batch_size: Count = 16
    learning_rate: PositiveFloat = 0.0003
    weight_decay: NonNegativeFloat = 0.0005
    instance_loss: NonNegativeFloat = 0.5
    batch_norm: Literal["frozen", "running"] = "frozen"
    batches: Literal["shuffled", "diverse"] = added("shuffled")
    distill: NonNegativeFloat = added(0.0)
    set_loss: NonNegativeFloat = added(1.0)


@dataclass(frozen=True)
class CrossfitConfig:
    """How aggregators learn on every image outside validation and test, each seen by a network trained without it.

    Args:
        folds: parts of the splits `backbone` and `aggregator` together; one backbone is trained without each of them,
            beside the deployed one, which is trained on all.
        ridge: penalties to choose from when the embeddings of a fold's network are mapped to those of the deployed one,
            in units of the mean variance of an embedding's principal components; at least 1e-9, below which rounding
            decides.
    """

    folds: Annotated[int, Field(ge=2, le=1000)] = 5
    ridge: tuple[Annotated[float, Field(ge=1e-9)], ...] = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0)


@dataclass(frozen=True)
class EvaluationConfig:
    """How posteriors are scored.

    Args:
        n: tuple sizes to report; aggregators are trained at the largest.
        protocols: `iid` draws instances freely within the class, `grouped` within one group of the class.
        partitions: times that the images are cut into disjoint tuples.
        prior: class prior of tuples, `uniform` or `empirical`.
        seed: seed of the partitions; the same for every training seed, so that methods are compared on the same tuples.
        groups_smaller_than_n: groups with fewer images than the largest n have no tuples of `grouped`, `drop`, or are
            an `error`. All n are measured on prefixes of the same tuples.
        classes_smaller_than_n: a class without a tuple of the largest n in one of the splits is an `error`, or leaves
            the whole experiment, `drop`: with fewer classes all accuracies are others.
    """

    n: tuple[Count, ...] = (1, 2, 4, 8)
    protocols: tuple[Literal["iid", "grouped"], ...] = ("iid",)
    partitions: Count = 20
    prior: Literal["uniform", "empirical"] = "uniform"
    seed: NonNegativeInt = 0
    groups_smaller_than_n: Literal["drop", "error"] = added("drop")
    classes_smaller_than_n: Literal["error", "drop"] = added("error")


@dataclass(frozen=True)
class ComparisonConfig:
    """How methods are compared; the primary question is declared here, before there are results.

    Args:
        reference: aggregator that all others are compared with first; where the grid lacks it, every pair is primary.
        n: tuple size of the primary endpoint, the RI averaged over all networks; null averages over every n, too.
        margin: methods whose difference in RI or n-accuracy is shown to be within plus or minus this are equivalent.
    """

    reference: str = "log_pool"
    n: Count | None = None
    margin: PositiveFloat = 0.002


@dataclass(frozen=True)
class SweetSpotConfig:
    """Parameters of the sweet-spot rules.

    Args:
        retain: share of the dense network's RI to keep at the same n.
        budgets: dense passes per tuple.
        target: n-accuracy to reach.
        marginal: smallest gain in RI per doubling of cost that is worth paying.
        replicates: bootstrap replicates over images and seeds for the stability of each choice.
    """

    retain: PositiveFraction = 0.98
    budgets: tuple[PositiveFloat, ...] = (0.5, 1.0, 2.0)
    target: PositiveFraction = 0.95
    marginal: NonNegativeFloat = 0.02
    replicates: Count = 200


@dataclass(frozen=True)
class AdaptiveConfig:
    """When to stop looking at further instances of a tuple, up to the largest n; thresholds are fitted on validation.

    Args:
        rules: `threshold` watches the largest posterior probability, `margin` its distance from the second largest,
            `sprt` the largest posterior of the log-pool, whichever aggregator gives the label; empty is off.
        errors: nominal errors, in (0, 1): shares of wrong decisions among the tuples that reach the threshold.
    """

    rules: tuple[Literal["threshold", "margin", "sprt"], ...] = ("threshold",)
    errors: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (0.1, 0.05, 0.02, 0.01)


@dataclass(frozen=True)
class LatencyConfig:
    """How the time of a network is measured, in turns with the dense network, in 32-bit floats.

    Args:
        batches: images per batch; each is measured on its own.
        modes: `eager`, and `compiled` through torch.compile: about a minute for every new shape of network and batch.
        devices: `trainer` is the device that trains; `cpu` measures there (too).
        repeats: timed passes of each network at most.
        seconds: time for the passes of each network, after which no further one starts; there are at least three.
    """

    batches: tuple[Count, ...] = (1, 32, 256)
    modes: tuple[Literal["eager", "compiled"], ...] = ("eager",)
    devices: tuple[Literal["trainer", "cpu"], ...] = ("trainer",)
    repeats: Count = 30
    seconds: PositiveFloat = 1.0


@dataclass(frozen=True)
class MarginConfig:
    """How many weights of each layer can go before the output of the dense network moves by epsilon.

    Args:
        epsilons: allowed distance of the logits, as shares of their mean norm on validation images; empty is off.
        alpha: exponent, in (0, 1), of the asymptotic count floor(D ** (1 - alpha)) for D weights.
        inputs: validation images on which the distance is measured; all of them if there are fewer.
    """

    epsilons: tuple[PositiveFloat, ...] = (0.1,)
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.5
    inputs: Count = 256


@dataclass(frozen=True)
class TrainerOptions:
    """Trainer options that decide how a run is watched or where it runs, not what it computes: no key holds them.

    Attributes:
        barebones: as Lightning's Trainer says, likewise all others; null leaves it to Lightning.
    """

    barebones: bool | None = None
    benchmark: bool | None = None
    detect_anomaly: bool | None = None
    enable_model_summary: bool | None = None
    enable_progress_bar: bool | None = None
    num_nodes: Count | None = None
    profiler: Literal["simple", "advanced", "pytorch"] | None = None


@dataclass(frozen=True)
class TrainerConfig:
    """Where and how training runs; passed on to the Lightning Trainer. Only `precision` can change results on purpose.

    Args:
        accelerator: `auto`, `cpu`, `gpu`, ...; asking for an absent one is an error.
        devices: number of devices, or `auto`.
        strategy: Lightning strategy; with several devices `auto` means `ddp_spawn`, which suits a grid in one process.
        precision: Lightning precision.
        gradient_clip: largest gradient norm for aggregators and joint training; 0 is off.
        channels_last: memory format of convolutional backbones while training.
        compile: train and retrain backbones through torch.compile.
        logger: `csv` or `tensorboard` log every training to the run's folder, below `logs`; `none` logs nothing.
        callbacks: what watches every training: `learning_rate_monitor`, `device_stats_monitor` (both need a logger) or
            `tqdm_progress_bar`, by name or with the options that Lightning gives it.
        checkpoint_seconds: seconds of training between two states that a killed run goes on from, written at the end of
            an epoch; null writes none.
        options: further keyword arguments of the Lightning Trainer that do not change what is computed.
    """

    accelerator: str = "auto"
    devices: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = 1
    strategy: str = "auto"
    precision: Literal["32-true", "16-mixed", "bf16-mixed", "16-true", "bf16-true", "64-true"] = "32-true"
    gradient_clip: NonNegativeFloat = 1.0
    channels_last: bool = False
    compile: bool = False
    logger: Literal["none", "csv", "tensorboard"] = "none"
    callbacks: tuple[PluginSpec, ...] = ()
    checkpoint_seconds: NonNegativeFloat | None = 60.0
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Experiment:
    """A grid of cells (backbone, pruner, ratio, aggregator, seed) on one data set. Every list is an axis.

    Args:
        name: name of the run, used for its folder and its W&B group.
        data: a data set, by name or with its options.
        backbones: backbones, each by name or with its options; `label` renames one in tables.
        pruners: compression methods, likewise; the dense network at ratio 1 is always included.
        ratios: compression ratios over all parameters, each at least 1.
        aggregators: set aggregators, likewise.
        training: `frozen` trains aggregators on fixed features of the aggregator split, `joint` goes on to train both
            together, `crossfit` trains backbones and aggregators on both splits, by cross-fitting; a mapping
            `{name: joint, label: ..., ...}` with options of `joint` that it changes is one more recipe.
        seeds: training seeds.
        split: how images are shared out.
        dense: training of the dense backbone.
        retrain: retraining after pruning; the dense network gets the same.
        fit: training of aggregators.
        joint: joint training, where an entry of `training` says nothing else.
        crossfit: cross-fitting.
        evaluation: tuples and protocols.
        comparison: the primary endpoint, the reference and the margin of comparisons.
        sweet_spot: the rules' parameters.
        adaptive: adaptive numbers of instances.
        latency: measurements of time and memory.
        margin: the error margin of each layer.
        trainer: devices, precision and other Trainer options.
        tracking: W&B `online`, `offline`, `none`, or `auto`: online with an API key, else offline.
        project: W&B project.
        output: folder of reports and of the artifact store.
        data_root: folder of downloads and decoded images.
    """

    name: str = "digits"
    data: PluginSpec = "digits"
    backbones: tuple[PluginSpec, ...] = field(
        default_factory=lambda: ({"name": "mlp", "label": "mlp", "widths": [512, 256]},)
    )
    pruners: tuple[PluginSpec, ...] = ("magnitude", "unit", "random")
    ratios: tuple[Annotated[float, Field(ge=1)], ...] = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
    aggregators: tuple[PluginSpec, ...] = (
        "mean_vote",
        "majority_vote",
        "log_pool",
        "tempered_log_pool",
        "attention",
        "lstm",
        "residual_lstm",
    )
    training: tuple[PluginSpec, ...] = ("frozen",)
    seeds: tuple[NonNegativeInt, ...] = (0,)
    split: SplitConfig = SplitConfig()
    dense: TrainConfig = TrainConfig()
    retrain: TrainConfig = TrainConfig(epochs=10, learning_rate=0.001)
    fit: FitConfig = FitConfig()
    joint: JointConfig = JointConfig()
    crossfit: CrossfitConfig = CrossfitConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    comparison: ComparisonConfig = ComparisonConfig()
    sweet_spot: SweetSpotConfig = SweetSpotConfig()
    adaptive: AdaptiveConfig = AdaptiveConfig()
    latency: LatencyConfig = LatencyConfig()
    margin: MarginConfig = MarginConfig()
    trainer: TrainerConfig = TrainerConfig()
    tracking: Literal["auto", "online", "offline", "none"] = "auto"
    project: str = "sharedlabel"
    output: str = "runs"
    data_root: str = "data"


@dataclass(frozen=True)
class Plugin:
    """A plugin with its checked options.

    Attributes:
        kind: plugin folder.
        name: module name.
        label: what tables call it; not part of any key.
        config: an instance of the plugin's own `Config`.
        schedule: when a pruner prunes; None for other kinds.
    """

    kind: str
    name: str
    label: str
    config: Any
    schedule: Schedule | None = None

    def payload(self) -> dict[str, Any]:
        """Return what it can be made from again: the name, every option and the schedule."""
        timing = {} if self.schedule is None else {"schedule": dataclasses.asdict(self.schedule)}
        return {"name": self.name, **dataclasses.asdict(self.config), **timing}

    def key(self) -> dict[str, Any]:
        """Return what artifacts depend on: the payload without the options `added` that change nothing."""
        timing = {} if self.schedule is None else {"schedule": _options(self.schedule)}
        return {"name": self.name, **_options(self.config), **timing}


@dataclass(frozen=True)
class Training:
    """An entry of the axis `training`, checked.

    Attributes:
        name: kind of training, one of `TRAININGS`.
        label: what tables call it; not part of any key.
        joint: the recipe of joint training; None for other kinds.
    """

    name: str
    label: str
    joint: JointConfig | None = None


def command_line(program: str = "train") -> CommandLine:
    """Return the command line of an experiment: `--config FILE` and every option by its dotted name.

    Args:
        program: `train`, or `evaluate`, which plans nothing.
    """
    about = {
        "train": "Train, prune, aggregate and evaluate a grid; then report the sweet spot of compression.",
        "evaluate": "Report the finished cells of a grid, without computing any other.",
    }
    switches = {
        "plan": "print which cells are done, which are missing and what they cost; run nothing",
        "fail-fast": "compute nothing more once a cell has failed; report what is done",
    }
    given = switches if program == "train" else {}
    return CommandLine(Experiment, ("data",), given, f"python -m sharedlabel.{program}", about[program])


def parse(arguments: Sequence[str] | None, program: str = "train") -> tuple[Experiment, argparse.Namespace]:
    """Parse a command line into an experiment and the remaining switches.

    Args:
        arguments: the command line, or None for that of this process.
        program: as for `command_line`.

    Raises:
        ConfigError: unknown key (the nearest valid one is named), wrong type, value out of range, unreadable file.
        SystemExit: help or the configuration was asked for, and printed.
    """
    values, switches = command_line(program).parse(arguments)
    experiment = check(schema.read(Experiment, values))
    if switches.print_config:
        print(to_yaml(experiment), end="")
        raise SystemExit(0)
    return experiment, switches


def from_yaml(path: Path) -> Experiment:
    """Read an experiment from a YAML file."""
    return parse([f"--config={path}"])[0]


def check(experiment: Experiment) -> Experiment:
    """Check what types alone cannot express; return the experiment.

    Raises:
        ConfigError: an empty axis, a repeated value, or names that nothing can bear.
    """
    for axis in ("backbones", "pruners", "ratios", "aggregators", "training", "seeds"):
        _check_axis(axis, getattr(experiment, axis))
    _check_trainer(experiment.trainer)
    if max(experiment.ratios) > 1 and all(_name(spec) == "none" for spec in experiment.pruners):
        raise ConfigError(f"ratios: got {max(experiment.ratios):g} but pruners lists none that compresses; add one")
    trainings(experiment)
    _check_axis("crossfit.ridge", experiment.crossfit.ridge)
    _check_axis("evaluation.n", experiment.evaluation.n)
    _check_axis("evaluation.protocols", experiment.evaluation.protocols)
    for axis in ("batches", "modes", "devices"):
        _check_axis(f"latency.{axis}", getattr(experiment.latency, axis))
    for axis, values in (
        ("margin.epsilons", experiment.margin.epsilons),
        ("sweet_spot.budgets", experiment.sweet_spot.budgets),
    ):
        if values:
            _check_axis(axis, values)
    if experiment.adaptive.rules:
        _check_axis("adaptive.rules", experiment.adaptive.rules)
        _check_axis("adaptive.errors", experiment.adaptive.errors)
    _check_names(experiment)
    return experiment


def _check_names(experiment: Experiment) -> None:
    """Refuse names that a file system or W&B does not take, before there is anything to lose."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", experiment.name) or experiment.name == "store":
        raise ConfigError(
            f"name: expected at most 100 letters, digits, '.', '_' and '-', but not 'store', got "
            f"{schema.shown(experiment.name)}; it names a folder beside the store"
        )
    if not re.fullmatch(r"[^/\\#?%:]{1,128}", experiment.project):
        raise ConfigError(
            f"project: expected 1 to 128 characters and none of / \\ # ? % :, got {schema.shown(experiment.project)}; "
            "W&B takes no other names"
        )
    for place in ("output", "data_root"):
        if not getattr(experiment, place):
            raise ConfigError(
                f"{place}: expected the path of a folder, got none; the default is {getattr(Experiment, place)}"
            )


def _check_trainer(trainer: TrainerConfig) -> None:
    known = [entry.name for entry in dataclasses.fields(TrainerOptions)]
    for option in trainer.options:
        if option not in known:
            raise ConfigError(
                f"trainer.options: unknown option {option!r}, which can change what is computed or has an option of "
                f"its own, got {schema.shown(trainer.options[option])}; {nearest(option, known)}"
            )
    try:
        schema.read(TrainerOptions, trainer.options)
    except ConfigError as error:
        raise ConfigError(f"trainer.options: {error}") from error


def resolve(kind: str, spec: PluginSpec) -> Plugin:
    """Load a plugin and check its options.

    Args:
        kind: plugin folder.
        spec: its name, or a mapping with `name`, an optional `label`, the plugin's options and a pruner's `schedule`.

    Raises:
        ConfigError: unknown plugin or option (the nearest valid one is named), or a value of the wrong type.
    """
    options = {"name": spec} if isinstance(spec, str) else dict(spec)
    name, label = options.pop("name", None), _given_label(options.pop("label", None), kind)
    if not isinstance(name, str):
        raise ConfigError(
            f"{kind}: expected a plugin name or a mapping with 'name', got {schema.shown(spec)}; "
            f"available: {', '.join(plugins.available(kind))}"
        )
    module, where = plugins.load(kind, name), f"{kind.removesuffix('s')} {name!r}"
    schedule = usual = None
    if kind == "pruners":
        usual = getattr(module, "SCHEDULE", Schedule())
        schedule = _schedule(usual, options.pop("schedule", {}), where)
    config = build(module.Config, options, where)
    shown = label if label is not None else _label(name, config, schedule, usual)
    return Plugin(kind, name, shown, config, schedule)


def remade(kind: str, stored: Mapping[str, Any]) -> Plugin:
    """Make a plugin again from what an artifact says it was; options `added` since are as if they did not exist.

    Args:
        kind: plugin folder.
        stored: its key or payload.

    Raises:
        ConfigError: no plugin of today is like it.
    """
    options = _before(plugins.load(kind, stored["name"]).Config) | dict(stored)
    if "schedule" in options:
        options["schedule"] = _before(Schedule) | dict(options["schedule"])
    for entry in dataclasses.fields(plugins.load(kind, stored["name"]).Config):
        if _KIND in entry.metadata and isinstance(options.get(entry.name), Mapping):
            options[entry.name] = remade(entry.metadata[_KIND], options[entry.name]).payload()
    return resolve(kind, options)


def _before(config_class: type[Any]) -> dict[str, Any]:
    """Return the options that were `added`, with the values that compute what was computed before."""
    return {
        entry.name: entry.metadata[_ADDED] for entry in dataclasses.fields(config_class) if _ADDED in entry.metadata
    }


def _given_label(label: Any, where: str) -> str | None:
    """Return a label as text; numbers such as 16 stand for themselves in YAML."""
    text = str(label) if isinstance(label, int | float) and not isinstance(label, bool) else label
    if text is not None and not isinstance(text, str):
        raise ConfigError(f"{where}: expected a label in words, got {schema.shown(label)}; put it in quotes")
    if text is not None and not (text.strip() and len(text) <= _LABEL and text.isprintable()):
        raise ConfigError(
            f"{where}: expected a label of 1 to {_LABEL} letters in one line, got {schema.shown(text)}; shorten it"
        )
    return text


def trainings(experiment: Experiment) -> tuple[Training, ...]:
    """Return the entries of the axis `training` with their recipes.

    Raises:
        ConfigError: unknown kind or option, a recipe that trains nothing, or entries that tables could not tell apart.
    """
    found = tuple(_training(spec, experiment.joint) for spec in experiment.training)
    recipes: dict[str, str] = {}
    for entry in found:
        twin = recipes.setdefault(canonical([entry.name, entry.joint]), entry.label)
        if twin != entry.label:
            raise ConfigError(f"training: {twin!r} and {entry.label!r} are the same recipe; remove one")
        if sum(other.label == entry.label for other in found) > 1:
            raise ConfigError(f"training: two entries are called {entry.label!r} in tables; give one a `label`")
    return found


def _training(spec: PluginSpec, usual: JointConfig) -> Training:
    """Check one entry; options that it leaves out are those of the section of its kind."""
    options = {"name": spec} if isinstance(spec, str) else dict(spec)
    name, label = options.pop("name", None), _given_label(options.pop("label", None), "training")
    if not isinstance(name, str) or name not in TRAININGS:
        raise ConfigError(f"training: unknown kind {name!r}; {nearest(str(name), TRAININGS)}")
    if label in TRAININGS and label != name:
        raise ConfigError(f"training: the label {label!r} has a meaning of its own; choose another")
    if name != "joint":
        if options or label not in (None, name):
            raise ConfigError(f"training: {name!r} takes no options and no other label, got {spec!r}; leave them out")
        return Training(name, name)
    recipe = build(JointConfig, {**dataclasses.asdict(usual), **options}, "training 'joint'")
    if not (recipe.set_loss or recipe.instance_loss or recipe.distill):
        raise ConfigError(
            "training 'joint': set_loss, instance_loss and distill are all 0, which trains nothing; raise one of them"
        )
    shown = label if label is not None else _described(name, ((recipe, usual),))
    return Training(name, shown, recipe)


_TIMING = {"iterative": ("growth", "rewind"), "gradual": ("steps", "until")}


def _schedule(usual: Schedule, given: Any, where: str) -> Schedule:
    """Override a pruner's usual schedule; options that would have no effect are refused."""
    options = {"when": given} if isinstance(given, str) else given
    if not isinstance(options, Mapping):
        raise ConfigError(f"{where}: schedule: expected a word or a mapping, got {given!r}; --help explains `Schedule`")
    base = dataclasses.asdict(usual if options.get("when", usual.when) == usual.when else Schedule())
    found: Schedule = build(Schedule, {**base, **options}, f"{where}: schedule")
    allowed = ("when", *_TIMING.get(found.when, ()))
    for option in options:
        if option not in allowed and getattr(found, option) != getattr(Schedule(), option):
            raise ConfigError(
                f"{where}: schedule: {option!r} has no effect when the network is pruned {found.when!r}; "
                f"remove it, or choose a schedule that uses it (iterative: growth, rewind; gradual: steps, until)"
            )
    return found


def build(config_class: type[Any], given: Mapping[str, Any], where: str) -> Any:
    """Build a frozen dataclass from a mapping, strictly.

    Raises:
        ConfigError: unknown key, wrong type or value out of bounds; `where` starts the message.
    """
    try:
        return schema.read(config_class, given)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def canonical(value: Any) -> str:
    """Serialise a value to canonical JSON: sorted keys, no white space, dataclasses with all their defaults.

    Options that are `added` are left out while they compute what was computed without them.

    >>> canonical({"b": 1, "a": (1.0, None)})
    '{"a":[1.0,null],"b":1}'
    """

    def encode(item: Any) -> Any:
        if isinstance(item, Plugin):
            return item.key()
        if dataclasses.is_dataclass(item) and not isinstance(item, type):
            return _options(item)
        raise TypeError(f"cannot serialise {type(item).__name__} into a key")

    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, default=encode)


def _options(config: Any) -> dict[str, Any]:
    """Return the options of a configuration by name, without those `added` that change nothing."""
    found, absent = {}, _before(type(config))
    for entry in dataclasses.fields(config):
        value = getattr(config, entry.name)
        if entry.name not in absent or value != absent[entry.name]:
            found[entry.name] = _held(entry, value).key() if _KIND in entry.metadata else value
    return found


def _held(entry: dataclasses.Field[Any], value: PluginSpec) -> Plugin:
    """Return the plugin that a `nested` option holds."""
    return _resolved(entry.metadata[_KIND], json.dumps(value))


@functools.cache
def _resolved(kind: str, spec: str) -> Plugin:
    return resolve(kind, json.loads(spec))


def plugins_in(config: Any) -> set[tuple[str, str]]:
    """Return the plugins that a configuration names, by kind and name; those that options of plugins hold, too."""
    if isinstance(config, Plugin):
        return {(config.kind, config.name)} | plugins_in(config.config)
    found: set[tuple[str, str]] = set()
    for entry in dataclasses.fields(config) if dataclasses.is_dataclass(config) else ():
        value = getattr(config, entry.name)
        found |= plugins_in(_held(entry, value) if _KIND in entry.metadata else value)
    return found


def digest(value: Any) -> str:
    """Return the sha256 of a value's canonical JSON."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def _name(spec: PluginSpec) -> Any:
    return spec if isinstance(spec, str) else spec.get("name")


def _check_axis(axis: str, values: Sequence[Any]) -> None:
    if not values:
        raise ConfigError(f"{axis}: expected at least one value, got none; list one, or leave the option out")
    seen: set[str] = set()
    for value in values:
        text = canonical(value)
        if text in seen:
            raise ConfigError(f"{axis}: expected each value once, got {schema.shown(value)} twice; remove one")
        seen.add(text)


def _label(name: str, config: Any, schedule: Schedule | None, usual: Schedule | None) -> str:
    """Name a plugin by what differs from its defaults: `magnitude(scope=layer, when=initial)`."""
    return _described(name, ((config, type(config)()), (schedule, usual)))


def _described(name: str, against: Sequence[tuple[Any, Any]]) -> str:
    """Name something by the options in which it differs from others."""
    changed = [
        f"{item.name}={getattr(found, item.name)}"
        for found, default in against
        if found is not None
        for item in dataclasses.fields(found)
        if getattr(found, item.name) != getattr(default, item.name)
    ]
    return f"{name}({', '.join(changed)})" if changed else name
