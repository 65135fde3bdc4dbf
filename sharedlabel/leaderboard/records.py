"""What a leaderboard keeps of every entry: predictions, scores, result, and a history that only grows.

`results/<protocol>/<name>/` holds `predictions.safetensors`, `scores.safetensors`, `result.json` and `history.jsonl`.
`result.json` names the sha256 of the submission, the protocol and the files; every line of the history names the sha256
of the result it speaks of and of the line before it. What was edited by hand no longer fits, and is refused.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import safetensors.torch
from pydantic import AfterValidator, Field, PositiveInt, ValidationError
from torch import Tensor

from sharedlabel import leases, together
from sharedlabel.errors import StoreError, printable
from sharedlabel.leaderboard.protocol import Network, Protocol, load, pinned
from sharedlabel.leaderboard.sandbox import Kind
from sharedlabel.leaderboard.schema import Name, Sha256, Strict, explain

Status: TypeAlias = Literal["self-reported", "verified", "disputed", "withdrawn"]
RANKED: Status = "verified"
BY_AUTHOR = "run and scored by its author"  # the note of every self-reported line
PREDICTIONS, SCORES, RESULT, HISTORY = "predictions.safetensors", "scores.safetensors", "result.json", "history.jsonl"
FILES = (PREDICTIONS, SCORES, RESULT, HISTORY)
_FIRST = "0" * 64
NOTE = 500  # characters of a note
TIME = "%Y-%m-%dT%H:%M:%SZ"  # UTC
Count = Annotated[int, Field(ge=0, lt=10**15)]
# What may follow what: a status may always stay as it is. The first line of a history is always self-reported.
_NEXT: dict[Status, tuple[Status, ...]] = {
    "self-reported": ("self-reported", "verified", "disputed", "withdrawn"),
    "verified": ("verified", "disputed", "withdrawn"),
    "disputed": ("verified", "withdrawn", "disputed"),
    "withdrawn": ("self-reported", "withdrawn"),
}


def _one_line(text: str) -> str:
    if not text.isprintable():
        raise ValueError("expected one line of printable text")
    return text


def _moment(text: str) -> str:
    datetime.strptime(text, TIME)
    return text


_PRINTED = AfterValidator(_one_line)
Seconds = Annotated[float, Field(ge=0, le=1e7)]


class Cost(Strict):
    """What an aggregator costs on one network, counted by the harness.

    Attributes:
        macs: of one tuple, by n.
        parameters: trained or not.
    """

    macs: dict[PositiveInt, Count]
    parameters: Count


class Cell(Strict):
    """One network, seed and n on test, as `records.Row` has it."""

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


class Facts(Strict):
    """What is known of predictions before they are scored.

    Attributes:
        protocol: its id.
        name: of the submission.
        submission: sha256 of its files.
        features: sha256 over the files of the protocol.
        predictions: sha256.
        cost: of the aggregator.
        seconds: of training and prediction by network and seed, on the wall, as measured from outside.
        sandbox: where it ran; `trusted` is none.
        secret: of the run, published after it.
        provenance: commit, versions, device.
    """

    protocol: Name
    name: Name
    submission: Sha256
    features: Sha256
    predictions: Sha256
    cost: Cost
    seconds: dict[str, tuple[Seconds, Seconds]]
    sandbox: Kind
    secret: Annotated[int, Field(ge=0, lt=2**63)]
    provenance: Annotated[
        dict[Annotated[str, Field(pattern="^[a-z-]{1,40}$")], Annotated[str, Field(max_length=200), _PRINTED] | Count],
        Field(max_length=40),
    ]


class Result(Facts):
    """What a submission reached on a protocol.

    Attributes:
        scores: sha256.
        ri: primary score.
        cells: rows.
    """

    scores: Sha256
    ri: float
    cells: tuple[Cell, ...]


class Event(Strict):
    """A line of a history.

    Attributes:
        time: UTC, to the second.
        status: from now on.
        note: why, for people.
        ri: primary score of the run or the scoring that led to this; None where there was neither.
        result: sha256 of `result.json` at that time.
        previous: sha256 of the line before, zeros for the first.
    """

    time: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$"), AfterValidator(_moment)]
    status: Status
    note: Annotated[str, Field(max_length=NOTE + 4), _PRINTED]
    ri: float | None
    result: Sha256
    previous: Sha256


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
            found = Result.model_validate_json(text)
        except ValidationError as error:
            raise StoreError(
                f"{self.folder / RESULT}: {explain(error)}; it was altered: run and score again"
            ) from error
        last = self.history()[-1]
        if last.result != digest(text.encode()):
            raise StoreError(f"{self.folder / RESULT} is not the result that its history speaks of; it was altered")
        self._check(found)
        return found

    def _check(self, found: Result) -> None:
        """Refuse a result of another submission or protocol, or of other networks, seeds or n."""
        if (found.name, found.protocol, found.features) != (self.name, self.protocol.id, self.protocol.files):
            raise StoreError(f"{self.folder / RESULT} is of {found.name} on {found.protocol}; it was altered")
        expected = [(network.name, seed, n) for network, seed, n in cells_of(self.protocol)]
        if [(cell.network, cell.seed, cell.n) for cell in found.cells] != expected:
            raise StoreError(f"{self.folder / RESULT} has other cells than {self.protocol.id}; it was altered")
        if set(found.seconds) != {f"{network.name}.{seed}" for network, seed, _ in cells_of(self.protocol)}:
            raise StoreError(
                f"{self.folder / RESULT} has times of other processes than {self.protocol.id}; it was altered"
            )
        if tuple(sorted(found.cost.macs)) != self.protocol.n:
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


def replace_file(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all."""
    # Beside its folder: what a kill leaves is then no file among those of an entry.
    leases.sweep(path.parent.parent, leases.MARK)
    with leases.claimed(path.parent.parent, leases.MARK) as beside:
        partial = beside / path.name
        partial.write_bytes(content)
        together.flush(partial)
        partial.replace(path)


def replace_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Put a folder with these files in the place of another, whole or not at all.

    Args:
        folder: may be there or not.
        files: content by place in it.
    """

    def fill(made: Path) -> None:
        for name, content in files.items():
            (made / name).parent.mkdir(parents=True, exist_ok=True)
            (made / name).write_bytes(content)

    together.replace_folder(folder, fill)


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


def cells_of(protocol: Protocol) -> list[tuple[Network, int, int]]:
    """List the networks, seeds and n that results have cells for, in their order."""
    return list(itertools.product(protocol.networks, protocol.seeds, protocol.n))


def to_json(result: Result) -> str:
    """Write a result, keys in order, a line for each."""
    return json.dumps(result.model_dump(mode="json"), indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def serialized(tensors: dict[str, Tensor]) -> tuple[bytes, str]:
    """Return the content of a file of tensors, and its sha256."""
    content = safetensors.torch.save({name: tensor.contiguous() for name, tensor in tensors.items()})
    return content, digest(content)


def digest(content: bytes) -> str:
    """Return the sha256 of some bytes."""
    return hashlib.sha256(content).hexdigest()
