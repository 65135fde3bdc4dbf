"""The arguments of the leaderboard's commands."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from sharedlabel.config.arguments import Parser, one_of, positive, whole
from sharedlabel.leaderboard import actions
from sharedlabel.leaderboard.sandbox.limits import KINDS


def parser() -> Parser:
    """Return the parser of the command line."""
    built = Parser("sharedlabel leaderboard", "Make, check, run and rank submitted aggregators.")
    built.add_argument(
        "--root", type=Path, default=actions.ROOT, help="folder of the leaderboard (default: %(default)s)"
    )
    commands = built.add_subparsers(required=True, metavar="COMMAND")

    new = commands.add_parser("new", help="make the folder of a submission that works")
    new.add_argument("name")
    new.set_defaults(function=actions.new)

    check = commands.add_parser("check", help="check a submission: files, metadata, code, contract, costs")
    check.add_argument("name", nargs="?", default="")
    check.add_argument(
        "--changed-since", metavar="COMMIT", help="check all submissions and results that differ from a commit"
    )
    _sandbox(check)
    check.set_defaults(function=actions.check)

    run = commands.add_parser("run", help="train and ask a submission in the sandbox")
    run.add_argument("name")
    run.add_argument("--protocol", required=True)
    run.add_argument("--predictions", type=Path, help="folder to write (default: runs/leaderboard/PROTOCOL/NAME)")
    run.add_argument(
        "--workers", type=positive, default=os.cpu_count() or 1, help="processes at a time (default: the cores)"
    )
    _sandbox(run)
    run.set_defaults(function=actions.run)

    score = commands.add_parser("score", help="join predictions with the labels and list the result")
    score.add_argument("name", nargs="?", default="")
    score.add_argument("--protocol", required=True)
    score.add_argument("--predictions", type=Path, help="folder that run wrote")
    score.add_argument("--out", type=Path, help="write scores and result into this folder and list nothing")
    score.set_defaults(function=actions.score)

    verify = commands.add_parser("verify", help="run an entry again from scratch and compare")
    verify.add_argument("name")
    verify.add_argument("--protocol", required=True)
    verify.add_argument("--workers", type=positive, default=os.cpu_count() or 1)
    _sandbox(verify, trust=False)
    verify.set_defaults(function=actions.verify)

    withdraw = commands.add_parser("withdraw", help="take an entry out of the ranking")
    withdraw.add_argument("name")
    withdraw.add_argument("--protocol", required=True)
    withdraw.add_argument("--note", required=True, help="why, for people")
    withdraw.set_defaults(function=actions.withdraw)

    rescore = commands.add_parser("rescore", help="score all stored predictions again, once the metrics have changed")
    rescore.set_defaults(function=actions.rescore)

    site = commands.add_parser("site", help="write the static pages and the tables of the README")
    site.add_argument("--out", type=Path, help="folder to write (default: site in the leaderboard's folder)")
    site.set_defaults(function=actions.site)

    freeze = commands.add_parser("freeze", help="make a protocol from the cells of a configuration")
    freeze.add_argument("--config", required=True, help="YAML file of an experiment")
    freeze.add_argument("--id", required=True, help="name of the protocol, with its version")
    freeze.add_argument("--title", required=True)
    freeze.add_argument("--about", required=True, help="one paragraph on what it measures")
    freeze.add_argument("--images", nargs="*", default=[], metavar="ROLE=COUNT", help="images to keep; all by default")
    freeze.add_argument("--seeds", nargs="+", type=whole, default=[0, 1, 2, 3, 4], help="training seeds of aggregators")
    freeze.add_argument("overrides", nargs="*", metavar="--OPTION=VALUE", help="of the configuration, after --")
    freeze.set_defaults(function=actions.freeze)
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
