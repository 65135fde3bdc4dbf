"""Cross-fitting: the map between embeddings, and a grid from its folds to an exported model."""

from __future__ import annotations

import dataclasses
import io
import shutil
from pathlib import Path

import pytest
import torch
from rich.console import Console

from sharedlabel import grid, rng
from sharedlabel.choose import __main__ as choose
from sharedlabel.config import Experiment
from sharedlabel.config.sections import CrossfitConfig
from sharedlabel.data.tuples import prior
from sharedlabel.deployment import build, cells, selection
from sharedlabel.deployment.predictor import load
from sharedlabel.errors import DataError
from sharedlabel.grid import plan, progress
from sharedlabel.logs import log_normalize
from sharedlabel.metrics.calibration import apply_temperature, fit_temperature
from sharedlabel.metrics.information import floor_posterior
from sharedlabel.report import terminal
from sharedlabel.scoring.scores import posterior_over
from sharedlabel.stages import _read
from sharedlabel.training.alignment import align

FOLDS = 2
STRENGTHS = (1e-6, 1e-3, 0.1, 10.0)


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=rng.generator(seed, *shape))


@pytest.mark.parametrize(("width", "onto"), [(6, 6), (6, 3), (4, 9)])
def test_a_known_affine_map_is_recovered_for_new_images_and_other_widths(width, onto):
    weight, offset = drawn(width, onto, seed=1), 5 * drawn(onto, seed=2)
    seen, new = drawn(60, width), drawn(20, width, seed=3)
    alignment = align(seen, seen @ weight + offset, (1e-10, 0.1))
    assert alignment.strength == 1e-10
    assert alignment.r2 == pytest.approx(1)
    torch.testing.assert_close(alignment(new), new @ weight + offset)
    torch.testing.assert_close(alignment.weight, weight.double(), atol=1e-5, rtol=1e-5)


def test_a_turned_space_is_turned_back():
    """What no alignment would do: the embeddings of two networks are equal but for a rotation."""
    source = drawn(80, 5)
    target = source @ torch.linalg.qr(drawn(5, 5, seed=1))[0] + 0.1 * drawn(80, 5, seed=2)
    alignment = align(source[:60], target[:60], STRENGTHS)
    aligned, as_it_is = ((made - target[60:]).square().mean() for made in (alignment(source[60:]), source[60:]))
    assert aligned < 0.02
    assert as_it_is > 1


def test_the_penalty_has_the_smallest_error_when_every_image_is_left_out_and_the_fit_repeated():
    source, target = drawn(15, 8).double(), drawn(15, 3, seed=1).double()
    target += source[:, :3]
    scale = torch.linalg.svdvals(source - source.mean(0)).square().mean()
    errors = []
    for strength in STRENGTHS:
        error = 0.0
        for out in range(15):
            keep = torch.arange(15) != out
            x, y = source[keep], target[keep]
            centred = x - x.mean(0)
            weight = torch.linalg.solve(
                centred.T @ centred + strength * scale * torch.eye(8), centred.T @ (y - y.mean(0))
            )
            error += float((target[out] - y.mean(0) - (source[out] - x.mean(0)) @ weight).square().sum())
        errors.append(error)
    alignment = align(source, target, STRENGTHS)
    assert errors[0] > min(errors) < errors[-1]
    assert alignment.strength == STRENGTHS[errors.index(min(errors))]
    total = float((target - target.mean(0)).square().sum())
    assert alignment.r2 == pytest.approx(1 - min(errors) / total)


def test_networks_that_share_nothing_get_the_mean_and_no_credit():
    alignment = align(drawn(40, 30), drawn(40, 4, seed=1), (1e-6, 1.0, 1e6))
    assert alignment.strength == 1e6
    assert -0.1 < alignment.r2 < 0.01


@pytest.mark.parametrize("collapsed", ["source", "target"])
@pytest.mark.parametrize("value", [0.0, 0.1])
def test_a_collapsed_network_is_no_error(collapsed, value):
    networks = {"source": drawn(20, 4), "target": drawn(20, 4, seed=1)} | {collapsed: torch.full((20, 4), value)}
    alignment = align(**networks, strengths=STRENGTHS)
    assert alignment(networks["source"]).isfinite().all()
    mean = networks["target"].mean(0).expand(20, 4)
    torch.testing.assert_close(alignment(networks["source"]), mean, atol=1e-6, rtol=0)
    assert alignment.r2 <= 1


