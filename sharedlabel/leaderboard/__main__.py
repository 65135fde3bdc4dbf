"""`sharedlabel leaderboard`: new, check, run, score, verify, withdraw, rescore, site and freeze."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from sharedlabel.errors import guarded
from sharedlabel.leaderboard.parser import parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 0, or 2 for what the user can fix."""
    return guarded(lambda: _main(arguments), "what was under way is lost; repeat the command")


def _main(arguments: Sequence[str] | None) -> None:
    if arguments is None:
        arguments = sys.argv[1:]
    options = parser().parse_args(arguments)
    options.function(options, arguments)


if __name__ == "__main__":
    sys.exit(main())
