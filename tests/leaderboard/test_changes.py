"""What a pull request may change: submissions that are checked, histories that grow, scores that follow."""

from __future__ import annotations

import json
import shutil

import pytest
import safetensors.torch
import torch

from sharedlabel.errors import DataError, SharedLabelError, StoreError
from sharedlabel.leaderboard.board import changes, commands, records, rescore, writing
from sharedlabel.leaderboard.cost import Cost
from sharedlabel.leaderboard.submission import scaffold
from tests.leaderboard.conftest import aged, git, listed, predicted, submit


@pytest.fixture(autouse=True)
def counted(monkeypatch):
    """Count the costs that `predicted` writes; a test of verification has the sandbox count."""

    def check(submitted, board, kind):
        return {
            identifier: Cost(macs={n: 10 * n * len(submitted.name) for n in board.protocol(identifier).n}, parameters=3)
            for identifier in board.ids()
        }

    monkeypatch.setattr(commands, "check", check)


def committed(board) -> str:
    shutil.rmtree(board.root / "predictions", ignore_errors=True)
    git(board, "init", "--quiet")
    git(board, "add", "--all")
    git(board, "commit", "--quiet", "--allow-empty", "--message", "first")
    return git(board, "rev-parse", "HEAD")


def with_entry(board, name, status) -> str:
    """Put an entry on the board, and return the commit that holds it."""
    submit(board, name, 1.0)
    listed(board, name, status)
    return committed(board)


def requested(board) -> str:
    """Add a result of an author, and return the commit before it."""
    base = committed(board)
    submit(board, "mine", 1.0)
    listed(board, "mine", "self-reported")
    return base


def examined(board, base) -> list[str]:
    lines: list[str] = []
    changes.examine(board, base, "trusted", lines.append)
    return lines


def place(board, name):
    return commands.entry(board, board.protocol("toy-v1"), name)


def append(board, name, status) -> None:
    """Add a line to a history as anybody could, its checksums in order."""
    entry = place(board, name)
    line = records._line(status, records.BY_AUTHOR, 0.5, (entry.folder / records.RESULT).read_bytes(), entry.lines())
    with (entry.folder / records.HISTORY).open("a") as stream:
        stream.write(line + "\n")


def test_nothing_changed_is_said(board):
    submit(board, "first", 1.0)
    assert examined(board, committed(board)) == ["nothing changed"]


@pytest.mark.parametrize("staged", [True, False])
def test_changed_submissions_are_found_by_git(board, staged):
    submit(board, "first", 1.0)
    base = committed(board)
    scaffold.new(board, "other")
    if staged:
        git(board, "add", "--all")
    assert examined(board, base) == ["other keeps the contract (tried in trusted)"]


def test_no_name_reaches_a_shell(board):
    base = committed(board)
    odd = board.root / "submissions" / "$(touch owned); x"
    odd.mkdir(parents=True)
    (odd / "README.md").write_text("x")
    with pytest.raises(DataError, match="expected a name of small letters"):
        examined(board, base)
    assert not list(board.root.rglob("owned"))


@pytest.mark.parametrize("wrong", ["HEAD", "--output=x", "0" * 39])
def test_only_the_digits_of_a_commit_reach_git(board, wrong):
    with pytest.raises(DataError, match="expected the 40 digits"):
        changes.changed(board, wrong)


def test_an_unknown_commit_is_named(board):
    committed(board)
    with pytest.raises(DataError, match="fetch it first"):
        changes.changed(board, "0" * 40)


def test_results_of_an_author_pass(board):
    base = requested(board)
    assert examined(board, base)[-1] == "toy-v1/mine is whole, self-reported and scored as its predictions are"


def test_a_result_that_was_withdrawn_may_come_again(board):
    base = with_entry(board, "mine", "withdrawn")
    predicted(board, board.protocol("toy-v1"), "mine", 1.5, board.root / "predictions" / "toy-v1" / "mine")
    listed(board, "mine", "self-reported")
    shutil.rmtree(board.root / "predictions")
    assert len(examined(board, base)) == 2


def test_nobody_verifies_a_result_of_ones_own(board):
    base = committed(board)
    submit(board, "mine", 1.0)
    listed(board, "mine")
    with pytest.raises(StoreError, match="expected one line more"):
        examined(board, base)


