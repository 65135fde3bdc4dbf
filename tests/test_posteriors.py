"""What an aggregator says of the evaluation tuples is computed once for the two stages that score it."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch

from sharedlabel import grid
from sharedlabel.config import Experiment
from sharedlabel.stages import STAGES, _posteriors
from sharedlabel.store import Output, Store


@pytest.mark.parametrize("first", ["evaluate", "adaptive"])
@pytest.mark.parametrize("aggregator", ["log_pool", "lstm"])
def test_the_second_of_two_stages_scores_what_the_first_has_computed(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str, aggregator: str
) -> None:
    prepared, store, passes = grid.prepare(experiment), Store(tmp_path), itertools.count()
    cell = next(cell for cell in prepared.cells if cell.aggregator == aggregator)
    calls = {call.stage: call for call in cell.calls() if call.stage in ("evaluate", "adaptive")}
    inputs = {name: grid.run_node(node, prepared, store, lambda *_: None) for name, node in calls[first].inputs}
    over = _posteriors.posterior_over

    def counted(*given: object) -> torch.Tensor:
        next(passes)
        return over(*given)

    monkeypatch.setattr(_posteriors, "posterior_over", counted)

    def run(stage: str) -> Output:
        call = calls[stage]
        return STAGES[stage].run(call.config, prepared.data_by_key[call.data_key], inputs, experiment.trainer)

    def forget() -> None:
        monkeypatch.setattr(_posteriors, "_LATEST", _posteriors._Latest())

    alone = {}
    for stage in calls:
        forget()
        alone[stage] = run(stage)
    assert next(passes) == 4  # validation and test, for each
    forget()
    for stage in sorted(calls, key=lambda stage: stage != first):
        output = run(stage)
        assert output.meta == alone[stage].meta
        assert all(torch.equal(tensor, alone[stage].tensors[name]) for name, tensor in output.tensors.items())
    assert next(passes) == 4 + 1 + 2


def test_the_latest_values_alone_are_kept_and_none_that_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    latest, made = _posteriors._Latest(), itertools.count()

    def value(size: int = 2) -> torch.Tensor:
        return torch.full((size,), next(made))

    assert [int(latest.get("a", "test", value)[0]) for _ in range(2)] == [0, 0]
    assert [int(latest.get(key, "test", value)[0]) for key in ("b", "a", "a")] == [1, 2, 2]
    monkeypatch.setattr(_posteriors, "_MOST", 1)
    assert [int(latest.get("a", "validation", value)[0]) for _ in range(2)] == [3, 4]
