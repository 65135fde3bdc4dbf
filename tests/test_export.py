"""Exported programs against the networks that they were made from, cards, and the command line of the export."""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.onnx._internal._lazy_import import onnxscript_apis

from sharedlabel import export, records
from sharedlabel.aggregators._base import Aggregator, normalize
from sharedlabel.backbones._base import Backbone
from sharedlabel.backbones._restore import restore, state
from sharedlabel.config import Plugin, resolve
from sharedlabel.deployment import build, card, card_file, cells, programs, selection
from sharedlabel.deployment._scan import ScannedGru, ScannedLstm, with_scans
from sharedlabel.errors import CompressionError, DeploymentError, StoreError
from sharedlabel.plugins import available, load
from sharedlabel.pruners import _methods
from sharedlabel.pruners._base import Context
from sharedlabel.pruners._masks import bake, masked
from sharedlabel.stages import _read
from sharedlabel.store import Store
from sharedlabel.types import SetShape

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
SOURCES = str(Path(export.__file__).parent).encode()
D, C = 6, 4
RUNTIMES = ("onnx", "torch")


@pytest.fixture(autouse=True, scope="module")
def _one_list_of_operators():
    """ONNX gathers its thousand operators anew for every export; they are the same each time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnxscript_apis, "get_torchlib_ops", functools.cache(onnxscript_apis.get_torchlib_ops))
        yield


def shape() -> SetShape:
    prior = torch.tensor([0.4, 0.3, 0.2, 0.1])
    return SetShape(torch.randn(D), torch.rand(D) + 0.5, prior.log())


def instances(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(1, n, D), normalize(3 * torch.randn(1, n, C))


def perturbed(network: nn.Module) -> nn.Module:
    """Give a network weights that no initialisation would: read-outs that start at zero hide mistakes."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return network.eval()


def agree(path: Path, network: nn.Module, inputs) -> None:
    assert programs.check(path, network, inputs) <= 1e-5


@pytest.mark.parametrize("name", available("aggregators"))
def test_every_aggregator_runs_on_any_number_of_instances(name, tmp_path):
    torch.manual_seed(0)
    module = load("aggregators", name)
    aggregator = perturbed(module.build(module.Config(), shape()))
    before = copy.deepcopy(aggregator.state_dict())
    program = programs.export_aggregator(aggregator, shape())
    for runtime in RUNTIMES:
        path = programs.write(program, programs.AGGREGATOR, runtime, tmp_path)
        agree(path, aggregator, [instances(n) for n in (1, 2, 3, 5, 11)])
        assert SOURCES not in path.read_bytes()  # no folder of this machine
    assert all(torch.equal(before[key], tensor) for key, tensor in aggregator.state_dict().items())
    assert all(parameter.requires_grad for parameter in aggregator.parameters())


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("lstm", {"layers": 2, "hidden": 5}),
        ("crafted_lstm", {"initial": "learned", "activation": "b2bsqrt", "inputs": "embedding"}),
        ("refit_pool", {"tempered": True}),
    ],
)
def test_options_that_change_the_program_run_as_well(name, options, tmp_path):
    torch.manual_seed(0)
    module = load("aggregators", name)
    aggregator = perturbed(module.build(module.Config(**options), shape()))
    path = programs.write(programs.export_aggregator(aggregator, shape()), programs.AGGREGATOR, "onnx", tmp_path)
    agree(path, aggregator, [instances(n) for n in (1, 4, 9)])


@pytest.mark.parametrize("options", [{}, {"num_layers": 2}, {"bias": False}, {"batch_first": False}])
def test_a_scanned_lstm_is_the_lstm(options):
    torch.manual_seed(0)
    lstm = nn.LSTM(3, 5, **{"batch_first": True, **options}).eval()
    inputs = torch.randn(2, 7, 3)
    with torch.no_grad():
        expected, (hidden, cell) = lstm(inputs)
        scanned, (scanned_hidden, scanned_cell) = ScannedLstm(lstm)(inputs)
    torch.testing.assert_close(scanned, expected)
    torch.testing.assert_close(scanned_hidden, hidden)
    torch.testing.assert_close(scanned_cell, cell)


