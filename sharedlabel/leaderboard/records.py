"""What a leaderboard keeps of every entry: predictions, scores, result, and a history that only grows.

`results/<protocol>/<name>/` holds `predictions.safetensors`, `scores.safetensors`, `result.json` and `history.jsonl`.
`result.json` names the sha256 of the submission, the protocol and the files; every line of the history names the sha256
of the result it speaks of and of the line before it. What was edited by hand no longer fits, and is refused.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeAlias

import safetensors.torch
from pydantic import ValidationError
from torch import Tensor

from sharedlabel.errors import StoreError
from sharedlabel.leaderboard.protocol import Name, Sha256, Strict, explain, load, pinned

Status: TypeAlias = Literal["self-reported", "verified", "disputed", "withdrawn"]
RANKED: Status = "verified"
PREDICTIONS, SCORES, RESULT, HISTORY = "predictions.safetensors", "scores.safetensors", "result.json", "history.jsonl"
_FIRST = "0" * 64
# What may follow what; the first line of a history is always self-reported.
_NEXT: dict[Status, tuple[Status, ...]] = {
    "self-reported": ("self-reported", "verified", "disputed", "withdrawn"),
    "verified": ("verified", "disputed", "withdrawn"),
    "disputed": ("verified", "withdrawn", "disputed"),
    "withdrawn": ("self-reported",),
}


class Cost(Strict):
    """What an aggregator costs on one network, counted by the harness.

    Attributes:
        macs: of one tuple, by n.
        parameters: trained or not.
    """

    macs: dict[int, int]
    parameters: int


class Cell(Strict):
    """One network, seed and n on test, as `results.Row` has it."""

    network: str
    ratio: float
    seed: int
    n: int
    ri: float
    ri_low: float
    ri_high: float
    n_accuracy: float
    n_accuracy_low: float
    n_accuracy_high: float
    temperature: float
    ri_raw: float


class Result(Strict):
    """What a submission reached on a protocol.

    Attributes:
        protocol: its id.
        name: of the submission.
        submission: sha256 of its files.
        features: sha256 over the files of the protocol.
        predictions: sha256.
        scores: sha256.
        ri: primary score.
        cost: of the aggregator.
        cells: rows.
        seconds: of training and prediction by network and seed, as measured from outside.
        sandbox: where it ran; `trusted` is none.
        secret: of the run, published after it.
        provenance: commit, versions, device.
    """

    protocol: Name
    name: Name
    submission: Sha256
    features: Sha256
    predictions: Sha256
    scores: Sha256
    ri: float
    cost: Cost
    cells: tuple[Cell, ...]
    seconds: dict[str, tuple[float, float]]
    sandbox: str
    secret: int
    provenance: dict[str, str | int]


class Event(Strict):
    """A line of a history.

    Attributes:
        time: UTC, to the second.
        status: from now on.
        note: why, for people.
        ri: primary score of the run that led to this; None where nothing was run.
        result: sha256 of `result.json` at that time.
        previous: sha256 of the line before, zeros for the first.
    """

    time: str
    status: Status
    note: str
    ri: float | None
    result: Sha256
    previous: Sha256


class Entry:
    """The folder of a submission under a protocol.

    Args:
        folder: `results/<protocol>/<name>`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def exists(self) -> bool:
        """Whether there is a result."""
        return (self.folder / RESULT).is_file()

    def write(
        self, result: Result, predictions: bytes, scores: bytes, note: str, status: Status = "self-reported"
    ) -> None:
        """Store a result, whole or not at all, and begin or continue its history.

        Raises:
            StoreError: the status cannot follow; a verified result is not replaced by a self-reported one, unless it is
                withdrawn first.
        """
        history = self.history() if self.exists else ()
        if status not in (_NEXT[history[-1].status] if history else ("self-reported",)):
            stands = history[-1].status if history else "missing"
            raise StoreError(
                f"{self.folder} holds a result that is {stands}; submit a changed aggregator under another name, or "
                "withdraw this one first"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, content in ((PREDICTIONS, predictions), (SCORES, scores), (RESULT, to_json(result).encode())):
            partial = self.folder / f".{name}"
            partial.write_bytes(content)
            partial.replace(self.folder / name)
        self._append(status, note, result.ri)

    def record(self, status: Status, note: str, ri: float | None = None) -> None:
        """Add a line to the history.

        Raises:
            StoreError: the status cannot follow the one before.
        """
        before = self.history()[-1].status
        if status not in _NEXT[before]:
            raise StoreError(
                f"expected one of {', '.join(_NEXT[before])} after {before} for {self.folder.name}, got {status}"
            )
        self._append(status, note, ri)

    def _append(self, status: Status, note: str, ri: float | None) -> None:
        path = self.folder / HISTORY
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        event = Event(
            time=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            status=status,
            note=note,
            ri=ri,
            result=digest((self.folder / RESULT).read_bytes()),
            previous=digest(lines[-1].encode()) if lines else _FIRST,
        )
        with path.open("a", encoding="utf-8") as stream:
            stream.write(event.model_dump_json() + "\n")

    def result(self) -> Result:
        """Read the result; every checksum has to hold.

        Raises:
            StoreError: a file is missing, was edited, or does not fit the others.
        """
        text = self._text(RESULT)
        try:
            found = Result.model_validate_json(text)
        except ValidationError as error:
            raise StoreError(
                f"{self.folder / RESULT}: {explain(error)}; it was altered: run and score again"
            ) from error
        last = self.history()[-1]
        if last.result != digest(text.encode()):
            raise StoreError(f"{self.folder / RESULT} is not the result that its history speaks of; it was altered")
        return found

    def scores(self, result: Result) -> dict[str, Tensor]:
        """Read the scores of every tuple.

        Raises:
            StoreError: the file is missing or was altered.
        """
        return load(self.folder / SCORES, result.scores)

    def predictions(self, result: Result) -> bytes:
        """Read the file of predictions.

        Raises:
            StoreError: the file is missing or was altered.
        """
        return pinned(self.folder / PREDICTIONS, result.predictions)

    def history(self) -> tuple[Event, ...]:
        """Read the history.

        Raises:
            StoreError: there is none, or a line was altered, removed or put in.
        """
        previous, events = _FIRST, []
        for number, line in enumerate(self._text(HISTORY).splitlines(), start=1):
            try:
                event = Event.model_validate_json(line)
            except ValidationError as error:
                raise StoreError(f"{self.folder / HISTORY}, line {number}: {explain(error)}; it was altered") from error
            if event.previous != previous:
                raise StoreError(
                    f"{self.folder / HISTORY}, line {number} does not follow the one before; it was altered"
                )
            previous = digest(line.encode())
            events.append(event)
        if not events:
            raise StoreError(f"expected a history in {self.folder / HISTORY}, got an empty file; it was altered")
        return tuple(events)

    def _text(self, name: str) -> str:
        try:
            return (self.folder / name).read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise StoreError(f"expected the file {self.folder / name}, found none; run and score again") from error


def to_json(result: Result) -> str:
    """Write a result, keys in order, a line for each."""
    return json.dumps(result.model_dump(mode="json"), indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def serialized(tensors: dict[str, Tensor]) -> tuple[bytes, str]:
    """Return the content of a file of tensors, and its sha256."""
    content = safetensors.torch.save({name: tensor.contiguous() for name, tensor in tensors.items()})
    return content, digest(content)


def digest_of(parts: list[Any]) -> str:
    """Return the sha256 of a list of checksums."""
    return digest("\n".join(map(str, parts)).encode())


def digest(content: bytes) -> str:
    """Return the sha256 of some bytes."""
    return hashlib.sha256(content).hexdigest()
