"""Make a protocol: features of named cells, tuples and labels in files, and the TOML that pins them by checksum."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import torch
from jaxtyping import Int64
from pydantic import ValidationError
from torch import Tensor

from sharedlabel import rng
from sharedlabel.config import Experiment
from sharedlabel.config.names import DENSE_NETWORK, FROZEN
from sharedlabel.data import tuples
from sharedlabel.data._shuffle import rank_within, shuffle_within
from sharedlabel.errors import ConfigError, StoreError, nearest
from sharedlabel.grid import Cell, Grid, Node, run_node
from sharedlabel.leaderboard.board import writing
from sharedlabel.leaderboard.folder import ANSWERS, TUPLES
from sharedlabel.leaderboard.protocol import METRICS, SCORED, Protocol, Recipe
from sharedlabel.leaderboard.sandbox.limits import Limits
from sharedlabel.leaderboard.schema import NAMES, explain, is_name, to_toml
from sharedlabel.metrics.calibration import calibrate_logits
from sharedlabel.scoring.data import FEATURE_ROLES, Data
from sharedlabel.store import Store, serialize

Progress: TypeAlias = Callable[[Node, float | None], None]
LIMITS = Limits(seconds=600, memory_mb=4096, processes=64, disk_mb=64, log_kb=256)


def freeze(
    grid: Grid,
    store: Store,
    root: Path,
    stated: Mapping[str, str],
    images: Mapping[str, int],
    seeds: tuple[int, ...],
    progress: Progress,
) -> Protocol:
    """Compute the cells of a grid, and write their features as a protocol.

    Args:
        grid: one backbone, one seed, protocol iid; its aggregators are not used.
        store: holds what is computed.
        root: folder of the leaderboard.
        stated: `id`, `title`, `about` and `command` of the protocol.
        images: how many images to keep of a role, a whole number per class; all of them where a role is not named.
        seeds: training seeds of aggregators.
        progress: told of every stage call.

    Returns:
        The protocol as it was written.

    Raises:
        ConfigError: the id cannot be a name, a role or a seed is none, the grid is not of one backbone and one seed, or
            a role has too few images; nothing was computed then.
        StoreError: there is a protocol of this name: a frozen one is never changed.
    """
    _check_asked(stated["id"], images, seeds)
    experiment, path = grid.experiment, root / "protocols" / f"{stated['id']}.toml"
    if path.exists():
        raise StoreError(f"{path} is frozen; give a protocol with other content a name of its own")
    if len(experiment.backbones) != 1 or len(experiment.seeds) != 1 or experiment.evaluation.prior != "uniform":
        raise ConfigError(
            "expected a grid of one backbone, one seed and the uniform prior; a protocol compares aggregators"
        )
    recipe = _recipe(experiment)
    kept: dict[str, Tensor] = {role: _chosen(grid.data, role, images.get(role)) for role in FEATURE_ROLES}
    tuple_file, answer_file = _tuples(grid.data, kept, max(experiment.evaluation.n))
    networks = {(cell.pruner, cell.ratio): cell for cell in grid.cells if cell.training == FROZEN and cell.aggregate}
    files = _Files()
    protocol = Protocol.model_validate(
        {
            **stated,
            "n": experiment.evaluation.n,
            "seeds": seeds,
            "prior": "uniform",
            "metrics": METRICS,
            "tolerance": 0.02,
            "tuples": files.add(TUPLES, tuple_file),
            "answers": files.add(ANSWERS, answer_file),
            "source": _source(grid.data, kept),
            "recipe": recipe.model_dump(),
            "limits": LIMITS.model_dump(),
            "networks": [_network(cell, grid, store, kept, files, progress) for cell in networks.values()],
        }
    )
    writing.replace_folder(root / "protocols" / protocol.id, files.content)
    writing.replace_file(path, to_toml(protocol.model_dump()).encode())
    return protocol


def _check_asked(name: str, images: Mapping[str, int], seeds: tuple[int, ...]) -> None:
    """Refuse what would be found after all was computed, or not at all."""
    if not is_name(name):
        raise ConfigError(f"--id: expected {NAMES}, got {name!r}")
    for role in images:
        if role not in FEATURE_ROLES:
            raise ConfigError(f"--images: unknown role {role!r}; {nearest(role, FEATURE_ROLES)}")
    if len(set(seeds)) != len(seeds):
        raise ConfigError(f"--seeds: expected each seed once, got {' '.join(map(str, seeds))}")


def _recipe(experiment: Experiment) -> Recipe:
    """Return how aggregators are trained, as an experiment says it."""
    fit = experiment.fit
    try:
        return Recipe(
            epochs=fit.epochs,
            steps=fit.steps,
            batch_size=fit.batch_size,
            learning_rate=float(fit.learning_rate),
            weight_decay=float(fit.weight_decay),
            patience=fit.patience,
            gradient_clip=float(experiment.trainer.gradient_clip),
        )
    except ValidationError as error:
        raise ConfigError(f"fit: {explain(error)}; a protocol states all of it") from error


class _Files:
    """The content of files, by name, before they are written."""

    def __init__(self) -> None:
        self.content: dict[str, bytes] = {}

    def add(self, name: str, tensors: Mapping[str, Tensor]) -> str:
        """Keep tensors as a file, and return its sha256."""
        content = serialize({name: tensor.contiguous() for name, tensor in tensors.items()})
        self.content[name] = content
        return writing.digest(content)


def _chosen(data: Data, role: str, count: int | None) -> Int64[Tensor, "m"]:
    """Return the positions within a role of the images to keep, as many of every class; all of them without a count."""
    labels = data.labels(role)  # type: ignore[arg-type]
    if count is None:
        return torch.arange(len(labels))
    sizes = torch.bincount(labels, minlength=data.dataset.num_classes)
    each, left = divmod(count, len(sizes))
    if left or not 0 < each <= int(sizes.min()):
        raise ConfigError(
            f"images.{role}: expected a multiple of {len(sizes)} up to {int(sizes.min()) * len(sizes)}, got {count}; "
            "every class keeps as many"
        )
    order = shuffle_within(labels, 1, rng.generator(0, "leaderboard", role))[0]
    return order[rank_within(sizes) < each].sort().values


def _tuples(data: Data, kept: Mapping[str, Tensor], n: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Draw one partition of validation and of test: no image is in two tuples, so none can be recognised in another."""
    indices, labels = {}, {}
    for role in SCORED:
        own = data.labels(role)[kept[role]]
        drawn = tuples.partition(own, n, 1, data.prior, rng.generator(0, "leaderboard", "tuples", role))
        indices[f"{role}.indices"], labels[f"{role}.labels"] = drawn.indices[0].int(), drawn.labels[0].to(torch.uint8)
    return indices, labels