@pytest.mark.parametrize("options", [{}, {"num_layers": 2}, {"bias": False}, {"batch_first": False}])
def test_a_scanned_gru_is_the_gru(options):
    torch.manual_seed(0)
    gru = nn.GRU(3, 5, **{"batch_first": True, **options}).eval()
    inputs = torch.randn(2, 7, 3)
    with torch.no_grad():
        expected, hidden = gru(inputs)
        scanned, scanned_hidden = ScannedGru(gru)(inputs)
    torch.testing.assert_close(scanned, expected)
    torch.testing.assert_close(scanned_hidden, hidden)


def test_a_gru_that_reads_both_ways_is_refused():
    with pytest.raises(DeploymentError, match=r"expected GRUs of one direction without projections, got '0': GRU\("):
        with_scans(nn.Sequential(nn.GRU(3, 5, bidirectional=True)))


@pytest.mark.parametrize("options", [{"bidirectional": True}, {"proj_size": 2}])
def test_an_lstm_that_no_scan_computes_is_refused(options):
    with pytest.raises(DeploymentError, match=r"expected LSTMs of one direction without projections, got '0': LSTM\("):
        with_scans(nn.Sequential(nn.LSTM(3, 5, **options)))


BACKBONES = [
    ("mlp", {"widths": (9, 7)}, (1, 6, 5)),
    ("resnet_cifar", {"depth": 8, "width": 4, "shortcut": "projection"}, (3, 9, 8)),
    ("torchvision_model", {"architecture": "resnet18"}, (3, 16, 16)),
]
LOADED = {name: load("pruners", name) for name in available("pruners")}
# Masks are all alike once they are baked in, so one pruner stands for those that mask.
PRUNERS = ["magnitude", *(name for name, module in LOADED.items() if module.STRUCTURED and not module.NEEDS)]


def network(name: str, options: dict, image_shape: tuple[int, int, int]) -> tuple[Plugin, Backbone]:
    torch.manual_seed(0)
    plugin = resolve("backbones", {"name": name, **options})
    backbone = load("backbones", name).build(plugin.config, image_shape, C)
    backbone.normalize.mean.fill_(0.4)
    backbone.normalize.std.fill_(0.3)
    return plugin, backbone.eval()


def exported(backbone: Backbone, runtime: programs.Runtime, folder: Path, dtype=torch.uint8) -> Path:
    return programs.write(programs.export_backbone(backbone, dtype), programs.BACKBONE, runtime, folder)


def batches(image_shape: tuple[int, int, int]) -> list[tuple[torch.Tensor]]:
    return [(torch.randint(256, (size, *image_shape)).to(torch.uint8),) for size in (1, 2, 5)]


@pytest.mark.parametrize(("name", "options", "image_shape"), BACKBONES)
def test_backbones_run_on_any_number_of_images(name, options, image_shape, tmp_path):
    _, backbone = network(name, options, image_shape)
    program = programs.export_backbone(backbone, torch.uint8)
    for runtime in RUNTIMES:
        path = programs.write(program, programs.BACKBONE, runtime, tmp_path)
        agree(path, backbone, batches(image_shape))
        embeddings, logits = programs.read(path, trusted=True)(batches(image_shape)[2][0])
        assert embeddings.shape == (5, backbone.embedding_dim)
        assert logits.shape == (5, C)


@pytest.mark.parametrize(("name", "options", "image_shape"), BACKBONES[:2])
@pytest.mark.parametrize("pruner", PRUNERS)
def test_pruned_backbones_run_as_they_were_stored(name, options, image_shape, pruner, tmp_path):
    """Masked or physically smaller: what is stored, restored, baked and exported answers like the pruned network."""
    plugin, backbone = network(name, options, image_shape)
    module = LOADED[pruner]
    try:
        pruned = _methods.prune(module, backbone, 1.5, module.Config(), Context(torch.Generator().manual_seed(0)))
    except CompressionError:
        pytest.skip(f"{pruner} does not prune {name}")
    restored = restore(plugin, image_shape, C, state(pruned))
    bake(restored)
    assert not list(masked(restored))
    path = exported(restored, "onnx", tmp_path)
    agree(path, pruned.eval(), batches(image_shape))


def test_structured_pruning_makes_the_files_smaller(tmp_path):
    _, backbone = network("mlp", {"widths": (64, 64)}, (1, 8, 8))
    unit = load("pruners", "unit")
    pruned = _methods.prune(unit, backbone, 8.0, unit.Config(), Context(torch.Generator()))
    dense, small = (exported(candidate, "torch", tmp_path).stat().st_size for candidate in (backbone, pruned))
    assert small < 0.7 * dense


