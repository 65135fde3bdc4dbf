"""The grid end to end: cells, keys, resume, scratch plugins, joint training, the oracle."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
import sys
import textwrap
from pathlib import Path

import pytest
import torch

import sharedlabel
from sharedlabel import config, grid, stages, train
from sharedlabel.config import Experiment
from sharedlabel.config.sections import ComparisonConfig, TrainerConfig
from sharedlabel.errors import CompressionError, ConfigError, DataError
from sharedlabel.grid import plan, words
from sharedlabel.records import read
from sharedlabel.running.rows import losses, rows
from sharedlabel.stages import _read, dense, joint
from sharedlabel.store import Artifact
from sharedlabel.training import loaders


def comparable(results):
    """Rows without what was measured with a clock."""
    return [
        {name: value for name, value in vars(row).items() if not name.startswith("measured_")} for row in results.rows
    ]


def changed(experiment: Experiment, **values) -> Experiment:
    return dataclasses.replace(experiment, **values)


def test_every_cell_has_rows_of_every_n_and_split(finished):
    experiment, results = finished.experiment, finished.results
    assert len(finished.grid.cells) == 2 * 3
    assert len(results.rows) == 6 * 2 * 3
    assert {(row.ratio, row.aggregator, row.split, row.n) for row in results.rows} == {
        (ratio, aggregator, split, n)
        for ratio in (1.0, 2.0)
        for aggregator in ("mean_vote", "log_pool", "lstm")
        for split in ("validation", "test")
        for n in (1, 2, 4)
    }
    assert len(results.summaries) == len(results.rows)
    assert {spot.rule for spot in results.sweet_spots} == {"retain", "budget", "target", "knee", "marginal"}
    folder = Path(experiment.output) / experiment.name
    assert read(folder) == results
    assert {path.name for path in folder.iterdir()} >= {
        "report.html",
        "results.json",
        "rows.csv",
        "summaries.csv",
    }


def test_adaptive_n_is_fitted_for_every_cell(finished):
    """From the stage to the tables: what a stop is, it is on the tuples of the evaluation."""
    experiment, results, store = finished.experiment, finished.results, finished.store
    assert {(t.cell, t.rule, t.nominal_error) for t in results.thresholds} == {
        (cell.id, "threshold", error) for cell in finished.grid.cells for error in experiment.adaptive.errors
    }
    points = {(p.ratio, p.aggregator, p.value): p for p in results.adaptive if p.aim == "instances"}
    assert len(points) == 6 * 9
    for cell in finished.grid.cells:
        stopping, scored = (store.load(node.stage, node.key) for node in (cell.adaptive, cell.evaluate))
        at = torch.tensor(experiment.evaluation.n) - 1
        assert torch.equal(stopping.tensors()["correct"][..., at], scored.tensors()["test.correct"])
        torch.testing.assert_close(stopping.tensors()["information"][..., at], scored.tensors()["test.information"])
        rows = {r.n: r for r in results.rows if (r.cell, r.split) == (cell.id, "test")}
        least, most = (points[cell.ratio, cell.aggregator, value] for value in (1.0, 4.0))
        assert most.instances == pytest.approx(4)
        assert (most.ri, most.n_accuracy) == pytest.approx((rows[4].ri, rows[4].n_accuracy), rel=1e-5)
        assert most.cost_dense_passes == pytest.approx(rows[4].cost_dense_passes)
        assert 1 <= least.instances < 1.2  # the threshold is from validation, where one instance was always enough
        assert least.n_accuracy == pytest.approx(rows[1].n_accuracy, abs=0.1)


def test_without_rules_or_with_single_instances_nothing_is_adaptive(experiment):
    scoring = dataclasses.replace(experiment.evaluation, n=(1,))
    off = dataclasses.replace(experiment.adaptive, rules=())
    usual = {cell.id: cell.adaptive.key for cell in grid.prepare(experiment).cells}
    assert all(cell.adaptive is None for cell in grid.prepare(changed(experiment, evaluation=scoring)).cells)
    without = grid.prepare(changed(experiment, adaptive=off)).cells
    assert {cell.id: cell.adaptive for cell in without} == dict.fromkeys(usual)
    more = dataclasses.replace(experiment.adaptive, rules=("threshold", "sprt"))
    other = {cell.id: cell.adaptive.key for cell in grid.prepare(changed(experiment, adaptive=more)).cells}
    assert other.keys() == usual.keys()
    assert set(other.values()).isdisjoint(usual.values())


def test_numbers_of_a_row_are_consistent(finished):
    results = finished.results
    for row in results.rows:
        assert row.n_accuracy_low <= row.n_accuracy <= row.n_accuracy_high
        assert row.ri_low <= row.ri <= row.ri_high <= 1
        assert row.ri == pytest.approx(row.information_gain / row.label_entropy)
        assert row.cost_macs == pytest.approx(row.n * row.macs_effective + row.aggregator_macs)
        assert row.cost_dense_passes == pytest.approx(row.cost_macs / row.macs_dense)
        assert row.efficiency == pytest.approx(row.information_gain / row.cost_dense_passes)
        assert row.theoretical_speedup == pytest.approx(row.macs_dense / row.macs_effective)
        assert row.achieved_ratio == pytest.approx(row.parameters_dense / row.parameters)
        assert row.parameters == round(row.parameters_dense / row.ratio)
    single = {(r.ratio, r.split): r.n_accuracy for r in results.rows if r.n == 1 and r.aggregator == "log_pool"}
    assert single == {
        (r.ratio, r.split): r.n_accuracy for r in results.rows if r.n == 1 and r.aggregator == "mean_vote"
    }


def test_a_second_run_computes_nothing_and_says_the_same(finished, monkeypatch, run):
    first = finished.results
    assert grid.missing(finished.grid, finished.store) == []

    def refuse(*arguments):
        raise AssertionError("a stage was called again")

    for name in stages.STAGES:
        monkeypatch.setitem(stages.STAGES, name, dataclasses.replace(stages.STAGES[name], run=refuse))
    again = run(finished.experiment).results
    assert again.rows == first.rows
    assert again.summaries == first.summaries
    assert again.sweet_spots == first.sweet_spots


def test_two_stores_agree_bit_for_bit(finished, experiment, run):
    assert experiment.output != finished.experiment.output
    assert comparable(run(experiment).results) == comparable(finished.results)


def test_a_larger_grid_reuses_the_smaller_one(finished):
    experiment, store = finished.experiment, finished.store
    wider = grid.prepare(
        changed(experiment, ratios=(1.0, 2.0, 4.0), aggregators=(*experiment.aggregators, "attention"))
    )
    absent = grid.missing(wider, store)
    assert sum(node.stage == "dense" for node in absent) == 0
    assert [node.config.ratio for node in absent if node.stage == "prune"] == [4.0]
    assert {
        node.config.aggregator.name
        for node in absent
        if node.stage == "aggregate" and node.config.aggregator.name != "attention"
    }


def test_paths_and_devices_are_not_in_the_keys_and_everything_else_is(experiment, tmp_path):
    def keys(**values) -> set[str]:
        return {cell.id for cell in grid.prepare(changed(experiment, **values)).cells}

    base = keys()
    assert keys(output="other", data_root=str(tmp_path), name="other", tracking="offline", project="p") == base
    assert keys(trainer=TrainerConfig(accelerator="cpu", channels_last=True)) == base
    assert keys(trainer=TrainerConfig(precision="bf16-mixed")).isdisjoint(base)
    assert keys(seeds=(1,)).isdisjoint(base)
    assert keys(split=dataclasses.replace(experiment.split, seed=1)).isdisjoint(base)
    assert keys(evaluation=dataclasses.replace(experiment.evaluation, prior="empirical")).isdisjoint(base)
    assert keys(retrain=dataclasses.replace(experiment.retrain, weight_decay=0.5)).isdisjoint(base)


def test_the_dense_network_is_there_even_if_no_ratio_asks_for_it(experiment):
    cells = grid.prepare(changed(experiment, ratios=(4.0,), pruners=("magnitude", "none"))).cells
    assert {(cell.pruner, cell.ratio) for cell in cells} == {("none", 1.0), ("magnitude", 4.0)}


def test_the_plan_counts_what_is_done(finished, experiment, capsys, small):
    assert train.main([*small, "--plan"]) == 0
    before = capsys.readouterr().out
    assert "unknown" not in before  # it was rehearsed
    assert not (Path(experiment.output) / experiment.name).exists()
    shutil.copytree(finished.experiment.output, experiment.output, dirs_exist_ok=True)
    assert train.main([*small, "--plan"]) == 0
    assert "Every cell is done" in capsys.readouterr().out


def test_joint_training_is_an_axis(done, experiment, run):
    joint = dataclasses.replace(experiment.joint, epochs=1, batch_size=8)
    outcome = run(changed(experiment, training=("frozen", "joint"), aggregators=("log_pool", "lstm"), joint=joint))
    results, store = outcome.results, outcome.store
    test = {
        (row.training, row.ratio, row.aggregator): row for row in results.rows if row.split == "test" and row.n == 4
    }
    assert len(test) == 8
    assert test["joint", 2.0, "lstm"].ri != test["frozen", 2.0, "lstm"].ri
    for manifest in store.manifests("joint"):
        folder = store.root / "artifacts" / "joint" / manifest["key"]
        tensors = Artifact(manifest["key"], manifest, folder).tensors()
        for name, mask in tensors.items():
            if name.endswith("weight_mask"):
                weight = tensors[name.removesuffix("_mask")]
                assert torch.all(weight[~mask] == 0)
                assert not torch.all(mask)


RECIPES = (
    "frozen",
    {"name": "joint", "label": "set loss", "instance_loss": 0.0},
    {"name": "joint", "label": "diverse", "instance_loss": 0.0, "batches": "diverse"},
    {"name": "joint", "label": "distilled", "distill": 1.0},
    {"name": "joint", "label": "control", "set_loss": 0.0, "batch_norm": "running"},
)


def test_recipes_of_joint_training_are_rows_and_are_compared_with_each_other(done, experiment, run):
    joint = dataclasses.replace(experiment.joint, epochs=1, batch_size=8)
    axes = {"training": RECIPES, "aggregators": ("log_pool", "lstm"), "joint": joint}
    outcome = run(changed(experiment, **axes))
    results, labels = outcome.results, ["frozen", "set loss", "diverse", "distilled", "control"]
    test = {(r.training, r.ratio, r.aggregator): r.ri for r in results.rows if r.split == "test" and r.n == 4}
    assert set(test) == set(itertools.product(labels, (1.0, 2.0), ("log_pool", "lstm")))
    assert len({test[label, 2.0, "lstm"] for label in labels}) == len(labels)
    pairs = {(c.reference, c.method) for c in results.comparisons if c.axis == "training"}
    assert pairs == set(itertools.combinations(labels, 2))
    assert {rank.training for rank in results.ranks} == set(labels)
    cell = next(cell for cell in outcome.grid.cells if cell.training == "set loss" and cell.ratio == 2)
    assert str(cell) == "mlp magnitude 2x log_pool set loss iid seed 0"
    assert read(Path(outcome.experiment.output) / outcome.experiment.name) == results
    # A student's losses are those of its own stages, not of its teacher's.
    student = next(c for c in outcome.grid.cells if (c.training, c.ratio, c.aggregator) == ("distilled", 2.0, "lstm"))
    frozen = next(c for c in outcome.grid.cells if (c.training, c.ratio, c.aggregator) == ("frozen", 2.0, "lstm"))
    own = losses(frozen, outcome.store)
    assert {name: values for name, values in losses(student, outcome.store).items() if name in own} == own
    assert "distilled" not in words.describe(student.pruned)


def test_the_teacher_is_the_dense_network_with_its_own_aggregator(done, experiment, run):
    """The posteriors that a student learns from are those of the dense network run on the same images."""
    training = ("frozen", {"name": "joint", "label": "distilled", "distill": 1.0, "epochs": 1})
    outcome = run(changed(experiment, training=training, aggregators=("lstm",)))
    cells = {(cell.training, cell.ratio): cell for cell in outcome.grid.cells}
    dense, student = cells["frozen", 1.0], cells["distilled", 2.0]
    node = dict(student.evaluate.inputs)["aggregate"]
    given = dict(node.inputs)
    assert [given[role].key for role in joint.TEACHER] == [
        dict(dense.evaluate.inputs)[role].key for role in ("features", "calibrate", "aggregate")
    ]
    inputs = {role: outcome.store.load(n.stage, n.key) for role, n in node.inputs}
    data, index = outcome.grid.data, torch.arange(12).view(3, 4)
    taught = joint.teacher(node.config.aggregator, data, inputs, torch.device("cpu"))[index]
    pruned = outcome.store.load(dense.pruned.stage, dense.pruned.key)
    backbone = _read.backbone(node.config.backbone, data, pruned)
    images = data.dataset.images[data.splits["aggregator"][index.flatten()]]
    calibration = inputs["teacher_calibrate"]
    with torch.no_grad():
        embeddings = backbone.embed(images)
        logits = backbone.classify(embeddings) + calibration.tensors()["log_correction"]
        logits = (logits / calibration.meta["temperature"]).log_softmax(-1)
        fitted = _read.aggregator(node.config.aggregator, data, calibration, inputs["teacher_aggregate"])
        expected = fitted(embeddings[None].view(3, 4, -1), logits.view(3, 4, -1))
    torch.testing.assert_close(taught, expected, atol=1e-4, rtol=1e-4)
    assert not taught.requires_grad


def test_recipes_added_later_leave_the_keys_of_joint_cells_alone(experiment):
    def keys(*training) -> dict[str, str]:
        return {f"{c.training} {c.ratio}": c.id for c in grid.prepare(changed(experiment, training=training)).cells}

    plain = keys("frozen", "joint")
    assert plain.items() <= keys("frozen", "joint", {"name": "joint", "label": "distilled", "distill": 1.0}).items()
    spelt = {"name": "joint", "label": "mine", "distill": 0.0, "set_loss": 1.0, "batches": "shuffled"}
    assert {name.replace("mine", "joint"): key for name, key in keys("frozen", spelt).items()} == plain


def test_masked_weights_stay_zero_through_retraining(finished):
    prepared, store = finished.grid, finished.store
    node = next(cell.pruned for cell in prepared.cells if cell.ratio == 2)
    tensors = store.load(node.stage, node.key).tensors()
    masks = {name: mask for name, mask in tensors.items() if name.endswith("weight_mask")}
    removed = sum(int((~mask).sum()) for mask in masks.values())
    total = sum(parameter.numel() for parameter in prepared.backbones["mlp"].parameters())
    assert removed == total - round(total / 2)
    assert all(torch.all(tensors[name.removesuffix("_mask")][~mask] == 0) for name, mask in masks.items())


def test_the_exact_posterior_of_synthetic_data_is_a_row_that_nothing_beats(experiment, run):
    gaussian = {
        "name": "gaussian",
        "classes": 4,
        "dim": 3,
        "separation": 1.5,
        "instances_per_class": 400,
        "group_size": 8,
        "nuisance": 1.0,
    }
    evaluation = dataclasses.replace(experiment.evaluation, protocols=("iid", "grouped"), n=(1, 4), partitions=5)
    fit = dataclasses.replace(experiment.fit, epochs=10)
    outcome = run(
        changed(
            experiment,
            data=gaussian,
            evaluation=evaluation,
            fit=fit,
            ratios=(1.0,),
            aggregators=("tempered_log_pool", "lstm"),
        )
    )
    results, cells = outcome.results, [cell for cell in outcome.grid.cells if cell.aggregator == "exact"]
    assert {(str(cell), cell.evaluate.stage) for cell in cells} == {
        ("mlp none 1x exact iid seed 0", "exact"),
        ("mlp none 1x exact grouped seed 0", "exact"),
    }
    exact = {(row.protocol, row.n): row for row in results.rows if row.aggregator == "exact" and row.split == "test"}
    assert set(exact) == {(protocol, n) for protocol in ("iid", "grouped") for n in (1, 4)}
    assert exact["iid", 4].ri > exact["grouped", 4].ri > exact["grouped", 1].ri > 0
    for row in results.rows:
        if row.split == "test" and row.aggregator != "exact":
            assert row.ri <= exact[row.protocol, row.n].ri_high
    assert all("exact" not in (c.method, c.reference) for c in results.comparisons)


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"ratios": (1.0, 500.0)}, CompressionError, "magnitude on mlp reaches at most .*got 500"),
        ({"evaluation.n": (1, 4000)}, DataError, "evaluation.n on the aggregator split, protocol iid: .*4000.*class"),
        ({"evaluation.protocols": ("grouped",)}, DataError, "'grouped' needs group ids, and digits has none"),
        (
            {"pruners": ("magnitude", {"name": "unit", "label": "magnitude"})},
            ConfigError,
            "two entries are called 'magnitude'",
        ),
        ({"trainer.accelerator": "gpu"}, ConfigError, "accelerator='gpu'"),
        ({"aggregators": ("log_pool", {"name": "log_pool", "label": "twin"})}, ConfigError, "are the same method"),
        ({"aggregators": ({"name": "log_pool", "label": "exact"},)}, ConfigError, "the label 'exact' has a meaning"),
        ({"pruners": ({"name": "magnitude", "label": "none"},)}, ConfigError, "the label 'none' has a meaning"),
        ({"trainer.options": {"not_an_option": 1}}, ConfigError, "not_an_option"),
    ],
)
def test_what_cannot_work_is_refused_before_training(experiment, values, error, message):
    if "gpu" in message and torch.cuda.is_available():
        pytest.skip("this machine has a GPU, so asking for one is no mistake")
    for name, value in values.items():
        section, _, field = name.partition(".")
        experiment = changed(
            experiment,
            **{section: dataclasses.replace(getattr(experiment, section), **{field: value}) if field else value},
        )
    with pytest.raises(error, match=message):
        grid.prepare(experiment)


SCRATCH_PRUNER = '''
    """Keep the smallest weights."""
    from dataclasses import dataclass
    from sharedlabel.pruners._masks import prunable
    STRUCTURED, NESTED, NEEDS = False, True, frozenset()

    @dataclass(frozen=True)
    class Config:
        """No options."""

    def scores(backbone, config, context):
        return {name: -layer.weight.detach().abs() for name, layer in prunable(backbone).items()}
'''
SCRATCH_AGGREGATOR = '''
    """The first instance decides."""
    from dataclasses import dataclass
    from sharedlabel.aggregators._base import Aggregator, normalize

    @dataclass(frozen=True)
    class Config:
        """No options."""

    class FirstOnly(Aggregator):
        permutation_invariant = False

        def forward(self, embeddings, logits):
            return normalize(logits[:, :1].expand_as(logits))

    def build(config, shape):
        return FirstOnly()
'''


def test_one_new_file_is_a_pruner_or_an_aggregator(done, experiment, tmp_path, monkeypatch, run):
    """A scratch plugin dropped beside the shipped ones is listed, runs from YAML and lands in the rows."""
    for kind, name, text in (
        ("pruners", "smallest", SCRATCH_PRUNER),
        ("aggregators", "first_only", SCRATCH_AGGREGATOR),
    ):
        folder = tmp_path / "plugins" / kind
        folder.mkdir(parents=True)
        (folder / f"{name}.py").write_text(textwrap.dedent(text))
        package = sys.modules[f"sharedlabel.{kind}"]
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
    assert Path(sharedlabel.__file__).parent.joinpath("pruners", "smallest.py").exists() is False
    file = tmp_path / "grid.yaml"
    file.write_text("pruners: [smallest]\naggregators: [log_pool, first_only]\n")
    scratch = config.from_yaml(file)
    results = run(changed(experiment, pruners=scratch.pruners, aggregators=scratch.aggregators)).results
    test = {(row.pruner, row.aggregator, row.n): row for row in results.rows if row.split == "test"}
    assert test["smallest", "first_only", 4].n_accuracy < test["none", "log_pool", 4].n_accuracy
    assert {n: test["none", "first_only", n].aggregator_macs for n in (1, 2, 4)} == {1: 0, 2: 0, 4: 0}


def test_the_exact_weights_of_the_rows_come_from_the_cells(finished):
    prepared, store = finished.grid, finished.store
    for cell in prepared.cells:
        own = rows(cell, prepared, store)
        assert {row.cell for row in own} == {cell.id}
        assert {(row.pruner, row.ratio, row.aggregator) for row in own} == {(cell.pruner, cell.ratio, cell.aggregator)}


def test_two_processes_train_on_disjoint_halves_of_each_batch(experiment):
    """Real data-parallel training with two processes gives every parameter a finite, trained value."""
    prepared = grid.prepare(experiment)
    node = next(iter(prepared.cells)).pruned.inputs[0][1]
    two = TrainerConfig(accelerator="cpu", devices=2)
    output = dense.run(node.config, prepared.data, {}, two)
    alone = dense.run(node.config, prepared.data, {}, TrainerConfig(accelerator="cpu"))
    assert len(output.meta["losses"]) == experiment.dense.epochs
    assert output.meta["losses"][-1] < output.meta["losses"][0]
    assert abs(output.meta["validation_accuracy"] - alone.meta["validation_accuracy"]) < 0.15
    assert loaders.share_of_rank(torch.arange(5)).tolist() == [0, 1, 2, 3, 4]


def test_a_new_label_of_the_data_reaches_every_table(done, run, experiment):
    results = run(changed(experiment, data={"name": "digits", "label": "my digits"})).results
    assert {record.data for record in (*results.rows, *results.summaries, *results.sweet_spots)} == {"my digits"}


def test_the_plan_scales_training_with_its_macs(done, experiment):
    small = grid.prepare(experiment)
    longer = grid.prepare(changed(experiment, dense=dataclasses.replace(experiment.dense, epochs=200)))
    node = next(call for call in grid.missing(longer, done) if call.stage == "dense")
    spent = next(manifest["seconds"] for manifest in done.manifests("dense"))
    macs = grid.training_macs(node, longer)
    first = next(call for cell in small.cells for call in cell.evaluate.chain() if call.stage == "dense")
    assert macs == pytest.approx(100 * grid.training_macs(first, small))
    assert plan._stored_seconds("dense", [node], small, done) == pytest.approx(100 * spent)
    assert plan._stored_seconds("joint", [node], small, done) is None


def test_a_single_aggregator_leaves_no_stale_comparisons(done, run, experiment):
    folder = Path(experiment.output) / experiment.name
    assert len((folder / "comparisons.csv").read_text().splitlines()) > 1
    run(changed(experiment, aggregators=("log_pool",)))
    left = (folder / "comparisons.csv").read_text()
    assert ",compression,magnitude 2x,dense," in left
    assert ",aggregator," not in left.partition("\n")[2]
    pooled = (folder / "pooled.csv").read_text()
    assert ",compression,magnitude 2x,dense," in pooled
    assert ",aggregator," not in pooled
    for table in ("ranks", "wins"):
        assert len((folder / f"{table}.csv").read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"reference": "log_pol"},
            r"comparison\.reference: no aggregator is called 'log_pol'; did you mean 'log_pool'\?",
        ),
        ({"n": 3}, r"comparison\.n: expected one of the evaluated tuple sizes .*, got 3; add it to evaluation\.n"),
    ],
)
def test_a_primary_question_that_cannot_be_asked_is_refused(experiment, changes, message):
    with pytest.raises(ConfigError, match=message):
        grid.prepare(changed(experiment, comparison=ComparisonConfig(**changes)))
