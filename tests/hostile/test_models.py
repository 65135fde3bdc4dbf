"""Models from strangers: nothing in them runs, hangs, or reaches a file that is not theirs."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import re
import socket
import zipfile
from pathlib import Path

import onnx
import pytest
import torch
import torchvision
from onnx import TensorProto, helper
from PIL import Image
from torch import nn

from sharedlabel import predict
from sharedlabel.backbones import torchvision_model
from sharedlabel.deployment import card, card_file, predictor
from sharedlabel.errors import DataError, DeploymentError, SharedLabelError

LABELS = ["cat", "dog", "hen"]
SIDE = 2
PARTS = ("backbone", "aggregator")
PREPROCESSING = {"channels": 1, "height": SIDE, "width": SIDE, "dtype": "uint8", "resize": None, "convert": None}


def tensor(name, values):
    return helper.make_tensor(name, TensorProto.FLOAT, torch.tensor(values).shape, torch.tensor(values).flatten())


def backbone_graph(nodes=(), initializers=(), outputs=("embeddings", "logits")):
    """Logits are the first three pixels."""
    own = [
        helper.make_node("Cast", ["images"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["real"], ["embeddings"]),
        helper.make_node("MatMul", ["embeddings", "weight"], ["logits"]),
    ]
    weight = tensor("weight", torch.eye(4, 3).tolist())
    shapes = {"embeddings": ["b", 4], "logits": ["b", 3]}
    return helper.make_graph(
        [*own, *nodes],
        "backbone",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["b", 1, SIDE, SIDE])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes.get(name)) for name in outputs],
        [weight, *initializers] if all(one.name != "weight" for one in initializers) else list(initializers),
    )


def aggregator_graph():
    inputs = [
        helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, [1, "n", 4]),
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, "n", 3]),
    ]
    output = helper.make_tensor_value_info("log_posterior", TensorProto.FLOAT, [1, "n", 3])
    nodes = [
        helper.make_node("CumSum", ["logits", "axis"], ["sums"]),
        helper.make_node("LogSoftmax", ["sums"], ["log_posterior"]),
    ]
    return helper.make_graph(
        nodes, "aggregator", inputs, [output], [helper.make_tensor("axis", TensorProto.INT64, [], [1])]
    )


def program(graph, **options) -> bytes:
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10, **options).SerializeToString()


def facts(files: dict[str, bytes]) -> dict:
    """A card as `export` writes it, of a model that was never trained."""
    return {
        "format": card.FORMAT,
        "cell": {"cell": "0123456789abcdef", "ratio": 2.0, "seed": 0},
        "labels": LABELS,
        "prior": [0.5, 0.25, 0.25],
        "embedding_dim": 4,
        "preprocessing": PREPROCESSING,
        "calibration": {
            "instance": "",
            "log_correction": [0.0, 0.0, 0.0],
            "temperature": 1.0,
            "posterior": "",
            "n": [1, 2],
            "posterior_temperature": [1.0, 0.5],
            "other_n": "",
            "floor": 1e-6,
        },
        "stopping": [
            {
                "nominal_error": error,
                "threshold": 0.9,
                "validation_error": 0.0,
                "validation_instances": 1.5,
                "validation_truncated": 0.0,
            }
            for error in (0.1, 0.05)
        ],
        "costs": dict.fromkeys(
            ("measured_latency_ms", "measured_latency_batch", "measured_threads", "measured_device"), None
        )
        | dict.fromkeys(
            (
                "parameters_dense",
                "parameters",
                "achieved_ratio",
                "macs_dense",
                "macs_executed",
                "macs_effective",
                "theoretical_speedup",
                "bytes_dense",
                "bytes_sparse",
            ),
            1,
        )
        | {"aggregator_macs": {"1": 1}, "cost_dense_passes": {"1": 1.0}, "measured_contended": None},
        "quality": [],
        "tolerance": 1e-4,
        "files": {
            name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content), "difference": 0.0}
            for name, content in files.items()
        },
        "provenance": {},
    }


def write(folder: Path, files: dict[str, bytes], /, **changed) -> Path:
    """Write a model whose card is right about its files, as an attacker would."""
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / "card.json").write_text(json.dumps({**facts(files), **changed}))
    return folder


def onnx_files(backbone=None, **more) -> dict[str, bytes]:
    backbone = program(backbone_graph()) if backbone is None else backbone
    others = {name.replace("_", "."): content for name, content in more.items()}
    return {"backbone.onnx": backbone, "aggregator.onnx": program(aggregator_graph()), **others}


@pytest.fixture
def tuples(tmp_path) -> Path:
    """One tuple whose only image says dog."""
    folder = tmp_path / "tuples" / "one"
    folder.mkdir(parents=True)
    Image.frombytes("L", (SIDE, SIDE), bytes([0, 9, 0, 0])).save(folder / "a.png")
    return folder.parent


def refusal(capsys, *arguments) -> str:
    """Run the command line, require one line, exit code 2 and nothing printed, and return the line."""
    assert predict.main([str(one) for one in arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert re.fullmatch(r"error: .*; .*\n", printed.err)
    return printed.err


def test_a_model_of_standard_operators_runs(tmp_path, tuples, capsys):
    """What follows differs from it in one thing each."""
    assert predict.main([str(write(tmp_path / "model", onnx_files())), str(tuples)]) == 0
    assert re.search(r"^one +dog +0.99\d+  1 of 1$", capsys.readouterr().out, re.MULTILINE)


class Evil:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def poisoned(folder: Path, mark: Path) -> dict[str, bytes]:
    """Two programs of torch.export, one with a pickle that runs code in the place of its example inputs."""

    class Backbone(nn.Module):
        def forward(self, images):
            flat = images.float().flatten(1)
            return flat, flat[:, :3]

    class Aggregator(nn.Module):
        def forward(self, embeddings, logits):
            return logits.cumsum(1).log_softmax(-1)

    files = {}
    example = torch.zeros(1, 1, SIDE, SIDE, dtype=torch.uint8), (torch.zeros(1, 1, 4), torch.zeros(1, 1, 3))
    for part, module, given in zip(PARTS, (Backbone(), Aggregator()), ((example[0],), example[1]), strict=True):
        path = folder / f"{part}.pt2"
        torch.export.save(torch.export.export(module, given), path)
        files[path.name] = path.read_bytes()
        path.unlink()
    evil, changed = io.BytesIO(), io.BytesIO()
    torch.save(Evil(mark), evil)
    count = 0
    with zipfile.ZipFile(io.BytesIO(files["backbone.pt2"])) as old, zipfile.ZipFile(changed, "w") as new:
        for name in old.namelist():
            inputs = "sample_inputs" in name
            count += inputs
            new.writestr(name, evil.getvalue() if inputs else old.read(name))
    assert count == 1
    return files | {"backbone.pt2": changed.getvalue()}


def test_a_pickle_in_a_program_runs_only_where_it_is_trusted(tmp_path, tuples, capsys):
    mark = tmp_path / "was run"
    model = write(tmp_path / "model", poisoned(tmp_path, mark))
    for more in ((), ("--runtime=torch",)):
        line = refusal(capsys, model, tuples, *more)
        assert re.match(r"error: expected an ONNX program, got .*\.pt2, and opening .* runs any code .*--trust", line)
    with pytest.raises(DeploymentError, match="expected an ONNX program"):
        predictor.load(model, "torch")
    assert not mark.exists()
    code = predict.main([str(model), str(tuples), "--trust"])
    assert mark.is_dir()  # so the pickle is one that runs: it was not opened before
    assert code in {0, 2}


def test_with_both_programs_the_onnx_ones_are_used(tmp_path, tuples, capsys):
    mark = tmp_path / "was run"
    model = write(tmp_path / "model", onnx_files() | poisoned(tmp_path, mark))
    assert predict.main([str(model), str(tuples)]) == 0
    assert not mark.exists()


def external(location: str, **more):
    """A weight of 48 bytes that lies in another file."""
    weight = onnx.TensorProto(name="weight", data_type=TensorProto.FLOAT, dims=[4, 3])
    weight.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **more}.items():
        weight.external_data.add(key=key, value=str(value))
    return weight


def test_weights_may_lie_in_a_file_of_the_card_and_nowhere_else(tmp_path, tuples, capsys):
    held = torch.eye(4, 3).numpy().tobytes()
    own = write(
        tmp_path / "own",
        onnx_files(program(backbone_graph(initializers=[external("weights.data")])), weights_data=held),
    )
    assert predict.main([str(own), str(tuples)]) == 0
    (tmp_path / "secret").write_bytes(held)
    os.mkfifo(tmp_path / "pipe")
    (own / "unlisted").write_bytes(held)
    near = ("../secret", "./weights.data", "sub/../weights.data", "unlisted", "../pipe", "")
    places = (*near, str(tmp_path / "secret"), "/dev/zero", "/etc/passwd", "*/_ORT_MEM_ADDR_/*")
    capsys.readouterr()
    for place in places:
        write(own, onnx_files(program(backbone_graph(initializers=[external(place, offset=0)])), weights_data=held))
        line = refusal(capsys, own, tuples)
        assert re.match(r"error: expected a program at .*, got: weights in .*, which is no file on the card; ", line)


def body(nodes=(), name="body"):
    value = helper.make_tensor_value_info
    nodes = nodes or [helper.make_node("Identity", ["x"], ["y"])]
    return helper.make_graph(nodes, name, [value("x", TensorProto.FLOAT, None)], [value("y", TensorProto.FLOAT, None)])


def hidden_weight():
    """A weight outside of the card, in a constant of a branch."""
    inside = helper.make_node("Constant", [], ["y"], value=external("../secret"))
    branch = helper.make_graph([inside], "then", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)])
    return [
        helper.make_node("Constant", [], ["yes"], value=helper.make_tensor("t", TensorProto.BOOL, [], [True])),
        helper.make_node("If", ["yes"], ["more"], then_branch=branch, else_branch=branch),
    ]


def loop():
    """Trips without end."""
    value = helper.make_tensor_value_info
    inputs = [value("i", TensorProto.INT64, []), value("go", TensorProto.BOOL, []), value("x", TensorProto.FLOAT, None)]
    outputs = [value("again", TensorProto.BOOL, []), value("y", TensorProto.FLOAT, None)]
    nodes = [helper.make_node("Identity", ["go"], ["again"]), helper.make_node("Identity", ["x"], ["y"])]
    trips = helper.make_tensor("trips", TensorProto.INT64, [], [2**60])
    repeated = helper.make_graph(nodes, "repeated", inputs, outputs)
    return [
        helper.make_node("Constant", [], ["trips"], value=trips),
        helper.make_node("Loop", ["trips", "", "logits"], ["more"], body=repeated),
    ]


def scans():
    """Scans within scans take the product of their lengths."""
    inner = helper.make_node("Scan", ["x"], ["y"], num_scan_inputs=1, body=body())
    return [helper.make_node("Scan", ["logits"], ["more"], num_scan_inputs=1, body=body([inner], "outer"))]


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        (hidden_weight, r"weights in '\.\./secret', which is no file on the card"),
        (loop, "the operator 'Loop', which runs as often as the file says"),
        (scans, "a scan inside a scan"),
        (
            lambda: [
                helper.make_node("EPContext", ["logits"], ["more"], domain="com.microsoft", ep_cache_context="/x")
            ],
            "the operator 'EPContext' of 'com.microsoft', which is none of ONNX's own",
        ),
        (
            lambda: [helper.make_node("Own\x1b[31m", ["logits"], ["more"], domain="library.so")],
            r"the operator 'Own\\x1b\[31m' of 'library.so'",
        ),
    ],
)
def test_operators_that_reach_out_or_run_without_end_are_refused(tmp_path, tuples, capsys, nodes, message):
    model = write(tmp_path / "model", onnx_files(program(backbone_graph(nodes()))))
    assert re.match(f"error: expected a program at .*backbone.onnx, got: {message}", refusal(capsys, model, tuples))


def deep(levels: int) -> bytes:
    """A graph in an attribute of an operator of a graph, and so on: field numbers of ONNX's messages, inside out."""
    content = b""
    for field in (*(6, 5, 1) * levels, 7):
        size, length = bytearray(), len(content)
        while length > 127:
            size.append(length & 127 | 128)
            length >>= 7
        content = bytes([field << 3 | 2, *size, length]) + content
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: b"", "got: "),
        (lambda: b"\xff" * 99, "got: no ONNX file"),
        (lambda: pickle.dumps(Evil(Path("x"))), "got: no ONNX file"),
        (lambda: deep(5000), "got: no ONNX file"),
        (lambda: program(backbone_graph(outputs=("logits",))), "got: a program of images -> logits"),
        (lambda: program(aggregator_graph()), "got: a program of embeddings, logits -> log_posterior"),
        (
            lambda: program(
                backbone_graph(),
                functions=[helper.make_function("own", "F", [], [], [], [helper.make_opsetid("", 20)])],
            ),
            "got: functions or training steps of the file's own",
        ),
    ],
)
def test_a_file_that_is_no_program_is_named(tmp_path, tuples, capsys, content, message):
    line = refusal(capsys, write(tmp_path / "model", onnx_files(content())), tuples)
    assert re.match(rf"error: expected a program at .*backbone.onnx, {message}.*; export the cell again", line)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"embedding_dim": 5}, r"expected float32 \[1, 5\] of the backbone, as the card says, got float32 \[1, 4\]"),
        (
            {"preprocessing": {**PREPROCESSING, "height": 3, "width": 3, "resize": 3, "convert": 1}},
            r"expected .*backbone.onnx to take inputs of uint8 \[1, 1, 3, 3\], as the card says, got",
        ),
    ],
)
def test_programs_that_are_not_those_of_the_card_are_named(tmp_path, tuples, capsys, changed, message):
    model = write(tmp_path / "model", onnx_files(), **changed)
    assert predict.main([str(model), str(tuples)]) == 2
    assert re.match(f"error: {message}", capsys.readouterr().err)


