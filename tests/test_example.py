"""`examples/plugin`, installed as its README says, without the network: its tests, and a grid with all its plugins."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sharedlabel import plugins
from sharedlabel.code import digests
from sharedlabel.config import parse
from sharedlabel.plugins import outside

EXAMPLE = Path(__file__).parents[1] / "examples" / "plugin"


def python(folder: Path, *arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Install the example beside this package; its own copy, since installing writes into the folder."""
    example = shutil.copytree(EXAMPLE, tmp_path_factory.mktemp("example") / "plugin")
    target = example.parent / "installed"
    options = ("--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check")
    python(example, "-m", "pip", "install", *options, "--target", str(target), ".")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(target)
        patch.setattr(plugins, "_taken", {})
        outside._entry_points.cache_clear()
        yield example
    outside._entry_points.cache_clear()
    digests.forget()


def test_its_plugins_keep_their_promises_as_tests_of_its_own(installed):
    path = os.pathsep.join([str(installed.parent / "installed"), str(EXAMPLE.parents[1])])
    out = python(installed, "-m", "pytest", "-p", "no:cacheprovider", "-v", PYTHONPATH=path)
    for name in ("kites", "squeezenet", "scaled_magnitude", "cautious_pool"):
        assert f"{name}::" in out
    assert "cautious_pool::causal PASSED" in out
    assert "test_a_kite_is_of_one_class PASSED" in out
    assert "failed" not in out.splitlines()[-1]


def test_its_grid_runs_and_gives_what_its_configuration_announces(installed, tmp_path, run):
    experiment = parse(
        [
            f"--config={installed / 'kites.yaml'}",
            "--evaluation.partitions=2",
            "--sweet_spot.replicates=20",
            "--adaptive.rules=[]",
            "--margin.epsilons=[]",
            "--latency.seconds=0.01",
            f"--output={tmp_path}",
        ]
    )[0]
    finished = run(experiment)
    assert not finished.results.failures
    rows = finished.results.rows
    assert {(row.backbone, row.aggregator) for row in rows} == {
        ("squeezenet", "cautious_pool"),
        ("squeezenet", "log_pool"),
    }
    assert {(row.pruner, row.ratio) for row in rows} == {("none", 1), ("magnitude", 4), ("scaled_magnitude", 4)}
    tested = [row for row in rows if row.split == "test"]
    for aggregator, pruner in {(row.aggregator, row.pruner) for row in tested}:
        one, four = sorted(
            (row for row in tested if (row.aggregator, row.pruner) == (aggregator, pruner)), key=lambda row: row.n
        )
        assert (one.n, four.n) == (1, 4)
        assert 0.85 < one.n_accuracy < four.n_accuracy
        assert one.ri < four.ri
    assert any("aggregators.cautious_pool" in cell.evaluate.code() for cell in finished.grid.cells)
    text = "".join(path.read_text() for path in tmp_path.rglob("*.json"))
    assert "cautious_pool" in text
    assert str(installed) not in text
