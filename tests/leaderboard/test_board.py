"""Scores, records and standings: what is refused, what ranks, and that nothing changes without being noticed."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch

from sharedlabel.errors import DataError, StoreError
from sharedlabel.leaderboard import __main__ as entry_point
from sharedlabel.leaderboard.board import commands, records, score, standings, writing
from sharedlabel.leaderboard.folder import Board
from sharedlabel.leaderboard.protocol import METRICS
from tests.leaderboard.conftest import CLASSES, listed, make_board, predicted, submit

SEEDS = (0, 1, 2, 3, 4)


@pytest.fixture
def board(tmp_path) -> Board:
    board = make_board(tmp_path / "leaderboard", seeds=SEEDS)
    for name, skill in {"good": 2.0, "twin": 2.0, "bad": 0.1}.items():
        submit(board, name, skill)
    return board


def place(board, name):
    return commands.entry(board, board.protocol("toy-v1"), name)


def rows(board):
    protocol = board.protocol("toy-v1")
    entries = standings.entries(board, protocol)
    return {row.entry.result.name: row for row in standings.standings(entries, protocol, board.answers(protocol))}


def test_the_primary_score_is_the_mean_of_the_cells(board):
    """Every class has as many tuples, so cells and tuples weigh alike."""
    result, _, _ = commands.grade(board, board.protocol("toy-v1"), board.root / "predictions" / "toy-v1" / "good")
    mean = sum(cell.ri for cell in result.cells) / len(result.cells)
    assert result.ri == pytest.approx(mean, abs=1e-3)  # scores of tuples are stored in float16
    assert len(result.cells) == len(SEEDS) * 2


def test_scores_are_those_of_the_posterior_by_hand(board):
    protocol = board.protocol("toy-v1")
    answers = board.answers(protocol)
    posteriors = {}
    for role, drawn in answers.items():
        uniform = torch.full((drawn.labels.shape[1], 2, CLASSES), -math.log(CLASSES), dtype=torch.float64)
        posteriors |= {f"dense.{seed}.{role}": uniform for seed in SEEDS}
    assert score.score(posteriors, protocol, answers).ri == pytest.approx(0, abs=1e-6)
    for role, drawn in answers.items():
        certain = torch.nn.functional.one_hot(drawn.labels[0], CLASSES).double().mul(50).log_softmax(-1)
        posteriors |= {f"dense.{seed}.{role}": certain[:, None].expand(-1, 2, -1) for seed in SEEDS}
    assert score.score(posteriors, protocol, answers).ri == pytest.approx(1, abs=1e-3)


def test_only_verified_entries_rank_and_ties_share_ranks(board):
    for name in ("good", "twin", "bad"):
        listed(board, name)
    standing = rows(board)
    assert (standing["bad"].best, standing["bad"].worst) == (3, 3)
    assert (standing["good"].best, standing["good"].worst) == (1, 2) == (standing["twin"].best, standing["twin"].worst)
    assert standing["good"].alike == ("twin",)
    assert standing["bad"].low < standing["bad"].ri < standing["bad"].high
    commands.entry(board, board.protocol("toy-v1"), "twin").record("withdrawn", "by its authors")
    standing = rows(board)
    assert standing["twin"].best is None
    assert (standing["good"].best, standing["good"].worst) == (1, 1)
    assert list(standing) == ["good", "bad", "twin"]


def test_the_front_has_no_one_above_it_at_no_more_cost(board):
    for name in ("good", "twin", "bad"):
        listed(board, name)
    standing = rows(board)
    assert standing["bad"].macs < standing["good"].macs == standing["twin"].macs
    best = max(("good", "twin"), key=lambda name: standing[name].ri)
    assert {name for name, row in standing.items() if row.front} == {"bad", best}


def test_a_self_reported_row_is_listed_without_a_rank(board):
    listed(board, "good", "self-reported")
    assert rows(board)["good"].best is None


def edit(path, change) -> None:
    path.write_text(change(path.read_text()))


EDITS = {
    "the result": ("result.json", lambda text: text.replace('"ri": 0.', '"ri": 0.9', 1), "not the result that its"),
    "an unknown key": ("result.json", lambda text: text.replace('"ri"', '"rj"', 1), "it was altered"),
    "the status": ("history.jsonl", lambda text: text.replace("self-reported", "verified", 1), "cannot stand there"),
    "a line less": ("history.jsonl", lambda text: text.split("\n", 1)[1], "does not follow"),
    "no line": ("history.jsonl", lambda text: "", "got an empty file"),
}


def test_a_rank_needs_a_verified_result_of_its_own(board):
    """One that calls itself by the name of another takes neither its rank nor its page."""
    listed(board, "good")
    folder = board.root / "predictions" / "toy-v1" / "bad"
    result, predictions, scores = commands.grade(board, board.protocol("toy-v1"), folder)
    place(board, "bad").write(result.model_copy(update={"name": "good"}), predictions, scores, "tests")
    with pytest.raises(StoreError, match="is of good on toy-v1"):
        rows(board)


@pytest.mark.parametrize("what", EDITS)
def test_what_is_edited_by_hand_is_refused(board, what):
    listed(board, "good")
    name, change, message = EDITS[what]
    edit(place(board, "good").folder / name, change)
    with pytest.raises(StoreError, match=message):
        rows(board)


def test_a_submission_that_changed_after_it_was_verified_is_refused(board):
    listed(board, "good")
    (board.root / "submissions" / "good" / "README.md").write_text("changed\n")
    with pytest.raises(StoreError, match="submission good changed after its run on toy-v1"):
        rows(board)


@pytest.mark.parametrize("name", ["scores.safetensors", "result.json", "history.jsonl"])
def test_missing_files_are_named(board, name):
    listed(board, "good")
    (place(board, "good").folder / name).unlink()
    with pytest.raises(StoreError, match=f"expected the file .*{name}"):
        rows(board)


def test_scores_that_are_no_tensors_are_refused(board):
    folder = board.root / "predictions" / "toy-v1" / "good"
    result, predictions, _ = commands.grade(board, board.protocol("toy-v1"), folder)
    junk = result.model_copy(update={"scores": writing.digest(b"junk")})
    place(board, "good").write(junk, predictions, b"junk", "tests")
    with pytest.raises(StoreError, match=r"expected tensors in .*it was altered"):
        rows(board)


def test_altered_scores_are_refused(board):
    listed(board, "good")
    path = place(board, "good").folder / records.SCORES
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(StoreError, match="it was altered"):
        rows(board)


def test_nothing_is_said_of_a_result_that_was_edited(board):
    """A line in its history would name the edited file, and so make it whole again."""
    listed(board, "good")
    edit(place(board, "good").folder / records.RESULT, lambda text: text.replace('"ri": 0.', '"ri": 0.9', 1))
    with pytest.raises(StoreError, match="it was altered"):
        place(board, "good").record("withdrawn", "why")


def test_a_verified_result_is_not_replaced_after_it_was_deleted(board):
    listed(board, "good")
    (place(board, "good").folder / records.RESULT).unlink()
    with pytest.raises(StoreError, match="is verified; submit a changed aggregator under another name"):
        listed(board, "good")
    (place(board, "good").folder / records.HISTORY).unlink()
    with pytest.raises(StoreError, match="found none"):
        listed(board, "good")


def test_a_history_without_the_end_of_its_last_line_is_refused(board):
    """The next line would be written behind it, and the chain be broken for good."""
    listed(board, "good", "self-reported")
    path = place(board, "good").folder / records.HISTORY
    path.write_bytes(path.read_bytes().removesuffix(b"\n"))
    with pytest.raises(StoreError, match="to end its last line"):
        place(board, "good").record("withdrawn", "why")


@pytest.mark.parametrize(
    "change",
    [
        {"note": "run again: RI 0.99\u202e"},
        {"note": "two\nlines"},
        {"note": "x" * 1000},
        {"time": "tomorrow"},
    ],
)
def test_a_line_of_a_history_is_plain(board, change):
    listed(board, "good", "self-reported")
    path = place(board, "good").folder / records.HISTORY
    path.write_text(json.dumps(json.loads(path.read_text()) | change) + "\n")
    with pytest.raises(StoreError, match="it was altered"):
        rows(board)


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    folder = tmp_path / "kept"
    writing.replace_folder(folder, {"a/b": b"first"})
    rename = Path.rename

    def fail(self, target):
        if self.name == "made":
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(KeyboardInterrupt):
        writing.replace_folder(folder, {"a/b": b"second"})
    assert (folder / "a" / "b").read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("note", ["why\u2028because", "why\u0085because", "why\nbecause", "\x1b[31mred"])
def test_a_note_is_one_line(board, note):
    listed(board, "good")
    place(board, "good").record("withdrawn", note)
    assert place(board, "good").history()[-1].note.isprintable()
    assert rows(board)["good"].best is None


def test_a_result_is_written_whole_or_not_at_all(board, monkeypatch):
    listed(board, "good", "self-reported")
    before = {path.name: path.read_bytes() for path in place(board, "good").folder.iterdir()}
    monkeypatch.setattr(records, "to_json", lambda result: "\ud800")  # cannot be encoded
    with pytest.raises(UnicodeEncodeError):
        listed(board, "good", "self-reported")
    assert {path.name: path.read_bytes() for path in place(board, "good").folder.iterdir()} == before
    assert [path.name for path in place(board, "good").folder.parent.iterdir()] == ["good"]


@pytest.mark.parametrize("what", ["the entry", "a file"])
def test_links_are_not_followed(board, tmp_path, what):
    listed(board, "good")
    path = place(board, "good").folder if what == "the entry" else place(board, "good").folder / records.RESULT
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="got a link"):
        rows(board)


def test_predictions_go_to_the_name_they_were_made_for(board):
    folder = board.root / "predictions" / "toy-v1" / "good"
    with pytest.raises(StoreError, match=r"expected predictions of bad in .*, got those of good"):
        commands.store(board, board.protocol("toy-v1"), "bad", folder)


@pytest.mark.parametrize("text", ["", "[]", "{}", "x", '{"protocol": "toy-v1"}'])
def test_facts_of_a_run_that_were_altered_are_refused(board, text):
    folder = board.root / "predictions" / "toy-v1" / "good"
    (folder / commands.RUN).write_text(text)
    with pytest.raises(StoreError, match="it was altered: run again"):
        commands.grade(board, board.protocol("toy-v1"), folder)


def test_a_verified_result_is_not_replaced(board):
    listed(board, "good")
    with pytest.raises(StoreError, match="is verified; submit a changed aggregator under another name"):
        listed(board, "good")
    place(board, "good").record("withdrawn", "to be run again")
    listed(board, "good")
    assert [event.status for event in place(board, "good").history()][-3:] == ["withdrawn", "self-reported", "verified"]


def test_a_status_that_cannot_follow_is_refused(board):
    listed(board, "good")
    with pytest.raises(StoreError, match="expected one of verified, disputed, withdrawn after verified"):
        place(board, "good").record("self-reported", "no")


def test_a_submission_that_changed_after_its_run_is_refused(board):
    (board.root / "submissions" / "good" / "README.md").write_text("changed\n")
    with pytest.raises(StoreError, match="changed after its run"):
        listed(board, "good")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t | {"dense.0.test": t["dense.0.test"].float()}, "in float16 of shape"),
        (lambda t: t | {"dense.0.test": t["dense.0.test"][1:]}, "in float16 of shape"),
        (lambda t: t | {"dense.0.test": t["dense.0.test"] * float("nan")}, "finite"),
        (lambda t: t | {"dense.0.test": t["dense.0.test"] + 1}, "sum to 1"),
        (lambda t: t | {"more": t["dense.0.test"]}, "a difference in more"),
        (lambda t: {k: v for k, v in t.items() if k != "dense.0.test"}, "a difference in dense.0.test"),
    ],
)
def test_predictions_are_read_strictly(board, change, message):
    import safetensors.torch

    protocol = board.protocol("toy-v1")
    content = (board.root / "predictions" / "toy-v1" / "good" / records.PREDICTIONS).read_bytes()
    changed, _ = writing.serialized({k: v.clone() for k, v in change(safetensors.torch.load(content)).items()})
    with pytest.raises(DataError, match=message):
        score.read(changed, protocol, board.answers(protocol))


def test_predictions_that_were_edited_after_the_run_are_refused(board):
    path = board.root / "predictions" / "toy-v1" / "good" / records.PREDICTIONS
    path.write_bytes(path.read_bytes()[:-2] + b"\0\0")
    with pytest.raises(StoreError, match="was altered after the run"):
        listed(board, "good")


@pytest.mark.parametrize("name", ["dense.safetensors", "tuples.safetensors", "answers.safetensors"])
def test_a_protocol_whose_files_are_missing_or_altered_is_refused(board, name):
    path = board.root / "protocols" / "toy-v1" / name
    content = path.read_bytes()
    path.write_bytes(content + b"\0")
    protocol = board.protocol("toy-v1")
    with pytest.raises(StoreError, match=r"expected sha256 .* it was altered"):
        board.answers(protocol), board.features(protocol, protocol.networks[0])
    path.unlink()
    with pytest.raises(StoreError, match="found none; restore it"):
        board.answers(protocol), board.features(protocol, protocol.networks[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("tolerance", "tolerances"), "tolerance: field required"),
        (lambda text: text + '\n[extra]\nkey = "value"\n', "extra: extra inputs are not permitted"),
        (
            lambda text: text.replace(f"metrics = {METRICS}", "metrics = 99"),
            f"{METRICS} in .* of version 99;",
        ),
        (
            lambda text: text.replace(f"metrics = {METRICS}", "metrics = 1"),
            f"{METRICS} in .* of version 1;",
        ),
        (lambda text: "= nothing", "expected TOML"),
    ],
)
def test_a_protocol_that_is_none_is_refused(board, change, message):
    edit(board.root / "protocols" / "toy-v1.toml", change)
    with pytest.raises((DataError, StoreError), match=message):
        board.protocol("toy-v1")


FROZEN = {
    "cifar10-jpeg-v1": "14d9209578041d40fee8d85ee8f236b2550d8fbfa7d7a907521148b318e56a26",
    "digits-v1": "524693256f2c81363b4d48bc44340cb88b6ea603caaa72c5d50540bbbe28207b",
}


def test_frozen_protocols_are_as_they_were():
    """A change of the limits, the recipe or the tolerance would be another protocol, too; a new scoring is none."""
    folder = Path(__file__).parents[2] / "leaderboard" / "protocols"
    scored, frozen = f"\nmetrics = {METRICS}\n".encode(), b"\nmetrics = 1\n"
    digests = {path.stem: writing.digest(path.read_bytes().replace(scored, frozen)) for path in folder.glob("*.toml")}
    assert digests == FROZEN


def command(board, *arguments) -> int:
    return entry_point.main(["--root", str(board.root), *arguments])


def test_commands_score_and_withdraw(board, tmp_path, capsys):
    folder = board.root / "predictions" / "toy-v1" / "good"
    assert command(board, "score", "good", "--protocol", "toy-v1", "--predictions", str(folder)) == 0
    assert "self-reported; only a verified row ranks" in capsys.readouterr().out
    assert command(board, "score", "--protocol", "toy-v1", "--predictions", str(folder), "--out", str(tmp_path)) == 0
    assert json.loads((tmp_path / "result.json").read_text())["name"] == "good"
    assert command(board, "withdraw", "good", "--protocol", "toy-v1", "--note", "tests") == 0
    assert place(board, "good").history()[-1].status == "withdrawn"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["score", "good", "--protocol", "toy-v2"], "unknown protocol 'toy-v2'"),
        (["score", "--protocol", "toy-v1"], "expected the name of a submission"),
        (["score", "../good", "--protocol", "toy-v1"], "expected a name of small letters"),
        (["withdraw", "good", "--protocol", "toy-v1", "--note", " "], "expected some text"),
        (["withdraw", "../good", "--protocol", "toy-v1", "--note", "x"], "expected a name of small letters"),
        (["check", "/good", "--trust"], "expected a name of small letters"),
        (["score", "good", "--protocol", "toy-v1", "--predictions", "/nowhere"], "found none; use `run` first"),
        (["withdraw", "nobody", "--protocol", "toy-v1", "--note", "x"], "expected the file"),
        (["check", "nobody"], "expected the folder of a submission"),
    ],
)
def test_mistakes_are_one_line_and_change_nothing(board, capsys, arguments, message):
    before = sorted(path for path in board.root.rglob("*"))
    assert command(board, *arguments) == 2
    printed = capsys.readouterr()
    assert message in printed.err or "expected a sandbox" in printed.err
    assert printed.err.count("\n") == 1
    assert sorted(path for path in board.root.rglob("*")) == before


def test_a_run_on_other_features_is_refused(board, tmp_path):
    other = make_board(tmp_path / "other", signal=1.0, seeds=SEEDS)
    shutil.copytree(board.root / "submissions", other.root / "submissions")
    predicted(board, board.protocol("toy-v1"), "good", 1.0, tmp_path / "made")
    with pytest.raises(StoreError, match="run again"):
        commands.grade(other, other.protocol("toy-v1"), tmp_path / "made")
