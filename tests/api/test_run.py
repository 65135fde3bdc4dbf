"""`sl.run`, `sl.load_results` and the tables as DataFrames."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import subprocess
import sys
from pathlib import Path

import jaxtyping
import numpy as np
import pytest

import sharedlabel as sl
from sharedlabel import records
from sharedlabel.api.results import frame
from sharedlabel.api.run import experiment_of
from sharedlabel.config.commandline import plain, to_yaml
from sharedlabel.errors import ConfigError, StoreError


@pytest.fixture
def pandas():
    return pytest.importorskip("pandas", reason='pandas is not installed; pip install "sharedlabel[pandas]"')


def test_the_package_is_quick_and_offers_what_it_lists() -> None:
    code = "import sys, sharedlabel; print(*sorted({'torch', 'numpy', 'pandas', 'pydantic'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"
    for name in sl.__all__:
        assert getattr(sl, name) is getattr(sl, name)
        assert name in dir(sl)
    with pytest.raises(AttributeError, match="module 'sharedlabel' has no attribute 'runn'"):
        sl.runn  # noqa: B018


@pytest.mark.parametrize("package", [sl, sl.metrics])
def test_a_package_lists_its_public_names_and_no_module_that_happens_to_be_loaded(package) -> None:
    assert {"attach", "annotations", "TYPE_CHECKING"} < vars(package).keys()
    assert any(f"{package.__name__}.{name}" in sys.modules for name in vars(package).keys() - {*package.__all__})
    assert {name for name in dir(package) if not name.startswith("__")} == {*package.__all__} - {"__version__"}
    assert {"__doc__", "__file__", "__name__"} < {*dir(package)}


@pytest.mark.parametrize("package", ["sharedlabel", "sharedlabel.metrics"])
def test_type_checkers_see_the_names_where_they_are_imported_from(package: str) -> None:
    module = __import__(package, fromlist=["__all__"])
    tree = ast.parse(Path(module.__file__).read_text())
    [block] = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {alias.name: node.module for node in block.body for alias in node.names}
    [table] = [node for node in ast.walk(block) if isinstance(node, ast.Dict)]
    homes = ast.literal_eval(table)
    modules = {name: f"{where}.{name}" if where == package else where for name, where in seen.items()}
    assert homes == modules
    assert set(module.__all__) - {"__version__"} == homes.keys()
    assert list(module.__all__) == sorted(module.__all__)


def test_a_run_computes_and_writes_what_the_command_does(done, experiment, finished, capfd, pandas) -> None:
    folder = Path(experiment.output) / experiment.name
    before = (folder / "rows.csv").read_bytes()
    (folder / "rows.csv").unlink()
    results = sl.run(experiment)
    assert (folder / "rows.csv").read_bytes() == before
    assert results.records.rows == finished.results.rows
    assert results.folder == folder
    assert capfd.readouterr() == ("", "")
    assert sl.load_results(folder).rows.equals(results.rows)
    assert sl.load_results(folder / "results.json").folder == folder
    read = pandas.read_csv(folder / "summaries.csv")
    assert read.columns.tolist() == results.summaries.columns.tolist()
    assert read.ri.tolist() == results.summaries.ri.tolist()


def test_a_run_prints_when_asked_and_writes_nothing_when_told(done, experiment, finished, capfd) -> None:
    folder = Path(experiment.output) / experiment.name
    for file in folder.rglob("*.*"):
        file.unlink()
    results = sl.run(plain(experiment), verbose=True, write=False, aggregators=["log_pool"])
    assert {row.aggregator for row in results.records.rows} == {"log_pool"}
    assert results.folder is None
    assert list(folder.rglob("*.*")) == []
    assert "1797 images of digits" in capfd.readouterr().out


def test_failures_are_a_warning_and_a_table(experiment, pandas) -> None:
    with pytest.warns(UserWarning, match=r"1 of 1 cells failed.*finite loss.*table `failures`"):
        results = sl.run(
            experiment, aggregators=["log_pool"], ratios=[1], retrain={"optimizer": "sgd", "learning_rate": 1e6}
        )
    assert results.failures.stage.tolist() == ["prune"]
    assert len(results.rows) == 0
    assert results.rows.ri.dtype == "float64"


def test_files_mappings_experiments_and_options_mean_the_same(tmp_path, experiment) -> None:
    (tmp_path / "own.yaml").write_text(to_yaml(experiment))
    for config in (tmp_path / "own.yaml", str(tmp_path / "own.yaml"), plain(experiment), experiment):
        assert experiment_of(config) == experiment
    seen = experiment_of(
        experiment,
        {
            "name": "1e3",
            "seeds": np.arange(2),
            "ratios": (1, np.float32(2)),
            "evaluation.n": [1, 2],
            "split": {"seed": np.int64(3)},
            "data": {"name": "imagefolder", "path": Path("images")},
            "trainer": sl.Experiment().trainer,
        },
    )
    assert (seen.name, seen.seeds, seen.ratios, seen.evaluation.n) == ("1e3", (0, 1), (1, 2), (1, 2))
    assert seen.evaluation.partitions == experiment.evaluation.partitions
    assert seen.split == dataclasses.replace(experiment.split, seed=3)
    assert seen.data == {"name": "imagefolder", "path": "images"}
    assert experiment_of({"data": "imagefolder", "data.path": "null"}).data["path"] == "null"  # text, not nothing
    assert experiment_of({"trainer.checkpoint_seconds": None, "ratios": [1e-5 + 2]}).ratios == (2.00001,)
    assert experiment_of({"data.path": "x", "data": "imagefolder"} | {}, {"data.path": "y"}).data["path"] == "y"


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        ("nowhere.yaml", {}, "expected a YAML file at nowhere.yaml"),
        ({"sedes": [1]}, {}, "unknown option 'sedes'; did you mean 'seeds'"),
        ({}, {"split.sed": 1}, "unknown option 'split.sed'; did you mean 'split.seed'"),
        ({"config": "own.yaml"}, {}, "unknown option 'config'"),
        ({"plan": True}, {}, "unknown option 'plan'"),
        ({"seeds": object()}, {}, "seeds: expected plain data, got a value of <class 'object'>"),
        ({"ratios": [0.5]}, {}, "ratios.0: expected a number of at least 1, got 0.5"),
    ],
)
def test_mistakes_are_a_sentence(config, options, message) -> None:
    with pytest.raises(ConfigError, match=message):
        experiment_of(config, options)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (3, "expected a YAML file, a mapping of options or an Experiment, got a int; pass one"),
        ({3: 1}, "unknown option '3'"),
    ],
)
def test_what_is_no_configuration_is_a_sentence(config, message) -> None:
    with pytest.raises(ConfigError, match=message):
        inspect.unwrap(experiment_of)(config)  # without the types that are checked under pytest


def test_results_that_are_not_there_are_a_sentence(tmp_path) -> None:
    with pytest.raises(StoreError, match=r"expected a results\.json at"):
        sl.load_results(tmp_path)


@pytest.mark.parametrize(("load", "what"), [(sl.load_results, "a run"), (sl.load_model, "an exported model")])
def test_what_is_no_path_is_a_sentence(monkeypatch, load, what) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ConfigError, match=f"^expected the path of {what}, got a NoneType; pass it as text$"):
        load(None)


def test_columns_have_their_types_whatever_is_in_them(finished, pandas) -> None:
    results = sl.Results(finished.results)
    assert set(results.tables) == set(records.TABLES) <= set(dir(results))
    for table, kind in records.TABLES.items():
        filled, empty = getattr(results, table), frame(kind, [])
        assert filled.columns.tolist() == [entry.name for entry in dataclasses.fields(kind)]
        assert filled.dtypes.equals(empty.dtypes)
        assert len(filled) == len(getattr(finished.results, table))
    row = dataclasses.replace(finished.results.rows[0], measured_latency_ms=None, measured_latency_batch=None)
    without = frame(records.Row, [row])
    assert without.measured_latency_ms.isna().all()
    assert without.measured_latency_batch.dtype == "Int64"
    assert results.rows is results.rows
    with pytest.raises(AttributeError, match="results have no table 'rowz'; available: rows, summaries"):
        results.rowz  # noqa: B018
    assert repr(results).startswith("Results of 'digits': rows (")


def test_without_pandas_the_records_are_there(finished, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    results = sl.Results(finished.results)
    assert results.records.rows
    with pytest.raises(ConfigError, match=r'expected pandas.*pip install "sharedlabel\[pandas\]"'):
        results.rows  # noqa: B018