def test_float_instances_run_too(tmp_path):
    _, backbone = network("mlp", {"widths": (5,)}, (9, 1, 1))
    path = exported(backbone, "onnx", tmp_path, torch.float32)
    agree(path, backbone, [(torch.randn(size, 9, 1, 1),) for size in (1, 3)])


class Unrolled(Aggregator):
    permutation_invariant = True

    def forward(self, embeddings, logits):
        return normalize(logits + float(embeddings.sum()))


class Inverting(Aggregator):
    permutation_invariant = True

    def forward(self, embeddings, logits):
        return normalize(torch.linalg.eigvals(logits.mT @ logits).real[:, None].expand_as(logits))


def test_an_aggregator_that_branches_on_values_is_refused_with_the_reason():
    with pytest.raises(DeploymentError, match=r"torch.export can take, got for the aggregator: .*avoid Python loops"):
        programs.export_aggregator(Unrolled(), shape())


def test_an_aggregator_that_onnx_cannot_express_is_refused_with_the_reason(tmp_path):
    program = programs.export_aggregator(Inverting(), shape())
    with pytest.raises(DeploymentError, match=r"ONNX can express, got for the aggregator: .*use --format torch"):
        programs.write(program, programs.AGGREGATOR, "onnx", tmp_path)


def test_a_program_of_another_network_fails_its_check(tmp_path):
    _, backbone = network(*BACKBONES[0])
    path = exported(backbone, "torch", tmp_path)
    other = copy.deepcopy(backbone)
    nn.init.constant_(other.classifier.bias, 0.5)
    with pytest.raises(
        DeploymentError, match=r"backbone\.pt2 to agree with PyTorch within 0.0001, got a difference of"
    ):
        programs.check(path, other, batches((1, 6, 5)))
    own = programs.read(path, trusted=True)
    nan = lambda images: tuple(torch.full_like(output, torch.nan) for output in own(images))  # noqa: E731
    assert programs.difference(nan, own, batches((1, 6, 5))) == float("inf")