def calibration(**changed):
    return {"calibration": {**facts({})["calibration"], **changed}}


def preprocessing(**changed):
    return {"preprocessing": {**facts({})["preprocessing"], **changed}}


def stopping(**changed):
    return {"stopping": [{**facts({})["stopping"][0], **changed}]}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (calibration(temperature=1e-320), "calibration.temperature: .*got 1e-320; export again"),
        (calibration(posterior_temperature=[1.0, 1e-320]), "calibration.posterior_temperature.1: .*got 1e-320"),
        (calibration(posterior_temperature=[1.0, -1.0]), "calibration.posterior_temperature.1: .*got -1.0"),
        (calibration(posterior_temperature=[1.0]), "expected ascending n with one posterior temperature each"),
        (calibration(n=[2, 2]), "expected ascending n"),
        (calibration(n=[1, 10**9]), r"calibration.n.1: .*got 1000000000"),
        (calibration(n=[True, 2]), r"calibration.n.0: .*got True"),
        (calibration(log_correction=[0, 0, 1e300]), "calibration.log_correction.2: .*got 1e\\+300"),
        (calibration(floor=1.0), "calibration.floor: .* less than 1, got 1.0"),
        (calibration(floor=-1e-9), "calibration.floor: "),
        (preprocessing(resize=10**9), "preprocessing.resize: .*got 1000000000"),
        (preprocessing(height=10**6), "preprocessing.height: .*got 1000000"),
        (preprocessing(height=2**16, width=2**16), "expected images of at most 100,000,000 values"),
        (preprocessing(channels=7, convert=7), r"preprocessing.convert: .*got 7"),
        (preprocessing(channels=7, convert=3), "expected image files to become the backbone's input, 7 channels"),
        (preprocessing(resize=3), "expected image files to become the backbone's input.*got resize = 3"),
        (preprocessing(dtype="object"), "preprocessing.dtype: "),
        ({"labels": ["cat", "cat", "dog"]}, "expected every label once, got 'cat' twice"),
        ({"labels": ["cat"]}, "labels: Tuple should have at least 2 items"),
        ({"labels": ["cat", "dog", "x" * 10**6]}, "labels.2: String should have at most 1000 characters"),
        ({"prior": [0.5, 0.5, 0.5]}, "expected a prior that sums to 1, got 1.5"),
        ({"prior": [2.0, -0.5, -0.5]}, "prior.0: .*got 2.0"),
        ({"prior": [0.5, 0.5]}, "expected one value per label"),
        ({"embedding_dim": 0}, "embedding_dim: .*got 0"),
        ({"embedding_dim": "4"}, "embedding_dim: .*got '4'"),
        (stopping(threshold=-0.01), "stopping.0.threshold: "),
        (stopping(threshold=1.01), "stopping.0.threshold: "),
        (stopping(nominal_error=1), "stopping.0.nominal_error: "),
        ({"stopping": facts({})["stopping"][::-1]}, "expected stopping thresholds by descending nominal error"),
        ({"stopping": facts({})["stopping"][:1] * 2}, "expected stopping thresholds by descending nominal error"),
        ({"cell": {"cell": "\x1b[31m" * 999}}, "cell.cell.*: "),
        ({"files": {"../backbone.onnx": {"sha256": "0" * 64, "bytes": 0, "difference": None}}}, "files.*pattern"),
        ({"files": {"/dev/zero": {"sha256": "0" * 64, "bytes": 0, "difference": None}}}, "files.*pattern"),
        ({"files": {"b.onnx": {"sha256": "zz", "bytes": 0, "difference": None}}}, "files.b.onnx.sha256: "),
        ({"files": {"b.onnx": {"sha256": "0" * 64, "bytes": -1, "difference": None}}}, "files.b.onnx.bytes: "),
        ({"files": []}, "files: "),
        ({"quality": [{"n": 1}]}, "quality.0.n_accuracy: Field required"),
        ({"quality": [{"n": 1, "n_accuracy": 1.5}]}, "quality.0.n_accuracy: .*got 1.5"),
        ({"costs": {**facts({})["costs"], "parameters": -1}}, "expected parameters of at least 0, got -1"),
        ({"costs": {**facts({})["costs"], "aggregator_macs": {"1": -1}}}, "costs.aggregator_macs.1: .*got -1"),
    ],
)
def test_a_card_with_values_that_no_export_writes_is_refused(tmp_path, changed, message):
    folder = write(tmp_path / "model", onnx_files(), **changed)
    with pytest.raises(DeploymentError, match=message):
        card_file.read(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"format": 3, "format": 3}', "the key 'format' stands twice"),
        ("[" * 100_000, "nested deeper than 64 levels"),
        ('{"format": 3, "provenance": ' + "[" * 70 + "]" * 70 + "}", "nested deeper than 64 levels"),
        ('{"format": NaN}', "NaN, which is no number of JSON"),
        ('{"format": ' + "9" * 5000 + "}", "a whole number of 5000 digits"),
        ("\x00", "got: "),
        ("", "got: "),
    ],
)
def test_a_card_that_is_no_plain_json_is_refused(tmp_path, text, message):
    folder = write(tmp_path / "model", onnx_files())
    (folder / "card.json").write_text(text)
    with pytest.raises(DeploymentError, match=f"expected a card.json in .*{message}"):
        card_file.read(folder)


