"""How networks and aggregators were trained, epoch by epoch."""

from __future__ import annotations

from dataclasses import dataclass

from sharedlabel.records.identity import OfPruned


@dataclass(frozen=True, kw_only=True)
class TrainingCurve(OfPruned):
    """The training of one network, or of one aggregator on it, with the first seed.

    Attributes:
        training: `frozen` for networks, and otherwise that of the aggregator.
        aggregator: its label; empty where a network alone was trained.
        protocol: `iid` or `grouped`; empty where a network alone was trained.
        seed: training seed.
        stage: what was trained: `dense`, `prune` (retraining), or the stage that made the aggregator.
        losses: mean training loss of every epoch, nats.
    """

    training: str
    aggregator: str | None
    protocol: str | None
    seed: int
    stage: str
    losses: tuple[float, ...]
