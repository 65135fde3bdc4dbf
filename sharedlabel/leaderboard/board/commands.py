"""What the commands of the leaderboard do: check, run, score, verify, withdraw; printing is left to the entry point."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from sharedlabel.errors import DataError, StoreError, printable
from sharedlabel.files import together
from sharedlabel.leaderboard.board import facts, records, score, writing
from sharedlabel.leaderboard.board.facts import Facts, Result
from sharedlabel.leaderboard.board.records import Entry
from sharedlabel.leaderboard.cost import Cost
from sharedlabel.leaderboard.folder import Board
from sharedlabel.leaderboard.protocol import Protocol
from sharedlabel.leaderboard.sandbox import examination, kinds, run
from sharedlabel.leaderboard.sandbox.limits import Kind, SandboxError
from sharedlabel.leaderboard.schema import explain
from sharedlabel.leaderboard.submission import reading
from sharedlabel.leaderboard.submission.reading import Submission
from sharedlabel.machine import provenance

Progress = Callable[[str], None]
EXIT_USER = 2  # of a command that refuses what it was given
REFUSED = "refused.txt"  # why predictions are none, from the process that scores to the one that waits for it
RUN = "run.json"  # what is known of predictions that are not scored yet


def check(submitted: Submission, board: Board, kind: Kind) -> dict[str, Cost]:
    """Try the contract with the code of a submission, and count what it costs on every protocol of a board.

    Returns:
        Costs by protocol.

    Raises:
        DataError: something is not as it has to be; the message lists all findings.
        SandboxError: it broke a limit.
    """
    kinds.keep_apart(kind, board.root)
    protocols = [board.protocol(identifier) for identifier in board.present()]
    widths = [board.features(protocol, protocol.networks[0]).embeddings["test"].shape[1] for protocol in protocols]
    report = examination.examine(submitted, list(zip(protocols, widths, strict=True)), kind)
    if report.problems:
        raise DataError(
            f"{submitted.name} does not keep the contract: "
            + "; ".join(printable(problem, 300) for problem in report.problems)
        )
    if [tuple(cost.macs) for cost in report.costs] != [protocol.n for protocol in protocols]:
        raise SandboxError("expected the costs of every protocol from the sandbox, got others")
    return {protocol.id: cost for protocol, cost in zip(protocols, report.costs, strict=True)}


def predict(
    board: Board, protocol: Protocol, name: str, kind: Kind, workers: int, out: Path, progress: Progress
) -> None:
    """Check, train and ask a submission, and write what it answered with what is known of the run.

    Args:
        board: the leaderboard.
        protocol: what to train and ask it on.
        name: of the submission.
        kind: of the sandbox.
        workers: processes at a time.
        out: folder for `predictions.safetensors` and `run.json`; made if absent.
        progress: told a line for every process that ends.

    Raises:
        SharedLabelError: the check fails, or the run does.
    """
    submitted = reading.named(board.root, name)
    costs = check(submitted, board, kind)
    answered = run.run(submitted, protocol, board, kind, workers, progress, costs[protocol.id])
    content, digest = writing.serialized(answered.tensors)
    facts = {
        "protocol": protocol.id,
        "name": name,
        "submission": submitted.sha256,
        "features": protocol.files,
        "predictions": digest,
        "cost": costs[protocol.id].model_dump(mode="json"),
        "seconds": answered.seconds,
        "sandbox": kind,
        "secret": answered.secret,
        "provenance": provenance.collect("cpu"),
    }
    together.replace(out, {records.PREDICTIONS: content, RUN: json.dumps(facts, indent=1) + "\n"})


def grade(board: Board, protocol: Protocol, folder: Path) -> tuple[Result, bytes, bytes]:
    """Read predictions strictly, join the labels, and return the result with the content of both files.

    Args:
        board: the leaderboard.
        protocol: that the predictions are for.
        folder: that `predict` wrote.

    Raises:
        SharedLabelError: predictions are missing, altered or no posteriors.
    """
    try:
        facts = Facts.model_validate_json((folder / RUN).read_bytes())
        content = (folder / records.PREDICTIONS).read_bytes()
    except FileNotFoundError as error:
        raise StoreError(f"expected predictions in {folder}, found none; use `run` first") from error
    except ValidationError as error:
        raise StoreError(f"{folder / RUN}: {explain(error)}; it was altered: run again") from error
    if (facts.protocol, facts.features) != (protocol.id, protocol.files):
        raise StoreError(f"expected predictions for {protocol.id}, got those for {facts.protocol}; run again")
    if writing.digest(content) != facts.predictions:
        raise StoreError(f"{folder / records.PREDICTIONS} was altered after the run; run again")
    result, scores = scored(board, protocol, facts, content)
    return result, content, scores


def scored(board: Board, protocol: Protocol, facts: Facts, predictions: bytes) -> tuple[Result, bytes]:
    """Read predictions strictly, join the labels, and return the result with the content of the file of scores.

    Args:
        board: the leaderboard.
        protocol: that the predictions are for.
        facts: of them; those of a result will do.
        predictions: content of their file.

    Raises:
        PredictionError: they are no posteriors.
    """
    answers = board.answers(protocol)
    graded = score.score(score.read(predictions, protocol, answers), protocol, answers)
    scores, digest = writing.serialized(graded.scores)
    again = {**facts.model_dump(), "scores": digest, "ri": graded.ri, "cells": graded.cells}
    return Result.model_validate(again), scores


def store(board: Board, protocol: Protocol, name: str, folder: Path) -> Result:
    """Score predictions and put the result on the board as self-reported.

    Raises:
        SharedLabelError: predictions are missing, altered, of another submission or no posteriors.
    """
    result, predictions, scores = grade(board, protocol, folder)
    if result.name != name:
        raise StoreError(f"expected predictions of {name} in {folder}, got those of {result.name}; name that one")
    if reading.named(board.root, name).sha256 != result.submission:
        raise StoreError(f"submission {result.name} changed after its run; run it again")
    entry(board, protocol, result.name).write(result, predictions, scores, records.BY_AUTHOR)
    return result


def entry(board: Board, protocol: Protocol, name: str) -> Entry:
    """Return the place of a submission on a protocol's board.

    Raises:
        DataError: the name cannot be one.
    """
    reading.check_name(name)
    return Entry(board.root, protocol, name)


def verify(
    board: Board, protocol: Protocol, name: str, kind: Kind, workers: int, progress: Progress
) -> tuple[str, float]:
    """Run a submission again from scratch, with other secrets, and compare the primary score.

    Where both agree, the result of this run takes the place of the author's: what ranks is what the maintainers ran.

    Returns:
        The status now and the difference of the primary score, new minus stored.

    Raises:
        SharedLabelError: the stored result was altered, or is not of these files.
    """
    place = entry(board, protocol, name)
    stored, status = place.result(), place.history()[-1].status
    if status == "withdrawn":
        raise StoreError(f"{name} was withdrawn from {protocol.id}; its authors run and score it again first")
    if reading.named(board.root, name).sha256 != stored.submission:
        raise StoreError(f"submission {name} changed after its run; run and score it again")
    if kind == "trusted":
        raise StoreError("only a run in a sandbox verifies; install one")
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        try:
            predict(board, protocol, name, kind, workers, folder, progress)
            again = graded(board, protocol, folder)
        except (SandboxError, DataError) as error:
            if status != facts.RANKED:  # a verified row is not taken down by what may be the fault of a machine
                place.record("disputed", " ".join(str(error).split()))
            raise
        if again.submission != stored.submission:
            raise StoreError(f"submission {name} changed while it ran; verify it again")
        difference = again.ri - stored.ri
        note = f"run again: RI {again.ri:.4f}, {difference:+.4f} from the stored one, tolerance {protocol.tolerance}"
        if abs(difference) > protocol.tolerance:
            place.record("disputed", note, again.ri)
            return "disputed", difference
        if status == facts.RANKED:
            place.record("verified", note, again.ri)
        else:
            predictions, scores = ((folder / file).read_bytes() for file in (records.PREDICTIONS, records.SCORES))
            place.write(again, predictions, scores, note, "verified")
    return "verified", difference


def graded(board: Board, protocol: Protocol, folder: Path) -> Result:
    """Score predictions in a process of its own that never saw submitted code; the scores lie beside them then.

    Raises:
        PredictionError: the predictions are not as they have to be.
        StoreError: they could not be scored for another reason, which is no fault of theirs.
    """
    command = [sys.executable, "-m", "sharedlabel.leaderboard", "--root", str(board.root.resolve())]
    command += ["score", "--predictions", str(folder), "--protocol", protocol.id, "--out", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if (folder / REFUSED).exists():
        raise score.PredictionError((folder / REFUSED).read_text(encoding="utf-8"))
    if done.returncode == EXIT_USER:
        raise StoreError(done.stderr.strip().removeprefix("error: "))
    if done.returncode != 0:
        raise RuntimeError(f"scoring ended with code {done.returncode}: {done.stderr}")
    return Result.model_validate_json((folder / records.RESULT).read_text(encoding="utf-8"))