def test_a_card_of_any_size_is_not_read(tmp_path, monkeypatch):
    folder = write(tmp_path / "model", onnx_files())
    with (folder / "card.json").open("ab") as file:
        file.truncate(2**40)  # a file with a hole, which takes no space
    with pytest.raises(DeploymentError, match=r"expected a card.json in .*, got: more than 67,108,864 bytes"):
        card_file.read(folder)


def linked(path: Path) -> None:
    path.rename(path.with_suffix(".moved"))
    path.symlink_to(path.with_suffix(".moved"))


def listening(path: Path) -> None:
    path.unlink()
    here = os.getcwd()
    os.chdir(path.parent)  # names of sockets are short
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(here)


def replaced(make):
    def change(path: Path) -> None:
        path.unlink()
        make(path)

    return change


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.parametrize("name", ["card.json", "backbone.onnx"])
@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (linked, "a link"),
        (replaced(os.mkfifo), "a pipe"),
        (listening, "a socket"),
        (replaced(lambda path: path.symlink_to("/dev/zero")), "a link"),
        (replaced(os.mkdir), "a folder"),
    ],
)
def test_members_that_are_no_plain_files_are_not_opened(tmp_path, tuples, capsys, name, change, kind):
    model = write(tmp_path / "model", onnx_files())
    change(model / name)
    line = refusal(capsys, model, tuples)
    assert re.search(f"expected the plain file '{name}' in .*, got {kind}; copy the model", line)