@pytest.fixture(scope="module")
def both(finished, run, tmp_path_factory):
    """The small grid, frozen and cross-fitted."""
    output = tmp_path_factory.mktemp("crossfit") / "runs"
    shutil.copytree(finished.experiment.output, output)
    axes = {"training": ("frozen", "crossfit"), "aggregators": ("log_pool", "lstm")}
    return run(dataclasses.replace(finished.experiment, output=str(output), crossfit=CrossfitConfig(FOLDS), **axes))


def crossfitted(outcome, **labels) -> list[grid.Cell]:
    wanted = {"training": "crossfit", **labels}
    return [c for c in outcome.grid.cells if all(getattr(c, name) == value for name, value in wanted.items())]


def joined(cell: grid.Cell) -> grid.Node:
    """Return the call that makes what the cell's aggregator learns from."""
    return dict(cell.evaluate.inputs)["features"]


def test_no_image_has_features_of_a_network_that_was_trained_on_it(both):
    known, whole = both.grid.data_by_key, both.grid.data
    every = torch.cat([whole.splits["backbone"], whole.splits["aggregator"]]).sort().values
    assert len(crossfitted(both)) == 4
    for cell in crossfitted(both):
        inputs = dict(joined(cell).inputs)
        assert list(inputs) == ["fold 1", "fold 2", "features"]
        seen = []
        for number in range(1, FOLDS + 1):
            chain = list(inputs[f"fold {number}"].chain())
            assert {call.stage for call in chain} == {"dense", "prune", "features"}
            used = {call.data_key for call in chain}
            assert len(used) == 1
            splits = known[used.pop()].splits
            trained, fold = splits["backbone"], splits["aggregator"]
            held_back = torch.cat([fold, whole.splits["validation"], whole.splits["test"]])
            assert not torch.isin(trained, held_back).any()
            assert torch.equal(torch.cat([trained, fold]).sort().values, every)
            seen.append(fold)
        assert torch.equal(torch.cat(seen).sort().values, every)  # each image once
        reading = known[cell.evaluate.data_key]
        assert all(torch.equal(reading.splits[role], every) for role in ("backbone", "aggregator"))
        assert all(torch.equal(reading.splits[role], whole.splits[role]) for role in ("validation", "test"))
        assert cell.pruned == dict(inputs["features"].inputs)["backbone"]
        assert {call.data_key for call in (cell.pruned, cell.latency, cell.ends["margin"], cell.adaptive)} == {
            reading.key
        }


def test_features_are_those_of_the_folds_in_the_space_of_the_deployed_network(both):
    store, known = both.store, both.grid.data_by_key
    for cell in crossfitted(both, aggregator="lstm"):
        node = joined(cell)
        data, inputs = known[node.data_key], dict(node.inputs)
        folded, deployed = (store.load(call.stage, call.key) for call in (node, inputs["features"]))
        for role in ("validation", "test"):
            for ours, theirs in zip(_read.features(folded, role), _read.features(deployed, role), strict=True):
                assert torch.equal(ours, theirs)
        classes, labels = data.dataset.num_classes, data.labels("validation")
        assert len(folded.tensors()["logits"]) == sum(folded.meta["lengths"].values())
        embeddings, logits = _read.features(folded, "aggregator")
        target, target_logits = _read.features(deployed, "validation")
        # Classes are balanced as far as possible in training, so corrections are small; temperatures are not.
        own = data.prior.log() - prior(data.labels("backbone"), "empirical", classes).log()
        weights = data.prior[labels] / torch.bincount(labels)[labels]

        def temperature(adjusted, labels=labels, weights=weights):
            return float(fit_temperature(log_normalize(adjusted.float())[:, None], labels, weights)[0])

        assert folded.meta["temperature"] == pytest.approx(temperature(target_logits + own), rel=1e-4)
        for number, facts in enumerate(folded.meta["folds"], start=1):
            part = store.load("features", inputs[f"fold {number}"].key)
            fold = known[inputs[f"fold {number}"].data_key]
            inside = torch.isin(data.splits["aggregator"], fold.splits["aggregator"])
            assert facts["fold"] == number
            assert facts["images"] == int(inside.sum())
            source, source_logits = _read.features(part, "validation")
            alignment = align(source, target, both.experiment.crossfit.ridge)
            assert (facts["r2"], facts["ridge"]) == (alignment.r2, alignment.strength)
            raw, raw_logits = _read.features(part, "aggregator")
            assert torch.equal(embeddings[inside], alignment(raw))
            as_it_is = 1 - float((source - target).square().sum() / (target - target.mean(0)).square().sum())
            assert facts["r2"] > max(0.3, as_it_is)
            shift = data.prior.log() - prior(fold.labels("backbone"), "empirical", classes).log()
            assert facts["temperature"] == pytest.approx(temperature(source_logits + shift), rel=1e-4)
            calibrated = log_normalize((raw_logits + shift) / facts["temperature"])
            ours = log_normalize((logits[inside] + own) / folded.meta["temperature"])
            torch.testing.assert_close(ours, calibrated, atol=1e-5, rtol=1e-4)


