"""Dashboards as code: what they ask for is what runs hold, and the command writes and checks them."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from sharedlabel import cli
from sharedlabel.errors import TrackingError
from sharedlabel.records import Results
from sharedlabel.tracking.dashboards import panels
from sharedlabel.tracking.runs import STEP
from tests.conftest import Finished
from tests.wandb_files import without_account

pytest.importorskip("wandb_workspaces")


@pytest.fixture(autouse=True)
def _no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    without_account(monkeypatch, tmp_path)


def test_every_metric_of_every_plot_is_published(finished: Finished) -> None:
    sections = panels.sections(finished.results)
    assert [section.title for section in sections] == [
        "Relative information against compression",
        "N-accuracy against compression",
        "Differences to log_pool",
        "Relative information against cost",
        "Sweet spots",
        "More instances",
        "Adaptive numbers of instances",
    ]
    held = panels.published(finished.results)
    panels.check(sections, held)
    asked = set().union(*(panel.metrics() for section in sections for panel in section.panels))
    assert {f"by_ratio/ri@{n}" for n in (1, 2, 4)} <= asked
    titles = [panel.title for section in sections if section.title == "Sweet spots" for panel in section.panels]
    assert {"1 dense pass: relative information", "98% of dense RI, n = 4: ratio"} <= set(titles)
    without = {kind: names - {"by_ratio/ri@2"} for kind, names in held.items()}
    with pytest.raises(TrackingError, match=r"expected method runs with by_ratio/ri@2 for the plot 'Relative info"):
        panels.check(sections, without)


def test_the_specification_names_metrics_runs_and_columns_that_there_are(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ignored = shutil.ignore_patterns("wandb")
    run = shutil.copytree(Path(finished.experiment.output) / "digits", tmp_path / "digits", ignore=ignored)
    assert cli.main(["dashboards", str(run)]) == 0
    assert "`wandb login`, a run with --tracking online and the same command again" in capsys.readouterr().out
    (run / "wandb" / "wandb").mkdir(parents=True)
    assert cli.main(["dashboards", str(run)]) == 0
    assert f"`wandb sync {run / 'wandb' / 'wandb'}` and the same command again" in capsys.readouterr().out
    assert cli.main(["dashboards", str(run), "--project", "a/b"]) == 2
    assert "project: expected 1 to 128 characters" in capsys.readouterr().err
    written = json.loads((run / "dashboards.json").read_text())
    assert set(written) == {"workspace", "report"}
    held = set().union(*panels.published(finished.results).values())
    for one in written.values():
        named = set(metrics(one))
        assert {"by_ratio/ri@4", "pareto/ri", "test/ri", "test/ri@4", "adaptive/instances", "ratio"} <= named
        assert named <= held
    pinned = written["workspace"]["section"]["runSets"][0]["runFeed"]["columnOrder"]
    assert {f"summary:test/{metric}@{n}" for metric in ("ri", "n_accuracy") for n in (1, 2, 4)} <= set(pinned)
    assert len(pinned) == len(set(pinned))


def metrics(spec: Any) -> list[str]:
    """Return all metrics that plots of a specification name, as W&B writes them."""
    if isinstance(spec, list):
        return [name for one in spec for name in metrics(one)]
    if not isinstance(spec, dict):
        return []
    found = [name for key, value in spec.items() if key not in ("xAxis", "yAxis", "metrics") for name in metrics(value)]
    axes = [spec[key] for key in ("xAxis", "yAxis") if isinstance(spec.get(key), str)]
    listed = spec["metrics"] if isinstance(spec.get("metrics"), list) else []
    named = [one.removeprefix("summary:") for one in (*axes, *listed) if isinstance(one, str)]
    return found + [one for one in named if not one.startswith(("config:", "config.")) and one != "_step"]


def test_the_intervals_of_differences_are_dotted_and_have_the_colour_of_their_method(
    finished: Finished, tmp_path: Path
) -> None:
    run = shutil.copytree(Path(finished.experiment.output) / "digits", tmp_path / "digits")
    assert cli.main(["dashboards", str(run), "--offline", "--entity=team"]) == 0
    text = (run / "dashboards.json").read_text()
    spec = json.loads(text)["workspace"]
    (section,) = [
        one for one in spec["section"]["panelBankConfig"]["sections"] if one["name"].startswith("Differences")
    ]
    config = section["panels"][0]["config"]
    marks, colors = config["overrideMarks"], config["overrideColors"]
    assert set(marks.values()) == {"dotted"}
    assert len(marks) == 2 * 3  # both ends, of three methods
    for series in marks:
        method = series.partition(":")[0]
        assert len({json.dumps(color) for name, color in colors.items() if name.startswith(method)}) == 1


def test_trainings_are_shown_where_they_are_logged(finished: Finished) -> None:
    config = {**finished.results.config, "trainer": {**finished.results.config["trainer"], "logger": "wandb"}}
    results: Results = dataclasses.replace(finished.results, config=config)
    (section,) = [one for one in panels.sections(results) if one.title == "Trainings"]
    assert {panel.x for panel in section.panels} == {STEP}


def test_without_the_library_the_command_says_what_to_install(
    finished: Finished, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert cli.main(["dashboards", str(Path(finished.experiment.output) / "digits"), "--offline"]) == 2
    assert 'pip install "sharedlabel[dashboards]"' in capsys.readouterr().err
