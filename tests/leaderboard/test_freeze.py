"""Protocols as `freeze` makes them: what the files hold, and what is refused before anything is computed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from sharedlabel.errors import ConfigError, StoreError
from sharedlabel.leaderboard import __main__ as entry_point
from sharedlabel.leaderboard.board import freeze as freezing
from sharedlabel.leaderboard.folder import Board
from sharedlabel.scoring.data import FEATURE_ROLES

STATED = {"id": "small-v1", "title": "Small", "about": "Handwritten digits.", "command": "tests"}


def freeze(finished, root, images=None, seeds=(0, 1), steps=5, **stated):
    experiment = finished.grid.experiment
    experiment = dataclasses.replace(experiment, fit=dataclasses.replace(experiment.fit, steps=steps))
    grid = dataclasses.replace(finished.grid, experiment=experiment)
    return freezing.freeze(grid, finished.store, root, STATED | stated, images or {}, seeds, lambda node, seconds: None)


def test_a_protocol_holds_the_features_of_its_cells_and_no_label_of_test(finished, tmp_path):
    made = freeze(finished, tmp_path)
    board = Board(tmp_path)
    protocol = board.protocol("small-v1")
    assert protocol == made
    assert [network.name for network in protocol.networks] == ["dense", "magnitude-2x"]
    assert (protocol.n, protocol.seeds) == ((1, 2, 4), (0, 1))
    data, answers = finished.grid.data, board.answers(protocol)
    for network in protocol.networks:
        features = board.features(protocol, network)
        assert set(features.labels) == {"aggregator", "validation"}
        for role in FEATURE_ROLES:
            assert len(features.embeddings[role]) == len(features.logits[role]) == len(data.labels(role))
        assert torch.equal(features.labels["validation"], data.labels("validation"))
    for role, drawn in answers.items():
        images = drawn.indices[0]
        assert len(images.unique()) == images.numel()
        assert torch.equal(data.labels(role)[images], drawn.labels[0][:, None].expand_as(images))


def test_the_same_cells_make_the_same_files(finished, tmp_path):
    for root in (tmp_path / "one", tmp_path / "other"):
        freeze(finished, root, {"test": 100})
    one, other = (
        {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        for root in (tmp_path / "one", tmp_path / "other")
    )
    assert one == other
    assert len(one) == 5


def test_images_can_be_fewer_and_every_class_keeps_as_many(finished, tmp_path):
    protocol = freeze(finished, tmp_path, {"test": 100})
    assert protocol.source.test.count == 100
    drawn = Board(tmp_path).answers(protocol)["test"]
    assert set(torch.bincount(drawn.labels[0]).tolist()) == {10 // max(protocol.n)}


def test_a_frozen_protocol_is_never_written_again(finished, tmp_path):
    freeze(finished, tmp_path)
    with pytest.raises(StoreError, match=r"small-v1\.toml is frozen; give a protocol with other content a name"):
        freeze(finished, tmp_path)


def test_what_fails_on_the_way_leaves_nothing(finished, tmp_path, monkeypatch):
    def full(folder, files):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(freezing.writing, "replace_folder", full)
    with pytest.raises(OSError, match="No space left"):
        freeze(finished, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"id": "Bad_ID"}, "--id: expected a name of small letters, .* got 'Bad_ID'"),
        ({"id": "../escaped"}, "--id: expected a name of small letters"),
        ({"images": {"tset": 100}}, "--images: unknown role 'tset'; did you mean 'test'"),
        ({"images": {"test": 101}}, r"images\.test: expected a multiple of 10 up to \d+, got 101"),
        ({"steps": 0}, "fit: steps: input should be greater than 0, got 0; a protocol states all of it"),
        ({"seeds": (0, 1, 0)}, "--seeds: expected each seed once, got 0 1 0"),
    ],
)
def test_what_cannot_be_frozen_is_refused_before_anything_is_computed(finished, tmp_path, changed, message):
    with pytest.raises(ConfigError, match=message):
        freeze(finished, tmp_path / "board", **changed)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("images", ["test", "test=", "test=²", "test=-1", "test=1.5"])
def test_counts_that_are_none_are_one_line(images, tmp_path, capsys):
    config = Path(__file__).parents[2] / "configs" / "leaderboard-digits.yaml"
    arguments = ["--config", str(config), "--id", "x", "--title", "x", "--about", "x", "--images", images]
    assert entry_point.main(["--root", str(tmp_path), "freeze", *arguments]) == 2
    assert capsys.readouterr().err == f"error: --images: expected ROLE=COUNT, got {images!r}\n"