def test_the_third_training_is_in_every_table(both, capsys):
    results, folder = both.results, Path(both.experiment.output) / "digits"
    for records in (results.rows, results.summaries, results.sweet_spots, results.adaptive, results.thresholds):
        assert {record.training for record in records} == {"frozen", "crossfit"}
    for records, identity in ((results.latencies, "device mode batch"), (results.margins, "layer epsilon")):
        names = (*identity.split(), "training", "seed", *(["ratio"] if identity.startswith("device") else []))
        assert len({tuple(getattr(r, name) for name in names) for r in records}) == len(records)
        assert {record.training for record in records} == {"frozen", "crossfit"}
    compared = {(c.method, c.reference) for c in results.comparisons if c.axis == "training"}
    assert compared == {("crossfit", "frozen")}
    test = {(r.training, r.ratio, r.aggregator): r for r in results.rows if (r.split, r.n) == ("test", 4)}
    assert len(test) == 8
    assert test["crossfit", 2.0, "lstm"].ri != test["frozen", 2.0, "lstm"].ri
    assert test["crossfit", 2.0, "lstm"].validation_accuracy != test["frozen", 2.0, "lstm"].validation_accuracy
    written = io.StringIO()
    terminal.print_report(results, Console(file=written, width=200))
    assert "there are no verdicts on differences" in written.getvalue()
    assert "magnitude 2x (crossfit)" in (folder / "report.html").read_text()
    assert choose.main([str(folder), "--budget", "1.0"]) == 0
    assert "(crossfit)" in capsys.readouterr().out
    assert {str(cell) for cell in crossfitted(both, aggregator="lstm")} == {
        "mlp none 1x lstm crossfit iid seed 0",
        "mlp magnitude 2x lstm crossfit iid seed 0",
    }


def test_the_plan_and_the_progress_name_the_folds(both):
    written = io.StringIO()
    console = Console(file=written, width=200)
    more = grid.prepare(dataclasses.replace(both.experiment, seeds=(0, 1)))
    plan.print_plan(more, both.store, console)
    assert "over" not in written.getvalue()
    absent = grid.missing(more, both.store)
    assert [call.stage for call in absent].count("crossfit") == 2
    dense = {more.data_by_key[call.data_key].part: call for call in absent if call.stage == "dense"}
    assert list(dense) == ["", "all folds", "fold 1 of 2", "fold 2 of 2"]
    # Training costs grow with the images: 2/3, 1 and half of those outside validation and test.
    macs = [grid.training_macs(call, more) for call in dense.values()]
    assert [value / macs[1] for value in macs] == pytest.approx([2 / 3, 1, 1 / 2, 1 / 2], abs=0.01)
    reporter = progress.reporter(console, more, list(dense.values()))
    with reporter.showing():
        reporter(dense["fold 2 of 2"], None)
        reporter(dense["fold 2 of 2"], 1.0)
    assert "[1/4] dense mlp seed 1, fold 2 of 2: 1.0 s" in written.getvalue()


def test_nothing_is_computed_twice_and_other_folds_share_the_deployed_network(both, run, monkeypatch):
    assert grid.missing(both.grid, both.store) == []
    alone = grid.prepare(dataclasses.replace(both.experiment, training=("crossfit",)))
    assert {cell.id for cell in alone.cells} == {cell.id for cell in crossfitted(both)}
    more = grid.prepare(dataclasses.replace(both.experiment, crossfit=CrossfitConfig(folds=3)))
    absent = grid.missing(more, both.store)
    assert {more.data_by_key[call.data_key].part for call in absent if call.stage in {"dense", "prune"}} == {
        f"fold {number} of 3" for number in (1, 2, 3)
    }

    computed = []
    monkeypatch.setattr(both.store.__class__, "save", lambda *arguments: computed.append(arguments))
    assert run(both.experiment).results.rows == both.results.rows
    assert computed == []