def test_a_device_is_not_opened(tmp_path):
    folder = write(tmp_path / "model", onnx_files())
    (folder / "card.json").unlink()
    try:
        os.mknod(folder / "card.json", 0o20666, os.makedev(1, 5))  # reads as zeros without end
    except PermissionError:
        pytest.skip("making a device needs more rights")
    with pytest.raises(DeploymentError, match="got a device"):
        card_file.read(folder)


def test_a_file_of_another_size_is_not_hashed(tmp_path):
    folder = write(tmp_path / "model", onnx_files())
    with (folder / "backbone.onnx").open("ab") as file:
        file.truncate(2**40)
    with pytest.raises(DeploymentError, match=r"expected backbone.onnx as it was exported \(\d+ bytes\), got 1,099,5"):
        card_file.read(folder)


def test_what_a_card_says_is_shown_inert(tmp_path, tuples, capsys):
    folder = write(tmp_path / "model", onnx_files())
    text = json.dumps({**facts(onnx_files()), "labels": ["\x1b]0;x\x07", "\x1b]0;x\x07", "\u202e"]})
    (folder / "card.json").write_text(text)
    line = refusal(capsys, folder, tuples)
    assert line.isprintable() or line[:-1].isprintable()
    assert "\\x1b]0;x\\x07" in line


