"""What a pull request changes on the board, and whether an author may: files, histories, scores and costs."""

from __future__ import annotations

import math
import os
import re
import stat
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import torch

from sharedlabel.errors import DataError, StoreError
from sharedlabel.leaderboard.board import commands, records, score, standings
from sharedlabel.leaderboard.board.facts import Event, Result, Status
from sharedlabel.leaderboard.board.records import Entry
from sharedlabel.leaderboard.cost import Cost
from sharedlabel.leaderboard.folder import Board
from sharedlabel.leaderboard.protocol import Protocol
from sharedlabel.leaderboard.sandbox.limits import Kind
from sharedlabel.leaderboard.submission import reading
from sharedlabel.leaderboard.submission.reading import Submission

CLOSE = 2e-3  # scores are float16, and temperatures come from a search
PLAIN, GONE = "100644", "000000"  # modes of git
OPEN: tuple[Status, ...] = ("self-reported", "withdrawn")  # an author may run again what stands like this
_SHAPES = {"submissions": (1, reading.FILES), "results": (2, records.FILES)}


@dataclass(frozen=True)
class Change:
    """A file that differs from that of a commit.

    Attributes:
        path: below the root of the board.
        mode: as git writes it; zeros where the file is gone.
    """

    path: PurePosixPath
    mode: str


def examine(board: Board, base: str, kind: Kind, progress: Callable[[str], None]) -> None:
    """Check everything in which the board differs from a commit, as a request by an author may change it.

    Only plain files in their places; every changed submission keeps the contract; histories keep their lines and get
    self-reported ones only; results fit their checksums, their predictions, the costs that are counted and the
    submission as it is now; whoever has a rank stays as it was; and the standings can be made.

    Args:
        board: a folder of a git checkout.
        base: 40 hexadecimal digits.
        kind: of the sandbox.
        progress: told a line for everything that was found in order.

    Raises:
        SharedLabelError: something is not as it has to be.
    """
    altered = changed(board, base)
    for change in altered:
        _check_place(board, change)
    names = {change.path.parts[1] for change in altered if change.path.parts[0] == "submissions"}
    results = {change.path.parts[1:3] for change in altered if change.path.parts[0] == "results"}
    results |= {
        (identifier, name) for identifier in board.ids() for name in names if _stood(board, base, identifier, name)
    }
    for name in sorted(names | {name for _, name in results}):
        own = sorted(identifier for identifier, other in results if other == name)
        if not own and not (board.root / "submissions" / name).exists():
            continue  # it was taken back before it was run
        before = {identifier: _history(board, base, identifier, name) for identifier in own}
        for identifier in own:
            _check_open(f"{identifier}/{name}", before[identifier])
        submitted = reading.named(board.root, name)
        costs = commands.check(submitted, board, kind)
        progress(f"{name} keeps the contract (tried in {kind})")
        for identifier in own:
            _audit(board, board.protocol(identifier), submitted, before[identifier], costs[identifier])
            progress(f"{identifier}/{name} is whole, self-reported and scored as its predictions are")
    for identifier in board.ids():
        protocol = board.protocol(identifier)
        standings.standings(standings.entries(board, protocol), protocol, board.answers(protocol))
    if not altered:
        progress("nothing changed")


def changed(board: Board, base: str) -> list[Change]:
    """List the files of submissions, results and protocols that differ from those of a commit, new ones too.

    Raises:
        DataError: the commit is none, or git does not know it.
    """
    if not re.fullmatch("[0-9a-f]{40}", base):
        raise DataError(f"expected the 40 digits of a commit, got {base!r}; use git rev-parse")
    folders = ("submissions", "results", "protocols")
    done = _git(board, "diff", "--raw", "--no-renames", "--relative", "-z", base, "--", *folders)
    if done.returncode != 0:
        said = done.stderr.strip().partition("\n")[0]  # outside of a repository git goes on with how to use it
        raise DataError(f"expected a commit of this repository, got {base}: {said}; fetch it first")
    fields = done.stdout.split("\0")[:-1]
    modes = {path: header.split()[1] for header, path in zip(fields[::2], fields[1::2], strict=True)}
    others = _git(board, "ls-files", "--others", "--exclude-standard", "-z", "--", *folders).stdout.split("\0")[:-1]
    modes |= {path: PLAIN if stat.S_ISREG(os.lstat(board.root / path).st_mode) else "other" for path in others}
    return [Change(PurePosixPath(path), mode) for path, mode in sorted(modes.items())]


