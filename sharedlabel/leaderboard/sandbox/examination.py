"""Try the contract of a submission in the sandbox, and count what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from sharedlabel.leaderboard.cost import Cost
from sharedlabel.leaderboard.protocol import Protocol
from sharedlabel.leaderboard.sandbox.limits import Kind
from sharedlabel.leaderboard.sandbox.messages import mounted, packed, read
from sharedlabel.leaderboard.sandbox.process import Process
from sharedlabel.leaderboard.schema import Strict
from sharedlabel.leaderboard.submission.reading import Submission


class Findings(Strict):
    """What trying the contract gave.

    Attributes:
        problems: a line for each property that does not hold.
        costs: for each shape, if there is no problem.
    """

    problems: Annotated[tuple[Annotated[str, Field(max_length=1000)], ...], Field(max_length=100)]
    costs: tuple[Cost, ...]


def examine(submission: Submission, protocols: Sequence[tuple[Protocol, int]], kind: Kind) -> Findings:
    """Try the contract in the sandbox, and count costs.

    Args:
        submission: what was read.
        protocols: with the width of their embeddings.
        kind: of the sandbox.

    Returns:
        Problems, and costs for each protocol.

    Raises:
        SandboxError: it broke a limit, or answered what are no findings.
    """
    shapes = [(width, protocol.source.classes, list(protocol.n)) for protocol, width in protocols]
    with mounted(submission) as folder, Process(kind, folder, protocols[0][0].limits) as process:
        process.send(packed({"task": "check", "shapes": shapes}, {}))
        findings = read(process, Findings)
        process.finish()
    return findings
