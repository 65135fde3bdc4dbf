"""`sharedlabel leaderboard`: new, check, run, score, verify, withdraw, rescore, site and freeze."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from sharedlabel.arguments import Parser, one_of, positive, whole
from sharedlabel.errors import ConfigError, DataError, guarded, home
from sharedlabel.leaderboard.sandbox import KINDS, Kind

ROOT = Path("leaderboard")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 0, or 2 for what the user can fix."""
    return guarded(lambda: _main(arguments), "what was under way is lost; repeat the command")


def _main(arguments: Sequence[str] | None) -> None:
    if arguments is None:
        arguments = sys.argv[1:]
    options = parser().parse_args(arguments)
    options.function(options, arguments)


def parser() -> Parser:
    """Return the parser of the command line."""
    built = Parser("sharedlabel leaderboard", __doc__)
    built.add_argument("--root", type=Path, default=ROOT, help="folder of the leaderboard (default: %(default)s)")
    commands = built.add_subparsers(required=True, metavar="COMMAND")

    new = commands.add_parser("new", help="make the folder of a submission that works")
    new.add_argument("name")
    new.set_defaults(function=_new)

    check = commands.add_parser("check", help="check a submission: files, card, code, contract, costs")
    check.add_argument("name", nargs="?", default="")
    check.add_argument(
        "--changed-since", metavar="COMMIT", help="check all submissions and results that differ from a commit"
    )
    _sandbox(check)
    check.set_defaults(function=_check)

    run = commands.add_parser("run", help="train and ask a submission in the sandbox")
    run.add_argument("name")
    run.add_argument("--protocol", required=True)
    run.add_argument("--predictions", type=Path, help="folder to write (default: runs/leaderboard/PROTOCOL/NAME)")
    run.add_argument(
        "--workers", type=positive, default=os.cpu_count() or 1, help="processes at a time (default: the cores)"
    )
    _sandbox(run)
    run.set_defaults(function=_run)

    score = commands.add_parser("score", help="join predictions with the labels and list the result")
    score.add_argument("name", nargs="?", default="")
    score.add_argument("--protocol", required=True)
    score.add_argument("--predictions", type=Path, help="folder that run wrote")
    score.add_argument("--out", type=Path, help="write scores and result into this folder and list nothing")
    score.set_defaults(function=_score)

    verify = commands.add_parser("verify", help="run an entry again from scratch and compare")
    verify.add_argument("name")
    verify.add_argument("--protocol", required=True)
    verify.add_argument("--workers", type=positive, default=os.cpu_count() or 1)
    _sandbox(verify, trust=False)
    verify.set_defaults(function=_verify)

    withdraw = commands.add_parser("withdraw", help="take an entry out of the ranking")
    withdraw.add_argument("name")
    withdraw.add_argument("--protocol", required=True)
    withdraw.add_argument("--note", required=True, help="why, for people")
    withdraw.set_defaults(function=_withdraw)

    rescore = commands.add_parser("rescore", help="score all stored predictions again, once the metrics have changed")
    rescore.set_defaults(function=_rescore)

    site = commands.add_parser("site", help="write the static pages and the tables of the README")
    site.add_argument("--out", type=Path, help="folder to write (default: site in the leaderboard's folder)")
    site.set_defaults(function=_site)

    freeze = commands.add_parser("freeze", help="make a protocol from the cells of a configuration")
    freeze.add_argument("--config", required=True, help="YAML file of an experiment")
    freeze.add_argument("--id", required=True, help="name of the protocol, with its version")
    freeze.add_argument("--title", required=True)
    freeze.add_argument("--about", required=True, help="one paragraph on what it measures")
    freeze.add_argument("--images", nargs="*", default=[], metavar="ROLE=COUNT", help="images to keep; all by default")
    freeze.add_argument("--seeds", nargs="+", type=whole, default=[0, 1, 2, 3, 4], help="training seeds of aggregators")
    freeze.add_argument("overrides", nargs="*", metavar="--OPTION=VALUE", help="of the configuration, after --")
    freeze.set_defaults(function=_freeze)
    return built


def _sandbox(parser: argparse.ArgumentParser, trust: bool = True) -> None:
    usable = [kind for kind in KINDS if kind != "trusted"]
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--sandbox", type=one_of(*usable), help="where submitted code runs (default: the first that there is)"
    )
    where.set_defaults(trust=False)
    if trust:
        where.add_argument("--trust", action="store_true", help="run without a sandbox; the row stays self-reported")


def _kind(options: argparse.Namespace) -> Kind:
    from sharedlabel.leaderboard import sandbox

    return sandbox.choose("trusted" if options.trust else options.sandbox)


def _predictions(options: argparse.Namespace) -> Path:
    usual = Path("runs") / "leaderboard" / options.protocol / options.name
    return usual if options.predictions is None else Path(options.predictions)


def _next(options: argparse.Namespace, *command: str) -> str:
    """Return a command line for the same board, to be copied."""
    root = ["--root", str(options.root)] if options.root != ROOT else []
    return shlex.join(["sharedlabel", "leaderboard", *root, *command])


def _new(options: argparse.Namespace, _: Sequence[str]) -> None:
    from sharedlabel.leaderboard import scaffold
    from sharedlabel.leaderboard.protocol import Board

    folder = scaffold.new(Board(options.root), options.name)
    print(f"made {folder}; next: change aggregator.py, then {_next(options, 'check', options.name)}")


