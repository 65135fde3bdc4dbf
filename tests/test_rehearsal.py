"""The time of a grid, estimated before its first run: every stage is rehearsed, and estimates grow with the work."""

import dataclasses

import pytest

from sharedlabel import config, grid, train
from sharedlabel.grid import rehearsal as rehearsal_module
from sharedlabel.grid.rehearsal import Line, Rehearsal, line
from sharedlabel.stages import STAGES

EVERYTHING = (
    "--data={name: gaussian, classes: 3, dim: 4, instances_per_class: 240, group_size: 4}",
    "--backbones=[{name: mlp, label: mlp, widths: [8, 6]}]",
    "--pruners=[{name: lottery_ticket, schedule: {growth: 2, rewind: 0.5}}]",
    "--ratios=[1, 2]",
    "--aggregators=[lstm]",
    "--training=[frozen, {name: joint, label: joint, distill: 1.0}, crossfit]",
    "--crossfit.folds=2",
    "--evaluation.n=[1, 2, 4]",
    "--evaluation.protocols=[iid, grouped]",
    "--evaluation.partitions=2",
    "--tracking=none",
)


@pytest.fixture(scope="module")
def prepared() -> grid.Grid:
    return grid.prepare(config.parse(EVERYTHING)[0])


@pytest.fixture(scope="module")
def rehearsal(prepared) -> Rehearsal:
    return Rehearsal(prepared)


def nodes(planned: grid.Grid) -> dict[str, grid.Node]:
    calls = [call for cell in planned.cells for call in (*cell.calls(), cell.latency)]
    return {node.stage: node for call in calls for node in call.chain()}


def test_every_stage_has_an_estimate(prepared, rehearsal):
    estimates = {stage: rehearsal.seconds(node) for stage, node in nodes(prepared).items()}
    assert set(estimates) == set(STAGES)
    assert all(seconds is not None and 0 < seconds < 600 for seconds in estimates.values()), estimates


@pytest.mark.parametrize(
    ("option", "stages"),
    [
        ("--dense.epochs=2000", {"dense", "early"}),
        ("--retrain.epochs=2000", {"prune"}),
        ("--fit.epochs=6000", {"aggregate"}),
        ("--fit.trials=100", {"aggregate"}),
        ("--fit.steps=100000", {"aggregate"}),
        ("--joint.epochs=300", {"joint"}),
        ("--evaluation.partitions=2000", {"evaluate", "adaptive", "exact"}),
        ("--latency.batches=[100000]", {"latency"}),
        ("--latency.modes=[eager, compiled]", {"latency"}),
    ],
)
def test_an_estimate_grows_with_the_work(prepared, rehearsal, option, stages):
    if "trials" in option:
        pytest.importorskip("optuna")
    more = grid.prepare(config.parse([*EVERYTHING, option])[0])
    usual = nodes(prepared)
    other = Rehearsal.__new__(Rehearsal)
    vars(other).update(vars(rehearsal), _grid=dataclasses.replace(rehearsal._grid, experiment=more.experiment))
    for stage, node in nodes(more).items():
        before, after = rehearsal.seconds(usual[stage]), other.seconds(node)
        assert before is not None
        assert after is not None
        assert (after > before) == (stage in stages), (stage, before, after)


def test_a_line_never_falls_and_never_starts_below_zero():
    assert line((1.0, 2.0), (3.0, 4.0)) == Line(1.0, 1.0)
    assert line((1.0, 1.0), (3.0, 6.0)) == Line(0.0, 2.0)  # through the larger
    assert line((1.0, 5.0), (2.0, 4.0)) == Line(0.0, 2.0)  # noise
    assert line((1.0, 5.0), (1.0, 7.0)) == Line(5.0, 0.0)  # no more work
    assert Line(1.0, 2.0).at(3.0) == 7.0


def test_a_plan_before_the_first_run_knows_what_it_costs(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = ("--aggregators=[log_pool]", "--pruners=[magnitude]", "--ratios=[1, 2]", "--latency.batches=[1]")
    assert train.main([*small, "--plan", "--tracking=none"]) == 0
    told = capsys.readouterr().out
    assert "unknown" not in told
    assert "memory: about" in told
    assert list((tmp_path / "runs" / "store" / "artifacts").glob("*/*")) == []


def test_a_plan_says_what_fails_in_the_rehearsal_and_goes_on(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def broken(*_):
        raise ValueError("broken [plugin]")

    monkeypatch.setitem(STAGES, "prune", dataclasses.replace(STAGES["prune"], run=broken))
    assert (
        train.main(["--aggregators=[log_pool]", "--pruners=[none]", "--ratios=[1]", "--plan", "--tracking=none"]) == 0
    )
    told = capsys.readouterr().out
    assert "warning: prune fails on made-up data: ValueError: broken [plugin]" in told
    assert "unknown until one has run" in told


@pytest.mark.parametrize("option", [f"--{part}.batch_size=1000000" for part in ("dense", "retrain", "fit")])
def test_a_rehearsal_has_no_more_images_than_the_data(prepared, option):
    planned = grid.prepare(config.parse([*EVERYTHING, option])[0])
    usual, large = (rehearsal_module._small(one, 4, 3).data.splits["backbone"] for one in (prepared, planned))
    assert len(large) <= 4 * len(prepared.data.splits["backbone"])
    assert len(usual) <= len(large)


def test_made_up_images_are_bounded_in_memory(prepared, monkeypatch):
    monkeypatch.setattr(rehearsal_module, "_BYTES", 10_000)
    small = rehearsal_module._small(prepared, 4, 3)
    assert small.data.dataset.images.nbytes < 40_000
