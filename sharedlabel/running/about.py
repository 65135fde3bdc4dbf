"""What results say of a grid whatever it computes: its configuration, its data, the commit and the machine."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from typing import Any

import torch

from sharedlabel import rng
from sharedlabel.config import canonical, public, resolve
from sharedlabel.grid import Grid, survey
from sharedlabel.machine import provenance as machines
from sharedlabel.plugins import load
from sharedlabel.records import DatasetFacts
from sharedlabel.scoring.data import SCORED_ROLES
from sharedlabel.training.devices import device
from sharedlabel.types import SetShape


def about(grid: Grid) -> dict[str, Any]:
    """Return what results say of a grid whatever it computes: its configuration and data, commit and machine."""
    return {
        "experiment": grid.experiment.name,
        "config": config(grid),
        "dataset": dataclasses.asdict(dataset(grid)),
        "provenance": {**machine(grid), "data_sha256": grid.data.dataset.fingerprint},
    }


def config(grid: Grid) -> dict[str, Any]:
    """Return the configuration without the folders of this machine, and whatever else says where it was computed."""
    shown: dict[str, Any] = json.loads(canonical(grid.experiment))
    for private in ("output", "store", "data_root", "executor", "ray", "workers"):
        shown.pop(private)
    if isinstance(shown["data"], dict) and "path" in shown["data"]:
        shown["data"]["path"] = str(shown["data"]["path"]).rpartition("/")[2]
    shown["data"] = public("data", shown["data"])
    for axis in ("backbones", "pruners", "aggregators"):
        shown[axis] = [public(axis, spec) for spec in shown[axis]]
    return shown


def dataset(grid: Grid) -> DatasetFacts:
    """Return what rows are of: classes, images and how many there are of each."""
    dataset = grid.data.dataset
    return DatasetFacts(
        class_names=dataset.class_names,
        image_shape=dataset.image_shape,
        dtype=str(dataset.images.dtype).removeprefix("torch."),
        size=dataset.decoding.size,
        channels=dataset.decoding.channels,
        prior=tuple(grid.data.prior.tolist()),
        images={role: len(grid.data.splits[role]) for role in SCORED_ROLES},
        groups={}
        if dataset.groups is None
        else {role: len(dataset.groups[grid.data.splits[role]].unique()) for role in SCORED_ROLES},
        background=dataset.decoding.background,
        trim=dataset.decoding.trim,
        counts=survey.counts(grid),
        remarks=survey.remarks(grid),
        skipped=dataset.skipped,
        dropped=survey.dropped(grid),
    )


def order_free(grid: Grid) -> tuple[str, ...]:
    """Return the labels of the aggregators whose answers do not depend on the order of instances."""
    shape = SetShape(torch.zeros(1), torch.ones(1), grid.data.prior.log().float())
    chosen = [resolve("aggregators", spec) for spec in grid.experiment.aggregators]
    with rng.untouched():
        built = [(plugin.label, load("aggregators", plugin.name).build(plugin.config, shape)) for plugin in chosen]
    return tuple(label for label, aggregator in built if aggregator.permutation_invariant)


def provenance(grid: Grid, took: float | None, run: float) -> dict[str, Any]:
    """Return where and when results were computed.

    Args:
        grid: what was computed.
        took: seconds of everything that is stored; None if that is not known.
        run: seconds of the run that asks.
    """
    facts = machine(grid)
    facts["date"] = datetime.now(UTC).strftime("%Y-%m-%d")
    facts["seconds"] = None if took is None else round(took, 1)
    facts["last_run_seconds"] = round(run, 1)
    facts["data_sha256"] = grid.data.dataset.fingerprint
    return facts


def machine(grid: Grid) -> dict[str, Any]:
    """Return the commit, the versions and the machine."""
    return dict(machines.collect(str(device(grid.experiment.trainer))))
