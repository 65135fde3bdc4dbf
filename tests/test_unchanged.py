"""A run that would write the same again reads what a former one has written."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sharedlabel import train
from sharedlabel.config import Experiment
from sharedlabel.records import NAME, TABLES
from sharedlabel.running import about, collect, unchanged

HEAVY = ("matplotlib", "pytorch_lightning", "scipy", "sklearn", "torch._dynamo", "torchmetrics", "wandb")


def folder_of(experiment: Experiment) -> Path:
    return Path(experiment.output) / experiment.name


def written(folder: Path) -> dict[str, tuple[int, bytes]]:
    """When and with what each file of a run was written."""
    files = [path for path in folder.rglob("*") if path.is_file() and "wandb" not in path.parts]
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


@pytest.fixture
def collected(monkeypatch) -> list[int]:
    """How many cells each collection had."""
    seen, real = [], collect.collect

    def counted(grid, *rest, **others):
        seen.append(len(grid.cells))
        return real(grid, *rest, **others)

    monkeypatch.setattr(collect, "collect", counted)
    return seen


def test_nothing_is_read_or_written_where_nothing_has_changed(done, small, experiment, collected, capsys):
    assert train.main([*small, "--tracking=none"]) == 0
    first, printed = written(folder_of(experiment)), capsys.readouterr().out
    cells = len(collected)
    assert train.main([*small, "--tracking=none"]) == 0
    assert written(folder_of(experiment)) == first
    assert capsys.readouterr().out == printed
    assert len(collected) == cells


def told(content: bytes) -> bytes:
    """Return a file without how long the last run took."""
    return re.sub(rb"(last_run_seconds[^0-9]*)[0-9.]+", rb"\1", content)


@pytest.mark.parametrize("name", ["report.html", "rows.csv", NAME, "plots/*.svg"])
@pytest.mark.parametrize("gone", [True, False], ids=["removed", "edited"])
def test_what_is_edited_or_removed_is_written_again(done, small, experiment, collected, name, gone):
    arguments = [*small, "--tracking=none", "--margin.epsilons=[]"]  # drawn here, not by the session's grid
    assert train.main(arguments) == 0
    (path, *_) = sorted(folder_of(experiment).glob(name))
    content, collections = path.read_bytes(), len(collected)
    if gone:
        path.unlink()
    else:
        path.write_bytes(content + b" ")
    assert train.main(arguments) == 0
    assert len(collected) == collections + 1
    assert told(path.read_bytes()) == told(content)


def test_other_results_other_code_and_another_machine_are_told_apart(finished, monkeypatch):
    grid, store = finished.grid, finished.store
    known = unchanged.made_of(grid, store)
    assert unchanged.made_of(grid, store) == known
    fewer = dataclasses.replace(grid, cells=grid.cells[1:])
    renamed = dataclasses.replace(grid, experiment=dataclasses.replace(grid.experiment, name="other"))
    others = {unchanged.made_of(fewer, store), unchanged.made_of(renamed, store)}
    machine = about.machine(grid)
    with monkeypatch.context() as patch:
        patch.setattr(about, "machine", lambda _: {**machine, "torch": "0.0"})
        others.add(unchanged.made_of(grid, store))
    with monkeypatch.context() as patch:
        patch.setattr(unchanged, "_code", lambda: "edited")
        others.add(unchanged.made_of(grid, store))
    assert len(others | {known}) == 5


def test_what_is_read_back_is_what_was_collected(finished):
    folder = folder_of(finished.experiment)
    assert unchanged.results(folder, unchanged.made_of(finished.grid, finished.store)) == finished.results
    assert unchanged.results(folder, "0" * 64) is None
    some = unchanged.results(folder, unchanged.made_of(finished.grid, finished.store), ("summaries",))
    assert some == dataclasses.replace(finished.results, **{name: () for name in TABLES if name != "summaries"})


def test_a_file_that_is_no_results_is_not_read_back(finished, tmp_path):
    shutil.copytree(folder_of(finished.experiment), tmp_path / "run")
    made_of = unchanged.made_of(finished.grid, finished.store)
    assert unchanged.results(tmp_path / "run", made_of) is not None
    (tmp_path / "run" / NAME).write_text("{}")
    assert unchanged.results(tmp_path / "run", made_of) is None


def test_a_run_with_nothing_to_do_imports_nothing_that_trains_draws_or_publishes(done, small, experiment):
    script = f"""
import sys
from sharedlabel import train
code = train.main(sys.argv[1:])
print("imported", code, [name for name in {HEAVY!r} if name in sys.modules])
"""
    before = written(folder_of(experiment))
    ended = subprocess.run(
        [sys.executable, "-c", script, *small, "--tracking=none"],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert ended.stdout.endswith("imported 0 []\n"), ended.stdout[-500:] + ended.stderr
    assert written(folder_of(experiment)) == before
