"""Scoring a board again: what is replaced, what stays, and what a kill or an altered file leaves."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch

from sharedlabel.errors import DataError, SharedLabelError, StoreError
from sharedlabel.leaderboard import __main__ as entry_point
from sharedlabel.leaderboard.board import commands, records, rescore, site, standings, writing
from sharedlabel.leaderboard.folder import Board
from sharedlabel.leaderboard.protocol import METRICS
from tests.leaderboard.conftest import SOURCE, aged, listed, make_board, place_of, submit

STATUSES = {"first": "verified", "second": "disputed", "third": "withdrawn", "fourth": "self-reported"}


@pytest.fixture
def board(tmp_path) -> Board:
    """A board of the older version, with an entry of every status."""
    board = make_board(tmp_path / "leaderboard", seeds=(0, 1))
    for name, status in STATUSES.items():
        submit(board, name, 1.0)
        listed(board, name, status)
    aged(board)
    return board


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def command(board: Board, *arguments: str) -> int:
    return entry_point.main(["--root", str(board.root), *arguments])


def lines(board: Board) -> dict[str, list[str]]:
    return {name: place_of(board, name).lines() for name in STATUSES}


def test_results_follow_from_the_stored_predictions_again(board):
    before = {name: place_of(board, name).result() for name in STATUSES}
    assert command(board, "rescore") == 0
    protocol = board.protocol("toy-v1")
    for name in STATUSES:
        own, _, scores = commands.grade(board, protocol, board.root / "predictions" / "toy-v1" / name)
        place = place_of(board, name)
        assert place.result() == own
        assert (place.folder / records.SCORES).read_bytes() == scores
        changed = {"ri", "cells", "scores"}
        assert own.model_dump(exclude=changed) == before[name].model_dump(exclude=changed)
        assert own.ri == pytest.approx(before[name].ri + 0.01, abs=1e-9)


def test_histories_grow_by_one_line_and_statuses_stay(board):
    before = lines(board)
    assert command(board, "rescore") == 0
    for name, status in STATUSES.items():
        place = place_of(board, name)
        event = place.history()[-1]
        assert place.lines()[:-1] == before[name]
        assert (event.status, event.ri) == (status, place.result().ri)
        assert event.note == (
            f"scored again by version {METRICS} of the metrics: RI {event.ri:.4f}, +0.0100 from the score before"
        )


def test_of_the_protocol_only_the_version_changes(board):
    before = files(board.root / "protocols")
    assert command(board, "rescore") == 0
    after = files(board.root / "protocols")
    toml = board.path("toy-v1")
    assert after.pop(toml) == before.pop(toml).replace(b"\nmetrics = 1\n", f"\nmetrics = {METRICS}\n".encode())
    assert after == before
    assert not list(board.root.glob(".*"))


def test_what_is_up_to_date_is_left_alone(board, capsys):
    assert command(board, "rescore") == 0
    assert "toy-v1/first: RI 0." in capsys.readouterr().out
    before = files(board.root)
    assert command(board, "rescore") == 0
    assert capsys.readouterr().out == f"nothing to score again: every protocol is of version {METRICS} of the metrics\n"
    assert files(board.root) == before


@pytest.mark.parametrize("written", [0, 1, 3, 4])
def test_a_run_that_was_killed_is_repeated(board, monkeypatch, written):
    """Until the last step the protocol is of the older version, which every other command refuses."""
    before, done, honest = lines(board), list[str](), records.Entry.write

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    def write(self, *arguments: object) -> None:
        if len(done) == written:
            raise KeyboardInterrupt
        honest(self, *arguments)
        done.append(self.name)

    monkeypatch.setattr(records.Entry, "write", write)
    monkeypatch.setattr(writing, "replace_file", killed)
    with pytest.raises(KeyboardInterrupt):
        rescore.rescore(board, print)
    monkeypatch.undo()
    assert len(done) == written
    with pytest.raises(StoreError, match="let maintainers `rescore` it"):
        board.protocol("toy-v1")
    assert rescore.rescore(board, print) == ("toy-v1",)
    assert {name: own[:-1] for name, own in lines(board).items()} == before
    protocol = board.protocol("toy-v1")
    assert len(standings.standings(standings.entries(board, protocol), protocol, board.answers(protocol))) == 4


def flip(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


ALTERED = {
    "predictions": (lambda board: flip(place_of(board, "third").folder / records.PREDICTIONS), "it was altered"),
    "scores": (lambda board: flip(place_of(board, "third").folder / records.SCORES), "it was altered"),
    "the result": (
        lambda board: flip(place_of(board, "third").folder / records.RESULT),
        "is not the result that its history speaks of|it was altered",
    ),
    "a history": (
        lambda board: (place_of(board, "third").folder / records.HISTORY).write_text(lines(board)["third"][1] + "\n"),
        "does not follow the one before",
    ),
    "a submission": (
        lambda board: (board.root / "submissions" / "third" / "README.md").write_text("changed\n"),
        "submission third changed after its run",
    ),
    "the answers": (lambda board: flip(board.root / "protocols" / "toy-v1" / "answers.safetensors"), "it was altered"),
    "a newer protocol": (
        lambda board: board.path("toy-v1").write_text(
            board.path("toy-v1").read_text().replace("metrics = 1", f"metrics = {METRICS + 1}")
        ),
        f"got 'toy-v1' of version {METRICS + 1}",
    ),
}


@pytest.mark.parametrize("what", ALTERED)
def test_a_board_that_was_altered_is_refused_and_stays_as_it_is(board, what):
    change, message = ALTERED[what]
    change(board)
    before = files(board.root)
    with pytest.raises(SharedLabelError, match=message):
        rescore.rescore(board, print)
    assert files(board.root) == before


def test_stored_predictions_are_read_strictly(board):
    """All checksums fit, but these are no posteriors, and the entry is named."""
    place = place_of(board, "third")
    stored, scores = place.result(), (place.folder / records.SCORES).read_bytes()
    tensors = {name: 0 * tensor for name, tensor in safetensors.torch.load(place.predictions(stored)).items()}
    content, digest = writing.serialized(tensors)
    place.write(stored.model_copy(update={"predictions": digest}), content, scores, "tests", "withdrawn")
    before = files(board.root)
    with pytest.raises(DataError, match=r"toy-v1/third: expected posteriors that sum to 1"):
        rescore.rescore(board, print)
    assert files(board.root) == before


def test_no_submission_is_run(board):
    """The code of an entry that nobody could even import is scored again from what it once predicted."""
    protocol = board.protocol("toy-v1", oldest=1)
    place, former = place_of(board, "first"), place_of(board, "first").result()
    (board.root / "submissions" / "first" / "aggregator.py").write_text(f"{SOURCE}\n1 / 0\n")
    changed = commands.submission.named(board.root, "first").sha256
    scores = (place.folder / records.SCORES).read_bytes()
    place.write(
        former.model_copy(update={"submission": changed}), place.predictions(former), scores, "tests", "verified"
    )
    assert rescore.rescore(board, print) == (protocol.id,)
    assert place_of(board, "first").history()[-1].status == "verified"


def test_pages_say_whose_run_was_scored_again(board, tmp_path):
    """A row that was disputed after it was verified is still of the maintainer's run."""
    place = place_of(board, "second")
    run = place.result().model_copy(update={"secret": 2})
    scores = (place.folder / records.SCORES).read_bytes()
    place.write(run, place.predictions(run), scores, "run by the maintainer", "verified")
    place.record("disputed", "tests")
    rescore.rescore(board, print)
    site.build(board, tmp_path / "site")
    folder = tmp_path / "site" / "toy-v1" / "entries"
    pages = {name: (folder / f"{name}.html").read_text().replace("&#39;", "'") for name in STATUSES}
    assert {name for name, page in pages.items() if "the maintainer's machine" in page} == {"first", "second"}
    assert all(f"scored again by version {METRICS} of the metrics" in page for page in pages.values())
