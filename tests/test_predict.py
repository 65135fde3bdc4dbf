"""Predictions from exported models: the posterior of the evaluation, streaming, reading tuples, the user's mistakes."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import sharedlabel as sl
from sharedlabel import predict
from sharedlabel.data import imagefolder
from sharedlabel.deployment import build, card_file, cells, filling, programs, selection
from sharedlabel.deployment.card import Preprocessing
from sharedlabel.deployment.groups import Group, read_groups, read_images
from sharedlabel.deployment.predictor import Predictor, load
from sharedlabel.errors import DataError, DeploymentError
from sharedlabel.metrics import stopping
from sharedlabel.metrics.calibration import apply_temperature, calibrate_logits
from sharedlabel.metrics.information import floor_posterior
from sharedlabel.scoring import thresholds as adaptive
from sharedlabel.scoring.scores import posterior_over
from sharedlabel.stages import _read

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
N = (1, 2, 4)
EVERY = range(1, max(N) + 1)
COUNT = 8  # tuples compared


def cell_of(finished, aggregator="lstm", ratio=2.0):
    return next(c for c in finished.grid.cells if (c.aggregator, c.ratio) == (aggregator, ratio))


def reference(finished, cell):
    """Return images of tuples of the test split and their posteriors after each n, as the evaluation computes them."""
    data, node = finished.grid.data, cell.evaluate
    inputs = {role: finished.store.load(needed.stage, needed.key) for role, needed in node.inputs}
    aggregator = _read.aggregator(node.config.aggregator, data, inputs["calibrate"], inputs["aggregate"])
    sources = _read.calibrated(inputs["features"], inputs["calibrate"], "test")
    drawn = data.tuples("test", node.config.protocol, max(N), node.config.partitions, node.config.seed)
    scored = finished.store.load(node.stage, node.key).meta["test"]
    temperature = torch.tensor([metrics["temperature"] for metrics in scored], dtype=torch.float64)
    posterior = floor_posterior(apply_temperature(posterior_over(aggregator, sources, drawn, N), temperature)).exp()
    images = data.dataset.images[data.splits["test"][drawn.indices.flatten(0, 1)[:COUNT]]]
    return images, posterior[:COUNT]


def unexported(finished, cell) -> Predictor:
    """Predict with the networks themselves."""
    rows = selection.choose(finished.results, cell.id, {})
    trained = cells.restore(cell.id, finished.results.dataset, finished.store)
    model_card = build._card(finished.results, rows, trained, {})
    return Predictor(model_card, programs._Embedder(trained.backbone), lambda *inputs: (trained.aggregator(*inputs),))


@pytest.fixture(scope="module")
def model(finished, tmp_path_factory) -> Path:
    """An exported LSTM on a pruned network."""
    rows = selection.choose(finished.results, cell_of(finished).id, {})
    folder = tmp_path_factory.mktemp("exported") / "model"
    build.export(finished.results, rows, finished.store.root, folder, ("onnx", "torch"), False)
    return folder


def test_the_api_opens_the_same_model(model, finished) -> None:
    images, _ = reference(finished, cell_of(finished))
    assert sl.load_model(str(model)).predict(images[0]) == load(model).predict(images[0])


@pytest.fixture
def copied(model, tmp_path) -> Path:
    return Path(shutil.copytree(model, tmp_path / "model"))


@pytest.fixture
def tuples(finished, tmp_path) -> Path:
    """Tuples of the test split as a folder of folders of images."""
    images, _ = reference(finished, cell_of(finished))
    for index, group in enumerate(images[:3]):
        folder = tmp_path / "tuples" / f"object {index}"
        folder.mkdir(parents=True)
        for position, pixels in enumerate(group):
            Image.fromarray(pixels[0].numpy()).save(folder / f"{position}.png")
    return tmp_path / "tuples"


@pytest.fixture
def refused(capsys):
    """Run the command line, require a clean refusal, and return its one line."""

    def check(*arguments) -> str:
        assert predict.main([str(argument) for argument in arguments]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert error.count("\n") == 1
        return error.removeprefix("error: ")

    return check


@pytest.mark.parametrize("runtime", ["onnx", "torch"])
def test_an_exported_model_gives_the_posterior_of_the_evaluation(finished, model, runtime):
    images, expected = reference(finished, cell_of(finished))
    predictor = load(model, runtime, trust=True)
    for group, wanted in zip(images, expected, strict=True):
        posterior = torch.stack(list(predictor.stream(group))).exp()
        torch.testing.assert_close(posterior[torch.tensor(N) - 1], wanted, rtol=0, atol=1e-5)


def test_an_exported_model_decides_as_the_stored_rule_did_on_every_tuple(finished, model):
    """On validation too, whose confidences the thresholds were made from: in between, rounding turns no decision."""
    cell, data = cell_of(finished), finished.grid.data
    node = cell.adaptive
    stored = finished.store.load(node.stage, node.key)
    fitted = [adaptive.FittedThreshold(**one) for one in stored.meta["thresholds"] if one["rule"] == "threshold"]
    inputs = {role: finished.store.load(needed.stage, needed.key) for role, needed in node.inputs}
    aggregator = _read.aggregator(node.config.aggregator, data, inputs["calibrate"], inputs["aggregate"])
    temperature = torch.tensor(stored.meta["temperature"], dtype=torch.float64)
    predictor = load(model, "onnx")
    for role in ("validation", "test"):
        drawn = data.tuples(role, node.config.protocol, max(N), node.config.partitions, node.config.seed)
        sources = _read.calibrated(inputs["features"], inputs["calibrate"], role)
        every = posterior_over(aggregator, sources, drawn, EVERY)
        seen = adaptive.watch({"aggregator": every}, drawn, {"aggregator": temperature}, ("threshold",))
        expected = adaptive.stop(seen, fitted)
        if role == "test":
            kept = torch.tensor([one["rule"] == "threshold" for one in stored.meta["thresholds"]])
            for name, value in expected._asdict().items():
                assert torch.equal(stored.tensors()[name].flatten(0, 1)[:, kept].to(value.dtype), value)
        embeddings, logits = predictor._backbone(data.dataset.images[data.splits[role]])
        logits = calibrate_logits(logits, predictor._correction, predictor.card.calibration.temperature)
        prefixes = [[index[None, :k] for k in EVERY] for index in drawn.indices.flatten(0, 1)]
        tops = [[predictor._fuse(embeddings[at], logits[at]).exp().max() for at in of_tuple] for of_tuple in prefixes]
        exported = torch.tensor(tops, dtype=torch.float64)
        assert not torch.equal(exported, seen.confidence["threshold"])  # programs round differently
        stops = stopping.stops(exported, torch.tensor([one.threshold for one in fitted], dtype=torch.float64))
        assert torch.equal(stops.instances, expected.instances)
        assert torch.equal(stops.reached, expected.reached)
    for one in fitted:
        if one.aim == "error":
            assert predictor.threshold(one.value) == one.threshold


def test_every_cell_gives_the_posterior_of_the_evaluation(finished):
    for cell in finished.grid.cells:
        images, expected = reference(finished, cell)
        predictor = unexported(finished, cell)
        for group, wanted in zip(images, expected, strict=True):
            posterior = torch.stack(list(predictor.stream(group))).exp()
            torch.testing.assert_close(posterior[torch.tensor(N) - 1], wanted, rtol=0, atol=1e-5)


def test_it_stops_at_the_first_instance_that_makes_it_sure_and_reads_no_more(finished):
    cell = cell_of(finished, "log_pool", 1.0)
    predictor = unexported(finished, cell)
    images, _ = reference(finished, cell)
    stops = set()
    for group in images:
        tops = torch.stack(list(predictor.stream(group))).exp().amax(1).tolist()
        for threshold in (*tops, 1.0):
            read = []
            prediction = predictor.predict((read.append(0) or image for image in group), threshold)
            reached = [top >= threshold for top in tops]
            stop = reached.index(True) + 1 if any(reached) else len(group)
            assert (prediction.instances, prediction.reached, len(read)) == (stop, any(reached), stop)
            assert prediction.probability == tops[stop - 1]
            stops.add(stop)
    assert len(stops) > 2


def test_an_image_is_embedded_once(finished):
    predictor = unexported(finished, cell_of(finished))
    backbone, seen = predictor._backbone, []
    predictor._backbone = lambda images: seen.append(len(images)) or backbone(images)
    images, _ = reference(finished, cell_of(finished))
    assert predictor.predict(images[0]).instances == 4
    assert seen == [1, 1, 1, 1]


def test_a_limit_and_more_instances_than_in_training(finished):
    predictor = unexported(finished, cell_of(finished))
    images, _ = reference(finished, cell_of(finished))
    prediction = predictor.predict(images[0], most=2)
    assert (prediction.instances, prediction.reached, prediction.extrapolated) == (2, None, False)
    assert prediction == predictor.predict(images[0][:2])
    assert sum(prediction.posterior.values()) == pytest.approx(1)
    assert prediction.posterior[prediction.label] == prediction.probability == max(prediction.posterior.values())
    assert predictor.predict(torch.cat([images[0], images[1]])).extrapolated


def test_instances_that_do_not_fit_are_refused(finished):
    predictor = unexported(finished, cell_of(finished))
    with pytest.raises(DataError, match=r"instances of uint8 \(1, 8, 8\) .*, got uint8 \(3, 8, 8\)"):
        predictor.predict([torch.zeros(3, 8, 8, dtype=torch.uint8)])
    with pytest.raises(DataError, match=r"got float32 \(1, 8, 8\)"):
        predictor.predict([torch.zeros(1, 8, 8)])
    with pytest.raises(DataError, match="at least one instance in the tuple, got none"):
        predictor.predict([])


def test_the_command_line_prints_label_probability_and_images_used(finished, model, tuples):
    done = subprocess.run(
        [sys.executable, "-m", "sharedlabel.predict", str(model), str(tuples)],
        capture_output=True,
        text=True,
        check=False,
        env=ENVIRONMENT,
    )
    assert (done.returncode, done.stderr) == (0, "")
    _, expected = reference(finished, cell_of(finished))
    tops = expected[:3, -1].max(1)
    assert done.stdout.splitlines() == [
        "tuple     label  probability  images",
        *(
            f"object {index}  {int(label)}      {float(top):11.4f}  4 of 4"
            for index, (top, label) in enumerate(zip(*tops, strict=True))
        ),
    ]


def test_json_has_one_object_per_tuple(finished, model, tuples, capsys):
    arguments = [str(model), str(tuples), "--json", "--threshold=0.6", "--max-n=2", "--runtime=torch", "--trust"]
    assert predict.main(arguments) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [record["tuple"] for record in records] == ["object 0", "object 1", "object 2"]
    images, _ = reference(finished, cell_of(finished))
    predictor = load(model, "torch", trust=True)
    for record, group in zip(records, images, strict=False):
        prediction = predictor.predict(group, 0.6, 2)
        assert record == {"tuple": record["tuple"], "available": 4, **vars(prediction)}


def fitted(folder: Path, *stopping: tuple[float, float]) -> Path:
    """Write thresholds for nominal errors into a card."""
    file = folder / "card.json"
    facts = json.loads(file.read_text())
    rates = {"validation_error": 0.01, "validation_instances": 1.5, "validation_truncated": 0.2}
    facts["stopping"] = [{"nominal_error": error, "threshold": threshold, **rates} for error, threshold in stopping]
    file.write_text(json.dumps(facts))
    return folder


def test_a_nominal_error_stands_for_the_threshold_that_was_fitted_for_it(copied, tuples, capsys):
    fitted(copied, (0.1, 0.3), (0.02, 0.6))
    for error, threshold in ((0.1, 0.3), (0.02, 0.6)):
        printed = []
        for option in (f"--error={error}", f"--threshold={threshold}"):
            assert predict.main([str(copied), str(tuples), option, "--runtime=torch", "--trust"]) == 0
            printed.append(capsys.readouterr().out)
        assert printed[0] == printed[1]


def test_a_model_that_is_good_enough_after_one_image_stops_there(copied, tuples, capsys):
    fitted(copied, (0.1, 0.0))
    assert predict.main([str(copied), str(tuples), "--error=0.1", "--runtime=torch", "--trust", "--json"]) == 0
    assert {json.loads(line)["instances"] for line in capsys.readouterr().out.splitlines()} == {1}


def test_a_card_takes_whatever_can_be_measured(copied):
    facts = json.loads((fitted(copied, (0.1, 0.0)) / "card.json").read_text())
    facts["stopping"][0] |= {"validation_error": 0.0, "validation_instances": 1.0, "validation_truncated": 0.0}
    facts["quality"][0] |= {"n_accuracy": 1 + 4e-16, "n_accuracy_high": 1.0, "ri": -0.5, "calibration_error": 0.0}
    facts["costs"] |= {"macs_effective": 0.0, "aggregator_macs": {"1": 0}, "measured_latency_ms": None}
    (copied / "card.json").write_text(json.dumps(facts))
    assert card_file.read(copied).quality[0].ri == -0.5


def test_an_error_that_was_not_fitted_is_refused(copied, tuples, refused):
    fitted(copied, (0.1, 0.3), (0.02, 0.6))
    line = refused(copied, tuples, "--error=0.05", "--runtime=torch", "--trust")
    assert line == "expected an error that a threshold was fitted for, got 0.05; use one of 0.1, 0.02\n"
    line = refused(fitted(copied), tuples, "--error=0.05", "--runtime=torch", "--trust")
    assert line.endswith(
        "got 0.05; adaptive n was off, or validation has too few images or groups to promise any; use --threshold\n"
    )


def test_the_card_carries_the_temperature_of_every_n_and_the_thresholds_of_the_cell(finished, model):
    cell, model_card = cell_of(finished), card_file.read(model)
    stored = finished.store.load(cell.adaptive.stage, cell.adaptive.key)
    assert model_card.calibration.n == (1, 2, 3, 4)
    assert list(model_card.calibration.posterior_temperature) == stored.meta["temperature"]
    assert model_card.provenance["artifacts"]["stopping"]["key"] == cell.adaptive.key
    own = [t for t in finished.results.thresholds if t.cell == cell.id]
    assert [t.nominal_error for t in own] == [0.1, 0.05, 0.02, 0.01]
    assert [(s.nominal_error, s.threshold) for s in model_card.stopping] == [
        (t.nominal_error, t.threshold) for t in own if t.threshold is not None
    ]


def test_cards_list_the_thresholds_of_the_largest_posterior_that_exist(finished):
    some = finished.results.thresholds[0]
    rates = {"validation_error": 0.04, "validation_instances": 2.0, "validation_truncated": 0.1}
    made = [
        dataclasses.replace(some, rule=rule, nominal_error=error, threshold=threshold, **rates)
        for rule, error, threshold in (("threshold", 0.05, 0.9), ("margin", 0.05, 0.8), ("threshold", 0.1, 0.7))
    ]
    none = dataclasses.replace(some, nominal_error=0.01, threshold=None)
    rules = filling.stopping([*made, none])
    assert [(s.nominal_error, s.threshold) for s in rules] == [(0.1, 0.7), (0.05, 0.9)]
    assert (rules[0].validation_error, rules[0].validation_instances, rules[0].validation_truncated) == (0.04, 2.0, 0.1)


def test_what_is_not_sure_enough_says_so(model, tuples, capsys):
    assert predict.main([str(model), str(tuples), "--threshold=1", "--runtime=torch", "--trust"]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert all(line.endswith("4 of 4  below 1") for line in lines)


def test_more_images_than_in_training_are_flagged(model, tuples, capsys):
    for index in range(2):
        Image.new("L", (8, 8)).save(tuples / "object 1" / f"more {index}.png")
    assert predict.main([str(model), str(tuples), "--runtime=torch", "--trust"]) == 0
    error = capsys.readouterr().err
    assert error == (
        "warning: more images than the 4 that the aggregator was trained and calibrated with were used for object 1; "
        "--max-n 4 stays within\n"
    )
    assert predict.main([str(model), str(tuples), "--runtime=torch", "--trust", "--max-n=4"]) == 0
    assert capsys.readouterr().err == ""


def test_a_table_may_give_the_order_in_which_files_are_looked_at(tuples, tmp_path):
    files = sorted(str(path.relative_to(tmp_path)) for path in tuples.rglob("*.png"))[:3]
    rows = [f"one,{path},{place}" for path, place in zip(files, (2, 0.5, 1), strict=True)]
    (tmp_path / "groups.csv").write_text("\n".join(["group,path,position", *rows]))
    (group,) = read_groups(tmp_path / "groups.csv").groups
    assert group.paths == (files[1], files[2], files[0])


@pytest.mark.parametrize(
    ("rows", "flaw"),
    [
        (("one,{0},3", "one,{0},1"), "expected one position of '.*', got 3 and 1 .row 3 of .*; remove one of the rows"),
        (("one,{0},3", "one,{1},3"), "expected positions that differ, got 3 for both '.*' and '.*' .row 3 of"),
    ],
)
def test_positions_that_give_no_order_are_a_flaw_of_their_group(tuples, tmp_path, rows, flaw):
    files = sorted(str(path.relative_to(tmp_path)) for path in tuples.rglob("*.png"))[:2]
    lines = [row.format(*files) for row in rows]
    (tmp_path / "groups.csv").write_text("\n".join(["group,path,position", *lines, f"two,{files[0]},3"]))
    one, two = read_groups(tmp_path / "groups.csv").groups
    assert re.search(flaw, one.flaw)
    assert two.flaw == ""


def test_a_table_of_groups_is_the_same_as_folders(model, tuples, tmp_path, capsys):
    files = sorted(tuples.glob("*/*.png"), reverse=True)
    rows = [f"{file.parent.name},{file.relative_to(tmp_path)},ignored" for file in files]
    (tmp_path / "groups.csv").write_text("\n".join(["group,path,note", *rows]), encoding="utf-8-sig")
    table, folders = (read_groups(source).groups for source in (tmp_path / "groups.csv", tuples))
    assert [(group.name, [Path(path).name for path in group.paths]) for group in table] == [
        (group.name, [Path(path).name for path in group.paths]) for group in folders
    ]
    for source in (tmp_path / "groups.csv", tuples):
        assert predict.main([str(model), str(source), "--runtime=torch", "--trust"]) == 0
    table, folders = capsys.readouterr().out.split("tuple  ")[1:]
    assert table == folders


def test_images_are_taken_in_sorted_order_without_hidden_files(tmp_path):
    folder = tmp_path / "all" / "one"
    folder.mkdir(parents=True)
    for name in ("b.png", "a.png", ".DS_Store", "c10.png", "c9.png"):
        (folder / name).write_bytes(b"")
    (tmp_path / "all" / ".hidden").mkdir()
    (group,) = read_groups(tmp_path / "all").groups
    assert group.paths == ("one/a.png", "one/b.png", "one/c10.png", "one/c9.png")


def test_new_images_are_decoded_as_the_training_images_were(tmp_path):
    generator = torch.Generator().manual_seed(0)
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for index, mode in enumerate(("L", "RGB", "RGBA")):
            size = (9 - index, 5, len(mode))
            pixels = torch.randint(256, size, generator=generator).to(torch.uint8).squeeze(2).numpy()
            Image.fromarray(pixels, mode).save(tmp_path / "pets" / name / f"{index}.png")
    dataset = imagefolder.load(imagefolder.Config(str(tmp_path / "pets"), size=6, channels=3), tmp_path / "data")
    decoding = dataset.decoding
    wanted = Preprocessing(*dataset.image_shape, "uint8", decoding.size, decoding.channels)
    images = [image for group in read_groups(tmp_path / "pets").groups for image in read_images(group, wanted)]
    assert torch.equal(torch.stack(images), dataset.images)


def empty(folder: Path) -> None:
    (folder / "object 9").mkdir()


def broken(folder: Path) -> None:
    file = folder / "object 1" / "2.png"
    file.write_bytes(file.read_bytes()[:40])


def text(folder: Path) -> None:
    (folder / "object 1" / "2.png").write_text("a seven")


def stray(folder: Path) -> None:
    Image.new("L", (8, 8)).save(folder / "5.png")


def nested(folder: Path) -> None:
    (folder / "object 1" / "more").mkdir()
    shutil.copy(folder / "object 1" / "2.png", folder / "object 1" / "more")


def none(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def absent(folder: Path) -> None:
    shutil.rmtree(folder)


def coloured(folder: Path) -> None:
    Image.new("RGB", (8, 8)).save(folder / "object 1" / "2.png")


def large(folder: Path) -> None:
    Image.new("L", (9, 5)).save(folder / "object 1" / "2.png")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (stray, "expected only sub-folders in .*tuples, one per tuple, got the file '5.png'; put images"),
        (none, "expected sub-folders with images in .*tuples, one per tuple, got none; add one"),
        (absent, "expected a folder or zip of tuples .* or a CSV .* at .*tuples, got nothing; check the path"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_folder_with_a_flaw_is_refused(model, tuples, refused, damage, message):
    damage(tuples)
    assert re.search(message, refused(model, tuples, "--runtime=torch", "--trust"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (empty, "error: object 9: expected images in every sub-folder, got none in 'object 9'; add some or remove it"),
        (broken, "error: object 1: expected an image in 'object 1/2.png', got: .*repair or remove it"),
        (text, "error: object 1: expected an image in 'object 1/2.png', got: no image format .*, repair or remove it"),
        (nested, "error: object 1: expected images in 'object 1', got the folder 'more'; move its images up"),
        (coloured, r"error: object 1: expected grey images \(1 channels\), got 3 \(colour\) in .*; convert it"),
        (large, "error: object 1: expected images of 8x8 pixels, got 9x5 in 'object 1/2.png'; scale it"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_tuple_with_a_flaw_is_named_and_the_others_are_predicted(model, tuples, capsys, damage, message):
    assert predict.main([str(model), str(tuples), "--runtime=torch", "--trust", "--json"]) == 0
    whole = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    damage(tuples)
    assert predict.main([str(model), str(tuples), "--runtime=torch", "--trust", "--json"]) == 3
    printed = capsys.readouterr()
    assert re.match(message, printed.err)
    assert printed.err.count("\n") == 1
    left = [one for one in whole if f"error: {one['tuple']}:" not in printed.err]
    assert [json.loads(line) for line in printed.out.splitlines()] == left


def test_bad_images_may_be_skipped(model, tuples, capsys):
    broken(tuples)
    assert predict.main([str(model), str(tuples), "--runtime=torch", "--trust", "--json", "--on-bad-image=skip"]) == 0
    printed = capsys.readouterr()
    assert re.match("warning: object 1: left out: expected an image in 'object 1/2.png', got: .*\n$", printed.err)
    assert [json.loads(line)["instances"] for line in printed.out.splitlines()] == [4, 3, 4]
    for file in (tuples / "object 1").iterdir():
        file.write_bytes(b"nothing")
    assert predict.main([str(model), str(tuples), "--runtime=torch", "--trust", "--json", "--on-bad-image=skip"]) == 3
    assert "error: object 1: expected images that can be read in 'object 1', got none" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected the columns group and path in .*groups.csv, got none; add group and path"),
        (b"group,path,group\na,here.png,b\n", "group and path once each in .*, got group twice; remove one"),
        (b"group,file\na,b.png\n", "expected the columns group and path in .*, got 'group', 'file'; add path"),
        (b"group,path\n", "expected rows with a group and a path in .*groups.csv, got none; add some"),
        (
            b"group,path\na,here.png\na\n",
            "expected a path in every row of .*, got none for 'a' in row 3; fill it in",
        ),
        (
            b"group,path\n,here.png\n",
            "expected a group in every row of .*, got none for 'here.png' in row 2",
        ),
        (b"group,path\n\xff,here.png\n", "expected text in utf-8 in .*, got the bytes ff .* in row 2; state its encod"),
    ],
)
def test_a_table_with_a_flaw_is_refused(tmp_path, content, message):
    Image.new("L", (8, 8)).save(tmp_path / "here.png")
    (tmp_path / "groups.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_groups(tmp_path / "groups.csv")


def test_rows_that_name_no_image_are_flaws_of_their_group(tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "here.png")
    rows = "a,here.png\na,./here.png\n\nb,gone.png\nc,../away.png\nd,here.png\n"
    (tmp_path / "groups.csv").write_text("group,path\n" + rows)
    a, b, c, d = read_groups(tmp_path / "groups.csv").groups
    assert (a.paths, a.flaw) == (d.paths, d.flaw) == (("here.png",), "")  # a repeated row is one image
    assert re.match(r"expected an image at 'gone.png' \(row 5 of .*groups.csv\), got no file; correct", b.flaw)
    assert re.match(r"expected images inside .*, got '../away.png' \(row 6 of .*\); move the CSV", c.flaw)


def test_a_model_of_other_than_images_takes_no_files():
    wanted = Preprocessing(9, 1, 1, "float32", None, None)
    with pytest.raises(DataError, match="expected a model of images, got one of float32 instances"):
        next(read_images(Group("a", ("a.png",), lambda _: b""), wanted))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--runtime=tflite"], "unknown runtime 'tflite'; available: onnx, torch"),
        (["--threshold=0"], r"--threshold: expected a probability in \(0, 1\], got 0"),
        (["--threshold=1.5"], r"--threshold: expected a probability in \(0, 1\], got 1.5"),
        (["--threshold=nan"], r"--threshold: expected a probability in \(0, 1\], got nan"),
        (["--max-n=0"], "--max-n: expected at least 1 image, got 0"),
        (["--error=0"], r"--error: expected a share of wrong answers in \(0, 1\), got 0"),
        (["--error=1"], r"--error: expected a share of wrong answers in \(0, 1\), got 1"),
        (["--error=nan"], r"--error: expected a share of wrong answers in \(0, 1\), got nan"),
        (
            ["--error=0.1", "--threshold=0.9"],
            r"expected --error or --threshold, got both \(0.1 and 0.9\); leave one out",
        ),
    ],
)
def test_options_that_cannot_work_are_refused(model, tuples, refused, arguments, message):
    assert re.match(message, refused(model, tuples, *arguments))


def test_a_folder_without_a_card_is_no_model(tuples, tmp_path, refused):
    line = refused(tmp_path, tuples)
    assert re.match("expected a card.json in .*, got: .*; give a folder that `sharedlabel export` wrote", line)


@pytest.mark.parametrize("name", ["backbone.onnx", "aggregator.pt2"])
def test_an_altered_file_is_refused_whichever_runtime_is_used(copied, tuples, refused, name):
    content = bytearray((copied / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copied / name).write_bytes(content)
    line = refused(copied, tuples)
    assert re.match(rf"expected {name} as it was exported \(sha256 [0-9a-f]+...\), got [0-9a-f]+...: it was alt", line)
    (copied / name).unlink()
    assert re.match(f"expected the file '{name}' in .*, got none; export the cell again", refused(copied, tuples))


def test_a_card_that_cannot_be_used_is_refused(copied):
    whole = json.loads((copied / "card.json").read_text())
    for payload, message in (
        ({**whole, "format": 99}, "has format 99, this version reads 3; export the cell again"),
        ([], "has format 'list', this version reads 3"),
        ({**whole, "labels": 3}, "is not a card of this version: .*labels.*; export again"),
        ({**whole, "labels": []}, "labels: Tuple should have at least 2 items"),
        ({**whole, "labels": ["a", "b", "c"]}, "expected one value per label, got .*'labels': 3"),
        (
            {**whole, "calibration": {**whole["calibration"], "temperature": 0}},
            "calibration.temperature: .* greater than or equal to 0.000001, got 0; export again",
        ),
        ({**whole, "calibration": {**whole["calibration"], "floor": 5}}, "calibration.floor: .* less than 1"),
        (
            {**whole, "calibration": {**whole["calibration"], "n": []}},
            "calibration.n: Tuple should have at least 1 item",
        ),
        ({**whole, "calibration": {**whole["calibration"], "n": [4, 2]}}, r"expected ascending n .*, got n = \(4, 2\)"),
        (
            {**whole, "files": {"../card.json": whole["files"]["backbone.pt2"]}},
            r"files.../card.json.\[key\]: String should match pattern .*, got '../card.json'; export again",
        ),
    ):
        (copied / "card.json").write_text(json.dumps(payload))
        with pytest.raises(DeploymentError, match=message):
            card_file.read(copied)
    (copied / "card.json").write_text(json.dumps({**whole, "files": {}}))
    with pytest.raises(DeploymentError, match="backbone and aggregator of one runtime, got no files"):
        load(copied)
    (copied / "card.json").write_text("{")
    with pytest.raises(DeploymentError, match=r"expected a card.json in .*, got: .*line 1"):
        card_file.read(copied)


def test_a_runtime_that_was_not_exported_or_is_not_installed(finished, copied, tmp_path, monkeypatch):
    rows = selection.choose(finished.results, cell_of(finished, "log_pool", 1.0).id, {})
    build.export(finished.results, rows, finished.store.root, tmp_path / "only torch", ("torch",), False)
    assert load(tmp_path / "only torch", trust=True).card.cell["aggregator"] == "log_pool"
    with pytest.raises(DeploymentError, match=r"for the runtime 'onnx' in .*, got one for torch; use --runtime torch"):
        load(tmp_path / "only torch", "onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(
        DeploymentError, match=r"the package onnxruntime, .*pip install sharedlabel\[export\].*--runtime t"
    ):
        load(copied)
    assert load(copied, "torch", trust=True).card.cell["aggregator"] == "lstm"


def test_a_program_that_its_runtime_cannot_read_is_named(tmp_path):
    for name in ("backbone.onnx", "backbone.pt2"):
        (tmp_path / name).write_bytes(b"nothing")
        with pytest.raises(DeploymentError, match=rf"expected a program at .*{name}, got: .*; export the cell again"):
            programs.read(tmp_path / name, trusted=True)


def test_a_posterior_that_is_not_finite_is_refused(finished, copied):
    model = load(copied)
    broken = Predictor(
        model.card, model._backbone, lambda *inputs: (torch.full((1, inputs[0].shape[1], 10), torch.nan),)
    )
    image = finished.grid.data.dataset.images[0]
    with pytest.raises(DataError, match="finite posterior after 1 instances, got NaN or infinity"):
        broken.predict([image])
