"""W&B runs, written offline for real and read back from their files, key by key."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import yaml

from sharedlabel import export
from sharedlabel.config import parse
from sharedlabel.config.names import DENSE
from sharedlabel.errors import ConfigError
from sharedlabel.records import AXES, TABLES, Identity
from sharedlabel.records.measurements import Failure
from sharedlabel.running.published import Published
from sharedlabel.running.rows import losses, rows
from sharedlabel.tracking import methods, models, runs
from sharedlabel.tracking.about import About, options
from sharedlabel.tracking.dashboards import __main__ as dashboards
from sharedlabel.tracking.places import Place, Sweep, mode
from sharedlabel.tracking.publishing import Publisher
from sharedlabel.tracking.runs import CURVES
from sharedlabel.tracking.tracker import Tracker
from tests.conftest import Finished
from tests.wandb_files import Offline, offline, without_account

wandb = pytest.importorskip("wandb")


@pytest.fixture(autouse=True, scope="module")
def _no_account(tmp_path_factory):
    """Neither this machine's key nor its settings."""
    with pytest.MonkeyPatch.context() as patch:
        without_account(patch, tmp_path_factory.mktemp("home"))
        patch.setenv("WANDB_SILENT", "true")
        patch.setenv("WANDB_DATA_DIR", str(tmp_path_factory.mktemp("staged")))
        yield


def place(finished: Finished, folder: Path, **options: Any) -> Place:
    experiment = dataclasses.replace(finished.experiment, tracking="offline", project="project", entity="team")
    return Place.of(dataclasses.replace(experiment, **options), folder)


def publish(finished: Finished, folder: Path) -> Publisher:
    """Publish the whole grid in this process."""
    publisher = Publisher(place(finished, folder), aside=False)
    output = Path(finished.experiment.output) / finished.experiment.name
    figures: Future[Any] = Future()
    figures.set_result(lambda: {"ri": "<svg></svg>"})
    with publisher:
        published = Published(publisher, finished.grid, output)
        published.rest(finished.store, finished.results, figures)
    return publisher


@pytest.fixture(scope="module")
def folder(finished, tmp_path_factory) -> Path:
    """A folder into which the small grid is published."""
    folder = tmp_path_factory.mktemp("published")
    publish(finished, folder)
    return folder / "wandb"


@pytest.fixture(scope="module")
def read(folder) -> dict[str, Offline]:
    """All runs of the small grid, by id."""
    return offline(folder)


def of_kind(read: dict[str, Offline], kind: str) -> list[Offline]:
    return [run for run in read.values() if run.about.job_type == kind]


@pytest.fixture(scope="module")
def about(finished) -> About:
    results = finished.results
    return About(results.experiment, results.config, results.provenance, options(finished.experiment))


def test_another_project_gets_all_runs_anew(tmp_path):
    run = runs.Run("0", "name", "cell", {}, ())
    for project in ("one", "two", "one"):
        with Tracker(Place("digits", project, "", "offline", tmp_path)) as tracker:
            tracker.publish(run)
    assert len(list((tmp_path / "wandb").glob("offline-run-*"))) == 2


