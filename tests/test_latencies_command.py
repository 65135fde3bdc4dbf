"""The command that measures the published speedups again, on a tiny grid; times themselves are not tested."""

from __future__ import annotations

import csv
import dataclasses
from typing import Any

from benchmarks import __main__ as benchmarks
from benchmarks import latencies
from sharedlabel import stages
from sharedlabel.measurements import timing
from sharedlabel.records.measurements import Latency


def test_it_is_a_command_and_no_benchmark() -> None:
    assert not {"latencies", "evidence"} & set(benchmarks.available())
    assert "structured_latency" in benchmarks.available()


def test_every_published_grid_has_its_configuration() -> None:
    for name in latencies.GRIDS:
        assert (latencies.ROOT / "configs" / f"{name}.yaml").exists()
        assert (latencies.ROOT / "docs" / "results" / name / "latencies.csv").exists()


def test_images_that_are_not_there_are_a_user_error(tmp_path, capsys) -> None:
    wanted = ["--data", str(tmp_path), "--only", "compressors-mnist", "--out", str(tmp_path)]
    assert latencies.main(wanted) == 2
    assert f"--data: expected mnist-png.zip in {tmp_path}, got none" in " ".join(capsys.readouterr().err.split())


def refuse(*arguments: object) -> Any:
    raise AssertionError("trained or pruned again")


def test_networks_are_pruned_once_and_timed_every_time(tmp_path, monkeypatch) -> None:
    (published,) = latencies.QUICK["quick"]
    first = latencies.measured(*latencies.prepared("quick", published, tmp_path, tmp_path))
    assert [(r.pruner, r.ratio, r.batch) for r in first] == [
        (pruner, ratio, batch) for pruner, ratio in (("none", 1.0), ("unit", 4.0)) for batch in (1, 32, 256)
    ]
    assert {(r.threads, r.measured_clock) for r in first} == {(1, "cpu")}

    for stage in ("dense", "prune"):
        monkeypatch.setitem(stages.STAGES, stage, dataclasses.replace(stages.STAGES[stage], run=refuse))
    timed: list[int] = []
    in_turns = timing.in_turns
    monkeypatch.setattr(timing, "in_turns", lambda *given: timed.append(1) or in_turns(*given))
    again = latencies.measured(*latencies.prepared("quick", published, tmp_path, tmp_path))
    assert len(again) == len(timed) == 6


def test_what_is_only_prepared_is_not_measured(tmp_path, monkeypatch, capsys) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("measured")

    monkeypatch.setattr(latencies, "prepared", lambda *given: given)
    monkeypatch.setattr(latencies, "measured", refuse)
    assert latencies.main(["--prepare", "--only", "compressors-init", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out == ""


def record(pruner: str, ratio: float, seed: int, speedup: float, busy: bool = False) -> Latency:
    return Latency(
        data="made", backbone="mlp", pruner=pruner, ratio=ratio, seed=seed, device="cpu", mode="eager", batch=1,
        threads=1, parameters=1, macs_effective=1.0, theoretical_speedup=4.0 if ratio > 1 else 1.0, file_bytes_dense=1,
        file_bytes_sparse=1, peak_memory_bytes=1, measured_median_ms=2.0, measured_low_ms=1.0, measured_high_ms=3.0,
        measured_images_per_second=500.0, measured_dense_ms=2.0 * speedup, measured_speedup=speedup,
        measured_clock="cpu", measured_wall_ms=2.0, measured_contention=1.5 if busy else 1.0, measured_contended=busy,
        measured_load=0.25,
    )  # fmt: skip


def test_a_page_sets_new_speedups_beside_old_ones_and_marks_a_busy_machine(tmp_path, monkeypatch) -> None:
    folder = tmp_path / "docs" / "results" / "made"
    folder.mkdir(parents=True)
    with (folder / "latencies.csv").open("w") as file:
        writer = csv.writer(file)
        writer.writerow(["pruner", "ratio", "batch", "measured_speedup"])
        writer.writerows([["unit", "4.0", "1", "5.0"], ["unit", "4.0", "1", "7.0"], ["magnitude", "4.0", "1", "1.05"]])
    monkeypatch.setattr(latencies, "ROOT", tmp_path)
    records = [record("none", 1.0, seed, 1.0) for seed in (0, 1)]
    records += [record("unit", 4.0, 0, 2.0), record("unit", 4.0, 1, 3.0, busy=True)]
    records += [record("magnitude (masks)", 4.0, seed, 1.0) for seed in (0, 1)]
    lines = list(latencies.page("made", records, latencies.before("made")))
    assert lines[-3:] == [
        "| dense, ms | 1x | 1.0 | 2 |",
        "| unit | 4x | 4.0 | 2.5* (6.00) |",
        "| magnitude (masks) | 4x | 4.0 | 1 (1.05) |",
    ]
    assert "load 0.25 to 0.25; 1 of 6 measurements on a busy machine (marked *)" in lines[2]
    assert latencies.before("unknown") == {}
