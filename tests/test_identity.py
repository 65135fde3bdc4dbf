"""What a result is called is what it is: stored results are used where they would be computed alike, and only there."""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import sharedlabel.aggregators
from sharedlabel import grid
from sharedlabel import plugins as plugins_of_package
from sharedlabel.deployment import cells
from sharedlabel.errors import StoreError
from sharedlabel.running import rows
from sharedlabel.store import Store

SCRATCH = '''
    """One instance decides."""
    from dataclasses import dataclass
    from sharedlabel.aggregators._base import Aggregator, normalize
    from sharedlabel.aggregators._scratch_share import share

    @dataclass(frozen=True)
    class Config:
        """No options."""

    class OneDecides(Aggregator):
        permutation_invariant = False

        def forward(self, embeddings, logits):
            return normalize(share(+logits[:, :1]).expand_as(logits))

    def build(config, shape):
        return OneDecides()
'''
HELPER = '''
    def share(logits):
        """Scale logits."""
        return 0.5 * logits
'''


def missing(experiment) -> Counter[str]:
    """Count the calls that a run would compute, by stage."""
    store = Store(Path(experiment.output) / "store")
    return Counter(node.stage for node in grid.missing(grid.prepare(experiment), store))


class Plugins:
    """Aggregators in a folder of their own, loaded anew after every edit, as a new process does."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.time = folder, 0

    def write(self, **texts: str) -> None:
        self.time += 1
        for name, text in texts.items():
            path = self.folder / f"{name}.py"
            path.write_text(textwrap.dedent(text))
            os.utime(path, (self.time, self.time))
        for name in ("scratch", "_scratch_share"):
            sys.modules.pop(f"sharedlabel.aggregators.{name}", None)


@pytest.fixture
def plugins(tmp_path, monkeypatch) -> Iterator[Plugins]:
    package = sharedlabel.aggregators
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield Plugins(tmp_path)
    for name in ("scratch", "_scratch_share"):
        sys.modules.pop(f"sharedlabel.aggregators.{name}", None)
        vars(package).pop(name, None)


def test_an_edited_plugin_is_computed_again(done, experiment, plugins, run):
    """A sign flipped in an aggregator's file, or in a private module that it imports, gives results of its own."""
    experiment = dataclasses.replace(experiment, aggregators=("log_pool", "scratch"))

    def ri() -> dict[str, float]:
        by_aggregator = {
            r.aggregator: r.ri for r in run(experiment).results.rows if (r.split, r.ratio, r.n) == ("test", 1, 4)
        }
        assert not missing(experiment)
        return by_aggregator

    plugins.write(scratch=SCRATCH, _scratch_share=HELPER)
    usual = ri()
    plugins.write(scratch=SCRATCH.replace("One instance", "The first instance").replace("False", "False  # one only"))
    assert not missing(experiment)
    calls = {"aggregate": 2, "adaptive": 2, "evaluate": 2}
    plugins.write(scratch=SCRATCH.replace("+logits", "-logits"))
    assert missing(experiment) == calls
    flipped = ri()
    plugins.write(scratch=SCRATCH, _scratch_share=HELPER.replace("0.5", "-0.5"))
    assert missing(experiment) == calls
    likewise = ri()
    plugins.write(scratch=SCRATCH, _scratch_share=HELPER)
    assert not missing(experiment)
    assert ri() == usual
    assert flipped["log_pool"] == likewise["log_pool"] == usual["log_pool"]
    assert usual["scratch"] - flipped["scratch"] > 0.1
    assert flipped["scratch"] == pytest.approx(likewise["scratch"])


def test_the_sizes_to_report_are_widened_without_fitting_anything_again(done, experiment):
    joint = dataclasses.replace(experiment, training=("frozen", "joint"))
    wider = dataclasses.replace(joint, evaluation=dataclasses.replace(joint.evaluation, n=(1, 2, 3, 4)))
    assert missing(experiment) == {}
    assert missing(wider) - missing(joint) == {"evaluate": 6}


