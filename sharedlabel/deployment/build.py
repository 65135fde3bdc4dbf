"""Write an exported model: programs, checks and the card, whole or not at all."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sharedlabel import rng
from sharedlabel.deployment import _files, card, card_file, filling, programs
from sharedlabel.deployment.card import Card, File
from sharedlabel.deployment.cells import Trained, restore
from sharedlabel.deployment.programs import AGGREGATOR, BACKBONE, TOLERANCE, Runtime
from sharedlabel.errors import DeploymentError, home
from sharedlabel.files import together
from sharedlabel.logs import log_normalize
from sharedlabel.machine import provenance
from sharedlabel.records import AXES, Results, Row, Threshold
from sharedlabel.store import opened
from sharedlabel.store.opening import is_url

_BATCHES = (1, 2, 7)
_OPTIONAL = ("onnx", "onnxscript", "onnxruntime")


def export(
    results: Results, rows: Sequence[Row], store: str | Path, output: Path, runtimes: Sequence[Runtime], replace: bool
) -> Card:
    """Export a cell.

    Args:
        results: of the run.
        rows: of the cell.
        store: folder or URL of the run's artifacts.
        output: folder to write.
        runtimes: what the programs are for.
        replace: whether an output folder that is there may be replaced.

    Returns:
        The card that was written.

    Raises:
        DeploymentError: the output is there already, or a program cannot be made or differs from its network.
        StoreError: the cell's artifacts are absent or damaged.
    """
    together.restore(output)
    if output.exists() and not (replace and (output / card.NAME).is_file()):
        way_out = "choose another --output" if replace else "use --force to replace it, or choose another --output"
        kind = "a folder that holds no model" if replace else "something there already"
        raise DeploymentError(f"expected to write the new folder {output}, got {kind}; {way_out}")
    if not is_url(os.fspath(store)) and not home(os.fspath(store)).is_dir():
        raise DeploymentError(
            f"expected the run's artifacts in {store}, got none; name them with --store, or run "
            "`sharedlabel train` again"
        )
    thresholds = _thresholds(results, rows)
    stored = opened(store, readonly=True)
    trained = restore(rows[0].cell, results.dataset, stored, thresholds[0].artifact if thresholds else None)
    made: list[Card] = []

    def fill(folder: Path) -> None:
        differences = write_programs(trained, getattr(torch, results.dataset.dtype), _sizes(rows), folder, runtimes)
        made.append(_card(results, rows, trained, _written(folder, differences)))
        card_file.write(made[0], folder)

    together.replace_folder(output, fill)
    return made[0]


def write_programs(
    trained: Trained, dtype: torch.dtype, n: Sequence[int], folder: Path, runtimes: Sequence[Runtime]
) -> dict[str, float]:
    """Write both networks for every runtime and check each file against PyTorch on random inputs.

    Args:
        trained: the networks.
        dtype: of images.
        n: numbers of instances to check.
        folder: receives the files.
        runtimes: what the programs are for.

    Returns:
        By file, the largest difference (`programs.difference`).
    """
    parts = {
        BACKBONE: (trained.backbone, programs.export_backbone(trained.backbone, dtype), _images(trained, dtype)),
        AGGREGATOR: (
            trained.aggregator,
            programs.export_aggregator(trained.aggregator, trained.shape),
            _instances(trained, n),
        ),
    }
    differences = {}
    for part, (network, program, inputs) in parts.items():
        for runtime in runtimes:
            path = programs.write(program, part, runtime, folder)
            differences[path.name] = programs.check(path, network, inputs)
    return differences


def _images(trained: Trained, dtype: torch.dtype) -> list[tuple[Tensor, ...]]:
    generator = rng.generator(0, "export", "images")
    shapes = [(size, *trained.backbone.image_shape) for size in _BATCHES]
    if dtype.is_floating_point:
        return [(torch.randn(shape, generator=generator).to(dtype),) for shape in shapes]
    return [(torch.randint(256, shape, generator=generator).to(dtype),) for shape in shapes]


def _instances(trained: Trained, n: Sequence[int]) -> list[tuple[Tensor, ...]]:
    generator, shape = rng.generator(0, "export", "instances"), trained.shape
    inputs: list[tuple[Tensor, ...]] = []
    for size in n:
        noise = torch.randn(1, size, shape.embedding_dim, generator=generator)
        scores = 3 * torch.randn(1, size, shape.num_classes, generator=generator)
        inputs.append((shape.embedding_mean + shape.embedding_scale * noise, log_normalize(scores)))
    return inputs


def _sizes(rows: Sequence[Row]) -> list[int]:
    """Return the numbers of instances of the rows, one between and one beyond."""
    n = {row.n for row in rows}
    return sorted(n | {3, max(n) + 3})


def _written(folder: Path, differences: dict[str, float]) -> dict[str, File]:
    return {
        path.name: File(_files.sha256(path), path.stat().st_size, differences.get(path.name))
        for path in sorted(folder.iterdir())
    }


def _card(results: Results, rows: Sequence[Row], trained: Trained, files: dict[str, File]) -> Card:
    test = [row for row in rows if row.split == "test"]
    cell = {"cell": rows[0].cell, "data": rows[0].data, **{axis: getattr(rows[0], axis) for axis in AXES}}
    return Card(
        format=card.FORMAT,
        cell=cell,
        labels=results.dataset.class_names,
        prior=results.dataset.prior,
        embedding_dim=trained.shape.embedding_dim,
        preprocessing=filling.preprocessing(results.dataset),
        calibration=filling.calibration(
            _temperatures(test, trained), trained.log_correction.tolist(), trained.temperature
        ),
        stopping=filling.stopping(_thresholds(results, rows)),
        costs=filling.costs(test),
        quality=filling.quality(test),
        tolerance=TOLERANCE,
        files=files,
        provenance=_provenance(results, trained, rows[0].data),
    )


def _thresholds(results: Results, rows: Sequence[Row]) -> list[Threshold]:
    return [one for one in results.thresholds if one.cell == rows[0].cell]


def _temperatures(test: Sequence[Row], trained: Trained) -> dict[int, float]:
    """Return the temperature of every tuple size that adaptive n was fitted for, else of the sizes of the rows."""
    every = dict(enumerate(trained.posterior_temperatures, start=1))
    return every or {row.n: row.temperature for row in test}


def _provenance(results: Results, trained: Trained, data: str) -> dict[str, Any]:
    optional = {name: importlib.metadata.version(name) for name in _OPTIONAL if importlib.util.find_spec(name)}
    return {
        "experiment": results.experiment,
        "config": results.config,
        "data_sha256": results.provenance["data_sha256"],
        "run": results.provenance,
        "export": {**provenance.collect("cpu"), **optional},
        "artifacts": trained.artifacts,
        "licence": {
            "software": importlib.metadata.metadata("sharedlabel")["License-Expression"],
            "data": f"{data}, on which the networks were trained, has terms of its own: see its source",
        },
    }
