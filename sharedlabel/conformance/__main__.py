"""`sharedlabel check FILE`: try what a plugin promises, and print a line for every promise.

$ sharedlabel check ./my_pool.py
my_pool, an aggregator
  kept       The posterior is normalised after every prefix, in both precisions
  broken     Later instances change nothing before them, and something after: Tensor-likes are not close!
  ...
"""

from __future__ import annotations

import collections
import sys
from collections.abc import Sequence

from sharedlabel import conformance
from sharedlabel.config.arguments import Parser
from sharedlabel.errors import guarded, printable

BROKEN = 1
_WORDS = {"data": "a data set", "backbones": "a backbone", "pruners": "a pruner", "aggregators": "an aggregator"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0 if all promises are kept, 1 if one is broken or none could be tried, 2 for what is no plugin.
    """
    return guarded(lambda: _main(arguments))


def parser() -> Parser:
    """Return what the command takes."""
    made = Parser(
        "sharedlabel check",
        "Try what a plugin promises, and print a line for every promise. It is code, and runs with your rights.",
    )
    made.add_argument(
        "plugin",
        metavar="FILE",
        help="./file.py, package.module or an installed entry point; or with options, as in a YAML: "
        "'{name: ./my_data.py, path: x.npz}'",
    )
    return made


def _main(arguments: Sequence[str] | None) -> int:
    plugin = conformance.named(parser().parse_args(arguments).plugin)
    print(printable(f"{plugin.label}, {_WORDS[plugin.kind]}"))
    counts = collections.Counter[str]()
    for outcome in conformance.examine(plugin):
        counts[outcome.state] += 1
        reason = f": {outcome.reason}" if outcome.reason else ""
        print(f"  {outcome.state:9}  {printable(outcome.promise + reason)}", flush=True)
    print(", ".join(f"{counts[state]} {state}" for state in ("kept", "broken", "not tried")))
    return 0 if counts["kept"] and not counts["broken"] else BROKEN


if __name__ == "__main__":
    sys.exit(main())