def test_a_missing_package_is_named_with_the_extra_that_brings_it(tmp_path, monkeypatch):
    _, backbone = network(*BACKBONES[0])
    program = programs.export_backbone(backbone, torch.uint8)
    for package in ("onnx", "onnxscript", "onnxruntime"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            with pytest.raises(DeploymentError, match=rf"package {package}, got: .*pip install sharedlabel\[export\]"):
                programs.write(program, programs.BACKBONE, "onnx", tmp_path)
            agree(programs.write(program, programs.BACKBONE, "torch", tmp_path), backbone, batches((1, 6, 5)))


def test_files_run_without_this_package(tmp_path):
    _, backbone = network(*BACKBONES[0])
    program = programs.export_backbone(backbone, torch.uint8)
    for runtime in RUNTIMES:
        programs.write(program, programs.BACKBONE, runtime, tmp_path)
    script = """
import sys, torch, onnxruntime
images = torch.arange(3 * 6 * 5).reshape(3, 1, 6, 5).to(torch.uint8)
embedding, logits = torch.export.load("backbone.pt2").module()(images)
session = onnxruntime.InferenceSession("backbone.onnx")
outputs = session.run(["embeddings", "logits"], {"images": images.numpy()})
assert abs(outputs[1] - logits.detach().numpy()).max() < 1e-4
assert not any(name.startswith("sharedlabel") for name in sys.modules)
print(session.get_inputs()[0].shape[1:], session.get_outputs()[0].shape[1:])
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False, env=ENVIRONMENT
    )
    assert done.stdout.strip() == "[1, 6, 5] [7]", done.stderr


def lines(finished, *arguments: str) -> list[str]:
    return [*arguments, f"--run={folder(finished)}"]


def folder(finished) -> Path:
    return Path(finished.experiment.output) / finished.experiment.name


def cell(finished, aggregator: str, ratio: float) -> str:
    return next(c.id for c in finished.grid.cells if (c.aggregator, c.ratio) == (aggregator, ratio))


def test_the_command_line_exports_a_cell_with_its_card(finished, tmp_path):
    output = tmp_path / "below" / "model"
    key = cell(finished, "lstm", 2.0)
    done = subprocess.run(
        [sys.executable, "-m", "sharedlabel.export", *lines(finished, key[:6], "--format=both", f"--output={output}")],
        capture_output=True,
        text=True,
        check=False,
        env=ENVIRONMENT,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.startswith(f"{key}: mlp magnitude 2x lstm iid seed 0\n")
    assert f"sharedlabel predict {output} FOLDER" in done.stdout
    files = {path.name for path in output.iterdir()}
    assert files == {"card.json", *(f"{part}{end}" for part in ("backbone", "aggregator") for end in (".onnx", ".pt2"))}
    assert [path.name for path in output.parent.iterdir()] == ["model"]
    model_card = card_file.read(output)
    rows = [row for row in finished.results.rows if row.cell == key and row.split == "test"]
    assert model_card.labels == tuple("0123456789")
    assert model_card.prior == pytest.approx([0.1] * 10)
    assert model_card.preprocessing == card.Preprocessing(1, 8, 8, "uint8", None, None)
    fitted = dict(zip(model_card.calibration.n, model_card.calibration.posterior_temperature, strict=True))
    assert list(fitted) == [1, 2, 3, 4]
    assert [fitted[row.n] for row in rows] == pytest.approx([row.temperature for row in rows])
    assert [(q.n, q.n_accuracy, q.ri_low, q.ri_high) for q in model_card.quality] == [
        (row.n, row.n_accuracy, row.ri_low, row.ri_high) for row in rows
    ]
    assert model_card.costs.parameters == rows[0].parameters
    assert model_card.costs.aggregator_macs == {str(row.n): row.aggregator_macs for row in rows}
    assert model_card.provenance["data_sha256"] == finished.grid.data.dataset.fingerprint
    assert model_card.provenance["licence"]["software"] == "MIT"
    assert model_card.provenance["export"]["onnxruntime"]
    assert {source["stage"] for source in model_card.provenance["artifacts"].values()} == {
        "prune",
        "calibrate",
        "aggregate",
        "evaluate",
        "adaptive",
    }
    assert all(file.difference <= model_card.tolerance for file in model_card.files.values())
    node = next(c.evaluate for c in finished.grid.cells if c.id == key)
    calibrate = dict(node.inputs)["calibrate"]
    tensors = finished.store.load("calibrate", calibrate.key).tensors()
    assert torch.equal(torch.tensor(model_card.calibration.log_correction), tensors["log_correction"])


def test_a_joint_cell_is_rebuilt_from_the_joint_training(done, experiment, run, tmp_path):
    joint = dataclasses.replace(experiment.joint, epochs=1, batch_size=8)
    axes = {"training": ("frozen", "joint"), "aggregators": ("lstm", "mean_vote"), "joint": joint, "ratios": (1.0,)}
    both = run(dataclasses.replace(experiment, **axes))
    for aggregator in ("lstm", "mean_vote"):
        wanted = {"aggregator": aggregator}
        trained = {}
        for training in ("frozen", "joint"):
            rows = selection.choose(both.results, "", {**wanted, "training": training})
            trained[training] = cells.restore(rows[0].cell, both.results.dataset, both.store)
        images = both.grid.data.dataset.images[:4]
        assert not torch.equal(trained["frozen"].backbone(images), trained["joint"].backbone(images))
        assert trained["joint"].artifacts["backbone"] == trained["joint"].artifacts["aggregator"]
        node = next(c for c in both.grid.cells if (c.aggregator, c.training) == (aggregator, "joint"))
        features = both.store.load("features", dict(node.evaluate.inputs)["features"].key)
        stored = _read.features(features, "test")[1][:3]
        order = both.grid.data.splits["test"][:3]
        torch.testing.assert_close(trained["joint"].backbone(both.grid.data.dataset.images[order]), stored)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["zzz"], "unknown cell 'zzz' in the run 'digits'; nearest: [0-9a-f]{16} = mlp .*; the column `cell` of rows"),
        (
            ["--aggregator=lstm"],
            "expected one cell, got 2: [0-9a-f]{16} = mlp none 1x lstm iid seed 0; .*or --pruner, --",
        ),
        (["--aggregator=lstmm"], r"unknown aggregator 'lstmm' in this run; did you mean 'lstm'\?"),
        (["--ratio=3"], "unknown ratio 3 in this run; available: 1, 2"),
        (["--pruner=none", "--ratio=2"], "expected a cell with pruner=none, ratio=2.0, got none: the run has each"),
        (
            ["--aggregator=lstm", "--ratio=1", "--format=tflite"],
            "--format: unknown value 'tflite'; available: both, onnx, torch",
        ),
    ],
)
def test_a_cell_that_cannot_be_exported_is_refused(finished, arguments, message, capsys):
    assert export.main(lines(finished, *arguments)) == 2
    assert re.match(f"error: {message}", capsys.readouterr().err)


def test_a_run_that_is_not_there_is_refused(tmp_path, capsys):
    assert export.main(["abc", f"--run={tmp_path}"]) == 2
    assert re.match(r"error: expected a results.json at .*; run `sharedlabel train` first", capsys.readouterr().err)


def test_the_exact_posterior_has_no_networks(finished):
    rows = tuple(dataclasses.replace(row, aggregator="exact") for row in finished.results.rows if row.ratio == 1)
    results = dataclasses.replace(finished.results, rows=rows)
    with pytest.raises(DeploymentError, match=r"got [0-9a-f]{16} .*exact posterior .*; choose a cell of an aggregator"):
        selection.choose(results, rows[0].cell, {})


def test_an_output_that_is_there_is_replaced_only_by_force(finished, tmp_path, capsys):
    output = tmp_path / "model"
    arguments = lines(finished, "--aggregator=log_pool", "--ratio=1", "--format=torch", f"--output={output}")
    assert export.main(arguments) == 0
    first = (output / "card.json").read_text()
    (output / "mine.txt").write_text("a note")
    assert export.main(arguments) == 2
    assert "to write the new folder" in capsys.readouterr().err
    assert export.main([*arguments, "--force"]) == 0
    assert {path.name for path in output.iterdir()} == {"card.json", "backbone.pt2", "aggregator.pt2"}
    assert json.loads((output / "card.json").read_text())["quality"] == json.loads(first)["quality"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    (output / "card.json").unlink()
    assert export.main([*arguments, "--force"]) == 2
    assert "a folder that holds no model" in capsys.readouterr().err


def test_a_failing_check_writes_nothing(finished, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(programs, "difference", lambda *_: 0.25)
    output = tmp_path / "model"
    arguments = lines(finished, "--aggregator=log_pool", "--ratio=1", "--format=torch", f"--output={output}")
    assert export.main(arguments) == 2
    assert "got a difference of 0.25 in the backbone; nothing was written" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_its_artifacts_is_refused(finished, tmp_path, capsys):
    shutil.copytree(folder(finished), tmp_path / "runs" / "digits")
    arguments = ["--aggregator=log_pool", "--ratio=1", f"--run={tmp_path / 'runs' / 'digits'}"]
    assert export.main(arguments) == 2
    assert re.search("expected the run's artifacts in .*runs/store, got none", capsys.readouterr().err)
    store = Store(tmp_path / "runs" / "store")
    assert export.main(arguments) == 2
    assert re.search("expected one artifact whose key begins with '[0-9a-f]{16}' in .*, got 0", capsys.readouterr().err)
    with pytest.raises(StoreError, match=r"begins with '\.\./x' in .*, got 0"):
        store.find("../x")


def test_results_say_what_new_images_must_look_like(finished):
    facts = records.read(folder(finished)).dataset
    assert facts.class_names == finished.grid.data.dataset.class_names
    assert facts.image_shape == (1, 8, 8)
    assert (facts.dtype, facts.size, facts.channels) == ("uint8", None, None)
    assert facts.prior == pytest.approx(tuple(finished.grid.data.prior.tolist()))


def test_random_inputs_of_the_check_reach_beyond_the_largest_n(finished):
    rows = selection.choose(finished.results, cell(finished, "lstm", 1.0), {})
    assert build._sizes(rows) == [1, 2, 3, 4, 7]


def test_export_takes_what_it_needs_from_the_store_that_it_is_told(finished, monkeypatch, tmp_path):
    class StopError(Exception):
        """Raised in the place of an export."""

    def stop(results, rows, store, *others):
        raise StopError(str(store))

    monkeypatch.setattr(build, "export", stop)
    folder = tmp_path / "run"
    records.write(finished.results, folder)
    wanted = finished.results.rows[0].cell
    for arguments, store in ((["--store=s3://bucket/prefix"], "s3://bucket/prefix"), ([], str(tmp_path / "store"))):
        with pytest.raises(StopError, match=store):
            export.main([wanted, f"--run={folder}", *arguments])