def _check(options: argparse.Namespace, _: Sequence[str]) -> None:
    from sharedlabel.leaderboard import changes, commands, scaffold, submission
    from sharedlabel.leaderboard.protocol import Board

    board = Board(options.root)
    if bool(options.name) == bool(options.changed_since):
        raise ConfigError("expected the name of a submission, or --changed-since COMMIT")
    kind = _kind(options)
    if options.changed_since:
        changes.examine(board, options.changed_since, kind, print)
        return
    found = submission.named(board.root, options.name)
    for protocol, cost in commands.check(found, board, kind).items():
        shown = ", ".join(f"n = {n}: {macs:,}" for n, macs in cost.macs.items())
        print(f"{protocol}: {cost.parameters:,} parameters; MACs of a tuple: {shown}")
    print(f"{options.name} keeps the contract (tried in {kind})")
    for left in scaffold.template_text(found):
        print(f"still to write: {left}")


def _run(options: argparse.Namespace, _: Sequence[str]) -> None:
    from sharedlabel.leaderboard import commands
    from sharedlabel.leaderboard.protocol import Board

    board = Board(options.root)
    protocol, kind, out = board.protocol(options.protocol), _kind(options), _predictions(options)
    commands.predict(board, protocol, options.name, kind, options.workers, out, print)
    given = ["--predictions", str(out)] if options.predictions else []
    print(f"wrote {out}; next: {_next(options, 'score', options.name, '--protocol', protocol.id, *given)}")


def _score(options: argparse.Namespace, _: Sequence[str]) -> None:
    from sharedlabel import together
    from sharedlabel.leaderboard import commands, records, submission
    from sharedlabel.leaderboard.protocol import Board
    from sharedlabel.leaderboard.score import PredictionError

    if not options.name and not (options.predictions and options.out):
        raise ConfigError("expected the name of a submission, or --predictions FOLDER with --out FOLDER")
    if options.name:
        submission.check_name(options.name)
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
        together.replace(options.out, {records.SCORES: scores, records.RESULT: records.to_json(graded)})
        print(f"{graded.name} on {protocol.id}: mean RI {graded.ri:.4f}; wrote {options.out}")
        return
    result = commands.store(board, protocol, options.name, folder)
    print(f"{result.name} on {protocol.id}: mean RI {result.ri:.4f}, self-reported; only a verified row ranks")
    folders = " and ".join(str(options.root / part / result.name) for part in ("submissions", f"results/{protocol.id}"))
    verify = _next(options, "verify", result.name, "--protocol", protocol.id)
    print(f"next: a pull request with {folders}; maintainers: {verify}")


def _verify(options: argparse.Namespace, _: Sequence[str]) -> None:
    from sharedlabel.leaderboard import commands
    from sharedlabel.leaderboard.protocol import Board

    board = Board(options.root)
    protocol, kind = board.protocol(options.protocol), _kind(options)
    status, apart = commands.verify(board, protocol, options.name, kind, options.workers, print)
    print(f"{options.name} on {protocol.id}: {status}, mean RI {apart:+.4f} from the stored one")
    if status != "verified":
        raise DataError(f"{options.name}: the difference is above the tolerance of {protocol.tolerance}")


def _withdraw(options: argparse.Namespace, _: Sequence[str]) -> None:
    from sharedlabel.leaderboard import commands
    from sharedlabel.leaderboard.protocol import Board

    if not options.note.strip():
        raise ConfigError("--note: expected some text, got none; say why")
    board = Board(options.root)
    protocol = board.protocol(options.protocol)
    commands.entry(board, protocol, options.name).record("withdrawn", options.note)
    print(f"{options.name} on {protocol.id}: withdrawn")


def _rescore(options: argparse.Namespace, _: Sequence[str]) -> None:
    from sharedlabel.leaderboard.protocol import METRICS, Board
    from sharedlabel.leaderboard.rescore import rescore

    found = rescore(Board(options.root), print)
    if found:
        print(f"next: {_next(options, 'site')}, and commit protocols, results and README together")
    else:
        print(f"nothing to score again: every protocol is of version {METRICS} of the metrics")


def _site(options: argparse.Namespace, _: Sequence[str]) -> None:
    from sharedlabel.leaderboard import site
    from sharedlabel.leaderboard.protocol import Board

    out = options.out or options.root / "site"
    count = site.build(Board(options.root), out)
    print(f"wrote {out / 'index.html'}: {count} entries")


def _freeze(options: argparse.Namespace, arguments: Sequence[str]) -> None:
    from sharedlabel.config import parse
    from sharedlabel.grid import prepare
    from sharedlabel.leaderboard.freeze import freeze
    from sharedlabel.progress import reporting
    from sharedlabel.report.terminal import open_console
    from sharedlabel.store import Store

    images = {}
    for entry in options.images:
        role, _, count = entry.partition("=")
        if not (count.isascii() and count.isdigit()):
            raise ConfigError(f"--images: expected ROLE=COUNT, got {entry!r}")
        images[role] = int(count)
    experiment, _ = parse(["--config", options.config, *options.overrides])
    console = open_console()
    store = Store(home(experiment.output) / "store")
    grid = prepare(experiment)
    stated = {
        "id": options.id,
        "title": options.title,
        "about": options.about,
        "command": f"sharedlabel leaderboard {shlex.join(_public(arguments))}",
    }
    with reporting(console, grid, 0) as progress:
        made = freeze(grid, store, options.root, stated, images, tuple(options.seeds), progress)
    console.print(
        f"froze {made.id}: {len(made.networks)} networks, {made.source.test.count} test images",
        highlight=False,
        markup=False,
    )


def _public(arguments: Sequence[str]) -> list[str]:
    """Return arguments without the folders of this machine."""
    return [Path(argument).name if Path(argument).is_absolute() else argument for argument in arguments]


if __name__ == "__main__":
    sys.exit(main())
