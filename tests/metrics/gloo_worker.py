"""One of two processes that each see half of the tuples."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed

from sharedlabel.metrics import shells


def metrics(prefixes: int) -> dict[str, shells.Metric]:
    """Build one of each shell."""
    return {
        "accuracy": shells.NAccuracy(prefixes),
        "gain": shells.InformationGain(prefixes, 2.0),
        "likelihood": shells.NegativeLogLikelihood(prefixes),
        "calibration": shells.CalibrationError(prefixes),
    }


def work(rank: int, folder: str) -> None:
    """Update with every other tuple, compute over both processes, and store what this one saw."""
    store = f"file://{folder}/rendezvous"
    limit = timedelta(minutes=5)
    torch.distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2, timeout=limit)
    log_posterior, labels, weights = (part[rank::2] for part in torch.load(Path(folder) / "data.pt"))
    found = {}
    for name, metric in metrics(log_posterior.shape[1]).items():
        metric.update(log_posterior, labels, weights)
        found[name] = metric.compute()
    torch.save(found, Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def spawned(_: int, folder: str) -> None:
    """Be the second process."""
    torch.set_num_threads(1)
    work(1, folder)