def test_an_exported_cell_predicts_what_the_evaluation_saw(both, tmp_path):
    (cell,) = crossfitted(both, aggregator="lstm", ratio=2.0)
    rows = selection.choose(both.results, "", {"training": "crossfit", "aggregator": "lstm", "ratio": 2.0})
    assert rows[0].cell == cell.id
    assert "lstm crossfit iid" in selection.describe(rows[0])
    trained = cells.restore(cell.id, both.results.dataset, both.store)
    assert trained.artifacts["backbone"]["key"] == cell.pruned.key
    build.export(both.results, rows, both.store.root, tmp_path / "model", ("torch",), False)
    model, data, node = load(tmp_path / "model", "torch", trust=True), both.grid.data, cell.evaluate
    inputs = {role: both.store.load(needed.stage, needed.key) for role, needed in node.inputs}
    aggregator = _read.aggregator(node.config.aggregator, data, inputs["calibrate"], inputs["aggregate"])
    sources = _read.calibrated(inputs["features"], inputs["calibrate"], "test")
    tuples = data.tuples("test", "iid", 4, node.config.partitions, node.config.seed)
    scored = both.store.load(node.stage, node.key).meta["test"]
    temperature = torch.tensor([metrics["temperature"] for metrics in scored], dtype=torch.float64)
    posterior = posterior_over(aggregator, sources, tuples, node.config.n)
    posterior = floor_posterior(apply_temperature(posterior, temperature)).exp()
    images = data.dataset.images[data.splits["test"][tuples.indices.flatten(0, 1)[:5]]]
    for own, expected in zip(images, posterior, strict=False):
        predicted = torch.stack(list(model.stream(own))).exp()[torch.tensor(node.config.n) - 1]
        torch.testing.assert_close(predicted, expected, atol=1e-4, rtol=1e-4)


def gaussian(experiment: Experiment, **values) -> Experiment:
    source = {
        "name": "gaussian",
        "classes": 3,
        "dim": 3,
        "separation": 1.5,
        "instances_per_class": 120,
        "group_size": 8,
    }
    return dataclasses.replace(experiment, data=source, training=("crossfit",), ratios=(1.0,), **values)


def test_groups_stay_whole_in_the_folds_and_tuples_are_formed_within_them(experiment):
    scoring = dataclasses.replace(experiment.evaluation, protocols=("iid", "grouped"), n=(1, 4), partitions=5)
    planned = grid.prepare(gaussian(experiment, evaluation=scoring))
    folds = [data for data in planned.data_by_key.values() if data.part.startswith("fold")]
    groups = [data.dataset.groups[data.splits["aggregator"]].unique() for data in folds]
    assert len(torch.cat(groups).unique()) == sum(map(len, groups))
    assert len(folds) == 5
    (whole,) = (data for data in planned.data_by_key.values() if data.folds)
    assert [fold.tolist() for fold in whole.folds] == [data.splits["aggregator"].tolist() for data in folds]
    assert {cell.training for cell in planned.cells if cell.aggregator != "exact"} == {"crossfit"}
    # The exact posterior leans on no network that would have to be trained for it alone.
    assert all(planned.data_by_key[cell.pruned.data_key] is whole for cell in planned.cells)


def test_folds_that_lack_a_class_are_refused_before_training(experiment):
    many = CrossfitConfig(folds=13)
    with pytest.raises(
        DataError, match=r"crossfit.folds: .* in every fold, but '0' has no .* of 13 \(\d+ groups of it.*=divided"
    ):
        grid.prepare(gaussian(experiment, crossfit=many))
    limited = dataclasses.replace(experiment.split, limit=12)
    with pytest.raises(
        DataError, match=r"'0' has no instance in fold \d+ of 13 \(7 instances of it .*; use fewer folds"
    ):
        grid.prepare(dataclasses.replace(experiment, training=("crossfit",), split=limited, crossfit=many))


def test_tuples_that_all_folds_together_cannot_fill_name_the_folds(experiment):
    scoring = dataclasses.replace(experiment.evaluation, protocols=("grouped",), n=(9,))
    with pytest.raises(DataError, match=r"evaluation.n on all folds, protocol grouped: expected at least n = 9 inst"):
        grid.prepare(gaussian(experiment, evaluation=scoring))
