"""The command on dependence, on runs whose curves follow the model."""

from __future__ import annotations

import csv
import dataclasses
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks import effective
from sharedlabel.metrics.dependence import effective_instances
from sharedlabel.records import Summary

N, RHO, SPEED, KEPT = (1, 2, 4, 8, 16), 0.15, 6.0, 0.5
TYPES = {"int": 1, "float": 1.0, "str": "", "bool": False} | dict.fromkeys(["float | None", "int | None"])


def information(worth: float) -> float:
    """A curve of independent instances that rises linearly in log n, so that interpolation is exact."""
    return 0.4 + 0.1 * math.log2(worth)


def summary(protocol: str, pruner: str, ratio: float, n: int) -> Summary:
    worth = n if protocol == "iid" else float(effective_instances(torch.tensor([float(n)]), RHO))
    ri = information(worth * (1 if pruner == "none" else KEPT))
    facts: dict[str, Any] = {one.name: TYPES.get(str(one.type), "") for one in dataclasses.fields(Summary)}
    facts |= {"data": "made", "pruner": pruner, "ratio": ratio, "protocol": protocol, "split": "test", "n": n}
    facts |= {"aggregator": "tempered_log_pool", "training": "frozen", "seeds": 3}
    facts |= {"ri": ri, "ri_low": ri - 0.05, "ri_high": ri + 0.05}
    return Summary(**{**facts, "cost_dense_passes": n / (1 if pruner == "none" else SPEED)})


@pytest.fixture
def run() -> Any:
    networks = (("none", 1.0), ("magnitude", 4.0))
    every = [summary(protocol, *network, n) for protocol in ("iid", "grouped") for network in networks for n in N]
    return SimpleNamespace(summaries=every, experiment="made")


def test_the_numbers_of_the_model_are_found_again(run: Any) -> None:
    points = list(effective.effective(run, "tempered_log_pool"))
    assert [one.k for one in points] == [*N]
    for one in points:
        worth = float(effective_instances(torch.tensor([float(one.k)]), RHO))
        assert one.effective == pytest.approx(worth)
        assert one.correlation == pytest.approx(RHO) if one.k > 1 else math.isnan(one.correlation)
        assert one.effective_high == pytest.approx(worth * 2**0.5)
        expected = worth / 2**0.5
        assert one.effective_low == pytest.approx(expected) if expected >= 1 else math.isnan(one.effective_low)


def test_looking_more_often_pays_below_the_break_even(run: Any) -> None:
    (one,) = effective.paying(run, "tempered_log_pool")
    assert (one.images, one.needed) == (pytest.approx(SPEED), pytest.approx(1 / KEPT))
    assert one.break_even == pytest.approx((SPEED * KEPT - 1) / (SPEED - 1))
    assert one.correlation == pytest.approx(RHO)
    assert one.pays


def test_the_command_prints_tables_and_writes_files(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(effective, "read", lambda path, tables: run)
    assert effective.main(["a", "--output", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "| made | grouped | 4 | 0.600 | 0.546 | 2.76 [1.95, 3.90] | 0.15 |" in printed
    assert "| made | magnitude 4x | grouped | 6.0 | 2.00 | 0.40 | 0.15 | yes |" in printed
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(effective.FILES)
    with (tmp_path / "out" / "effective.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(N)
    assert "made, grouped" in (tmp_path / "out" / "effective.svg").read_text()
    assert effective.main(["a", "--output", str(tmp_path / "out"), "--aggregator", "lstm"]) == 2
    assert "expected `iid` and another protocol of lstm, got []" in capsys.readouterr().err
