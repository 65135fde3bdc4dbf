"""The sections of an experiment: frozen dataclasses with defaults, which hold values and compute nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt

from sharedlabel.config.fields import added
from sharedlabel.config.names import IID, Protocol
from sharedlabel.config.schema import Count, Fraction, Many, NonNegativeFloat, PositiveFloat, PositiveFraction


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
        schedule: `cosine` to `final_rate`, or `constant`; both after the warm-up.
        warmup: share of the steps with a linearly rising learning rate, in [0, 1].
        label_smoothing: in [0, 1].
        crop: pad by this many pixels and crop at random; 0 is off.
        flip: mirror left to right at random.
        final_rate: learning rate at the end of the `cosine`, as a share of its peak, in [0, 1].
        augment: transforms of torchvision.transforms.v2 by their names, or as mappings of `name` and options, which
            change each image on its own after crop and mirror.
        balanced: draw the images of an epoch with replacement, every class as often as any other.
        mixup: alpha of the Beta distribution of shares in which pairs of images and their labels are mixed (Zhang et
            al. 2018); 0 is off.
        ema: decay of the exponential moving average of weights and statistics, of each step, which takes their place
            at the end of a training or of a part of it (`schedule.rewind`), in [0, 1); less in the first steps. 0 is
            off.
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
    final_rate: Fraction = added(0.0)
    augment: tuple[str | dict[str, Any], ...] = added(())
    balanced: bool = added(False)
    mixup: NonNegativeFloat = added(0.0)
    ema: Annotated[float, Field(ge=0, lt=1)] = added(0.0)


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
        protocols: `iid` draws instances freely within the class, `grouped` within one group of the class, `sequence`
            takes consecutive instances of one group in its own order.
        partitions: times that the images are cut into disjoint tuples.
        prior: class prior of tuples, `uniform` or `empirical`.
        seed: seed of the partitions; the same for every training seed, so that methods are compared on the same tuples.
        groups_smaller_than_n: groups with fewer images than the largest n, and what is left of others, count at every n
            that they reach, `keep`; have no tuples, `drop`; or are an `error`. Other protocols than `iid` alone.
        classes_smaller_than_n: a class without a tuple of the largest n in one of the splits is an `error`, or leaves
            the whole experiment, `drop`: with fewer classes all accuracies are others.
        start: where tuples of `sequence` begin in their group: with its `first` instance, or anywhere at `random` where
            they fit in.
        stride: tuples of `sequence` take every so many-th instance of their group.
    """

    n: tuple[Count, ...] = (1, 2, 4, 8)
    protocols: tuple[Protocol, ...] = (IID,)
    partitions: Count = 20
    prior: Literal["uniform", "empirical"] = "uniform"
    seed: NonNegativeInt = 0
    groups_smaller_than_n: Literal["keep", "drop", "error"] = added("drop", default="keep")
    classes_smaller_than_n: Literal["error", "drop"] = added("error")
    start: Literal["first", "random"] = added("first")
    stride: Count = added(1)


@dataclass(frozen=True)
class Cut:
    """How a protocol cuts groups into tuples; what it does not ask for is as it stands here.

    Attributes:
        short: keep tuples of fewer than n instances.
        start: where consecutive instances begin, `first` or `random`.
        stride: take every so many-th instance.
    """

    short: bool = False
    start: Literal["first", "random"] = "first"
    stride: int = 1


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
class ReportConfig:
    """What the report shows.

    Args:
        examples: tuples that the recommended method gets wrong, with small pictures of their images; 0 is none.
    """

    examples: Annotated[int, Field(ge=0, le=100)] = 8


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
class RayConfig:
    """The cluster of Ray that computes a grid.

    Args:
        address: of a cluster, as `ray start` prints it, or `auto` for the one of this machine; null starts one here
            that lives as long as the run.
        gpus: that a call takes of a machine, where it computes on a GPU; shares let several calls have one GPU.
    """

    address: str | None = None
    gpus: Annotated[float, Field(gt=0, le=1024)] = 1.0


@dataclass(frozen=True)
class TrainerConfig:
    """Where and how training runs; passed on to the Lightning Trainer.

    Only `precision` and `gradient_clip` change results on purpose, and are in the keys of what they change.

    Args:
        accelerator: `auto`, `cpu`, `gpu`, ...; asking for an absent one is an error.
        devices: number of devices, or `auto`.
        strategy: Lightning strategy; with several devices `auto` means that of `ddp_spawn`, in ranks that are ready
            sooner.
        precision: Lightning precision in which backbones are trained, alone and jointly, and embed images; networks and
            features are stored in 32 bits whatever it is.
        gradient_clip: largest gradient norm for aggregators and joint training; 0 is off.
        channels_last: memory format of convolutional backbones while they are trained and embed images.
        compile: train and retrain backbones through torch.compile; `reduce-overhead` and `max-autotune` are modes of
            it, which record passes as CUDA graphs on a GPU, so that small networks do not wait for single launches.
        cudnn_benchmark: let cuDNN try which of its convolutions are the quickest for every shape; it need not choose
            the same ones in another run, so the last digits may differ from run to run.
        networks: networks of one backbone, dense or compressed by masks, of any ratio and seed, that are trained in one
            batched program, where they are ready at the same time. Quicker for small networks on a GPU, slower for
            convolutions on a CPU; it takes the memory of as many trainings. Sums are rounded in another order, so the
            last digits of results change.
        logger: `csv` or `tensorboard` log every training to the run's folder, below `logs`; `wandb` logs that of each
            network to a run of W&B of its own, where `tracking` says; `none` logs nothing.
        callbacks: what watches every training: `learning_rate_monitor`, `device_stats_monitor` (both need a logger) or
            `tqdm_progress_bar`, by name or with the options that Lightning gives it.
        checkpoint_seconds: seconds of training between two states that a killed run goes on from, written at the end of
            an epoch; null writes none.
        options: further keyword arguments of the Lightning Trainer that do not change what is computed.
    """

    accelerator: str = "auto"
    devices: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = 1
    strategy: str = "auto"
    precision: Literal["32-true", "16-mixed", "bf16-mixed", "bf16-true", "64-true"] = "32-true"
    gradient_clip: NonNegativeFloat = 1.0
    channels_last: bool = False
    compile: bool | Literal["reduce-overhead", "max-autotune"] = False
    cudnn_benchmark: bool = False
    networks: Annotated[int, Field(ge=1, le=1024)] = 1
    logger: Literal["none", "csv", "tensorboard", "wandb"] = "none"
    callbacks: tuple[str | dict[str, Any], ...] = ()
    checkpoint_seconds: NonNegativeFloat | None = 60.0
    options: dict[str, Any] = field(default_factory=dict)
