"""Verification: a second run decides, and it is the second run that ranks."""

from __future__ import annotations

import json
import shutil

import pytest
import safetensors.torch
import torch

from sharedlabel.errors import DataError, StoreError
from sharedlabel.leaderboard import __main__ as entry_point
from sharedlabel.leaderboard.board import commands, facts, records, standings, writing
from sharedlabel.leaderboard.folder import ANSWERS, Board
from sharedlabel.leaderboard.submission import scaffold
from tests.leaderboard.conftest import CLASSES, KIND, git, make_board, needs_sandbox

pytestmark = needs_sandbox


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """Run and score a submission once, as its author would."""
    root = tmp_path_factory.mktemp("scored")
    board = make_board(root / "leaderboard", signal=1.5)
    scaffold.new(board, "mine")
    arguments = ["mine", "--protocol", "toy-v1", "--predictions", str(root / "predictions")]
    for name in ("run", "score"):
        assert entry_point.main(["--root", str(board.root), name, *arguments]) == 0
    return root


@pytest.fixture
def board(scored, tmp_path) -> Board:
    shutil.copytree(scored, tmp_path / "board")
    return Board(tmp_path / "board" / "leaderboard")


def command(board, *arguments: str) -> int:
    return entry_point.main(["--root", str(board.root), *arguments, "mine", "--protocol", "toy-v1"])


def place(board):
    return commands.entry(board, board.protocol("toy-v1"), "mine")


def polish(tensors, protocol, answers, strength: float) -> None:
    """Move predictions towards the labels, which are public."""
    for role, drawn in answers.items():
        label = torch.nn.functional.one_hot(drawn.labels[0], CLASSES)[:, None]
        name = f"dense.0.{role}"
        tensors[name] = (tensors[name].float() + strength * label).log_softmax(-1).half()


def test_a_request_from_a_run_to_its_check(board, capsys):
    """All that an author adds is there, and the sandbox counts what the run has counted."""
    git(board, "init", "--quiet")
    git(board, "add", "protocols")
    git(board, "commit", "--quiet", "--message", "before")
    base = git(board, "rev-parse", "HEAD")
    arguments = ["--root", str(board.root), "check", "--changed-since", base, "--sandbox", KIND]
    assert entry_point.main(arguments) == 0
    assert "toy-v1/mine is whole, self-reported" in capsys.readouterr().out


def test_from_a_run_to_a_ranked_row(board, capsys):
    first = place(board).result()
    assert [event.status for event in place(board).history()] == ["self-reported"]
    assert command(board, "verify") == 0
    assert "mine on toy-v1: verified, mean RI" in capsys.readouterr().out
    second = place(board).result()
    assert [event.status for event in place(board).history()] == ["self-reported", "verified"]
    assert second.secret != first.secret
    assert place(board).history()[1].ri == second.ri


@pytest.fixture
def same_again(board, monkeypatch):
    """Let the maintainers' run answer what the author's has, and score it here: other tests have processes for both."""

    def again(board, protocol, name, kind, workers, out, progress) -> None:
        shutil.copytree(board.root.parent / "predictions", out, dirs_exist_ok=True)

    def graded(board, protocol, folder):
        result, _, scores = commands.grade(board, protocol, folder)
        (folder / records.SCORES).write_bytes(scores)
        return result

    monkeypatch.setattr(commands, "predict", again)
    monkeypatch.setattr(commands, "graded", graded)


def test_a_verified_row_stays_when_it_is_verified_again(board, same_again):
    assert command(board, "verify") == 0
    stands = place(board).result()
    place(board).predictions(stands)
    assert command(board, "verify") == 0
    assert place(board).result() == stands
    assert [event.status for event in place(board).history()] == ["self-reported", "verified", "verified"]


