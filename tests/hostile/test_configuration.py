"""Configurations that are hostile, clumsy or too large: none runs anything, each is refused in a sentence.

The sentence says what was expected, what came and what to do. The walk covers every option of the schema and of every
plugin, so that a new option is covered when it is written.
"""

import dataclasses
import json
import math
import os
import re
from pathlib import Path
from typing import Any

import pytest

from sharedlabel import config, grid, plugins, train
from sharedlabel.config import Experiment, schema
from sharedlabel.config.commandline import plain, to_yaml
from sharedlabel.errors import ConfigError, SharedLabelError
from sharedlabel.grid import checks
from sharedlabel.machine import memory

OBJECT = {"class_path": "os.system", "init_args": {"command": "touch ran"}}
BAD: dict[str, Any] = {
    "text": "wrong",
    "empty text": "",
    "empty list": [],
    "empty mapping": {},
    "null": None,
    "true": True,
    "negative": -1,
    "zero": 0,
    "fraction": 0.5,
    "huge": 10**30,
    "huge float": 1e300,
    "nan": math.nan,
    "infinite": math.inf,
    "list": [3],
    "repeated": [1, 1],
    "object": OBJECT,
    "escape": "a\x1b[31m",
    "lines": "a\nb",
    "long": "x" * 5000,
    "nested": [[[[1]]]],
    "half a letter": "\ud800",
    "bytes": b"x",
    "not data": object(),
}
NUMBERS = ("negative", "huge", "huge float", "nan", "infinite", "text", "empty list", "repeated", "object")
ALWAYS_REFUSED = ("huge", "nan", "infinite", "escape", "lines", "half a letter", "bytes", "not data", "long")
PARTS = r"(expected|unknown|must be|cannot).*(got|did you mean|available).*"
LEAVES = dict(schema.leaves(Experiment))
PLUGIN_OPTIONS = [
    (kind, name, option)
    for kind in plugins.KINDS
    for name in plugins.available(kind)
    for option, _ in schema.leaves(plugins.load(kind, name).Config)
]


def refused(call) -> str:
    with pytest.raises(ConfigError) as caught:
        call()
    return str(caught.value)


def experiment_with(name: str, value: Any) -> Experiment:
    values = plain(Experiment())
    *sections, last = name.split(".")
    inside = values
    for section in sections:
        inside = inside[section]
    inside[last] = value
    return config.check(schema.read(Experiment, values))


def check_sentence(message: str, name: str) -> None:
    assert name in message
    assert re.search(PARTS, message), message
    assert ";" in message, message
    assert message.isprintable()
    assert len(message) < 1500


@pytest.mark.parametrize("name", LEAVES)
def test_every_option_takes_good_values_and_refuses_bad_ones_in_a_sentence(name):
    taken = []
    for what, value in BAD.items():
        try:
            experiment_with(name, value)
        except ConfigError as error:
            check_sentence(str(error), name.split(".")[0])
        else:
            taken.append(what)
    assert not set(taken) & set(ALWAYS_REFUSED)
    if LEAVES[name] is not bool and "list" not in schema.wanted(LEAVES[name]):
        assert len(taken) < 6, taken  # a schema that takes nearly anything checks nothing
    experiment_with(name, json.loads(json.dumps(_value(Experiment(), name))))


@pytest.mark.parametrize(("kind", "plugin", "option"), PLUGIN_OPTIONS, ids="-".join)
def test_every_option_of_every_plugin_refuses_bad_values_in_a_sentence(kind, plugin, option):
    for what, value in BAD.items():
        try:
            config.resolve(kind, {"name": plugin, option: value})
        except ConfigError as error:
            check_sentence(str(error), plugin)
        else:
            assert what not in ALWAYS_REFUSED


