"""Latencies and error margins in a grid: what is asked for is measured once, and lands in its tables."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import errno
import fcntl
import io
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from sharedlabel import grid
from sharedlabel.choose.candidates import Request
from sharedlabel.choose.recommendation import recommend
from sharedlabel.choose.text import render
from sharedlabel.config import parse
from sharedlabel.config.sections import LatencyConfig, MarginConfig
from sharedlabel.errors import ConfigError
from sharedlabel.grid import progress, words
from sharedlabel.grid.calls import job
from sharedlabel.grid.driver import finish
from sharedlabel.grid.executors.here import Here
from sharedlabel.records import read, write
from sharedlabel.running import collect
from sharedlabel.stages import latency
from sharedlabel.store import Store


def test_every_network_has_a_row_per_batch(finished):
    latencies = finished.results.latencies
    assert [(r.pruner, r.ratio, r.batch) for r in latencies] == [
        (pruner, ratio, batch) for pruner, ratio in (("none", 1.0), ("magnitude", 2.0)) for batch in (1, 32, 256)
    ]
    for record in latencies:
        assert (record.device, record.mode, record.threads, record.seed) == ("cpu", "eager", 1, 0)
        assert record.measured_low_ms <= record.measured_median_ms <= record.measured_high_ms
        assert record.measured_images_per_second == pytest.approx(1000 * record.batch / record.measured_median_ms)
        assert record.measured_speedup == pytest.approx(record.measured_dense_ms / record.measured_median_ms)


def test_times_are_of_the_processor_beside_those_on_the_wall(finished):
    for record in finished.results.latencies:
        assert (record.measured_clock, record.measured_contended) == ("cpu", record.measured_contention > 1.1)
        assert record.measured_wall_ms > 0
        assert record.measured_load is None or record.measured_load >= 0
    marked = {r.ratio: r.measured_contended for r in finished.results.latencies if r.batch == 32}
    assert all(row.measured_contended == marked[row.ratio] for row in finished.results.rows)


def test_times_are_measured_once_everything_else_of_the_run_is_done(experiment):
    made: list[str] = []

    class Seen:
        def __call__(self, node, seconds, worker=0):
            made.append(node.stage if seconds is None else "")

        def waiting(self, reason):
            raise AssertionError(reason)

        def failed(self, failed, worker=0):
            raise AssertionError(failed.details)

    prepared, store = grid.prepare(experiment), Store(Path(experiment.output) / "store")
    planned = [node.stage for node in grid.missing(prepared, store)]
    assert finish(prepared, store, Here(job(prepared), store, 1), Seen()) == {}
    stages = [stage for stage in made if stage]
    assert stages == planned
    assert stages.count("latency") == 2
    assert stages[-2:] == ["latency", "latency"]
    assert grid.missing(prepared, store) == []


class WaitError(Exception):
    """Raised in place of a wait."""


def waits():
    raise WaitError


def test_who_measures_waits_for_others_and_they_for_him(tmp_path):
    ours, theirs = Store(tmp_path), Store(tmp_path)
    for own, other in ((False, True), (True, False), (True, True)):
        with ours.at_work(own, waits), pytest.raises(WaitError), theirs.at_work(other, waits):
            pass
    with ours.at_work(False, waits), theirs.at_work(False, waits):
        pass
    with theirs.at_work(True, waits), Store(tmp_path / "elsewhere").at_work(True, waits):
        pass


def test_without_locks_a_run_goes_on_and_says_so(tmp_path, monkeypatch):
    def unsupported(file, kind):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    told = pytest.warns(RuntimeWarning, match="expected a file system with locks at .*, got: No locks available")
    with told, Store(tmp_path).at_work(True, lambda: None):
        entered = True
    assert entered


def test_a_wait_ends_with_the_work_of_the_other(tmp_path):
    ours, theirs = Store(tmp_path), Store(tmp_path)
    with contextlib.ExitStack() as other:
        other.enter_context(ours.at_work(False, lambda: None))
        with theirs.at_work(True, other.close), pytest.raises(WaitError), ours.at_work(False, waits):
            pass


def test_a_run_says_that_it_waits(finished):
    console = Console(file=io.StringIO(), width=100)
    told = progress.reporter(console, finished.grid, [])
    with told.showing():
        told.waiting("until other runs are done")
    assert console.file.getvalue() == "waiting until other runs are done\n"


def test_the_dense_network_is_its_own_reference(finished):
    assert {r.measured_speedup for r in finished.results.latencies if r.pruner == "none"} == {1.0}
    assert all(r.measured_speedup != 1.0 for r in finished.results.latencies if r.pruner == "magnitude")


def test_sizes_agree_with_the_rows(finished):
    rows = {row.ratio: row for row in finished.results.rows}
    for record in finished.results.latencies:
        row = rows[record.ratio]
        assert (record.parameters, record.macs_effective) == (row.parameters, row.macs_effective)
        assert record.theoretical_speedup == row.theoretical_speedup
        assert 0 < record.file_bytes_dense - row.bytes_dense < 2000
        assert 0 < record.file_bytes_sparse - row.bytes_sparse < 2000
        assert record.peak_memory_bytes > row.bytes_dense


def test_rows_show_the_measurement_of_32_images(finished):
    medians = {r.ratio: r.measured_median_ms for r in finished.results.latencies if r.batch == 32}
    for row in finished.results.rows:
        assert (row.measured_latency_ms, row.measured_latency_batch) == (medians[row.ratio], 32)


def measured(device: str, mode: str, batch: int) -> dict[str, object]:
    return {"device": device, "mode": mode, "batch": batch}


def test_rows_prefer_the_first_device_eager_and_32_images_else_the_largest_batch():
    usual = measured("gpu", "eager", 32)
    others = [measured("gpu", "compiled", 32), measured("gpu", "eager", 256), measured("cpu", "eager", 32)]
    assert latency._usual([*others[:2], usual, others[2]]) == usual
    assert latency._usual(others) == others[1]
    assert latency._usual(others[:1]) == others[0]


def test_every_layer_has_a_margin(finished):
    margins = finished.results.margins
    assert [(r.layer, r.weights, r.epsilon, r.inputs) for r in margins] == [
        ("body.1", 64 * 32, 0.1, 256),
        ("body.3", 32 * 16, 0.1, 256),
    ]
    for record in margins:
        assert 0 <= record.certified_weights <= record.observed_weights <= record.weights
        assert record.certified_gap_max <= record.epsilon_absolute
        assert record.observed_gap_max <= record.epsilon_absolute
        assert record.refusal == ""


def test_a_margin_is_found_once_per_dense_network(finished):
    assert len({cell.ends["margin"].key for cell in finished.grid.cells}) == 1
    assert len(finished.store.manifests("margin")) == 1
    (node,) = {cell.ends["margin"] for cell in finished.grid.cells}
    assert words.describe(node) == "margin mlp seed 0"


def test_a_latency_names_its_own_network(finished):
    described = {words.describe(cell.latency) for cell in finished.grid.cells}
    assert described == {"latency mlp none 1x seed 0", "latency mlp magnitude 2x seed 0"}


def test_the_tables_are_files(finished):
    folder = Path(finished.experiment.output) / finished.experiment.name
    stored = read(folder)
    assert (stored.latencies, stored.margins) == (finished.results.latencies, finished.results.margins)
    for table in ("latencies", "margins"):
        with (folder / f"{table}.csv").open() as file:
            lines = list(csv.DictReader(file))
        assert len(lines) == len(getattr(stored, table))
        assert lines[0]["backbone"] == "mlp"


def test_the_weights_of_all_layers_together_are_those_of_the_network(finished):
    layers = finished.results.layers
    networks = {(r.pruner, r.ratio): r for r in finished.results.rows}
    for (pruner, ratio), row in networks.items():
        own = [one for one in layers if (one.pruner, one.ratio, one.seed) == (pruner, ratio, row.seed)]
        left, whole = sum(one.weights for one in own), sum(one.weights_dense for one in own)
        assert 1 - left / whole == pytest.approx(row.sparsity)
        assert max(one.weights / one.weights_dense for one in own) == pytest.approx(row.densest_layer_share)
    assert len(layers) == len({(one.pruner, one.ratio, one.seed, one.layer) for one in layers})


def test_without_epsilons_there_are_no_margins(done, experiment, run):
    outcome = run(dataclasses.replace(experiment, margin=MarginConfig(epsilons=())))
    assert outcome.results.margins == ()
    assert grid.missing(outcome.grid, done) == []
    assert (Path(experiment.output) / experiment.name / "margins.csv").read_text().count("\n") == 1


def test_what_is_asked_for_is_in_the_keys_and_nothing_else_is_computed_again(finished):
    def absent(**values: object) -> list[str]:
        wanted = grid.prepare(dataclasses.replace(finished.experiment, **values))
        return [node.stage for node in grid.missing(wanted, finished.store)]

    assert absent() == []
    assert absent(latency=LatencyConfig(batches=(1, 8))) == ["latency", "latency"]
    assert absent(latency=LatencyConfig(modes=("eager", "compiled"))) == ["latency", "latency"]
    assert absent(margin=MarginConfig(epsilons=(0.1, 0.2))) == ["margin"]
    assert absent(margin=MarginConfig(alpha=0.4)) == ["margin"]


def test_a_deleted_measurement_is_measured_again_and_only_that(done, experiment, run):
    prepared = grid.prepare(experiment)
    shutil.rmtree(done.root / "artifacts" / "latency")
    assert {node.stage for node in grid.missing(prepared, done)} == {"latency"}
    assert len(run(experiment).results.latencies) == 6
    assert grid.missing(prepared, done) == []


def test_what_is_finished_is_reported_before_times_are_measured_which_is_last(done, experiment):
    shutil.rmtree(done.root / "artifacts" / "latency")
    prepared = grid.prepare(experiment)
    part = grid.finished(prepared, done)
    assert part.cells == prepared.cells
    results = collect.collect(part, done, 0.0)
    assert results.latencies == ()
    assert (
        {row.measured_latency_ms for row in results.rows} == {row.measured_contended for row in results.rows} == {None}
    )
    write(results, Path(experiment.output) / "early")
    assert read(Path(experiment.output) / "early") == results
    assert "latency not measured" in render(recommend(results, Request(budget=9)))


def test_a_method_counts_as_finished_when_its_margin_is_there(done, experiment):
    prepared = grid.prepare(experiment)
    assert len(grid.finished(prepared, done).cells) == len(prepared.cells)
    shutil.rmtree(done.root / "artifacts" / "margin")
    assert grid.finished(prepared, done).cells == ()


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--latency.batches=[]", "latency.batches: expected at least one value, got none"),
        ("--latency.batches=[8,8]", "latency.batches: expected each value once, got 8 twice; remove one"),
        ("--latency.batches=[0]", "latency.batches.0: expected a whole number from 1 to 1000000, got 0"),
        ("--latency.modes=[fast]", "latency.modes.0: expected 'eager' or 'compiled', got 'fast'"),
        ("--latency.devices=[tpu]", "latency.devices.0: expected 'trainer' or 'cpu', got 'tpu'"),
        ("--latency.seconds=0", "latency.seconds: expected a number above 0 and at most 1000000, got 0"),
        ("--margin.epsilons=[-0.1]", "margin.epsilons.0: expected a number above 0 and at most 1000000, got -0.1"),
        ("--margin.epsilons=[0.1,0.1]", "margin.epsilons: expected each value once, got 0.1 twice"),
        ("--margin.alpha=1", "margin.alpha: expected a number above 0 and below 1, got 1"),
        ("--margin.input=3", "unknown option 'margin.input'; did you mean 'margin.inputs'?"),
    ],
)
def test_mistakes_in_the_options_are_named(argument, message):
    with pytest.raises(ConfigError, match=message):
        parse([argument])


def test_two_devices_that_are_the_same_are_measured_once(finished):
    data, cell = finished.grid.data, finished.grid.cells[0]
    artifact = finished.store.load(cell.pruned.stage, cell.pruned.key)
    options = LatencyConfig(batches=(1,), devices=("trainer", "cpu"), repeats=3)
    config = latency.Config(cell.latency.config.backbone, options)
    runtime = dataclasses.replace(finished.experiment.trainer, accelerator="cpu")
    output = latency.run(config, data, {"backbone": artifact, "reference": artifact}, runtime)
    assert [SimpleNamespace(**entry).device for entry in output.meta["latencies"]] == ["cpu"]