def _source(data: Data, kept: Mapping[str, Tensor]) -> dict[str, Any]:
    positions = {"backbone": data.splits["backbone"]}
    positions |= {role: data.splits[role][chosen] for role, chosen in kept.items()}  # type: ignore[index]
    dataset = data.dataset
    images = {role: {"count": len(chosen), "sha256": _digest(chosen)} for role, chosen in positions.items()}
    return {"name": dataset.name, "fingerprint": dataset.fingerprint, "classes": dataset.num_classes, **images}


def _digest(positions: Tensor) -> str:
    return writing.digest(positions.long().sort().values.numpy().astype("<i8").tobytes())


def _network(
    cell: Cell, grid: Grid, store: Store, kept: Mapping[str, Tensor], files: _Files, progress: Progress
) -> dict[str, Any]:
    inputs = dict(cell.evaluate.inputs)
    features, calibration = (run_node(inputs[name], grid, store, progress) for name in ("features", "calibrate"))
    correction = calibration.tensors()["log_correction"]
    lengths = [features.meta["lengths"][role] for role in FEATURE_ROLES]
    tensors = {}
    by_role = {
        name: dict(zip(FEATURE_ROLES, whole.split(lengths), strict=True)) for name, whole in features.tensors().items()
    }
    for role, chosen in kept.items():
        logits = calibrate_logits(by_role["logits"][role][chosen], correction, calibration.meta["temperature"])
        tensors[f"{role}.embeddings"] = by_role["embeddings"][role][chosen].half()
        tensors[f"{role}.logits"] = logits.half()
        if role != "test":
            tensors[f"{role}.labels"] = grid.data.labels(role)[chosen].to(torch.uint8)  # type: ignore[arg-type]
    name = DENSE_NETWORK if cell.ratio == 1 else f"{cell.pruner}-{cell.ratio:g}x"
    costs = run_node(cell.ends["counts"], grid, store, progress).meta["costs"]
    return {
        "name": name,
        "pruner": cell.pruner,
        "ratio": cell.ratio,
        "achieved_ratio": costs["achieved_ratio"],
        "theoretical_speedup": costs["theoretical_speedup"],
        "macs": round(costs["macs_effective"]),
        "cell": features.key,
        "file": f"{name}.safetensors",
        "sha256": files.add(f"{name}.safetensors", tensors),
    }