@pytest.mark.parametrize(("strength", "status"), [(0.02, "verified"), (1.0, "disputed")])
def test_polished_predictions_gain_nothing(board, same_again, strength, status):
    """By less than the tolerance they pass, and the row is the maintainers' run; by more they are disputed."""
    protocol = board.protocol("toy-v1")
    honest, answers = place(board).result(), board.answers(protocol)
    tensors = safetensors.torch.load(place(board).predictions(honest))
    polish(tensors, protocol, answers, strength)
    content, digest = writing.serialized(tensors)
    polished = commands.score.score(commands.score.read(content, protocol, answers), protocol, answers)
    scores, scored = writing.serialized(polished.scores)
    changes = {"predictions": digest, "scores": scored, "ri": polished.ri, "cells": tuple(polished.cells)}
    forged = facts.Result.model_validate(honest.model_dump() | changes)
    assert forged.ri > honest.ri + 1e-3
    place(board).write(forged, content, scores, "forged, with checksums that fit")
    assert command(board, "verify") == (0 if status == "verified" else 2)
    row = standings.standings(standings.entries(board, protocol), protocol, answers)[0]
    assert row.entry.history[-1].status == status
    if status == "verified":
        assert row.ri == pytest.approx(honest.ri, abs=1e-3)
        assert row.ri < forged.ri
    else:
        assert row.best is None


def test_a_submission_that_changed_is_not_verified(board, capsys):
    path = board.root / "submissions" / "mine" / "aggregator.py"
    kept = path.read_text()
    path.write_text(kept + "\n")
    assert command(board, "verify") == 2
    assert "changed after its run; run and score it again" in capsys.readouterr().err
    path.write_text(kept)
    assert [event.status for event in place(board).history()] == ["self-reported"]


def test_an_entry_that_breaks_in_the_sandbox_is_disputed(board, monkeypatch):

    def broken(*_: object) -> None:
        raise DataError("expected finite log-posteriors, got NaN")

    monkeypatch.setattr(commands, "predict", broken)
    assert command(board, "verify") == 2
    assert [event.status for event in place(board).history()] == ["self-reported", "disputed"]
    assert "got NaN" in place(board).history()[-1].note


def test_without_a_run_there_is_nothing_to_verify(tmp_path):
    board = make_board(tmp_path / "leaderboard")
    with pytest.raises(StoreError, match="run and score again"):
        commands.verify(board, board.protocol("toy-v1"), "mine", KIND, 1, print)


def test_only_a_run_in_a_sandbox_verifies(board):
    with pytest.raises(StoreError, match="only a run in a sandbox verifies"):
        commands.verify(board, board.protocol("toy-v1"), "mine", "trusted", 1, print)
    assert [event.status for event in place(board).history()] == ["self-reported"]


@pytest.mark.parametrize("fault", ["answers", "predictions"])
def test_what_cannot_be_scored_disputes_only_what_is_no_posterior(board, monkeypatch, fault):
    """Files that are gone are the fault of a machine; predictions that are none are not."""
    answers = board.folder(board.protocol("toy-v1")) / ANSWERS

    def again(board, protocol, name, kind, workers, out, progress) -> None:
        shutil.copytree(board.root.parent / "predictions", out, dirs_exist_ok=True)
        if fault == "answers":
            answers.unlink()
            return
        facts = json.loads((out / commands.RUN).read_text())
        tensors = {name: 0 * tensor for name, tensor in safetensors.torch.load_file(out / records.PREDICTIONS).items()}
        content, facts["predictions"] = writing.serialized(tensors)
        (out / records.PREDICTIONS).write_bytes(content)
        (out / commands.RUN).write_text(json.dumps(facts))

    monkeypatch.setattr(commands, "predict", again)
    expected = (StoreError, "expected the file") if fault == "answers" else (DataError, "posteriors that sum to 1")
    with pytest.raises(expected[0], match=expected[1]):
        commands.verify(board, board.protocol("toy-v1"), "mine", KIND, 1, print)
    after = [] if fault == "answers" else ["disputed"]
    assert [event.status for event in place(board).history()] == ["self-reported", *after]
