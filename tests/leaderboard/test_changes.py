"""What a pull request may change: submissions that are checked, histories that grow, scores that follow."""

from __future__ import annotations

import json
import subprocess

import pytest
import safetensors.torch
import torch

from sharedlabel.errors import DataError, StoreError
from sharedlabel.leaderboard import __main__ as entry_point
from sharedlabel.leaderboard import changes, commands, records, scaffold
from tests.leaderboard.conftest import listed, predicted, submit


def git(board, *arguments: str) -> str:
    home = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", "-C", board.root, *home, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def committed(board) -> str:
    git(board, "init", "--quiet")
    git(board, "add", "--all")
    git(board, "commit", "--quiet", "--allow-empty", "--message", "first")
    return git(board, "rev-parse", "HEAD")


def audit(board, base) -> list[str]:
    git(board, "add", "--all")
    return changes.audit(board, base)


def place(board, name):
    return commands.entry(board, board.protocol("toy-v1"), name)


def test_changed_submissions_are_found_by_git_and_nothing_else(board, capsys):
    submit(board, "first", 1.0)
    base = committed(board)
    assert changes.submissions(board, base) == []
    assert entry_point.main(["--root", str(board.root), "check", "--changed-since", base, "--trust"]) == 0
    assert "no submission changed" in capsys.readouterr().out
    scaffold.new(board, "other")
    odd = board.root / "submissions" / "$(touch owned); x"
    odd.mkdir()
    (odd / "README.md").write_text("x")
    git(board, "add", "--all")
    assert changes.submissions(board, base) == ["$(touch owned); x", "other"]
    assert entry_point.main(["--root", str(board.root), "check", "--changed-since", base, "--trust"]) == 2
    assert "expected a name of small letters" in capsys.readouterr().err
    assert not list(board.root.rglob("owned"))


@pytest.mark.parametrize("wrong", ["HEAD", "--output=x", "0" * 39])
def test_only_the_digits_of_a_commit_reach_git(board, wrong):
    with pytest.raises(DataError, match="expected the 40 digits"):
        changes.submissions(board, wrong)


def test_an_unknown_commit_is_named(board):
    committed(board)
    with pytest.raises(DataError, match="fetch it first"):
        changes.audit(board, "0" * 40)


def test_results_of_an_author_pass(board):
    base = committed(board)
    submit(board, "mine", 1.0)
    listed(board, "mine", "self-reported")
    assert audit(board, base) == ["toy-v1/mine"]


def test_nobody_verifies_a_result_of_ones_own(board):
    base = committed(board)
    submit(board, "mine", 1.0)
    listed(board, "mine")
    with pytest.raises(StoreError, match="only self-reported lines to be added for mine, got verified"):
        audit(board, base)


def test_a_history_that_was_written_anew_is_refused(board):
    """Its lines name each other, so every checksum holds; the commit before knows better."""
    submit(board, "mine", 1.0)
    listed(board, "mine", "disputed")
    base = committed(board)
    (place(board, "mine").folder / records.HISTORY).unlink()
    place(board, "mine")._append("self-reported", "never disputed", 0.5)
    assert place(board, "mine").result()
    with pytest.raises(StoreError, match="keep its lines"):
        audit(board, base)


def test_a_result_that_was_removed_is_refused(board):
    submit(board, "mine", 1.0)
    listed(board, "mine", "disputed")
    base = committed(board)
    for path in place(board, "mine").folder.iterdir():
        path.unlink()
    place(board, "mine").folder.rmdir()
    with pytest.raises(StoreError, match="found it removed; withdraw a result instead"):
        audit(board, base)


def forged(board, shift=None, **facts: float) -> None:
    """Put a result on the board whose scores were changed by hand, and all its checksums made to fit."""
    submit(board, "mine", 1.0)
    folder = board.root / "predictions" / "toy-v1" / "mine"
    result, predictions, scores = commands.grade(board, board.protocol("toy-v1"), folder)
    tensors = safetensors.torch.load(scores)
    if shift is not None:
        tensors["information"] = shift(tensors["information"])
    content, digest = records.serialized(tensors)
    changed = {name: getattr(result, name) + value for name, value in facts.items()}
    place(board, "mine").write(result.model_copy(update={"scores": digest, **changed}), predictions, content, "tests")
    assert place(board, "mine").scores(place(board, "mine").result())


def test_a_score_that_does_not_follow_from_its_predictions_is_refused(board):
    base = committed(board)
    forged(board, ri=0.01)
    with pytest.raises(StoreError, match="are not those of its predictions"):
        audit(board, base)


def test_scores_of_tuples_that_do_not_follow_are_refused(board):
    base = committed(board)
    forged(board, lambda information: (information + 0.05).clamp(max=0))
    with pytest.raises(StoreError, match="are not those of its predictions"):
        audit(board, base)


def test_the_rounding_of_another_machine_passes(board):
    base = committed(board)
    forged(board, lambda information: torch.nextafter(information, torch.full_like(information, -torch.inf)), ri=1e-6)
    assert audit(board, base) == ["toy-v1/mine"]


def test_a_submission_that_changed_after_its_run_is_refused(board):
    base = committed(board)
    submit(board, "mine", 1.0)
    listed(board, "mine", "self-reported")
    (board.root / "submissions" / "mine" / "README.md").write_text("changed\n")
    with pytest.raises(StoreError, match="is not the one that was run on toy-v1"):
        audit(board, base)


def test_the_command_audits_results(board, capsys):
    base = committed(board)
    submit(board, "mine", 1.0)
    listed(board, "mine")
    git(board, "add", "--all")
    assert entry_point.main(["--root", str(board.root), "check", "--changed-since", base, "--trust"]) == 2
    assert "maintainers verify" in capsys.readouterr().err


def test_predictions_of_another_run_are_refused(board):
    base = committed(board)
    submit(board, "mine", 1.0)
    listed(board, "mine", "self-reported")
    protocol = board.protocol("toy-v1")
    predicted(board, protocol, "mine", 2.0, place(board, "mine").folder)
    (place(board, "mine").folder / commands.RUN).unlink()
    assert json.loads((place(board, "mine").folder / records.RESULT).read_text())["name"] == "mine"
    with pytest.raises(StoreError, match="it was altered"):
        audit(board, base)
