"""The commands of the leaderboard as they are typed: each does its work, prints what came of it, and what is next."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from sharedlabel.errors import ConfigError, DataError
from sharedlabel.leaderboard.sandbox.limits import Kind

ROOT = Path("leaderboard")


def _kind(options: argparse.Namespace) -> Kind:
    from sharedlabel.leaderboard.sandbox import kinds

    return kinds.choose("trusted" if options.trust else options.sandbox)


def _predictions(options: argparse.Namespace) -> Path:
    usual = Path("runs") / "leaderboard" / options.protocol / options.name
    return usual if options.predictions is None else Path(options.predictions)


def _next(options: argparse.Namespace, *command: str) -> str:
    """Return a command line for the same board, to be copied."""
    root = ["--root", str(options.root)] if options.root != ROOT else []
    return shlex.join(["sharedlabel", "leaderboard", *root, *command])


def new(options: argparse.Namespace, _: Sequence[str]) -> None:
    """Make the folder of a submission that works."""
    from sharedlabel.leaderboard.folder import Board
    from sharedlabel.leaderboard.submission import scaffold

    folder = scaffold.new(Board(options.root), options.name)
    print(f"made {folder}; next: change aggregator.py, then {_next(options, 'check', options.name)}")


def check(options: argparse.Namespace, _: Sequence[str]) -> None:
    """Check a submission, or all that differs from a commit."""
    from sharedlabel.leaderboard.board import changes, commands
    from sharedlabel.leaderboard.folder import Board
    from sharedlabel.leaderboard.submission import reading, scaffold

    board = Board(options.root)
    if bool(options.name) == bool(options.changed_since):
        raise ConfigError("expected the name of a submission, or --changed-since COMMIT")
    kind = _kind(options)
    if options.changed_since:
        changes.examine(board, options.changed_since, kind, print)
        return
    submitted = reading.named(board.root, options.name)
    for protocol, cost in commands.check(submitted, board, kind).items():
        shown = ", ".join(f"n = {n}: {macs:,}" for n, macs in cost.macs.items())
        print(f"{protocol}: {cost.parameters:,} parameters; MACs of a tuple: {shown}")
    print(f"{options.name} keeps the contract (tried in {kind})")
    for left in scaffold.template_text(submitted):
        print(f"still to write: {left}")


def run(options: argparse.Namespace, _: Sequence[str]) -> None:
    """Train and ask a submission, and write what it answered."""
    from sharedlabel.leaderboard.board import commands
    from sharedlabel.leaderboard.folder import Board

    board = Board(options.root)
    protocol, kind, out = board.protocol(options.protocol), _kind(options), _predictions(options)
    commands.predict(board, protocol, options.name, kind, options.workers, out, print)
    given = ["--predictions", str(out)] if options.predictions else []
    print(f"wrote {out}; next: {_next(options, 'score', options.name, '--protocol', protocol.id, *given)}")


def score(options: argparse.Namespace, _: Sequence[str]) -> None:
    """Join predictions with the labels, and list the result or write it into a folder."""
    from sharedlabel.files import together
    from sharedlabel.leaderboard.board import commands, facts, records
    from sharedlabel.leaderboard.board.score import PredictionError
    from sharedlabel.leaderboard.folder import Board
    from sharedlabel.leaderboard.submission import reading

    if not options.name and not (options.predictions and options.out):
        raise ConfigError("expected the name of a submission, or --predictions FOLDER with --out FOLDER")
    if options.name:
        reading.check_name(options.name)
    board, folder = Board(options.root), _predictions(options)
    protocol = board.protocol(options.protocol)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / commands.REFUSED).unlink(missing_ok=True)
        try:
            graded, *_files, scores = commands.grade(board, protocol, folder)
        except PredictionError as error:
            (options.out / commands.REFUSED).write_text(str(error), encoding="utf-8")
            raise
        together.replace(options.out, {records.SCORES: scores, records.RESULT: facts.to_json(graded)})
        print(f"{graded.name} on {protocol.id}: mean RI {graded.ri:.4f}; wrote {options.out}")
        return
    result = commands.store(board, protocol, options.name, folder)
    print(f"{result.name} on {protocol.id}: mean RI {result.ri:.4f}, self-reported; only a verified row ranks")
    folders = " and ".join(str(options.root / part / result.name) for part in ("submissions", f"results/{protocol.id}"))
    verify = _next(options, "verify", result.name, "--protocol", protocol.id)
    print(f"next: a pull request with {folders}; maintainers: {verify}")


def verify(options: argparse.Namespace, _: Sequence[str]) -> None:
    """Run an entry again, and say whether it reached what its author reports."""
    from sharedlabel.leaderboard.board import commands
    from sharedlabel.leaderboard.folder import Board

    board = Board(options.root)
    protocol, kind = board.protocol(options.protocol), _kind(options)
    status, apart = commands.verify(board, protocol, options.name, kind, options.workers, print)
    print(f"{options.name} on {protocol.id}: {status}, mean RI {apart:+.4f} from the stored one")
    if status != "verified":
        raise DataError(f"{options.name}: the difference is above the tolerance of {protocol.tolerance}")


def withdraw(options: argparse.Namespace, _: Sequence[str]) -> None:
    """Take an entry out of the ranking."""
    from sharedlabel.leaderboard.board import commands
    from sharedlabel.leaderboard.folder import Board

    if not options.note.strip():
        raise ConfigError("--note: expected some text, got none; say why")
    board = Board(options.root)
    protocol = board.protocol(options.protocol)
    commands.entry(board, protocol, options.name).record("withdrawn", options.note)
    print(f"{options.name} on {protocol.id}: withdrawn")


def rescore(options: argparse.Namespace, _: Sequence[str]) -> None:
    """Score all stored predictions again, once the metrics have changed."""
    from sharedlabel.leaderboard.board.rescore import rescore
    from sharedlabel.leaderboard.folder import Board
    from sharedlabel.leaderboard.protocol import METRICS

    brought = rescore(Board(options.root), print)
    if brought:
        print(f"next: {_next(options, 'site')}, and commit protocols, results and README together")
    else:
        print(f"nothing to score again: every protocol is of version {METRICS} of the metrics")


def site(options: argparse.Namespace, _: Sequence[str]) -> None:
    """Write the pages and the tables of the README."""
    from sharedlabel.leaderboard.board import site
    from sharedlabel.leaderboard.folder import Board

    out = options.out or options.root / "site"
    count = site.build(Board(options.root), out)
    print(f"wrote {out / 'index.html'}: {count} entries")


def freeze(options: argparse.Namespace, arguments: Sequence[str]) -> None:
    """Make a protocol from the cells of a configuration."""
    from sharedlabel import plugins
    from sharedlabel import store as stores
    from sharedlabel.config import parse
    from sharedlabel.grid import prepare
    from sharedlabel.grid.progress import reporter
    from sharedlabel.leaderboard.board.freeze import freeze
    from sharedlabel.report.terminal import open_console

    images = {}
    for entry in options.images:
        role, _, count = entry.partition("=")
        if not (count.isascii() and count.isdigit()):
            raise ConfigError(f"--images: expected ROLE=COUNT, got {entry!r}")
        images[role] = int(count)
    experiment, _ = parse(["--config", options.config, *options.overrides])
    console = open_console()
    store = stores.of(experiment)
    with plugins.sealed("in a protocol"):
        grid = prepare(experiment)
    stated = {
        "id": options.id,
        "title": options.title,
        "about": options.about,
        "command": f"sharedlabel leaderboard {shlex.join(_public(arguments))}",
    }
    progress = reporter(console, grid, [])
    with progress.showing():
        made = freeze(grid, store, options.root, stated, images, tuple(options.seeds), progress)
    console.print(
        f"froze {made.id}: {len(made.networks)} networks, {made.source.test.count} test images",
        highlight=False,
        markup=False,
    )


def _public(arguments: Sequence[str]) -> list[str]:
    """Return arguments without the folders of this machine."""
    return [Path(argument).name if Path(argument).is_absolute() else argument for argument in arguments]