def test_one_line_of_ones_own_run_is_added_at_a_time(board):
    base = requested(board)
    append(board, "mine", "self-reported")
    with pytest.raises(StoreError, match="expected one line more in the history of mine, of its result"):
        examined(board, base)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"note": "verified by the maintainers"}, "expected 'run and scored by its author' as the note of mine"),
        ({"time": "9999-99-99T99:99:99Z"}, r"line 1: time: .*does not match format .* was altered"),
    ],
)
def test_a_line_says_when_and_that_its_author_ran_it(board, wrong, message):
    base = requested(board)
    path = place(board, "mine").folder / records.HISTORY
    path.write_text(json.dumps(json.loads(path.read_text()) | wrong) + "\n")
    with pytest.raises(StoreError, match=message):
        examined(board, base)


REFUSED = {
    "verified": "expected toy-v1/other as it was: it is verified",
    "disputed": "expected toy-v1/other as it was: it is disputed",
    "withdrawn": "expected only self-reported lines to be added for other, got withdrawn",
    "self-reported": "expected 'run and scored by its author' as the note of other, got another",
}


@pytest.mark.parametrize("status", REFUSED)
def test_only_maintainers_score_a_board_again(board, status):
    """A request is refused for the protocol; and for each entry, if the protocol is left out."""
    submit(board, "other", 1.0)
    listed(board, "other", status)
    aged(board)
    base = committed(board)
    assert rescore.rescore(board, print) == ("toy-v1",)
    with pytest.raises(StoreError, match=r"expected protocols/toy-v1.toml as it was: a protocol is frozen"):
        examined(board, base)
    git(board, "commit", "--quiet", "--message", "the protocol alone", "protocols")
    with pytest.raises(StoreError, match=REFUSED[status]):
        examined(board, git(board, "rev-parse", "HEAD"))


@pytest.mark.parametrize("status", ["verified", "disputed"])
@pytest.mark.parametrize("added", ["withdrawn", "verified"])
def test_what_stands_is_left_alone(board, status, added):
    base = with_entry(board, "other", status)
    append(board, "other", added)
    with pytest.raises(StoreError, match=f"expected toy-v1/other as it was: it is {status}"):
        examined(board, base)


def test_a_submission_with_a_rank_is_neither_changed_nor_removed(board):
    base = with_entry(board, "other", "verified")
    folder = board.root / "submissions" / "other"
    (folder / "README.md").write_text("better\n")
    with pytest.raises(StoreError, match="expected toy-v1/other as it was"):
        examined(board, base)
    shutil.rmtree(folder)
    with pytest.raises(SharedLabelError, match="expected toy-v1/other as it was"):
        examined(board, base)


def test_a_history_that_was_written_anew_is_refused(board):
    """Its lines name each other, so every checksum holds; the commit before knows better."""
    base = with_entry(board, "mine", "self-reported")
    (place(board, "mine").folder / records.HISTORY).write_text("")
    append(board, "mine", "self-reported")
    assert place(board, "mine").result()
    with pytest.raises(StoreError, match="keep its lines"):
        examined(board, base)


def test_a_result_that_was_removed_is_refused(board):
    base = with_entry(board, "mine", "disputed")
    shutil.rmtree(place(board, "mine").folder)
    with pytest.raises(StoreError, match="found it removed; withdraw a result instead"):
        examined(board, base)


def link(path, target) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


PLACES = {
    "a link in the place of a result": (lambda root: link(root / "results/toy-v1/evil", "../../submissions/x"), "only"),
    "a link in the place of a file": (
        lambda root: link(root / "submissions/x/aggregator.py", "/etc/passwd"),
        "expected a plain file",
    ),
    "a link in the place of a submission": (lambda root: link(root / "submissions/x", "/etc"), "expected only"),
    "a file among the results": (lambda root: (root / "results/junk").write_text("x"), "expected only"),
    "a file more": (lambda root: (root / "results/toy-v1/first/weights.bin").write_text("x"), "expected only"),
    "a folder of caches": (
        lambda root: shutil.copytree(root / "results/toy-v1/first", root / "submissions/first/__pycache__"),
        "expected only",
    ),
    "a program": (lambda root: (root / "submissions/first/README.md").chmod(0o755), "expected a plain file"),
    "another protocol": (
        lambda root: shutil.copytree(root / "results/toy-v1/first", root / "results/toy-v2/first"),
        "unknown protocol",
    ),
    "a changed protocol": (
        lambda root: (root / "protocols/toy-v1.toml").write_text("\n"),
        "a protocol is frozen",
    ),
}


