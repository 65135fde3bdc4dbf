"""`Results`: all that a grid found, as tables of records."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, get_args, get_type_hints

from sharedlabel.records.adaptive import AdaptivePoint, Threshold
from sharedlabel.records.answers import Confusion, Mistake
from sharedlabel.records.dataset import DatasetFacts
from sharedlabel.records.measurements import Failure, Latency, LayerWeights, Margin, ReliabilityBin, Search
from sharedlabel.records.rows import Row
from sharedlabel.records.summaries import Comparison, Pooled, Rank, Summary, SweetSpot, Wins
from sharedlabel.records.training import TrainingCurve

FORMAT = 4


def _shown(heading: str, about: str, **default: Any) -> Any:
    """Return the field of a table that the report shows as a whole, under a heading."""
    return field(metadata={"heading": heading, "about": about}, **default)


@dataclass(frozen=True, kw_only=True)
class About:
    """What results are of.

    Attributes:
        format: version of this file's layout.
        experiment: name of the grid.
        config: the resolved configuration.
        provenance: commit, versions, device, date; `seconds` that all results took, in whatever run, None where a
            call on the way is not stored any more; `last_run_seconds` of the run that wrote this.
        dataset: what new images must look like, and the labels' names.
    """

    format: int
    experiment: str
    config: dict[str, Any]
    provenance: dict[str, Any]
    dataset: DatasetFacts


@dataclass(frozen=True, kw_only=True)
class Tables:
    """Tables of records.

    Attributes:
        rows: a line per cell, n and split, with n-accuracy, RI and costs; `split == "test"` is what one reports.
        summaries: the same over seeds, with intervals.
        comparisons: paired differences between aggregators, trainings, pruners and compressions.
        sweet_spots: how far to compress, per rule and method.
        reliability: bins of the reliability diagrams.
        latencies: size, memory and time of every compressed network.
        layers: weights that pruners have left, per layer.
        margins: error margins of the dense networks, per layer.
        adaptive: adaptive numbers of instances, per rule, threshold and method.
        thresholds: fitted thresholds for nominal errors, per cell.
        pooled: paired differences over all cells where both were tried, the primary questions among them.
        ranks: of aggregators, as intervals.
        wins: win, tie and loss counts of aggregators.
        searches: settings that were searched, per aggregator and network.
        curves: training losses by epoch, of the first seed.
        confusions: which labels the method of the headline takes for which, on test.
        mistakes: tuples that it gets wrong.
        failures: cells that were tried in vain; they are in no other table, but for those that only lack times.
    """

    rows: tuple[Row, ...] = _shown("Every row", "One row per cell, protocol, split and n.")
    summaries: tuple[Summary, ...]
    comparisons: tuple[Comparison, ...] = _shown(
        "Every paired comparison",
        "Difference of method minus reference on the same tuples, with its own 95% interval and the one that holds "
        "together with those of its family, off which the verdict is read. They differ in the axis alone: "
        "aggregator, training, pruner, or compression (against the dense network).",
    )
    sweet_spots: tuple[SweetSpot, ...] = _shown(
        "Every sweet spot",
        "Chosen on validation, reported on test. interior: strictly inside the grid of ratios; interior_share and "
        "modal_share: share of replicates in which the choice is interior, or the very same.",
    )
    reliability: tuple[ReliabilityBin, ...]
    latencies: tuple[Latency, ...] = _shown(
        "Every measurement",
        "One row per compressed network, device, mode and batch; measured_ columns are times and their conditions.",
        default=(),
    )
    layers: tuple[LayerWeights, ...] = _shown("Every layer", "One row per layer of a compressed network.", default=())
    margins: tuple[Margin, ...] = _shown("Every error margin", "One row per layer, epsilon and seed.", default=())
    adaptive: tuple[AdaptivePoint, ...] = _shown(
        "Every point of adaptive n",
        "One row per method, rule and threshold, on test; thresholds were fitted on validation for a nominal error "
        "or for a mean number of instances.",
        default=(),
    )
    thresholds: tuple[Threshold, ...] = _shown(
        "Every threshold",
        "One row per cell, rule and nominal error: where to stop, and what that gave on validation.",
        default=(),
    )
    pooled: tuple[Pooled, ...] = _shown(
        "Every pooled comparison",
        "Paired difference of two methods, the scores of each tuple averaged over all cells where both were tried. "
        "Rows marked endpoint are the primary questions; they open all others of their pair.",
        default=(),
    )
    ranks: tuple[Rank, ...] = _shown("Every rank", "Means over all networks, and ranks as intervals.", default=())
    wins: tuple[Wins, ...] = _shown(
        "Verdicts by network",
        "Networks on which a method is better, equivalent, undecided or worse.",
        default=(),
    )
    searches: tuple[Search, ...] = ()
    curves: tuple[TrainingCurve, ...] = ()
    confusions: tuple[Confusion, ...] = ()
    mistakes: tuple[Mistake, ...] = ()
    failures: tuple[Failure, ...] = _shown(
        "Every failure",
        "One row per cell without its numbers or its times, and the call that failed; the next run tries it again.",
        default=(),
    )


@dataclass(frozen=True, kw_only=True)
class Results(Tables, About):
    """Everything a grid found.

    Attributes:
        cells: how many the grid has, finished or not; 0 where an older version wrote this.
        order_free: aggregators whose answers do not depend on the order of instances; empty where an older version
            wrote this.
    """

    cells: int = 0
    order_free: tuple[str, ...] = ()


# The kind of record in each table, by its name.
TABLES: dict[str, type[Any]] = {name: get_args(hint)[0] for name, hint in get_type_hints(Tables).items()}


def meanings(kind: type[Any]) -> dict[str, str]:
    """Return what the columns of a table mean, as the docstrings of its records say.

    >>> meanings(Summary)["backbone"]
    'label of the backbone.'
    """
    said: dict[str, str] = {}
    for part in reversed(kind.__mro__):
        lines = re.findall(r"^ {8}(\w+): (.+(?:\n {12}.+)*)$", part.__doc__ or "", flags=re.MULTILINE)
        said |= {name: " ".join(text.split()) for name, text in lines}
    return said
