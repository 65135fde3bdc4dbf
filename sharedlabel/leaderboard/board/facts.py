"""What is known of predictions, results and changes of status: the formats of `result.json` and `history.jsonl`."""

from __future__ import annotations

import itertools
import json
from datetime import datetime
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, Field

from sharedlabel.leaderboard.cost import Cost, Whole
from sharedlabel.leaderboard.protocol import Network, Protocol
from sharedlabel.leaderboard.sandbox.limits import Kind
from sharedlabel.leaderboard.schema import Name, Sha256, Strict

Status: TypeAlias = Literal["self-reported", "verified", "disputed", "withdrawn"]
RANKED: Status = "verified"
NOTE = 500  # characters of a note
TIME = "%Y-%m-%dT%H:%M:%SZ"  # UTC


def _one_line(text: str) -> str:
    if not text.isprintable():
        raise ValueError("expected one line of printable text")
    return text


def _moment(text: str) -> str:
    datetime.strptime(text, TIME)
    return text


_PRINTED = AfterValidator(_one_line)
Seconds = Annotated[float, Field(ge=0, le=1e7)]


class CellScores(Strict):
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
        dict[Annotated[str, Field(pattern="^[a-z-]{1,40}$")], Annotated[str, Field(max_length=200), _PRINTED] | Whole],
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
    cells: tuple[CellScores, ...]


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


def cells_of(protocol: Protocol) -> list[tuple[Network, int, int]]:
    """List the networks, seeds and n that results have cells for, in their order."""
    return list(itertools.product(protocol.networks, protocol.seeds, protocol.n))


def to_json(result: Result) -> str:
    """Write a result, keys in order, a line for each."""
    return json.dumps(result.model_dump(mode="json"), indent=1, ensure_ascii=False, sort_keys=True) + "\n"