def test_widening_changes_no_row_that_was_there(done, experiment, finished, run):
    wider = dataclasses.replace(experiment, evaluation=dataclasses.replace(experiment.evaluation, n=(1, 2, 3, 4)))
    rows = [row for row in run(wider).results.rows if row.n != 3]
    assert len(rows) == len(finished.results.rows)
    for row, before in zip(rows, finished.results.rows, strict=True):
        assert vars(row) | {"cell": ""} == vars(before) | {"cell": ""}
    assert {row.aggregator_macs > 0 for row in rows if row.aggregator == "lstm"} == {True}


def swap(store: Store, stage: str, keys: tuple[str, str]) -> None:
    """Put the second artifact of a stage in the place of the first."""
    first, second = (store._folder(stage, key) for key in keys)
    shutil.rmtree(first)
    shutil.copytree(second, first)


def test_an_artifact_in_the_place_of_another_changes_no_row(done, experiment, finished, run):
    one, other = [cell.evaluate.key for cell in finished.grid.cells if cell.aggregator == "mean_vote"]
    swap(done, "evaluate", (one, other))
    with pytest.warns(RuntimeWarning, match=f"evaluate/{one[:12]} is damaged .*that of evaluate/{other[:12]}"):
        again = run(experiment)
    assert again.results.rows == finished.results.rows
    assert done.load("evaluate", one).manifest["key"] == one


def test_a_summary_in_the_place_of_another_changes_no_table(done, experiment, finished, run):
    stages = ("summarize", "summarize_adaptive")
    usual = {stage: done.manifests(stage)[0]["key"] for stage in stages}
    run(dataclasses.replace(experiment, aggregators=("mean_vote", "lstm")))
    for stage, key in usual.items():
        (other,) = {manifest["key"] for manifest in done.manifests(stage)} - {key}
        swap(done, stage, (key, other))
    with pytest.warns(RuntimeWarning) as warned:
        again = run(experiment).results
    said = [str(one.message) for one in warned]
    assert [any(f"{stage}/{key[:12]} is damaged" in one for one in said) for stage, key in usual.items()] == [True] * 2
    assert (again.summaries, again.adaptive) == (finished.results.summaries, finished.results.adaptive)


def test_a_summary_is_made_again_when_rows_say_something_else(done, experiment, finished, monkeypatch, run):
    """Rows are put together outside of every stage; their content is in the keys of what is made from them."""
    shutil.rmtree(Path(experiment.output) / experiment.name)  # or they would be read back
    usual = rows.cost.cost
    monkeypatch.setattr(rows.cost, "cost", lambda *counts: 2 * usual(*counts))
    again = run(experiment).results.summaries
    before = [2 * summary.cost_dense_passes for summary in finished.results.summaries]
    assert [summary.cost_dense_passes for summary in again] == pytest.approx(before)


def test_the_seconds_of_results_are_those_of_all_calls_whoever_ran_them(done, experiment, finished, run):
    calls = [manifest for folder in (done.root / "artifacts").iterdir() for manifest in done.manifests(folder.name)]
    took = sum(manifest["seconds"] for manifest in calls)
    assert took > 0
    shutil.rmtree(Path(experiment.output) / experiment.name)
    again = run(experiment).results.provenance
    assert again["seconds"] == finished.results.provenance["seconds"] == round(took, 1)


@pytest.mark.parametrize("name", ["backbones.mlp", "aggregators.lstm"])
def test_a_network_is_not_rebuilt_with_other_code_than_it_was_made_with(finished, monkeypatch, name):
    cell = next(cell for cell in finished.grid.cells if cell.aggregator == "lstm")
    usual = plugins_of_package.code
    changed = {name: "0" * 64}
    monkeypatch.setattr(
        plugins_of_package, "code", lambda named: {one: changed.get(one, code) for one, code in usual(named).items()}
    )
    with pytest.raises(StoreError, match=f"expected the code of {name} with which .* was computed, got another one"):
        cells.restore(cell.id, finished.results.dataset, finished.store)