def _value(value: Any, name: str) -> Any:
    for part in name.split("."):
        value = getattr(value, part)
    return value


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "arguments",
    [
        ["--aggregators", f"[{{name: log_pool, label: {json.dumps(OBJECT)}}}]"],
        ["--aggregators", f"[{json.dumps(OBJECT)}]"],
        ["--aggregators", f"[{{name: {json.dumps(OBJECT)}}}]"],
        ["--trainer.options", f"{{profiler: {json.dumps(OBJECT)}}}"],
        ["--trainer.options", json.dumps(OBJECT)],
        ["--trainer", json.dumps(OBJECT)],
        ["--trainer.accelerator", json.dumps(OBJECT)],
        ["--data", json.dumps({"name": "digits", "x": OBJECT})],
        ["--data", json.dumps(OBJECT)],
        ["--data.class_path", "os.system"],
        ["--data.init_args.command", "touch ran"],
        ["--data.x.class_path", "os.system"],
        ["--split", json.dumps(OBJECT)],
        ["--split.class_path", "os.system"],
        ["--dense", "!!python/object/apply:os.system [touch ran]"],
        ["--seeds", "!!python/object/apply:os.system [touch ran]"],
        ["--name", "$(touch ran)"],
        ["--data.base", "!!python/object/apply:os.system [touch ran]"],
    ],
    ids=" ".join,
)
def test_nothing_in_a_command_line_or_a_file_is_run(arguments, folder, capsys):
    """The same text in a file: an option's value is read by one reader."""
    assert train.main([*arguments, "--plan"]) == 2
    name, text = arguments[0].removeprefix("--"), arguments[1]
    for part in reversed(name.split(".")):
        text = f"{{{part}: {text}}}"
    Path("grid.yaml").write_text(text)
    assert train.main(["--config=grid.yaml", "--plan"]) == 2
    assert not Path("ran").exists()
    assert capsys.readouterr().err.count("error: ") == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seeds: [0]\nseeds: [1]\n", "grid.yaml: expected YAML, got: the key 'seeds' stands twice, again in line 2"),
        ("dense: {epochs: 1, epochs: 2}\n", "the key 'epochs' stands twice"),
        ("dense: !!map {epochs: 1}\n", "the tag '.*map' in line 1; write plain values, without tags"),
        ("? [1]\n: 2\n", "a list or mapping as a key"),
        ("- seeds\n", "expected a mapping of options, got .'seeds'."),
        ("dense: high\n", "dense: expected a mapping of options, got 'high'; write its options below it"),
        ("dense.epochs: 3\n", "unknown option 'dense.epochs'"),
        (
            "dense: {epochs: null}\n",
            "dense.epochs: expected a whole number .*, got null; the default is 20",
        ),
        ("dense: {epochs: '3'}\n", "dense.epochs: .* got '3'; write 3"),
        ("dense: {epochs: 3.0}\n", "dense.epochs: .* got 3.0; write 3"),
        ("dense: {flip: yes}\n", "dense.flip: expected true or false, got 'yes'; write true"),
        ("dense: {schedule: cosin}\n", "dense.schedule: expected 'cosine' or 'constant', got 'cosin'; write cosine"),
        ("seeds: 3\n", r"seeds: expected a list of whole numbers of at least 0, got 3; write \[3\]"),
        ("name: 2026\n", 'name: expected text, got 2026; write "2026"'),
        (
            "trainer: {devices: 0}\n",
            "trainer.devices: expected a whole number from 1 to 1024 or 'auto', got 0",
        ),
        (
            "trainer: {devices: 9223372036854775807}\n",
            "trainer.devices: expected a whole number from 1 to 1024",
        ),
        ("dense: {epochs: 9223372036854775807}\n", "dense.epochs: expected a whole number from 0 to 1000000, got 92"),
        ("trainer: {precision: half}\n", "trainer.precision: expected one of '32-true'"),
        ("pruners: [{name: [magnitude]}]\n", "pruners: expected a plugin name or a mapping with 'name', got"),
        ("pruners: [{}]\n", "pruners: expected a plugin name or a mapping with 'name', got {}"),
        ("training: [{name: [joint]}]\n", "training: unknown kind"),
        (f"name: {'x' * 300}\n", "name: expected at most 100 letters, .* got 'x"),
        ("project: a/b\n", "project: expected 1 to 128 characters and none of /"),
        ("output: ''\n", "output: expected the path of a folder, got none; the default is runs"),
        (
            "pruners: [{name: magnitude, schedule: {when: iterative, growth: 1.0000001}}]\n",
            "growth: expected a number of",
        ),
        ("crossfit: {folds: 1000000}\n", "crossfit.folds: expected a whole number from 2 to 1000, got 1000000"),
        ("sweet_spot: {replicates: 1e12}\n", "sweet_spot.replicates: expected a whole number from 1 to 1000000, got"),
        ("evaluation: {partitions: 1e9}\n", "evaluation.partitions: expected a whole number from 1 to 1000000, got"),
        (
            f"aggregators: [{{name: lstm, label: {'y' * 300}}}]\n",
            "aggregators: expected a label of 1 to 100 letters in one",
        ),
        ("aggregators: [{name: lstm, label: ' '}]\n", "aggregators: expected a label of 1 to 100 letters in one line"),
        ("aggregators: [{name: lstm, hidden: 1000000000}]\n", "hidden: expected a whole number from 1 to 65536, got"),
        ("backbones: [{name: mlp, widths: [10000000000]}]\n", "widths.0: expected a whole number from 1 to 65536"),
        ("backbones: [{name: mlp, widths: [1e10]}]\n", "widths.0: expected a whole number from 1 to 65536, got 1"),
        (
            "data: {name: gaussian, dim: 60000, instances_per_class: 1000000}\n",
            "expected what fits into the .* of memory",
        ),
        ("a: " + "[" * 1000, "nested deeper than 64 levels"),
    ],
    ids=lambda text: text[:40],
)
def test_mistakes_in_a_file_are_sentences(text, message, folder, capsys):
    Path("grid.yaml").write_text(text)
    assert train.main(["--config=grid.yaml", "--plan", "--tracking=none"]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert re.search(message, told), told


def test_a_file_that_is_no_text_is_refused(folder, capsys):
    Path("grid.yaml").write_bytes(b"name: \xff\n")
    Path("large.yaml").write_text("#" * (2**20 + 1))
    os.mkfifo("pipe.yaml")
    for file, message in {
        "grid.yaml": "grid.yaml: expected UTF-8 text, got: .*byte 0xff",
        "large.yaml": "large.yaml: expected at most 1048576 bytes, got more",
        "pipe.yaml": "config: expected a YAML file at pipe.yaml, got none",
        ".": "config: expected a YAML file at ., got none",
        "absent.yaml": "config: expected a YAML file at absent.yaml, got: No such file",
        "nul\0.yaml": "config: expected a YAML file at nul.*yaml, got: embedded null byte",
    }.items():
        assert train.main([f"--config={file}"]) == 2
        assert re.search(message, capsys.readouterr().err)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--dense.epochs"],
            "dense.epochs: expected a whole number .* after --dense.epochs, got nothing; add it, or write",
        ),
        (["--config"], "config: expected a YAML file after --config, got nothing; add it, or write"),
        (["--dense.epochs", "--plan"], "dense.epochs: .* after --dense.epochs, got '--plan'; add it, or write"),
        (["--plan=3"], "plan: expected nothing after --plan, got '3'; leave it out"),
        (["stray"], "unknown option 'stray'"),
        (["-x"], "unknown option '-x'"),
        (["--seeds=[1"], r"seeds: expected a list of whole numbers of at least 0, got '\[1': while parsing"),
        (["--data.path.deeper=3"], "unknown option 'path'"),
        (
            ["--output=~nobody-of-this-name/x"],
            "expected a path, got '~nobody-of-this-name/x': nobody",
        ),
        (["--data_root=~nobody-of-this-name/x"], "nobody of that name has a home here; write it out"),
        (
            ["--data=imagefolder", "--data.path=~nobody-of-this-name/x"],
            "nobody of that name has a home here; write it out",
        ),
        (["--data=3"], "data: expected a name, or a mapping with `name` and its options, got 3"),
        (["--data=[digits]", "--data.x=3"], "data.x: expected a mapping at data, got .'digits'.; give its name first"),
    ],
    ids=lambda text: " ".join(text) if isinstance(text, list) else "",
)
def test_mistakes_on_the_command_line_are_sentences(arguments, message, folder, capsys):
    assert train.main(["--plan", *arguments]) == 2
    assert re.search(message, capsys.readouterr().err)


