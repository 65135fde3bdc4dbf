"""Score the stored predictions of a board again, once what a posterior scores has changed; no submission is run."""

from __future__ import annotations

from collections.abc import Callable

from sharedlabel.errors import DataError
from sharedlabel.leaderboard.board import commands, standings, writing
from sharedlabel.leaderboard.board.facts import Result
from sharedlabel.leaderboard.board.standings import Listed
from sharedlabel.leaderboard.folder import Board
from sharedlabel.leaderboard.protocol import METRICS, Protocol
from sharedlabel.leaderboard.schema import to_toml


def rescore(board: Board, progress: Callable[[str], None]) -> tuple[str, ...]:
    """Bring every protocol of an older version of the metrics, and all its entries, to the version of today.

    An entry keeps its predictions, what is known of them and its status; result and scores are replaced, and a line of
    the history says so. All entries of a protocol are read and scored before the first is written, and the version of
    the protocol is written last: after a kill the command is repeated, and leaves alone what it had written.

    Args:
        board: the leaderboard.
        progress: told a line for every entry and every protocol.

    Returns:
        The protocols that were brought up to date.

    Raises:
        SharedLabelError: a protocol is newer than this package, an entry was altered, or its predictions are no
            posteriors; its protocol is then left as it was.
    """
    stored = [board.protocol(name, oldest=1) for name in board.present()]
    older = [protocol for protocol in stored if protocol.metrics != METRICS]
    for protocol in older:
        again = [(one, *_scored(board, protocol, one.result)) for one in standings.entries(board, protocol)]
        for one, result, scores in again:
            if result != one.result:  # else an earlier run of this command wrote it
                _replace(board, protocol, one, result, scores)
            difference = result.ri - one.result.ri
            progress(f"{protocol.id}/{result.name}: RI {result.ri:.4f}, {difference:+.4f}, {one.history[-1].status}")
        dated = protocol.model_dump() | {"metrics": METRICS}
        writing.replace_file(board.path(protocol.id), to_toml(dated).encode())
        progress(f"{protocol.id}: {len(again)} entries, now of version {METRICS} of the metrics")
    return tuple(protocol.id for protocol in older)


def _scored(board: Board, protocol: Protocol, stored: Result) -> tuple[Result, bytes]:
    predictions = commands.entry(board, protocol, stored.name).predictions(stored)
    try:
        return commands.scored(board, protocol, stored, predictions)
    except DataError as error:
        raise DataError(f"{protocol.id}/{stored.name}: {error}") from error


def _replace(board: Board, protocol: Protocol, one: Listed, result: Result, scores: bytes) -> None:
    place = commands.entry(board, protocol, result.name)
    score = f"RI {result.ri:.4f}, {result.ri - one.result.ri:+.4f} from the score before"
    note = f"scored again by version {METRICS} of the metrics: {score}"
    place.write(result, place.predictions(result), scores, note, one.history[-1].status)
