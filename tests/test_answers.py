"""What the recommended method answers: confusions, mistakes with their pictures, and training curves."""

from __future__ import annotations

import base64
import csv
import dataclasses
import io
import json

import pytest
import torch
from PIL import Image

from sharedlabel import records
from sharedlabel.report import views
from sharedlabel.running import answers, pictures


@pytest.fixture(scope="module")
def recommended(finished):
    spot = views.headline(views.split(finished.results)[0])
    cells = (c for c in finished.grid.cells if (c.aggregator, c.ratio) == (spot.aggregator, spot.ratio))
    return next(cells), finished.results.confusions[0].n


def test_confusions_count_every_tuple_and_agree_with_the_accuracy(finished, recommended):
    cell, n = recommended
    found = finished.results.confusions
    (row,) = [r for r in finished.results.rows if (r.cell, r.split, r.n) == (cell.id, "test", n)]
    assert {(c.aggregator, c.ratio, c.n) for c in found} == {(cell.aggregator, cell.ratio, n)}
    stored = finished.store.load(cell.evaluate.stage, cell.evaluate.key).tensors()["test.correct"]
    right = stored[:, :, cell.evaluate.config.n.index(n)]
    assert sum(c.tuples for c in found) == right.numel()
    assert sum(c.tuples for c in found if c.label == c.predicted) == int(right.sum())
    assert len({(c.label, c.predicted) for c in found}) == len(found)
    assert row.tuples == right.shape[1] * row.partitions


def test_mistakes_are_the_dearest_ones_with_the_pictures_of_their_images(finished, recommended):
    cell, n = recommended
    found, dataset = finished.results.mistakes, finished.grid.data.dataset
    asked = finished.experiment.report.examples
    own = answers._Answers(cell, finished.grid, finished.store, n)
    probabilities = [mistake.probability for mistake in found]
    assert probabilities[0] == pytest.approx(2.0 ** float(own.information[own.wrong].min()))
    assert probabilities == sorted(probabilities)
    assert 1 < len(found) <= asked
    every = [instance for mistake in found for instance in mistake.instances]
    assert len(set(every)) == len(every)
    for mistake in found:
        names = {dataset.class_names[label] for label in dataset.labels[list(mistake.instances)].tolist()}
        assert names == {mistake.label} != {mistake.predicted}
        assert len(mistake.instances) == len(mistake.pictures) == n
        assert torch.equal(pixels(mistake.pictures[0]), dataset.images[mistake.instances[0], 0])


def pixels(address: str) -> torch.Tensor:
    opened = Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))
    return torch.frombuffer(bytearray(opened.tobytes()), dtype=torch.uint8).view(opened.height, opened.width)


def test_examples_can_be_left_out(finished):
    asked = dataclasses.replace(finished.experiment, report=dataclasses.replace(finished.experiment.report, examples=0))
    grid = dataclasses.replace(finished.grid, experiment=asked)
    assert answers.answers(grid, finished.store, finished.results) == (finished.results.confusions, ())


def test_without_a_sweet_spot_the_best_on_validation_is_taken(finished):
    bare = dataclasses.replace(finished.results, sweet_spots=())
    best = max((s for s in bare.summaries if s.split == "validation"), key=lambda s: s.ri)
    (some, *_), _ = answers.answers(finished.grid, finished.store, bare)
    assert (some.aggregator, some.ratio, some.n) == (best.aggregator, best.ratio, best.n)


@pytest.mark.parametrize(("shape", "kind"), [((1, 8, 8), "png"), ((3, 100, 60), "webp")])
def test_pictures_are_small_files(shape, kind):
    images = torch.randint(256, (2, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    made = list(pictures.pictures(images, torch.tensor([1, 0])))
    assert [address.startswith(f"data:image/{kind};base64,") for address in made] == [True, True]
    assert max(map(len, made)) < 4000
    opened = Image.open(io.BytesIO(base64.b64decode(made[0].partition(",")[2])))
    assert max(opened.size) == min(48, shape[1])


def test_floats_are_spread_over_all_greys_and_features_have_no_pictures():
    images = torch.linspace(-1, 3, 2 * 64).view(2, 1, 8, 8)
    first, second = (pixels(one) for one in pictures.pictures(images, torch.tensor([0, 1])))
    assert (int(first.min()), int(second.max())) == (0, 255)
    assert list(pictures.pictures(torch.zeros(2, 64, 1, 1), torch.tensor([0]))) == []
    assert len(list(pictures.pictures(images.repeat(20, 1, 1, 1), torch.arange(40)))) == pictures.MOST


def test_every_training_of_the_first_seed_has_its_curve(finished):
    curves = finished.results.curves
    assert {(c.stage, c.pruner, c.ratio) for c in curves if c.aggregator is None} == {
        ("dense", "none", 1.0), ("prune", "none", 1.0), ("prune", "magnitude", 2.0)
    }  # fmt: skip
    assert {len(c.losses) for c in curves if c.stage == "dense"} == {finished.experiment.dense.epochs}
    learned = [c for c in curves if c.aggregator is not None]
    assert {(c.aggregator, c.ratio, c.protocol) for c in learned} == {("lstm", 1.0, "iid"), ("lstm", 2.0, "iid")}
    assert all(loss > 0 for c in curves for loss in c.losses)


def test_lists_are_written_and_read_and_older_files_have_none(finished, tmp_path):
    own = dataclasses.replace(finished.results, rows=(), summaries=(), sweet_spots=(), comparisons=())
    tables = ("curves", "confusions", "mistakes")
    records.write(own, tmp_path)
    read = records.read(tmp_path, tables)
    assert [getattr(read, table) for table in tables] == [getattr(own, table) for table in tables]
    lines = list(csv.DictReader(io.StringIO((tmp_path / "curves.csv").read_text())))
    assert json.loads(lines[0]["losses"]) == list(own.curves[0].losses)
    written = json.loads((tmp_path / "results.json").read_text())
    (tmp_path / "results.json").write_text(json.dumps({k: v for k, v in written.items() if k not in tables}))
    assert [getattr(records.read(tmp_path, tables), table) for table in tables] == [(), (), ()]