def test_what_w_and_b_is_told_by_its_own_variables_and_settings_counts(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    (tmp_path / "netrc").write_text("machine wandb.mine.org login user password secret\n")
    assert mode("auto") == "offline"
    (tmp_path / "settings").write_text("[default]\nbase_url = https://wandb.mine.org\n")
    assert mode("auto") == "online"
    monkeypatch.setenv("WANDB_MODE", "OFFLINE")
    with pytest.raises(ConfigError, match=r"WANDB_MODE: expected one of online, offline, .*, got 'OFFLINE'; correct"):
        mode("auto")
    monkeypatch.setenv("WANDB_DISABLED", "true")
    assert mode("auto") == "none"


def test_a_user_without_a_home_loses_nothing(tmp_path, monkeypatch):
    (tmp_path / "home").touch()  # in which nobody, whatever their rights, can make a folder
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "model").write_text("weights")
    files = runs.Files("model", "model", {"model": tmp_path / "model"}, ("latest",))
    with Tracker(Place("one", "project", "team", "offline", tmp_path / "wandb")) as tracker:
        tracker.publish(runs.Run("0", "name", "cell", {}, (), files=files))
    staged = tmp_path / "wandb" / "home"
    assert "weights" in {path.read_text() for path in (staged / "artifacts" / "staging").iterdir()}
    assert {os.environ.pop(name) for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR")} == {str(staged)}


def test_there_is_a_run_for_every_cell_and_method_and_one_for_the_grid_and_then_nothing(finished, folder, read):
    where, grid = place(finished, folder.parent), methods.extent(finished.results)
    cells = {where.run_id(cell.id) for cell in finished.grid.cells}
    pruned = {Identity.of(cell)._replace(ratio=1.0) for cell in finished.grid.cells if cell.pruner != DENSE}
    assert {one.about.run_id for one in of_kind(read, "cell")} == cells
    assert len(of_kind(read, "method")) == len(pruned) == 3
    assert [one.about.run_id for one in of_kind(read, "summary")] == [where.run_id(grid)]
    assert {(one.about.run_group, one.about.project, one.about.entity) for one in read.values()} == {
        ("digits", "project", "team")
    }
    assert {one.exit for one in read.values()} == {0}
    before = sorted(folder.rglob("*.wandb"))
    assert not publish(finished, folder.parent).busy
    assert sorted(folder.rglob("*.wandb")) == before


def test_names_ids_and_tags_tell_experiment_and_cell(finished, read):
    names = {one.about.display_name for one in of_kind(read, "cell")}
    assert {"digits-mlp-none-1x-log_pool-frozen-iid-s0", "digits-mlp-magnitude-2x-lstm-frozen-iid-s0"} <= names
    assert {one.about.display_name for one in of_kind(read, "method")} == {
        "digits: mean_vote+magnitude", "digits: log_pool+magnitude", "digits: lstm+magnitude",
    }  # fmt: skip
    assert all(one.startswith("digits-") for one in read)
    tags = {tuple(one.about.tags) for one in of_kind(read, "cell")}
    assert ("digits", "mlp", "magnitude", "lstm", "iid") in tags


@pytest.mark.parametrize("axis", ["data", *AXES])
def test_names_of_runs_tell_every_axis(finished, about, axis):
    first = rows(finished.grid.cells[0], finished.grid, finished.store)[0]
    other = {"ratio": 8.0, "seed": 7, "protocol": "grouped"}.get(axis, "other")
    assert about.name(first) != about.name(dataclasses.replace(first, **{axis: other}))


def test_experiments_that_share_cells_do_not_share_runs(finished, tmp_path):
    names = ("one", "two", "x" * 100, "x" * 99)
    ids = {place(finished, tmp_path, name=name).run_id(finished.grid.cells[0].id) for name in names}
    assert len(ids) == len(names)
    assert max(map(len, ids)) <= 128


def test_the_configuration_of_a_cell_has_axes_sections_options_commit_and_versions(finished, read):
    cell = next(cell for cell in finished.grid.cells if (cell.pruner, cell.aggregator) == ("magnitude", "lstm"))
    config = read[Place("digits", "", "", "none", Path()).run_id(cell.id)].config
    assert {name: config[name] for name in AXES} == {name: getattr(cell, name) for name in AXES}
    assert config["experiment"] == config["data"] == "digits"
    assert config["method"] == "lstm+magnitude"
    assert config["aggregator_options"] == json.loads(json.dumps(cell.aggregate.config.aggregator.payload()))
    assert config["pruner_options"]["schedule"]["when"] == "trained"
    assert config["backbone_options"]["widths"] == [32, 16]
    assert (config["dense"]["epochs"], config["fit"]["learning_rate"]) == (2, finished.experiment.fit.learning_rate)
    assert config["commit"] == finished.results.provenance["commit"]
    assert {"torch", "python", "sharedlabel"} <= set(config["versions"])
    assert not [name for name in config if "." in name]  # W&B takes dots for levels


def test_a_cell_holds_curves_against_n_and_epochs_and_values_for_every_n(finished, read):
    where = Place("digits", "", "", "none", Path())
    for cell in finished.grid.cells:
        run, stored = read[where.run_id(cell.id)], rows(cell, finished.grid, finished.store)
        curves = {point["n"]: point for point in run.history if "n" in point}
        assert set(curves) == {row.n for row in stored}
        for row in stored:
            passes = row.cost_dense_passes
            for metric in CURVES:
                expected = row.ri / passes if metric == "ri_per_pass" else getattr(row, metric)
                assert curves[row.n][f"{row.split}/{metric}"] == pytest.approx(expected)
                assert run.summary[f"{row.split}/{metric}@{row.n}"] == pytest.approx(expected)
            assert run.summary[f"{row.split}/ri_low@{row.n}"] == pytest.approx(row.ri_low)
        largest = max((row for row in stored if row.split == "test"), key=lambda row: row.n)
        parts = [run.summary[f"cost/{one}_passes@{largest.n}"] for one in ("network", "aggregator")]
        assert sum(parts) == pytest.approx(largest.cost_dense_passes)
        assert run.summary["network/parameters"] == largest.parameters
        trained = losses(cell, finished.store)
        assert {"dense", "prune"} <= set(trained)
        for stage, values in trained.items():
            assert [point[f"loss/{stage}"] for point in run.history if f"loss/{stage}" in point] == pytest.approx(
                values
            )
        table = json.loads(run.tables["rows"].read_text())
        column = table["columns"].index("n_accuracy")
        assert [row[column] for row in table["data"]] == pytest.approx([row.n_accuracy for row in stored])


def test_metrics_are_defined_with_their_axis_and_their_best_value(read):
    (run, *_) = of_kind(read, "cell")
    assert run.curves["test/ri"] == ("n", {"max"})
    assert run.curves["validation/negative_log_likelihood"] == ("n", {"min"})
    assert run.curves["loss/dense"] == ("epoch", {"min"})
    method = next(one for one in of_kind(read, "method"))
    assert method.curves["by_ratio/*"] == ("ratio", {"none"})


def test_a_method_holds_curves_against_the_ratio_with_the_dense_network_and_differences(finished, read):
    run = next(one for one in of_kind(read, "method") if one.config["method"] == "lstm+magnitude")
    points = {point["ratio"]: point for point in run.history if "ratio" in point}
    assert set(points) == {1.0, 2.0}
    tests = [one for one in finished.results.summaries if one.split == "test" and one.aggregator == "lstm"]
    assert len(tests) == 2 * 3
    for one in tests:
        for name in methods.MEASURES:
            assert points[one.ratio][f"by_ratio/{name}@{one.n}"] == pytest.approx(getattr(one, name))
    pairs = [
        one for one in finished.results.comparisons
        if (one.axis, one.aggregator, one.reference) == ("aggregator", "lstm", "log_pool")
    ]  # fmt: skip
    assert len(pairs) == 2 * 2 * 3
    for one in pairs:
        start = f"by_ratio/{one.metric}_difference"
        assert points[one.ratio][f"{start}@{one.n}"] == pytest.approx(one.difference)
        assert points[one.ratio][f"{start}_low@{one.n}"] == pytest.approx(one.low_adjusted)
    stopped = [one for one in finished.results.adaptive if (one.aggregator, one.ratio) == ("lstm", 2.0)]
    drawn = [
        (point["adaptive/instances"], value)
        for point in run.history
        for name, value in point.items()
        if name.endswith("@2x/ri")
    ]
    expected = [(one.instances, one.ri) for one in stopped]
    assert len(expected) > 3
    assert sorted(drawn) == [pytest.approx(one) for one in sorted(expected)]


def test_sweet_spots_are_single_values_of_methods_and_of_the_grid(finished, read):
    (grid,) = of_kind(read, "summary")
    by_method = {one.config["method"]: one for one in of_kind(read, "method")}
    for spot in finished.results.sweet_spots:
        name = f"{spot.aggregator}+{spot.pruner}"
        for column in ("ratio", "n", "ri", "validation_ri"):
            expected = getattr(spot, column)
            assert by_method[name].summary[f"{methods.rule_of(spot)}/{column}"] == pytest.approx(expected)
            assert grid.summary[f"{methods.rule_of(spot)}/{name}/{column}"] == pytest.approx(expected)
    budget = [one for one in finished.results.sweet_spots if (one.rule, one.value) == ("budget", 1.0)]
    best = max(one.validation_ri for one in budget if one.validation_ri is not None)
    assert grid.summary["sweet_spot/budget=1/best/validation_ri"] == pytest.approx(best)


def test_the_summary_run_holds_tables_plots_the_front_and_the_results_as_an_artifact(finished, read):
    (run,) = of_kind(read, "summary")
    assert set(run.tables) == {name for name in TABLES if getattr(finished.results, name)}
    assert len(json.loads(run.tables["rows"].read_text())["data"]) == len(finished.results.rows)
    assert len(run.html) == 1
    front = [point for point in run.history if "pareto/ri" in point]
    costs = [point["pareto/cost_dense_passes"] for point in front]
    assert costs == sorted(costs) != []
    grid = methods.extent(finished.results)
    assert [one for one in run.artifacts if one[1] == "results"] == [("digits-results", "results", {"latest", grid})]


def test_what_is_written_is_what_the_plain_data_say(finished, about, read):
    """Dashboards are checked against the plain data, which need no W&B."""
    grid = methods.extent(finished.results)
    plain = [*methods.of_methods(finished.results, about, grid)]
    plain += [runs.of_cell(rows(one, finished.grid, finished.store), {}, about) for one in finished.grid.cells]
    for run in plain:
        written = read[Place("digits", "", "", "none", Path()).run_id(run.identifier)]
        assert run.keys() <= written.keys()


def failure(finished: Finished) -> Failure:
    first = rows(finished.grid.cells[1], finished.grid, finished.store)[0]
    identity = {name: getattr(first, name) for name in ("cell", "data", *AXES)}
    return Failure(**identity, stage="prune", key="0" * 16, call="c", reason="it broke", details="d", repeat="again")


def test_a_cell_that_failed_is_a_failed_run_with_its_reason_once_and_then_a_run_of_its_own(finished, about, tmp_path):
    told, cell = failure(finished), finished.grid.cells[1]
    for one in (told, told, dataclasses.replace(told, reason="it broke otherwise")):
        with Tracker(place(finished, tmp_path)) as tracker:
            tracker.publish(runs.of_failure(one, about))
    with Tracker(place(finished, tmp_path)) as tracker:
        tracker.publish(runs.of_cell(rows(cell, finished.grid, finished.store), {}, about))
    found = list(offline(tmp_path / "wandb").values())
    failed = [one for one in found if one.about.job_type == "failed cell"]
    assert [(one.exit, one.summary["failed"], one.summary["repeat"]) for one in failed] == [
        (1, "it broke", "again"), (1, "it broke otherwise", "again"),
    ]  # fmt: skip
    assert failed[0].about.display_name == "digits-mlp-none-1x-log_pool-frozen-iid-s0-failed"
    assert {name: failed[0].config[name] for name in AXES} == {name: getattr(told, name) for name in AXES}
    assert [one.exit for one in found if one.about.job_type == "cell"] == [0]


def test_auto_is_offline_without_a_key_and_online_with_one(monkeypatch, tmp_path):
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert mode("auto") == mode("online") == "offline"
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert mode("auto") == "online"
    assert mode("offline") == "offline"
    assert mode("none") == "none"
    monkeypatch.delenv("WANDB_API_KEY")
    (tmp_path / "netrc").write_text("machine api.wandb.ai\n  login user\n  password 0123\n")
    assert mode("auto") == "online"
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert mode("auto") == "offline"


@pytest.mark.parametrize(
    ("stated", "resolved"), [("offline", "offline"), ("dryrun", "offline"), ("online", "online"), ("disabled", "none")]
)
def test_the_environment_decides_what_auto_means(monkeypatch, stated, resolved):
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_MODE", stated)
    assert mode("auto") == resolved
    assert mode("none") == "none"


def test_without_tracking_wandb_is_never_imported(tmp_path):
    """A stub that fails on import stands where W&B would be found."""
    (tmp_path / "wandb.py").write_text("raise AssertionError('imported')\n")
    script = """
from pathlib import Path
import sys
from sharedlabel.config import Experiment
from sharedlabel.tracking.places import Place
from sharedlabel.tracking.publishing import Publisher
from sharedlabel.tracking.runs import Run
experiment = Experiment(tracking="none")
with Publisher.of(experiment, Place.of(experiment, Path("nowhere")), aside=True) as publisher:
    publisher.publish("0", lambda: Run("0", "name", "cell", {}, ()))
print("wandb" in sys.modules, Path("nowhere").exists())
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))},
        check=False,
    )
    assert done.stdout == "False False\n", done.stderr


ROOT = Path(__file__).parents[1]


def test_what_an_agent_of_a_sweep_starts_is_a_command_line_of_ours():
    """With the arguments that W&B's own agent makes of the parameters of the example."""
    from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

    sweep = yaml.safe_load((ROOT / "examples" / "sweep.yaml").read_text())
    chosen = {name: one["values"][-1] if "values" in one else one["min"] for name, one in sweep["parameters"].items()}
    told = create_sweep_command_args({"args": {name: {"value": value} for name, value in chosen.items()}})["args"]
    assert "--fit.learning_rate=0.0003" in told
    start = sweep["command"].index("train") + 1
    given = [part for word in sweep["command"][start:] for part in (told if word == "${args}" else [word])]
    given[given.index("--config") + 1] = str(ROOT / given[given.index("--config") + 1])
    experiment, _ = parse(given)
    for name, value in chosen.items():
        section, option = name.split(".")
        assert getattr(getattr(experiment, section), option) == value


def test_the_trial_of_a_sweep_is_known_by_what_the_agent_says(finished, tmp_path, monkeypatch, read):
    (tmp_path / "config.yaml").write_text("wandb_version: 1\nfit.learning_rate:\n  value: 0.01\n")
    for name, value in (("ID", "sweep1"), ("PARAM_PATH", str(tmp_path / "config.yaml"))):
        monkeypatch.setenv(f"WANDB_SWEEP_{name}", value)
    monkeypatch.setenv("WANDB_RUN_ID", "trial1")
    monkeypatch.setenv("WANDB_PROJECT", "of the sweep")
    where = place(finished, tmp_path)
    assert (where.sweep, where.project) == (Sweep("sweep1", "trial1", {"fit.learning_rate": 0.01}), "of the sweep")
    (grid,) = of_kind(read, "summary")
    wanted = yaml.safe_load((ROOT / "examples" / "sweep.yaml").read_text())["metric"]["name"]
    assert isinstance(grid.summary[wanted], float)


def test_the_commands_of_the_page_are_commands():
    page = (ROOT / "docs" / "wandb.md").read_text()
    lines = [line.split("#")[0].split() for line in page.splitlines() if line.startswith("sharedlabel ")]
    parsers = {"dashboards": dashboards.parser, "export": export.parser}
    assert {line[1] for line in lines} == {"train", *parsers}
    for _, command, *given in lines:
        if command == "train":
            assert parse(given)[0].trainer.logger == "wandb"
        else:
            parsers[command]().parse_args(given)


def test_an_exported_model_is_an_artifact_of_its_own(finished, about, tmp_path):
    row = rows(finished.grid.cells[0], finished.grid, finished.store)[0]
    model = tmp_path / "model"
    model.mkdir()
    (model / "card.json").write_text("{}")
    run = models.of_model(row, model, {"backbone.onnx": "0" * 64}, {"labels": ["a", "b"]}, about)
    with Tracker(place(finished, tmp_path)) as tracker:
        tracker.publish(run)
    (read,) = offline(tmp_path / "wandb").values()
    assert read.artifacts == [(f"digits-{row.cell}", "model", {"latest", row.cell})]
    assert read.about.job_type == "export"
