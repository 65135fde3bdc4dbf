"""`latency`: measure time and memory of the pruned backbone; a stage of its own, to be measured on a quiet machine."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from sharedlabel.config import Experiment, Plugin
from sharedlabel.config.sections import LatencyConfig, TrainerConfig
from sharedlabel.measurements import counts, timing
from sharedlabel.measurements import latency as measure
from sharedlabel.records import MeasuredTime
from sharedlabel.records.measurements import Latency
from sharedlabel.scoring.data import Data
from sharedlabel.stages import _read
from sharedlabel.stages._base import Finished, NetworkSetting
from sharedlabel.store import Artifact, Output
from sharedlabel.training.devices import device

VERSION = 3
LEAF, LAST, INPUTS, TABLE = "network", True, ("reference", "backbone"), "latencies"
_SHOWN_BATCH = 32  # of the measurement that rows show


@dataclass(frozen=True)
class Config:
    """What a call depends on, besides the machine."""

    backbone: Plugin
    latency: LatencyConfig


def configure(experiment: Experiment, setting: NetworkSetting) -> Config:
    """Return what a call depends on."""
    return Config(setting.backbone, experiment.latency)


def run(config: Config, data: Data, inputs: Mapping[str, Artifact], runtime: TrainerConfig) -> Output:
    """Measure a network in turns with the dense one, the `reference`, unless it is the dense one.

    Nothing else of a run is at work meanwhile.
    """
    load = timing.load()
    backbone = _read.backbone(config.backbone, data, inputs["backbone"])
    same = inputs["reference"].key == inputs["backbone"].key
    dense = None if same else _read.backbone(config.backbone, data, inputs["reference"])
    shape, options = data.dataset.image_shape, config.latency
    places = {"trainer": device(runtime), "cpu": torch.device("cpu")}
    measured = []
    for place in dict.fromkeys(places[name] for name in options.devices):
        memory = {batch: measure.peak_memory(backbone, shape, batch, place) for batch in options.batches}
        for mode, batch in itertools.product(options.modes, options.batches):
            taken = measure.latency(
                backbone,
                shape,
                batch,
                place,
                mode=mode,
                reference=dense,
                repeats=options.repeats,
                seconds=float(options.seconds),
            )
            peak = memory[batch] if mode == "eager" else None
            measured.append(dataclasses.asdict(taken) | {"peak_memory_bytes": peak, "load": load})
    return Output({}, {"latencies": measured, "file_bytes": dataclasses.asdict(counts.file_bytes(backbone))})


def columns(facts: Mapping[str, Any] | None) -> dict[str, Any]:
    """Show the usual measurement; None in every column while there is none."""
    if facts is None:
        return dict.fromkeys(field.name for field in dataclasses.fields(MeasuredTime))
    usual = _usual(facts["latencies"])
    return {
        "measured_latency_ms": usual["median_ms"],
        "measured_latency_batch": usual["batch"],
        "measured_threads": usual["threads"],
        "measured_device": usual["device"],
        "measured_contended": timing.contended(usual["contention"]),
    }


def _usual(measured: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Pick the measurement that rows show: the first device, eager, 32 images, else the largest batch."""
    return min(
        (one for one in measured if one["device"] == measured[0]["device"]),
        key=lambda one: (one["mode"] != "eager", one["batch"] != _SHOWN_BATCH, -one["batch"]),
    )


def records(finished: Finished) -> Iterator[Latency]:
    """Yield a record for every device, mode and batch."""
    facts, costs = finished.facts["latency"], finished.facts["counts"]["costs"]
    for measured in facts["latencies"]:
        median, dense = measured["median_ms"], measured["reference_ms"]
        yield Latency(
            **finished.named("data", "backbone", "pruner", "ratio", "seed"),
            training=finished.network_training,
            **{name: measured[name] for name in ("device", "mode", "batch", "threads", "peak_memory_bytes")},
            **{name: costs[name] for name in ("parameters", "macs_effective", "theoretical_speedup")},
            file_bytes_dense=facts["file_bytes"]["dense"],
            file_bytes_sparse=facts["file_bytes"]["sparse"],
            measured_median_ms=median,
            measured_low_ms=measured["low_ms"],
            measured_high_ms=measured["high_ms"],
            measured_images_per_second=1000 * measured["batch"] / median,
            measured_dense_ms=dense,
            measured_speedup=dense / median,
            measured_clock=measured["clock"],
            measured_wall_ms=measured["wall_ms"],
            measured_contention=measured["contention"],
            measured_contended=timing.contended(measured["contention"]),
            measured_load=measured["load"],
        )
