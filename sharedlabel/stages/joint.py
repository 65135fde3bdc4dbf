"""`joint`: train the pruned backbone and its fitted aggregator together on tuples of images of the aggregator split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from sharedlabel import rng
from sharedlabel.aggregators import _contract
from sharedlabel.aggregators._base import Aggregator
from sharedlabel.backbones._restore import state
from sharedlabel.config import Plugin
from sharedlabel.config.sections import Cut, JointConfig, TrainerConfig
from sharedlabel.metrics.calibration import calibrate_logits
from sharedlabel.scoring.data import Data
from sharedlabel.stages import _read
from sharedlabel.stages._restore import LEARNED, searched
from sharedlabel.store import Artifact, Output
from sharedlabel.training.devices import device
from sharedlabel.training.embedding import accuracy
from sharedlabel.training.fit import fit, kind
from sharedlabel.training.joint import SharedLabelTraining
from sharedlabel.training.loaders import Chosen, Lookup, TupleLoader
from sharedlabel.training.resident import resident

VERSION = 1
TEACHER = ("teacher_features", "teacher_calibrate", "teacher_aggregate")  # further inputs of a call that distils


@dataclass(frozen=True)
class Config:
    """What a call depends on."""

    backbone: Plugin
    aggregator: Plugin
    joint: JointConfig
    gradient_clip: float
    n_max: int
    protocol: str
    precision: str
    seed: int
    cut: Cut = Cut()  # noqa: RUF009 (frozen)


def run(config: Config, data: Data, inputs: Mapping[str, Artifact], runtime: TrainerConfig) -> Output:
    """Train both together, by the likelihood of the whole tuple."""
    backbone = _read.backbone(config.backbone, data, inputs["backbone"])
    aggregator = _read.aggregator(config.aggregator, data, inputs["calibrate"], inputs["aggregate"])
    correction = inputs["calibrate"].tensors()["log_correction"]
    home = device(runtime) if runtime.devices == 1 else torch.device("cpu")
    sources: tuple[Lookup, ...] = (Chosen(resident(data.dataset.images, home), data.splits["aggregator"]),)
    if config.joint.distill:
        sources += (teacher(config.aggregator, data, inputs, home),)
    with rng.seeded(config.seed, "joint"):
        module = kind(SharedLabelTraining, runtime).of(
            backbone, aggregator, config.joint, inputs["calibrate"].meta["temperature"], correction
        )
        loader = TupleLoader(
            sources,
            data.labels("aggregator"),
            config.n_max,
            config.joint.batch_size,
            data.prior,
            rng.derive(config.seed, "joint"),
            data.groups("aggregator", config.protocol),
            batches=config.joint.batches,
            form=data.form("aggregator", config.protocol, config.cut),
        )
        fit(module, loader, runtime, config.joint.epochs, config.gradient_clip)
    with torch.no_grad():  # tuples of images [t n C H W]
        embeddings, logits = module.instances(next(iter(loader))[0][: _contract.TUPLES].cpu())
        _contract.check(aggregator, embeddings, calibrate_logits(logits, correction, module.temperature))
    learned = {f"{LEARNED}{name}": tensor for name, tensor in aggregator.state_dict().items()}
    return Output(
        {**state(backbone), **learned},
        {
            "losses": module.losses(),
            "validation_accuracy": accuracy(backbone, data, runtime),
            **searched(inputs["aggregate"]),
        },
    )


def work(config: Config, data: Data) -> int:
    """Count images times epochs."""
    return config.joint.epochs * len(data.splits["aggregator"])


class _Posteriors:
    """What an aggregator says about tuples of a split, from the stored features of its images, on a device."""

    def __init__(self, aggregator: Aggregator, sources: tuple[Tensor, Tensor], device: torch.device) -> None:
        self.aggregator, self.device = aggregator.to(device), device
        self.sources = [source.to(device) for source in sources]

    @torch.no_grad()
    def __getitem__(self, index: Tensor) -> Tensor:
        posterior: Tensor = self.aggregator(*(source[index] for source in self.sources))
        return posterior


def teacher(plugin: Plugin, data: Data, inputs: Mapping[str, Artifact], home: torch.device) -> _Posteriors:
    """Return the posteriors of the dense network; joint training changes no image, so its stored features serve."""
    features, calibration, fitted = (inputs[role] for role in TEACHER)
    sources = _read.calibrated(features, calibration, "aggregator")
    return _Posteriors(_read.aggregator(plugin, data, calibration, fitted), sources, home)
