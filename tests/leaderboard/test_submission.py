"""Folders of submissions: what is read, what is refused, and the one that `new` makes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sharedlabel import plugins
from sharedlabel.errors import ConfigError, DataError
from sharedlabel.leaderboard import __main__ as entry_point
from sharedlabel.leaderboard import commands, run, sandbox, scaffold, submission
from sharedlabel.leaderboard.protocol import Board
from tests.leaderboard.conftest import needs_sandbox

ROOT = Path(__file__).parents[2] / "leaderboard"


@pytest.fixture
def folder(board):
    return scaffold.new(board, "mine")


def test_what_new_makes_can_be_read(folder):
    found = submission.read(folder)
    assert found.name == "mine"
    assert '"""' not in found.code
    assert len(found.sha256) == 64


@needs_sandbox
def test_what_new_makes_passes_the_check_and_the_costs_are_right(board, folder, capsys):
    assert entry_point.main(["--root", str(board.root), "check", "mine"]) == 0
    printed = capsys.readouterr().out
    assert "mine keeps the contract (tried in bwrap)" in printed
    cost = commands.check(board, "mine", "bwrap")["toy-v1"]
    assert cost.macs == {1: 6 * 32 + 32, 4: 4 * (6 * 32 + 32)}
    assert cost.parameters == 6 * 32 + 32 + 32 + 1


def test_a_name_that_is_taken_or_none_is_refused(board, folder):
    with pytest.raises(DataError, match="is there already"):
        scaffold.new(board, "mine")
    for name in ("Mine", "../mine", "a b", "", "-mine", "x" * 65):
        with pytest.raises(DataError, match="expected a name of small letters"):
            scaffold.new(board, name)


CARDS = {
    "an unknown key": (lambda text: text + "\ncolour = 1\n", "colour: extra inputs are not permitted"),
    "no licence": (lambda text: text.replace("license", "licence"), "license: field required"),
    "a licence that is none": (lambda text: text.replace('"MIT"', '"my own; ask me"'), "license: string should match"),
    "no author": (lambda text: text.split("[[authors]]")[0], "authors: field required"),
    "a wrong type": (lambda text: text.replace("trials = 0", 'trials = "many"'), 'tuning.trials: .* got "many"'),
    "negative trials": (lambda text: text.replace("trials = 0", "trials = -1"), "tuning.trials: .* got -1"),
    "an address that is none": (lambda text: text.replace('source = ""', 'source = "javascript:x"'), "source: string"),
    "data without a word": (lambda text: text.replace("external_data = false", "external_data = true"), "goes with"),
    "no TOML": (lambda text: "title", "expected TOML in"),
}


@pytest.mark.parametrize("what", CARDS)
def test_a_card_that_is_none_is_refused(folder, what):
    change, message = CARDS[what]
    path = folder / submission.CARD
    path.write_text(change(path.read_text()))
    with pytest.raises(DataError, match=message):
        submission.read(folder)


def test_links_folders_and_other_files_are_refused(folder, tmp_path):
    (folder / "weights.bin").write_bytes(b"1")
    with pytest.raises(DataError, match=r"got weights\.bin; remove"):
        submission.read(folder)
    (folder / "weights.bin").unlink()
    secret = tmp_path / "secret"
    secret.write_text("x")
    for name in submission.FILES:
        kept = (folder / name).read_text()
        (folder / name).unlink()
        (folder / name).symlink_to(secret)
        with pytest.raises(DataError, match="expected a plain file"):
            submission.read(folder)
        (folder / name).unlink()
        (folder / name).mkdir()
        with pytest.raises(DataError, match="expected a plain file"):
            submission.read(folder)
        (folder / name).rmdir()
        with pytest.raises(DataError, match=f"expected the file .*{name}"):
            submission.read(folder)
        (folder / name).write_text(kept)


def test_large_and_binary_files_are_refused(folder):
    path = folder / submission.SOURCE
    path.write_text("#" * 64_001)
    with pytest.raises(DataError, match="at most 64,000 bytes"):
        submission.read(folder)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="expected text in UTF-8"):
        submission.read(folder)


CODE = {
    "no Python": ("def f(:", "expected Python in"),
    "other libraries": ("import numpy", "got 'numpy'; compute with torch"),
    "the system": ("from os import environ", "got 'os'"),
    "relative imports": ("from .. import score", "got '..'"),
    "the scorer": ("from sharedlabel.leaderboard import score", "got 'sharedlabel.leaderboard'"),
    "files": ("open('x')", "'open' is not allowed"),
    "eval": ("x = eval", "'eval' is not allowed"),
    "loading": ("import torch\ntorch.load('x')", "'.load' is not allowed"),
    "numbers": ("X = [" + "1234567890," * 500 + "]", "at most 4,096 bytes of constants"),
}