def test_arguments_are_taken_from_left_to_right(folder):
    Path("a.yaml").write_text("dense: {epochs: 7, crop: 2}\nseeds: [4]\n")
    Path("b.yaml").write_text("dense: {epochs: 8}\n")
    parsed, _ = config.parse(
        ["--dense.crop=1", "--config=a.yaml", "--seeds", "[5]", "--config", "b.yaml", "--dense.flip=true"]
    )
    assert (parsed.dense.epochs, parsed.dense.crop, parsed.dense.flip, parsed.seeds) == (8, 2, True, (5,))
    assert parsed.retrain == Experiment().retrain
    assert config.parse(["--retrain={epochs: 3}"])[0].retrain == dataclasses.replace(Experiment().retrain, epochs=3)


def test_text_is_taken_as_it_is_written(folder):
    parsed, _ = config.parse(
        ["--name=2026", "--output=a: b", "--data=imagefolder", "--data.path=@odd", "--data.groups=~", "--data.size=8"]
    )
    assert (parsed.name, parsed.output) == ("2026", "a: b")
    assert parsed.data == {"name": "imagefolder", "path": "@odd", "groups": None, "size": 8}


def test_the_printed_configuration_is_read_back(folder, capsys):
    with pytest.raises(SystemExit) as done:
        config.parse(["--print_config", "--seeds=[3]", "--fit.learning_rate=1e-6", "--name=no"])
    assert done.value.code == 0
    Path("printed.yaml").write_text(capsys.readouterr().out)
    parsed = config.from_yaml(Path("printed.yaml"))
    assert (parsed.seeds, parsed.fit.learning_rate, parsed.name) == ((3,), 1e-6, "no")
    assert to_yaml(parsed) == Path("printed.yaml").read_text()


