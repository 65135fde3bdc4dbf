"""Arguments of the commands that have few: what is wrong with them, in one sentence."""

from __future__ import annotations

import pytest

from sharedlabel.config.arguments import Parser, number, one_of, positive, whole
from sharedlabel.errors import ConfigError


@pytest.fixture
def parser() -> Parser:
    built = Parser("sharedlabel choose", "Recommend.")
    built.add_argument("results")
    built.add_argument("--budget", type=number)
    built.add_argument("--n", type=whole)
    built.add_argument("--on-bad-image", type=one_of("error", "skip"))
    built.add_argument("--seeds", type=whole, nargs="+")
    built.add_argument("--json", action="store_true")
    where = built.add_mutually_exclusive_group()
    where.add_argument("--sandbox")
    where.add_argument("--trust", action="store_true")
    return built


@pytest.fixture
def nested() -> Parser:
    built = Parser("sharedlabel leaderboard", "Rank.")
    built.add_argument("--root")
    commands = built.add_subparsers(required=True, metavar="COMMAND")
    check = commands.add_parser("check")
    check.add_argument("name")
    check.add_argument("--workers", type=positive)
    return built


def test_what_is_right_is_read(parser, nested):
    options = parser.parse_args(["run", "--budget=0.5", "--n", "4", "--seeds", "0", "1", "--on-bad-image", "skip"])
    assert (options.results, options.budget, options.n, options.seeds) == ("run", 0.5, 4, [0, 1])
    assert (options.on_bad_image, options.json) == ("skip", False)
    inner = nested.parse_args(["--root", "board", "check", "mine", "--workers", "2"])
    assert (inner.root, inner.name, inner.workers) == ("board", "mine", 2)
    assert parser.parse_args(["--", "--odd"]).results == "--odd"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected results after sharedlabel choose, got none; sharedlabel choose --help explains every argument"),
        (["run", "--budgett=3"], "unknown option '--budgett'; did you mean '--budget'?"),
        (["--budgett=3"], "unknown option '--budgett'; did you mean '--budget'?"),
        (["--budgett", "3"], "unknown option '--budgett'; did you mean '--budget'?"),
        (["run", "--budg", "3"], "unknown option '--budg'; did you mean '--budget'?"),
        (["run", "-b"], "unknown option '-b'; available: --budget, --help, --json"),
        (["run", "other"], "expected nothing more, got 'other'; leave it out"),
        (["run", "--budget"], "--budget: expected a value, got none; write --budget=VALUE"),
        (["run", "--budget", "--json"], "--budget: expected a value, got none; write --budget=VALUE"),
        (["run", "--budget=cheap"], "--budget: expected a number, got 'cheap'; sharedlabel choose --help"),
        (["run", "--n=4.5"], "--n: expected a whole number, got '4.5'; sharedlabel choose --help"),
        (["run", "--seeds"], "--seeds: expected a value or more, got none; add one"),
        (["run", "--json=yes"], "--json: expected nothing after it, got 'yes'; leave that out"),
        (["run", "--help=yes"], "--help: expected nothing after it, got 'yes'; sharedlabel choose --help"),
        (["run", "--on-bad-image=skp"], "--on-bad-image: unknown value 'skp'; did you mean 'skip'?"),
        (["run", "--sandbox", "x", "--trust"], "expected --sandbox or --trust, got both; leave one out"),
        (["run", "--\x1b[31m"], r"unknown option '--\x1b[31m'"),
        (["run", 100 * "x"], f"expected nothing more, got '{60 * 'x'} ...'"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(parser, arguments, message):
    with pytest.raises(ConfigError) as error:
        parser.parse_args(arguments)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected COMMAND after sharedlabel leaderboard, got none"),
        (["chek"], "unknown command 'chek'; did you mean 'check'? available: check"),
        (["--rot", "board", "check", "mine"], "unknown option '--rot'; did you mean '--root'?"),
        (["check"], "expected name after sharedlabel leaderboard check, got none"),
        (["check", "mine", "--wokers=2"], "unknown option '--wokers'; did you mean '--workers'? available: --help, "),
        (["check", "mine", "--workers=0"], "--workers: expected a whole number from 1, got '0'; sharedlabel leaderb"),
        (["check", "mine", "theirs"], "expected nothing more, got 'theirs'; leave it out; sharedlabel leaderboard che"),
    ],
)
def test_a_command_within_a_command_names_its_own_options(nested, arguments, message):
    with pytest.raises(ConfigError) as error:
        nested.parse_args(arguments)
    assert str(error.value).startswith(message)
