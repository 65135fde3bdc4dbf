"""An experiment: a grid on one data set. The defaults are the embedded experiment on handwritten digits."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt

from sharedlabel.config.names import FROZEN
from sharedlabel.config.plugins import PluginSpec
from sharedlabel.config.sections import (
    AdaptiveConfig,
    ComparisonConfig,
    CrossfitConfig,
    EvaluationConfig,
    FitConfig,
    JointConfig,
    LatencyConfig,
    MarginConfig,
    RayConfig,
    ReportConfig,
    SplitConfig,
    SweetSpotConfig,
    TrainConfig,
    TrainerConfig,
)


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
        report: what the report shows.
        trainer: devices, precision and other Trainer options.
        executor: `local` computes in processes of this machine, `ray` on a cluster of Ray.
        ray: the cluster.
        workers: processes of `local` that compute calls at the same time; `auto` is one for each GPU, or as many as the
            cores and the memory allow, or what the environment variable SHAREDLABEL_WORKERS says; 1 computes in the
            process of the command. Results are the same, bit for bit.
        threads: that each worker computes with on the CPU. More are quicker where few large networks are trained; sums
            are rounded in another order, so the last digits of results change.
        tracking: W&B `online`, `offline`, `none`, or `auto`: online with an API key, else offline.
        project: W&B project.
        entity: user or team of W&B that the project belongs to; your default one if it is left out.
        output: folder of reports, and of the artifact store if `store` says nothing else.
        store: folder of the artifacts, or a URL such as `s3://bucket/prefix`; `store` in `output` if it is left out.
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
    training: tuple[PluginSpec, ...] = (FROZEN,)
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
    report: ReportConfig = ReportConfig()
    trainer: TrainerConfig = TrainerConfig()
    executor: Literal["local", "ray"] = "local"
    ray: RayConfig = RayConfig()
    workers: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = "auto"
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    tracking: Literal["auto", "online", "offline", "none"] = "auto"
    project: str = "sharedlabel"
    entity: str = ""
    output: str = "runs"
    store: str = ""
    data_root: str = "data"
