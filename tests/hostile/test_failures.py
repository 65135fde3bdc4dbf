"""A call that fails costs its own cells their numbers, and no others; it is told, and the next run tries it again."""

from __future__ import annotations

import csv
import dataclasses
import errno
import json
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sharedlabel import evaluate, stages, train
from sharedlabel.config import parse
from sharedlabel.errors import StoreError, TrainingError, WriteError, guarded
from sharedlabel.grid.jobs import reason
from sharedlabel.records import TABLES, Results, read
from sharedlabel.records.measurements import Failure
from sharedlabel.report import __main__ as report
from sharedlabel.store import Output, Store, local
from tests.smallest import SMALLEST

TINY = (*SMALLEST, "--aggregators=[mean_vote, log_pool]", "--seeds=[0, 1]", "--dense.epochs=0")


@pytest.fixture
def tiny(tmp_path) -> tuple[str, ...]:
    """Arguments of a grid of nine cells: two ratios, aggregators and seeds, and the exact posterior."""
    return (*TINY, f"--output={tmp_path / 'runs'}", f"--data_root={tmp_path / 'data'}")


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "runs" / "tiny"


@pytest.fixture
def failing(monkeypatch) -> Callable[..., list[str]]:
    """Let calls of a stage fail; returns the keys of those that were tried."""

    def let(name: str, error: BaseException, wanted: Callable[[object], bool] = lambda config: True) -> list[str]:
        real, tried = stages.STAGES[name], []

        def fails(config, *others):
            if wanted(config):
                tried.append(config)
                raise error
            return real.run(config, *others)

        monkeypatch.setitem(stages.STAGES, name, dataclasses.replace(real, run=fails))
        return tried

    return let


def labels(failure: Failure) -> tuple[float, str, int]:
    return failure.ratio, failure.aggregator, failure.seed


def learned(results: Results) -> list[Failure]:
    """Failures but for those of the exact posterior, which every grid of synthetic data has."""
    return [failure for failure in results.failures if failure.aggregator != "exact"]


def test_what_fails_costs_its_own_cells_their_numbers_and_is_tried_again(tiny, folder, failing, capsys):
    error = TrainingError("expected a finite loss, got nan in epoch 1; lower learning_rate (now 1)")
    tried = failing("prune", error, lambda config: config.pruner.name == "magnitude" and config.seed == 1)
    assert train.main(tiny) == 3
    assert len(tried) == 1  # not once for every cell that needs it
    results, output = read(folder), " ".join(capsys.readouterr().out.split())
    assert {labels(failure) for failure in results.failures} == {(2.0, "mean_vote", 1), (2.0, "log_pool", 1)}
    assert {(row.ratio, row.seed) for row in results.rows if row.aggregator != "exact"} == {(1.0, 0), (1.0, 1)}
    assert {(f.stage, f.reason, f.call) for f in results.failures} == {("prune", str(error), results.failures[0].call)}
    assert results.cells == 9
    for said in (
        "failed: prune mlp magnitude 2x seed 1: expected a finite loss",
        "2 of 9 cells failed. 2 cells that did not fail are in no table: not computed, or of a method that lacks a",
        "- prune mlp magnitude 2x seed 1 (2 cells without numbers): expected a finite loss, got nan in epoch 1; lower",
    ):
        assert said in output
    page = (folder / "report.html").read_text()
    assert "2 of 9 cells failed." in page
    assert page.index("Traceback: failures/prune-") < page.index("How to read it")
    with (folder / "failures.csv").open() as file:
        assert [line["reason"] for line in csv.DictReader(file)] == [str(error)] * 2
    (details,) = (folder / "failures").iterdir()
    assert f"failures/{details.name}" == results.failures[0].details
    assert "raise error" in details.read_text()
    assert f"TrainingError: {error}" in details.read_text()

    # `evaluate` knows the store alone, and keeps what the run has told.
    assert evaluate.main([part for part in tiny if part != "--fail-fast"]) == 0
    assert read(folder).failures == results.failures
    assert details.exists()
    assert report.main([str(folder)]) == 0
    assert "2 of 9 cells failed." in capsys.readouterr().out


