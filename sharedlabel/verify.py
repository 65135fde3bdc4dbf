"""`sharedlabel verify [STORE]`: read every byte of a store and say what is damaged."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from sharedlabel.config.arguments import Parser
from sharedlabel.errors import StoreError, guarded, printable

_DAMAGED = 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 0, 1 if something is damaged, or 2 for what the user can fix."""
    return guarded(lambda: _main(arguments), "what was printed holds; run the same command again for the rest")


def parser() -> Parser:
    """Return the parser of the command line."""
    built = Parser(
        "sharedlabel verify",
        "Read every byte of the artifacts in a store, compare it with the checksums, and say which are damaged. Runs "
        "themselves do so where sizes or times of files have changed. Exit code 1 if something is damaged.",
    )
    built.add_argument(
        "store", nargs="?", default="runs/store", help="folder of the store, or its URL (default: %(default)s)"
    )
    built.add_argument(
        "--remove", action="store_true", help="remove what is damaged, so that the next run computes it again"
    )
    return built


def _main(arguments: Sequence[str] | None) -> int:
    options = parser().parse_args(arguments)
    # torch takes seconds to import: help and mistakes should not wait for it.
    from sharedlabel.store import opened

    store, count, damaged = opened(options.store, readonly=not options.remove, sweep=False), 0, 0
    if not store.exists():
        raise StoreError(f"expected a store at {store.where}, got none; give its folder or URL")
    for stage, key, problem in store.verify():
        count += 1
        if problem:
            damaged += 1
            print(printable(f"{stage}/{key}: {problem}"), flush=True)
            if options.remove:
                store.remove(stage, key)
    told = " and removed" if options.remove and damaged else ""
    print(printable(f"{store.where}: {count} artifacts read, {damaged} damaged{told}"))
    return _DAMAGED if damaged else 0


if __name__ == "__main__":
    sys.exit(main())
