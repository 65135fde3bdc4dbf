"""Result records: the flat rows that every table, plot, dashboard and rule is made from.

Everything is in plain units: information in bits, MACs, bytes, milliseconds; intervals are at the 95% level. Columns
whose name starts with `measured_` are measured times and what belongs to them; all others are reproduced bit for bit
by the same machine. Records share their fields through small parts (`identity.py`, `rows.py`), so that each is written
down and explained once. `TABLES` names the record of each table; those that a stage alone makes are imported from
`measurements.py`. This package imports no torch.
"""

from sharedlabel.records.adaptive import AdaptivePoint, Threshold
from sharedlabel.records.dataset import ClassCount, DatasetFacts
from sharedlabel.records.files import NAME, files, from_cell, only, read, to_csv, write
from sharedlabel.records.identity import AXES, Identity, Metric, OfCell, OfMethod, OfPruned, Split
from sharedlabel.records.results import FORMAT, TABLES, Results, Tables, meanings
from sharedlabel.records.rows import (
    MainScores,
    MeasuredTime,
    NetworkCosts,
    NetworkSize,
    NetworkTraining,
    Row,
    Scores,
    Spent,
)
from sharedlabel.records.summaries import (
    MIN_SEEDS,
    OPPOSITE,
    VERDICTS,
    Axis,
    Comparison,
    PairedDifference,
    Pooled,
    Rank,
    Summary,
    SweetSpot,
    Verdict,
    Wins,
)

__all__ = [
    "AXES", "FORMAT", "MIN_SEEDS", "NAME", "OPPOSITE", "TABLES", "VERDICTS", "AdaptivePoint", "Axis", "ClassCount",
    "Comparison", "DatasetFacts", "Identity", "MainScores", "MeasuredTime", "Metric", "NetworkCosts", "NetworkSize",
    "NetworkTraining", "OfCell", "OfMethod", "OfPruned", "PairedDifference", "Pooled", "Rank", "Results", "Row",
    "Scores", "Spent", "Split", "Summary", "SweetSpot", "Tables", "Threshold", "Verdict", "Wins", "files", "from_cell",
    "meanings", "only", "read", "to_csv", "write",
]  # fmt: skip