def test_the_next_run_tries_again_and_then_nothing_is_left_of_the_failure(tiny, folder, failing, monkeypatch, capsys):
    real = stages.STAGES["aggregate"]
    failing("aggregate", RuntimeError("a bug of\nits \x1b[31mown"), lambda c: c.aggregator.name == "log_pool")
    assert train.main(tiny) == 3
    results = read(folder)
    assert {failure.reason for failure in results.failures} == {r"RuntimeError: a bug of its \x1b[31mown"}
    assert {labels(f)[1] for f in results.failures} == {"log_pool"}
    assert len(list((folder / "failures").iterdir())) == 4
    repeated = results.failures[0]
    words = shlex.split(repeated.repeat.removeprefix("the same command with "))
    capsys.readouterr()
    assert train.main([*tiny, *words]) == 3  # it fails alone, too, beside the run
    alone = read(folder.with_name("tiny-again"))
    assert [f.cell for f in learned(alone)] == [repeated.cell]
    assert read(folder) == results

    capsys.readouterr()
    monkeypatch.setitem(stages.STAGES, "aggregate", real)
    assert train.main(tiny) == 0
    output = capsys.readouterr().out
    assert "failed" not in output
    stages_made = [line.split()[1] for line in output.splitlines() if line.startswith("[")]
    assert stages_made == ["aggregate", "evaluate"] * 4
    assert read(folder).failures == ()
    assert list((folder / "failures").iterdir()) == []
    assert "failed" not in (folder / "report.html").read_text().partition("Every")[0]


def test_where_no_method_is_whole_that_is_told_and_nothing_crashes(tiny, folder, failing, capsys):
    failing("dense", MemoryError())
    failing("exact", ZeroDivisionError("division by zero"))
    assert train.main(tiny) == 3
    results, output = read(folder), " ".join(capsys.readouterr().out.split())
    assert (len(results.failures), results.rows, results.summaries) == (9, (), ())
    assert "9 of 9 cells failed. No method is whole, so there are no tables." in output
    assert "- dense mlp seed 0 (5 cells without numbers): MemoryError" in output
    assert "9 of 9 cells failed." in (folder / "report.html").read_text()
    assert report.main([str(folder)]) == 0


def test_with_fail_fast_nothing_more_is_computed(tiny, folder, failing):
    failing("dense", TrainingError("no"), lambda config: config.seed == 0)
    evaluated = failing("evaluate", AssertionError("computed"))
    assert train.main([*tiny, "--fail-fast"]) == 3
    results = read(folder)
    assert len(results.failures) == 5  # the exact posterior stands beside the dense network
    assert {failure.stage for failure in results.failures} == {"dense"}
    assert evaluated == []


def test_times_that_cannot_be_measured_cost_nothing_but_themselves(tiny, folder, failing, capsys):
    failing("latency", RuntimeError("no clock"), lambda config: True)
    assert train.main(tiny) == 3
    results = read(folder)
    assert {failure.stage for failure in results.failures} == {"latency"}
    assert {row.cell for row in results.rows} >= {failure.cell for failure in results.failures}
    assert {row.measured_latency_ms for row in results.rows} == {None}
    assert results.latencies == ()
    assert "the times of 9 cells could not be measured." in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("error", "said"),
    [(KeyboardInterrupt(), "stopped: everything finished so far is stored"), (WriteError("disk full"), "error: disk")],
)
def test_what_every_later_call_would_meet_stops_the_run(tiny, folder, failing, capsys, error, said):
    tried = failing("prune", error)
    assert train.main(tiny) == 2
    assert capsys.readouterr().err.startswith(said)
    assert len(tried) == 1
    assert not (folder / "results.json").exists()