SMALL = (
    "--pruners=[magnitude]",
    "--ratios=[1,2]",
    "--tracking=none",
    "--backbones=[{name: mlp, label: m, widths: [8]}]",
)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--backbones=[{name: mlp, widths: [65536, 65536]}]"],
            "backbones: mlp.*: expected what fits into the .*GiB",
        ),
        (["--backbones=[{name: resnet_cifar, width: 65536}]"], "backbones: resnet_cifar.*expected what fits into"),
        (["--aggregators=[{name: lstm, hidden: 65536}]"], "aggregators: lstm.*: expected what fits into the .*GiB"),
        (["--aggregators=[{name: lstm, hidden: 2048, layers: 1000}]"], "aggregators: lstm.*expected what fits into"),
        (
            ["--evaluation.partitions=1000000"],
            "evaluation.partitions: 1000000 partitions of 451 images: expected what fits",
        ),
        (["--dense.crop=9"], "dense.crop: expected at most the 8 pixels of an image's side, got 9"),
        (
            ["--latency.batches=[1000000]", "--data={name: gaussian, dim: 5000, instances_per_class: 100}"],
            "latency.batches: ",
        ),
        (
            ["--trainer.accelerator=tpu"],
            "accelerator='tpu'.*cannot be used here: .*; set trainer.accelerator to",
        ),
        (["--trainer.strategy=foo"], "trainer: .*strategy='foo' cannot be used here: .*; set trainer.strategy to auto"),
        (
            ["--trainer.options={barebones: true, enable_progress_bar: true}"],
            "cannot be used here: .*; correct trainer.opt",
        ),
        (["--data={name: bursts, views: 1000, base: {name: gaussian}}"], "expected uint8 images"),
        ([f"--seeds={list(range(3000))}"], "expected a grid of at most 20000 cells, got about 63000"),
    ],
    ids=lambda text: text[0][:60] if isinstance(text, list) else "",
)
def test_what_cannot_fit_is_refused_before_anything_is_made(arguments, message, folder, monkeypatch):
    monkeypatch.setattr(memory, "total", lambda: 8 * 2**30)
    monkeypatch.setattr(checks, "MAX_CELLS", 20_000)
    experiment, _ = config.parse([*SMALL, *arguments])
    with pytest.raises(SharedLabelError, match=message):
        grid.prepare(experiment)


def test_memory_is_that_of_the_machine_the_container_and_the_limits(tmp_path):
    machine = memory.total(tmp_path)
    assert machine > 2**28
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.total(tmp_path) == machine
    (tmp_path / "memory.max").write_text("1000000\n")
    assert memory.total(tmp_path) == 1_000_000


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"), OverflowError("too large")],
)
def test_an_allocation_that_fails_is_a_sentence(error):
    with (
        pytest.raises(ConfigError, match=r"backbones: mlp: expected what fits into memory, got: .*; use less"),
        memory.fitting("backbones: mlp", "use less"),
    ):
        raise error


def test_other_errors_stay_what_they_are():
    with pytest.raises(RuntimeError, match="shape"), memory.fitting("x", "y"):
        raise RuntimeError("shape mismatch")