def test_every_message_of_a_changed_card_is_a_sentence(tmp_path):
    """Whatever key is dropped, emptied, or made a list, a text or a number: a refusal or a model, nothing else."""
    whole = facts(onnx_files())
    write(tmp_path / "model", onnx_files())
    tried = 0
    for path in list(places(whole)):
        for value in (None, [], {}, "x", -1, 10**30, 0.5, True, DROPPED):
            (tmp_path / "model" / "card.json").write_text(json.dumps(with_value(whole, path, value)))
            tried += 1
            try:
                predictor.load(tmp_path / "model")
            except SharedLabelError as error:
                assert re.search("expected|is not a card|has format", str(error))  # noqa: PT017
    assert tried > 500


DROPPED = object()


def places(value, path=()):
    yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*path, key))


def with_value(whole, path, value):
    if not path:
        return None if value is DROPPED else value
    copy = dict(whole) if isinstance(whole, dict) else list(whole)
    if len(path) == 1 and value is DROPPED:
        del copy[path[0]]
    else:
        copy[path[0]] = with_value(copy[path[0]], path[1:], value)
    return copy


def test_pretrained_weights_are_tensors_alone(tmp_path, monkeypatch):
    """A file in torchvision's cache, put there by hand as the message of an offline machine says, runs nothing."""
    weights = torchvision.models.get_model_weights("squeezenet1_1").DEFAULT
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    torch.save(Evil(tmp_path / "was run"), tmp_path / "checkpoints" / Path(weights.url).name)
    config = torchvision_model.Config(architecture="squeezenet1_1", weights=weights.name)
    with pytest.raises(DataError, match="expected the pretrained weights"):
        torchvision_model.build(config, (3, 32, 32), 4)
    assert not (tmp_path / "was run").exists()
    with pytest.raises(TypeError):
        torchvision.models.get_model("squeezenet1_1", weights=weights)
    assert (tmp_path / "was run").exists()  # torchvision alone would have run it
