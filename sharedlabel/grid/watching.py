"""What those who watch the trainings of a stage call are told of it."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from sharedlabel import rng
from sharedlabel.config import Plugin, canonical
from sharedlabel.scoring.data import Data
from sharedlabel.tracking.about import written
from sharedlabel.tracking.places import Place
from sharedlabel.training.loaders import Chosen, TupleLoader
from sharedlabel.training.watchers import Watched

_NAMED = ("backbone", "pruner", "ratio", "aggregator", "protocol", "seed")  # what a configuration of a call may hold
_BATCH = 256
_SHARE = 20  # one image of validation for so many that are trained, so that a look costs a fiftieth of an epoch


def watched(stage: str, key: str, config: Any, data: Data, place: Place | None) -> Watched:
    """Return what watchers are told of a call.

    Args:
        stage: its name.
        key: of its output.
        config: what it depends on.
        data: that it reads.
        place: where runs of W&B go, if there are any.
    """
    values = {name: getattr(config, name) for name in _NAMED if hasattr(config, name)}
    named = {name: one.label if isinstance(one, Plugin) else one for name, one in values.items()}
    words = [written(name, value) for name, value in named.items()]
    experiment = "" if place is None else place.experiment
    start = dict.fromkeys((experiment, data.dataset.name))
    return Watched(
        key,
        "-".join((*start, stage, *words, *([data.part] if data.part else []))),
        {"experiment": experiment, "stage": stage, "key": key[:16], "data": data.dataset.name, "part": data.part}
        | named
        | _options(config),
        tuple(dict.fromkeys((data.dataset.name, *(str(named[name]) for name in _NAMED[:2] if name in named)))),
        bool(getattr(config, "epochs", 0)) or hasattr(config, "joint"),
        held_out(config, data),
        place,
    )


def _options(config: Any) -> dict[str, Any]:
    """Return all else of a configuration: its sections, and the options of plugins beside their labels."""
    held = {item.name: getattr(config, item.name) for item in dataclasses.fields(config)}
    plain: dict[str, Any] = json.loads(canonical(held))
    return {
        f"{name}_options" if isinstance(held[name], Plugin) else name: value
        for name, value in plain.items()
        if name not in _NAMED or isinstance(held[name], Plugin)
    }


def held_out(config: Any, data: Data) -> Callable[[], Iterator[Sequence[Tensor]]] | None:
    """Return what gives batches of validation, evenly spaced images or the first tuples; None without a network."""
    count = max(_BATCH, len(data.splits["backbone"]) // _SHARE)
    if hasattr(config, "joint"):
        return functools.partial(_tuples, config, data, count)
    return functools.partial(_images, data, count) if getattr(config, "epochs", 0) else None


def _images(data: Data, count: int) -> Iterator[Sequence[Tensor]]:
    split = data.splits["validation"]
    chosen = split[torch.linspace(0, len(split) - 1, min(count, len(split))).long()]
    for batch in chosen.split(_BATCH):
        yield data.dataset.images[batch], data.dataset.labels[batch]


def _tuples(config: Any, data: Data, count: int) -> Iterator[Sequence[Tensor]]:
    loader = TupleLoader(
        (Chosen(data.dataset.images, data.splits["validation"]),),
        data.labels("validation"),
        config.n_max,
        config.joint.batch_size,
        data.prior,
        rng.derive(config.seed, "watched"),
        data.groups("validation", config.protocol),
        form=data.form("validation", config.protocol, config.cut),
    )
    yield from itertools.islice(loader, max(1, count // (loader.batch_size * config.n_max)))