@pytest.mark.parametrize("what", CODE)
def test_code_that_does_more_than_an_aggregator_is_refused_with_its_line(what):
    code, message = CODE[what]
    with pytest.raises(DataError, match=message):
        submission.normal(code, "aggregator.py")


FILES = {
    "no class": ("from sharedlabel.aggregators.log_pool import Config, build\n", "expected one class .* got none"),
    "two classes": (
        "from sharedlabel.aggregators.log_pool import *\nfrom sharedlabel.aggregators.mean_vote import MeanVote\n"
        "from sharedlabel.aggregators.log_pool import LogPool, Config, build\n",
        "expected one class .* got LogPool, MeanVote",
    ),
    "no build": ("from sharedlabel.aggregators.log_pool import LogPool, Config\n", r"build\(config, shape\), got none"),
    "a wrong signature": (
        "from sharedlabel.aggregators.log_pool import LogPool, Config\ndef build(shape): ...\n",
        r"got build\(shape\)",
    ),
    "an import that fails": ("from sharedlabel.aggregators.nothing import x\n", "No module named"),
    "no options": ("from sharedlabel.aggregators.log_pool import LogPool, build\n", "Config"),
    "an error": ("raise ValueError('out of order')\n", "out of order"),
}


@needs_sandbox
@pytest.mark.parametrize("what", FILES)
def test_a_file_that_is_no_aggregator_fails_the_check(board, folder, capsys, what):
    code, message = FILES[what]
    (folder / submission.SOURCE).write_text(code)
    with pytest.raises(DataError, match=message):
        commands.check(board, "mine", "bwrap")


def test_without_a_sandbox_nothing_runs(board, folder, monkeypatch, capsys):
    monkeypatch.setattr(sandbox.shutil, "which", lambda name: None)
    assert entry_point.main(["--root", str(board.root), "check", "mine"]) == 2
    error = capsys.readouterr().err
    assert "expected a sandbox to run submitted code in, got none (bwrap: not installed; docker: not installed" in error
    assert "--trust" in error
    with pytest.raises(ConfigError, match="bwrap: not installed"):
        sandbox.choose("bwrap")


def test_trust_runs_without_a_sandbox_and_cannot_verify(board, folder, capsys):
    assert entry_point.main(["--root", str(board.root), "check", "mine", "--trust"]) == 0
    assert "(tried in trusted)" in capsys.readouterr().out
    found = submission.read(folder)
    report = run.examine(found, [(board.protocol("toy-v1"), 6)], "trusted")
    assert report["problems"] == []


@pytest.mark.parametrize("kind", ["docker", "podman"])
def test_containers_get_no_network_and_one_folder(board, kind, tmp_path):
    line = sandbox.command(kind, tmp_path, board.protocol("toy-v1").limits, 1, "x")
    assert {"--network=none", "--read-only", "--cap-drop=ALL", "--pids-limit=64", "--memory=3000m"} <= set(line)
    assert [part for part in line if "volume" in part] == [f"--volume={tmp_path}:/submission:ro"]


def test_the_schema_in_the_repository_is_that_of_the_code():
    assert (ROOT / "submission.schema.json").read_text() == submission.schema()
    assert json.loads(submission.schema())["additionalProperties"] is False


@pytest.mark.parametrize("name", plugins.available("aggregators"))
def test_every_aggregator_of_the_package_is_submitted(name):
    found = submission.read(ROOT / "submissions" / name)
    assert f"from sharedlabel.aggregators.{name} import" in found.code


@pytest.mark.parametrize("name", Board(ROOT).ids())
def test_the_protocols_of_the_repository_are_intact(name):
    board = Board(ROOT)
    protocol = board.protocol(name)
    assert protocol.n == tuple(sorted(set(protocol.n)))
    answers = board.answers(protocol)
    for network in protocol.networks:
        features = board.features(protocol, network)
        for role, drawn in answers.items():
            images = getattr(protocol.source, role).count
            assert len(features.embeddings[role]) == len(features.logits[role]) == images
            indices = drawn.indices.flatten()
            assert len(indices.unique()) == len(indices)
            assert int(indices.max()) < images
        assert "test" not in features.labels