def test_an_interrupt_that_a_library_turns_into_its_own_error_is_no_failure(tiny, folder, monkeypatch, capsys):
    real = stages.STAGES["prune"]

    def translated(*arguments):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except KeyboardInterrupt:
            raise ValueError("could not determine the shape") from None

    monkeypatch.setitem(stages.STAGES, "prune", dataclasses.replace(real, run=translated))
    assert train.main(tiny) == 2
    assert capsys.readouterr().err.startswith("stopped: ")
    assert not (folder / "failures").exists()


def test_a_disk_that_is_full_stops_the_run_and_an_error_of_a_stage_does_not(tiny, folder, monkeypatch, failing):
    failing("calibrate", OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))  # its own place, not the store
    assert train.main(tiny) == 3
    assert {f.reason for f in learned(read(folder))} == {f"OSError: [Errno 28] {os.strerror(errno.ENOSPC)}"}
    before = sorted(folder.rglob("*"))
    monkeypatch.setattr(local, "_flush", lambda folder: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    assert train.main([*tiny, "--ratios=[1, 4]"]) == 2
    assert sorted(folder.rglob("*")) == before


def test_reasons_are_one_line_of_bounded_length():
    assert reason(ValueError("a\nb\r\n c")) == "ValueError: a b c"
    assert reason(KeyError()) == "KeyError"
    assert reason(TrainingError("lower it")) == "lower it"
    assert len(reason(ValueError("x" * 10_000))) < 600
    assert "failures" in TABLES


@pytest.fixture(scope="module")
def part(tmp_path_factory) -> Path:
    """Folder of the tiny grid, computed in part."""
    place = tmp_path_factory.mktemp("part")
    where = (f"--output={place / 'runs'}", f"--data_root={place / 'data'}")
    with pytest.MonkeyPatch.context() as quick:
        quick.setattr("sharedlabel.report.plots.drawn", lambda *_: [])
        assert train.main([*TINY, "--aggregators=[log_pool]", *where]) == 0
    return place / "runs"


@pytest.fixture
def computed(part, folder) -> Path:
    """Its store, copied, with damaged artifacts and a leftover."""
    shutil.copytree(part, folder.parent)
    place = folder.parent / "store"
    for shard in (place / "artifacts" / "evaluate").glob("*/*.safetensors"):
        shard.write_bytes(shard.read_bytes()[:-1])
    left = place / "partial" / f"{'a' * 64}@host@1"
    left.mkdir()
    os.utime(left, (0, 0))
    return place


def everything(place: Path) -> dict[str, tuple[int, bytes | None]]:
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else None) for path in place.rglob("*")
    }


@pytest.mark.filterwarnings("ignore:.*is damaged.*the next run computes it again:RuntimeWarning")
def test_plan_and_evaluate_remove_nothing_and_write_nothing_to_the_store(tiny, folder, computed, capsys):
    before = everything(folder.parent)
    assert train.main([*tiny, "--plan"]) == 0
    assert everything(folder.parent) == before
    place = everything(computed)
    capsys.readouterr()
    assert evaluate.main([*tiny, "--aggregators=[log_pool]"]) == 0
    assert "1 of 5 cells are finished" in capsys.readouterr().out  # the exact one
    assert everything(computed) == place


@pytest.mark.filterwarnings("ignore:.*is damaged.*the next run computes it again:RuntimeWarning")
def test_a_store_that_is_only_read_saves_nothing(computed):
    with pytest.raises(StoreError, match=r"got .* to read only"):
        Store(computed, readonly=True).save("dense", "a" * 64, Output({"x": torch.ones(1)}), {}, 0.0)


@pytest.mark.parametrize(("number", "code"), [(errno.EROFS, 0), (errno.EACCES, 0), (errno.ENOSPC, 2)])
@pytest.mark.filterwarnings("ignore:.*is damaged.*the next run computes it again:RuntimeWarning")
def test_where_others_compute_evaluate_shows_what_it_may_not_write(tiny, computed, monkeypatch, capsys, number, code):
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("sharedlabel.files.leases.claimed", refuse)
    capsys.readouterr()
    assert evaluate.main([*tiny, "--aggregators=[log_pool]"]) == code
    told = capsys.readouterr()
    if code:
        assert told.err.startswith("error: expected to write ")
    else:
        assert "1 of 5 cells are finished" in told.out
        assert "is not ours to write a report to" in told.out