@pytest.mark.parametrize("what", PLACES)
def test_only_plain_files_in_their_places_pass(board, what):
    base = with_entry(board, "first", "self-reported")
    change, message = PLACES[what]
    change(board.root)
    git(board, "add", "--all", "--force")
    with pytest.raises(SharedLabelError, match=message):
        examined(board, base)


def forged(board, shift=None, **changed: object) -> None:
    """Put a result on the board that was changed by hand, and all its checksums made to fit."""
    submit(board, "mine", 1.0)
    folder = board.root / "predictions" / "toy-v1" / "mine"
    result, predictions, scores = commands.grade(board, board.protocol("toy-v1"), folder)
    tensors = safetensors.torch.load(scores)
    if shift is not None:
        tensors["information"] = shift(tensors["information"])
    content, digest = writing.serialized(tensors)
    facts = {name: value(getattr(result, name)) for name, value in changed.items()}
    place(board, "mine").write(
        result.model_copy(update={"scores": digest, **facts}), predictions, content, records.BY_AUTHOR
    )


FORGERIES = {
    "the score": ({"ri": lambda ri: ri + 0.01}, "are not those of its predictions"),
    "scores of tuples": ({"shift": lambda bits: (bits + 0.05).clamp(max=0)}, "are not those of its predictions"),
    "more scores": ({"shift": lambda bits: torch.cat([bits, bits])}, "are not those of its predictions"),
    "a cell": (
        {"cells": lambda cells: (cells[0].model_copy(update={"ri": 1.0}), *cells[1:])},
        "are not those of its predictions",
    ),
    "cells": ({"cells": lambda cells: cells[:-1]}, "has other cells than toy-v1"),
    "the name": ({"name": lambda name: "first"}, "is of first on toy-v1"),
    "the features": ({"features": lambda features: "1" * 64}, "is of mine on toy-v1"),
    "the costs": ({"cost": lambda cost: Cost(macs={1: 0, 4: 0}, parameters=0)}, "not those that are counted"),
    "the times": ({"seconds": lambda seconds: {}}, "has times of other processes"),
    "an impossible time": ({"seconds": lambda seconds: dict.fromkeys(seconds, (float("nan"), 1.0))}, "was altered"),
    "a time past all clocks": ({"seconds": lambda seconds: dict.fromkeys(seconds, (1e308, 1e308))}, "was altered"),
    "another sandbox": ({"sandbox": lambda kind: "bwrap (verified)"}, "sandbox: .* was altered"),
    "a provenance that steers": (
        {"provenance": lambda facts: facts | {"commit": "\u202e"}},
        "provenance.commit.*expected one line of printable text",
    ),
    "a long provenance": ({"provenance": lambda facts: facts | {"x" * 50: 1}}, "provenance.* was altered"),
    "the sizes of costs": ({"cost": lambda cost: Cost(macs={}, parameters=0)}, "counts costs for other n"),
}


@pytest.mark.parametrize("what", FORGERIES)
def test_results_that_were_written_by_hand_are_refused(board, what):
    base = with_entry(board, "first", "verified")
    changed, message = FORGERIES[what]
    forged(board, **changed)
    with pytest.raises(StoreError, match=message):
        examined(board, base)


@pytest.mark.parametrize("macs", [-5, 10**400])
def test_impossible_costs_are_refused(board, macs):
    base = committed(board)
    forged(board, cost=lambda cost: cost.model_copy(update={"macs": {1: macs, 4: 1}}))
    with pytest.raises(StoreError, match="cost"):
        examined(board, base)


def test_the_rounding_of_another_machine_passes(board):
    base = committed(board)

    def lower(information: torch.Tensor) -> torch.Tensor:
        return torch.nextafter(information, torch.full_like(information, -torch.inf))

    forged(board, lower, ri=lambda ri: ri + 1e-6)
    assert len(examined(board, base)) == 2


def test_a_submission_that_changed_after_its_run_is_refused(board):
    base = requested(board)
    (board.root / "submissions" / "mine" / "README.md").write_text("changed\n")
    with pytest.raises(StoreError, match="is not the one that was run on toy-v1"):
        examined(board, base)


def test_predictions_of_another_run_are_refused(board):
    base = requested(board)
    predicted(board, board.protocol("toy-v1"), "mine", 2.0, place(board, "mine").folder)
    (place(board, "mine").folder / commands.RUN).unlink()
    with pytest.raises(StoreError, match="it was altered"):
        examined(board, base)
