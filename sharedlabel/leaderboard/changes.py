"""What a pull request changes on the board, and whether it may: submissions to check, results to audit."""

from __future__ import annotations

import math
import re
import subprocess
from typing import Any

import torch

from sharedlabel.errors import DataError, StoreError
from sharedlabel.leaderboard import commands, records, score, submission
from sharedlabel.leaderboard.protocol import Board, Protocol
from sharedlabel.leaderboard.records import Entry, Result

CLOSE = 2e-3  # scores are float16, and temperatures come from a search
_PARTS = {"submissions": 1, "results": 2}  # folders below that make an entry: its name, or its protocol and name


def submissions(board: Board, base: str) -> list[str]:
    """List the submissions whose files differ from those of a commit, and that are still there.

    Args:
        board: a folder of a git checkout.
        base: 40 hexadecimal digits.

    Raises:
        DataError: the commit is none, or git does not know it.
    """
    return [name for (name,) in _changed(board, base, "submissions") if (board.root / "submissions" / name).is_dir()]


def audit(board: Board, base: str) -> list[str]:
    """Examine the results that differ from those of a commit as a request by an author may change them.

    A history keeps its lines and gets self-reported ones only; files fit their checksums; scores are those of the
    predictions; predictions are those of the submission as it is now.

    Returns:
        `<protocol>/<name>` of each.

    Raises:
        DataError: the commit is none, or git does not know it.
        SharedLabelError: a result is not as it has to be.
    """
    audited = []
    for identifier, name in _changed(board, base, "results"):
        protocol = board.protocol(identifier)
        place = commands.entry(board, protocol, name)
        if not place.folder.is_dir():
            raise StoreError(f"expected {place.folder} to stay, found it removed; withdraw a result instead")
        result, events = place.result(), place.history()
        kept = _history(board, base, identifier, name)
        lines = (place.folder / records.HISTORY).read_text(encoding="utf-8").splitlines()
        if lines[: len(kept)] != kept:
            raise StoreError(f"expected {place.folder / records.HISTORY} to keep its lines, got others; only add to it")
        for event in events[len(kept) :]:
            if event.status != "self-reported":
                raise StoreError(
                    f"expected only self-reported lines to be added for {name}, got {event.status}; maintainers verify"
                )
        if submission.read(board.root / "submissions" / name).sha256 != result.submission:
            raise StoreError(f"submission {name} is not the one that was run on {identifier}; run and score it again")
        if not _follows(board, protocol, place, result):
            raise StoreError(f"the scores of {name} on {identifier} are not those of its predictions; score it again")
        audited.append(f"{identifier}/{name}")
    return audited


def _follows(board: Board, protocol: Protocol, place: Entry, result: Result) -> bool:
    """Whether a result is what its predictions score, but for the rounding of another machine."""
    answers = board.answers(protocol)
    scored = score.score(score.read(place.predictions(result), protocol, answers), protocol, answers)
    again = Result.model_validate(result.model_dump() | {"ri": scored.ri, "cells": scored.cells})
    stored = place.scores(result)
    return (
        math.isclose(again.ri, result.ri, abs_tol=CLOSE)
        and len(again.cells) == len(result.cells)
        and all(_close(a.model_dump(), b.model_dump()) for a, b in zip(again.cells, result.cells, strict=True))
        and set(stored) == set(scored.scores)
        and all(torch.allclose(stored[k].float(), v.float(), CLOSE, CLOSE) for k, v in scored.scores.items())
    )


def _close(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return all(
        math.isclose(value, second[key], rel_tol=CLOSE, abs_tol=CLOSE)
        if isinstance(value, float)
        else value == second[key]
        for key, value in first.items()
    )


def _changed(board: Board, base: str, folder: str) -> list[tuple[str, ...]]:
    if not re.fullmatch("[0-9a-f]{40}", base):
        raise DataError(f"expected the 40 digits of a commit, got {base!r}; use git rev-parse")
    depth = _PARTS[folder]
    done = _git(board, "diff", "--name-only", "--no-renames", "--relative", "-z", base, "--", folder)
    if done.returncode != 0:
        raise DataError(f"expected a commit of this repository, got {base}: {done.stderr.strip()}; fetch it first")
    paths = [tuple(path.split("/")) for path in done.stdout.split("\0")]
    return sorted({path[1 : 1 + depth] for path in paths if len(path) > 1 + depth})


def _history(board: Board, base: str, identifier: str, name: str) -> list[str]:
    """Return the lines of a history at a commit; none where it was not there."""
    done = _git(board, "show", f"{base}:./results/{identifier}/{name}/{records.HISTORY}")
    return done.stdout.splitlines() if done.returncode == 0 else []


def _git(board: Board, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["git", "-C", str(board.root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)