def test_a_place_that_is_absent_is_not_made(tmp_path):
    absent = Store(tmp_path / "none", readonly=True)
    assert not absent.has("dense", "a" * 64)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text",
    ['{"format": "1"}', "null", "[]", "{}", '{"format": null}', '{"format": true}', '{"format": 0}', '{"format": 1.5}',
     "[" * 100_000, '{"format": 1, "format": 1}', "", "\0", '{"format": NaN}', '{"format": ' + "9" * 5000 + "}"],
    ids=lambda text: text[:20],
)  # fmt: skip
@pytest.mark.parametrize("readonly", [False, True])
def test_a_marker_that_nobody_wrote_is_a_message(tmp_path, text, readonly, capsys):
    (tmp_path / "store.json").write_text(text)
    assert guarded(lambda: Store(tmp_path, readonly) and None) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: expected a store that can be read")
    assert "choose another folder with --output" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: "[" * 100_000,
        lambda manifest: json.dumps(manifest)[:-1] + ', "key": "b"}',
        lambda manifest: "null",
        lambda manifest: json.dumps(manifest | {"files": {"../../store.json": "0"}}),
        lambda manifest: json.dumps(manifest | {"files": 3}),
        lambda manifest: '{"sha256": ' + "9" * 5000 + "}",
    ],
)
def test_a_manifest_that_nobody_wrote_is_damage(tmp_path, change):
    artifact = Store(tmp_path).save("dense", "a" * 64, Output({"x": torch.ones(1)}), {}, 0.0)
    file = artifact.folder / "manifest.json"
    file.write_text(change(json.loads(file.read_text())))
    with pytest.warns(RuntimeWarning, match="dense/aaaaaaaaaaaa is damaged"):
        assert not Store(tmp_path).has("dense", "a" * 64)


def test_w_and_b_that_takes_nothing_loses_nothing(tiny, folder, monkeypatch, capsys):
    wandb = pytest.importorskip("wandb")

    def refuse(**settings):
        raise wandb.errors.UsageError("Invalid project name 'a/b':\ncannot contain characters '/'")

    monkeypatch.setattr(wandb, "init", refuse)
    arguments = [*tiny[:-3], *tiny[-2:], "--tracking=offline", "--name=tiny"]
    assert train.main(arguments) == 2
    told = capsys.readouterr()
    assert told.err.count("\n") == 1
    assert told.err.startswith(
        "error: expected W&B to take tiny-mlp-none-1x-mean_vote-frozen-iid-s0, got UsageError: Invalid project name "
        "'a/b': cannot contain characters '/'; all results are stored and the report is written: correct it, or choose "
        "--tracking none, and run the same command again"
    )
    assert "Best method per ratio" in told.out
    assert len(read(folder).rows) == 9 * 4
    assert (folder / "report.html").exists()


def test_a_figure_that_cannot_be_drawn_costs_no_number(tiny, folder, monkeypatch):
    assert train.main([*tiny, "--seeds=[0]"]) == 0
    assert (folder / "report.html").exists()

    def broken(*_):
        raise ValueError("a bug of the figures")

    monkeypatch.setattr("sharedlabel.report.plots.drawn", broken)
    with pytest.raises(ValueError, match="a bug of the figures"):
        train.main(tiny)
    assert {row.seed for row in read(folder).rows} == {0, 1}
    assert not (folder / "report.html").exists()  # it would be that of other numbers
    assert list((folder / "plots").iterdir()) == []


def test_the_switch_is_one_of_train_alone(tiny, capsys):
    assert parse([*tiny, "--fail-fast"])[1].fail_fast is True
    assert parse(tiny)[1].fail_fast is False
    assert evaluate.main([*tiny, "--fail-fast"]) == 2
    assert "fail-fast" in capsys.readouterr().err
    assert dataclasses.is_dataclass(Failure)
    assert sys.modules["sharedlabel.evaluate"] is evaluate