def _check_place(board: Board, change: Change) -> None:
    """Refuse what is no plain file of a submission or a result, and what was removed."""
    folder, *rest = change.path.parts
    if folder == "protocols":
        raise StoreError(
            f"expected {change.path} as it was: a protocol is frozen, and maintainers add others; propose one to them"
        )
    depth, files = _SHAPES[folder]
    if len(rest) != depth + 1 or rest[-1] not in files:
        raise DataError(f"expected only {', '.join(files)} in the folders of {folder}, got {change.path}; remove it")
    if change.mode not in (PLAIN, GONE):
        raise DataError(f"expected a plain file at {change.path}, got a link, a program or something else; replace it")
    if change.mode == GONE and folder == "results":
        raise StoreError(f"expected {change.path} to stay, found it removed; withdraw a result instead")
    reading.check_name(rest[depth - 1])
    if folder == "results":
        board.protocol(rest[0])


def _check_open(where: str, before: Sequence[str]) -> None:
    """Refuse a change of an entry that has a rank, or is disputed."""
    status = Event.model_validate_json(before[-1]).status if before else "self-reported"
    if status not in OPEN:
        raise StoreError(f"expected {where} as it was: it is {status}; submit under another name")


def _audit(board: Board, protocol: Protocol, submitted: Submission, before: Sequence[str], cost: Cost) -> None:
    """Refuse a result that an author may not have changed like this.

    Raises:
        StoreError: says what is wrong.
    """
    name = submitted.name
    place = commands.entry(board, protocol, name)
    result, events = place.result(), place.history()
    if place.lines()[: len(before)] != list(before):
        raise StoreError(f"expected {place.folder / records.HISTORY} to keep its lines, got others; only add to it")
    if len(events) > len(before) + 1 or events[-1].ri != result.ri:
        raise StoreError(f"expected one line more in the history of {name}, of its result; run and score it again")
    for event in events[len(before) :]:
        if event.status != "self-reported":
            raise StoreError(
                f"expected only self-reported lines to be added for {name}, got {event.status}; maintainers verify"
            )
        if event.note != records.BY_AUTHOR:
            raise StoreError(
                f"expected {records.BY_AUTHOR!r} as the note of {name}, got another; run and score it again"
            )
    if submitted.sha256 != result.submission:
        raise StoreError(f"submission {name} is not the one that was run on {protocol.id}; run and score it again")
    if result.cost != cost:
        raise StoreError(f"the costs of {name} on {protocol.id} are not those that are counted; run and score it again")
    if not _follows(board, protocol, place, result):
        raise StoreError(f"the scores of {name} on {protocol.id} are not those of its predictions; score it again")


def _follows(board: Board, protocol: Protocol, place: Entry, result: Result) -> bool:
    """Whether a result is what its predictions score, but for the rounding of another machine."""
    answers = board.answers(protocol)
    scored = score.score(score.read(place.predictions(result), protocol, answers), protocol, answers)
    again = Result.model_validate(result.model_dump() | {"ri": scored.ri, "cells": scored.cells})
    stored = place.scores(result)
    return (
        math.isclose(again.ri, result.ri, abs_tol=CLOSE)
        and all(_close(a.model_dump(), b.model_dump()) for a, b in zip(again.cells, result.cells, strict=True))
        and {name: (value.shape, value.dtype) for name, value in stored.items()}
        == {name: (value.shape, value.dtype) for name, value in scored.scores.items()}
        and all(torch.allclose(stored[k].float(), v.float(), CLOSE, CLOSE) for k, v in scored.scores.items())
    )


def _close(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return all(
        math.isclose(value, second[key], rel_tol=CLOSE, abs_tol=CLOSE)
        if isinstance(value, float)
        else value == second[key]
        for key, value in first.items()
    )


def _stood(board: Board, base: str, identifier: str, name: str) -> bool:
    """Whether a submission has a result, or had one at a commit."""
    return bool(_history(board, base, identifier, name)) or (board.root / "results" / identifier / name).exists()


def _history(board: Board, base: str, identifier: str, name: str) -> Sequence[str]:
    """Return the lines of a history at a commit; none where it was not there."""
    path = f"results/{identifier}/{name}/{records.HISTORY}"
    if not _git(board, "ls-tree", "-z", base, "--", path).stdout:
        return []
    done = _git(board, "show", f"{base}:./{path}")
    if done.returncode != 0:
        raise StoreError(f"expected {path} at {base}, got: {done.stderr.strip()}; fetch it whole")
    return done.stdout.split("\n")[:-1]


def _git(board: Board, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["git", "-C", str(board.root), *arguments]
    done = subprocess.run(command, capture_output=True, check=False)  # bytes: text would have its line ends changed
    out, error = (stream.decode("utf-8", "surrogateescape") for stream in (done.stdout, done.stderr))
    return subprocess.CompletedProcess(command, done.returncode, out, error)
