"""The folder of an entry: predictions, scores, result, and a history that only grows.

`results/<protocol>/<name>/` holds `predictions.safetensors`, `scores.safetensors`, `result.json` and `history.jsonl`.
`result.json` names the sha256 of the submission, the protocol and the files; every line of the history names the sha256
of the result it speaks of and of the line before it. What was edited by hand no longer fits, and is refused.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError
from torch import Tensor

from sharedlabel.errors import StoreError, printable
from sharedlabel.leaderboard.board.facts import NOTE, TIME, Event, Result, Status, cells_of, to_json
from sharedlabel.leaderboard.board.writing import digest, replace_file, replace_folder
from sharedlabel.leaderboard.folder import load, pinned
from sharedlabel.leaderboard.protocol import Protocol
from sharedlabel.leaderboard.schema import explain

BY_AUTHOR = "run and scored by its author"  # the note of every self-reported line
PREDICTIONS, SCORES, RESULT, HISTORY = "predictions.safetensors", "scores.safetensors", "result.json", "history.jsonl"
FILES = (PREDICTIONS, SCORES, RESULT, HISTORY)
_FIRST = "0" * 64
# What may follow what: a status may always stay as it is. The first line of a history is always self-reported.
_NEXT: dict[Status, tuple[Status, ...]] = {
    "self-reported": ("self-reported", "verified", "disputed", "withdrawn"),
    "verified": ("verified", "disputed", "withdrawn"),
    "disputed": ("verified", "withdrawn", "disputed"),
    "withdrawn": ("self-reported", "withdrawn"),
}


class Entry:
    """The folder of a submission under a protocol.

    Args:
        root: folder of the leaderboard.
        protocol: that it was run on.
        name: of the submission.
    """

    def __init__(self, root: Path, protocol: Protocol, name: str) -> None:
        self.protocol, self.name = protocol, name
        self.folder = root / "results" / protocol.id / name

    @property
    def exists(self) -> bool:
        """Whether there is anything."""
        return self.folder.is_symlink() or self.folder.exists()

    def write(
        self, result: Result, predictions: bytes, scores: bytes, note: str, status: Status = "self-reported"
    ) -> None:
        """Store a result, whole or not at all, and begin or continue its history.

        Raises:
            StoreError: the status cannot follow; a verified result is not replaced by a self-reported one, unless it is
                withdrawn first.
        """
        lines = self.lines() if self.exists else []
        before = self.history()[-1].status if lines else None
        if status not in (_NEXT[before] if before else ("self-reported",)):
            raise StoreError(
                f"{self.folder} holds a result that is {before or 'missing'}; submit a changed aggregator under "
                "another name, or withdraw this one first"
            )
        content = to_json(result).encode()
        lines.append(_line(status, note, result.ri, content, lines))
        replace_folder(self.folder, dict(zip(FILES, (predictions, scores, content, _joined(lines)), strict=True)))

    def record(self, status: Status, note: str, ri: float | None = None) -> None:
        """Add a line to the history.

        Raises:
            StoreError: the status cannot follow the one before, or the result was altered.
        """
        self.result()
        before = self.history()[-1].status
        if status not in _NEXT[before]:
            raise StoreError(f"expected one of {', '.join(_NEXT[before])} after {before} for {self.name}, got {status}")
        lines = self.lines()
        lines.append(_line(status, note, ri, self._text(RESULT).encode(), lines))
        replace_file(self.folder / HISTORY, _joined(lines))

    def result(self) -> Result:
        """Read the result; every checksum has to hold.

        Raises:
            StoreError: a file is missing, was edited, or does not fit the others or the folder it lies in.
        """
        text = self._text(RESULT)
        try:
            result = Result.model_validate_json(text)
        except ValidationError as error:
            raise StoreError(
                f"{self.folder / RESULT}: {explain(error)}; it was altered: run and score again"
            ) from error
        last = self.history()[-1]
        if last.result != digest(text.encode()):
            raise StoreError(f"{self.folder / RESULT} is not the result that its history speaks of; it was altered")
        self._check(result)
        return result

    def _check(self, result: Result) -> None:
        """Refuse a result of another submission or protocol, or of other networks, seeds or n."""
        if (result.name, result.protocol, result.features) != (self.name, self.protocol.id, self.protocol.files):
            raise StoreError(f"{self.folder / RESULT} is of {result.name} on {result.protocol}; it was altered")
        expected = [(network.name, seed, n) for network, seed, n in cells_of(self.protocol)]
        if [(cell.network, cell.seed, cell.n) for cell in result.cells] != expected:
            raise StoreError(f"{self.folder / RESULT} has other cells than {self.protocol.id}; it was altered")
        if set(result.seconds) != {f"{network.name}.{seed}" for network, seed, _ in cells_of(self.protocol)}:
            raise StoreError(
                f"{self.folder / RESULT} has times of other processes than {self.protocol.id}; it was altered"
            )
        if tuple(sorted(result.cost.macs)) != self.protocol.n:
            raise StoreError(f"{self.folder / RESULT} counts costs for other n than {self.protocol.id}; it was altered")

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
        previous, events = _FIRST, list[Event]()
        for number, line in enumerate(self.lines(), start=1):
            where = f"{self.folder / HISTORY}, line {number}"
            try:
                event = Event.model_validate_json(line)
            except ValidationError as error:
                raise StoreError(f"{where}: {explain(error)}; it was altered") from error
            if event.previous != previous:
                raise StoreError(f"{where} does not follow the one before; it was altered")
            if event.status not in (_NEXT[events[-1].status] if events else ("self-reported",)):
                raise StoreError(f"{where}: {event.status} cannot stand there; it was altered")
            previous = digest(line.encode())
            events.append(event)
        if not events:
            raise StoreError(f"expected a history in {self.folder / HISTORY}, got an empty file; it was altered")
        return tuple(events)

    def lines(self) -> list[str]:
        """Return the lines of the history as they are.

        Raises:
            StoreError: there is none.
        """
        text = self._text(HISTORY)
        if text and not text.endswith("\n"):
            raise StoreError(f"expected {self.folder / HISTORY} to end its last line, got none; it was altered")
        return text.split("\n")[:-1]

    def _text(self, name: str) -> str:
        path = self.folder / name
        if self.folder.is_symlink() or path.is_symlink():
            raise StoreError(f"expected a plain file at {path}, got a link; put the file itself there")
        try:
            return path.read_bytes().decode()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise StoreError(f"expected the file {path}, found none; run and score again") from error
        except UnicodeDecodeError as error:
            raise StoreError(f"expected text in UTF-8 in {path}, got other bytes; it was altered") from error


def _joined(lines: list[str]) -> bytes:
    return ("\n".join(lines) + "\n").encode()


def _line(status: Status, note: str, ri: float | None, result: bytes, lines: list[str]) -> str:
    """Return a line of a history that follows others."""
    event = Event(
        time=datetime.now(UTC).strftime(TIME),
        status=status,
        note=printable(note, NOTE)[: NOTE + 4],
        ri=ri,
        result=digest(result),
        previous=digest(lines[-1].encode()) if lines else _FIRST,
    )
    return event.model_dump_json()
