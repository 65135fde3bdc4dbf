"""What a stage's file says is checked when it is imported."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
import torch

from sharedlabel.metrics._scored import Scored
from sharedlabel.scoring import scores
from sharedlabel.stages import STAGES, Stage
from sharedlabel.types import Tuples


def module(name: str, **said: Any) -> ModuleType:
    made = ModuleType(f"sharedlabel.stages.{name}")
    vars(made).update({"VERSION": 1, "run": lambda *_: None, **said})
    return made


LOGS = torch.full((4, 1, 2), 0.5).log().double()
DRAWN = Tuples(torch.arange(4).view(1, 4, 1), torch.tensor([[0, 1, 0, 1]]), torch.full((1, 4), 0.25).double())
SCORED = Scored(LOGS, LOGS, LOGS, DRAWN, torch.full((2,), 0.5).double(), 1.0)
LEAF = {"LEAF": "network", "INPUTS": ("backbone",), "configure": lambda *_: None}


def test_a_leaf_with_a_table_is_read():
    stage = Stage.of(module("new", **LEAF, TABLE="layers", records=lambda _: []))
    assert (stage.name, stage.leaf, stage.inputs, stage.table) == ("new", "network", ("backbone",), "layers")
    assert "new" not in STAGES


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({**LEAF, "LEAF": "netwrok"}, "LEAF: expected network, method or protocol"),
        ({**LEAF, "INPUTS": ()}, "INPUTS: "),
        ({"INPUTS": ("backbone",)}, "INPUTS: "),
        ({**LEAF, "LEAF": "protocol"}, "INPUTS: "),
        ({"LEAF": "network", "INPUTS": ("backbone",)}, "configure: "),
        ({**LEAF, "TABLE": "nosuch", "records": lambda _: []}, "TABLE: expected a table of records.Results"),
        ({**LEAF, "TABLE": "layers"}, "records: they belong to a TABLE"),
        ({"columns": lambda _: {}}, "columns, TABLE: a cell names leaves"),
    ],
)
def test_what_the_grid_would_not_heed_is_refused(said, message):
    with pytest.raises(ValueError, match=f"stages/new.py: {message}"):
        Stage.of(module("new", **said))


@pytest.mark.parametrize("column", ["ri_raw", "no_column_of_rows"])
def test_a_metric_may_not_take_the_column_of_another_nor_make_one_up(monkeypatch, column):
    metric = ModuleType("sharedlabel.metrics.new")
    metric.columns = lambda scored: {column: torch.zeros(1)}
    monkeypatch.setattr(scores, "METRICS", (*scores.METRICS, metric))
    with pytest.raises(TypeError, match=f"metrics.new: expected columns of records.Scores, each once, got .*{column}"):
        scores._columns(SCORED)
