"""Which executor computes a grid, with how many workers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import torch

from sharedlabel.config import Experiment
from sharedlabel.errors import ConfigError
from sharedlabel.grid.calls import job
from sharedlabel.grid.executors.base import Executor
from sharedlabel.grid.executors.here import Here
from sharedlabel.grid.executors.local import Local
from sharedlabel.grid.nodes import Grid
from sharedlabel.machine import cores, memory
from sharedlabel.store import Store
from sharedlabel.store.opening import is_url
from sharedlabel.training import watchers
from sharedlabel.training.devices import device

WORKER_BYTES = 1 << 30  # that a worker has to itself: torch, networks and features, images not counted


def workers(experiment: Experiment) -> int:
    """Return the number of workers that an experiment computes with; 0 on a cluster, whose machines come and go."""
    if experiment.executor == "ray":
        return 0
    if watchers.WATCHERS.get() or experiment.trainer.devices != 1:
        return 1  # callbacks are objects of this process; several devices need processes of their own
    asked = cores.workers(experiment.workers)
    if asked is not None:
        return asked
    if device(experiment.trainer).type == "cuda":
        return torch.cuda.device_count()
    if device(experiment.trainer).type != "cpu":
        return 1
    return max(1, min(cores.available() // experiment.threads, memory.total() // WORKER_BYTES))


def executor(grid: Grid, store: Store, calls: int) -> Executor:
    """Return what computes the calls of a grid.

    Args:
        grid: whose calls.
        store: where their outputs are stored.
        calls: how many are missing; there are no more workers than that.
    """
    experiment = grid.experiment
    if experiment.executor == "ray" and calls:
        from sharedlabel.grid.executors.ray import Ray

        _check_ray(experiment)
        on_gpu = device(experiment.trainer).type == "cuda"
        needs = {"CPU": float(experiment.threads)} | ({"GPU": experiment.ray.gpus} if on_gpu else {})
        where = store.where if is_url(store.where) else Path(store.where).absolute()
        return Ray(job(grid), experiment, where, needs)
    count = min(workers(experiment), calls)
    if count <= 1:
        return Here(job(grid), store, experiment.threads)
    return Local(job(grid), experiment, store.where, list(_environments(experiment, count)), experiment.threads)


def _check_ray(experiment: Experiment) -> None:
    """Refuse what workers of Ray would leave out without a word.

    Raises:
        ConfigError: callbacks of this process are to watch, or a training takes several devices.
    """
    if watchers.WATCHERS.get():
        raise ConfigError("executor: expected local with callbacks of this process, which workers of Ray cannot call")
    if experiment.trainer.devices != 1:
        raise ConfigError(
            f"executor: expected local with trainer.devices={experiment.trainer.devices!r}, got ray, on which each "
            "call has one device; set trainer.devices to 1"
        )


def _environments(experiment: Experiment, count: int) -> Iterator[dict[str, str]]:
    """Yield the variables of each worker: its share of the cores, and which GPU it sees, all in turns."""
    on_gpu = device(experiment.trainer).type == "cuda"
    gpus = _visible() if on_gpu else []
    share = {cores.SHARE: str(max(1, cores.available() // count))}
    for worker in range(count):
        yield share | ({"CUDA_VISIBLE_DEVICES": gpus[worker % len(gpus)]} if gpus else {})


def _visible() -> list[str]:
    """Return the GPUs that this process sees, as the variable names them."""
    named = [one for one in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if one]
    return named or [str(number) for number in range(torch.cuda.device_count())]
