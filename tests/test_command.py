"""The one command `sharedlabel`: what it lists, what it runs, and what it says of a name that is none."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from sharedlabel import __version__, cli

ROOT = Path(__file__).parents[1]
THERE = sorted(name for name, command in cli.COMMANDS.items() if importlib.util.find_spec(command.module))


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, env=environment, check=False
    )


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_the_help_lists_every_command_with_a_line(capsys, arguments):
    assert cli.main(arguments) == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: sharedlabel COMMAND ...\n")
    listed = re.findall(r"^  ([a-z]+) +(\S.*)$", text, flags=re.MULTILINE)
    assert [name for name, _ in listed] == list(cli.COMMANDS)
    assert all(len(line) <= 100 for line in text.splitlines())


def test_the_installed_command_is_this_one():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"sharedlabel": f"{cli.main.__module__}:{cli.main.__name__}"}


def test_the_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"sharedlabel {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "unknown command 'trian'; did you mean 'train'? available: "),
        (["nope"], "unknown command 'nope'; available: "),
        (["help", "trian"], "unknown command 'trian'; did you mean 'train'?"),
        (["Train"], "unknown command 'Train'; did you mean 'train'? available: "),
        ([""], "unknown command ''; available: "),
        (["--config", "grid.yaml"], "expected a command before --config, got none; write sharedlabel COMMAND --config"),
        (["\x1b[31m"], r"unknown command '\x1b[31m'; available: "),
        (["../evaluate"], "unknown command '../evaluate'; did you mean 'evaluate'? available: "),
    ],
)
def test_a_command_that_there_is_not_is_one_sentence(capsys, arguments, message):
    assert cli.main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"error: {message}")
    assert said.err.count("\n") == 1


@pytest.mark.parametrize("name", THERE)
def test_every_command_explains_itself_under_its_name(capsys, name):
    with pytest.raises(SystemExit) as ended:
        cli.main([name, "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: sharedlabel {name} ")


def test_help_may_come_first(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["help", "new"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("usage: sharedlabel new")


@pytest.mark.parametrize("name", THERE)
def test_every_command_refuses_an_option_that_there_is_not(capsys, name):
    assert cli.main([name, "--frobnicate=1"]) == 2
    assert re.match("error: unknown option '(--)?frobnicate'; .*\n$", capsys.readouterr().err)


def test_help_and_mistakes_wait_for_no_library_that_computes():
    script = f"""
import contextlib, io, sys
from sharedlabel import cli
for name in {THERE}:
    for argument in ("--help", "--frobnicate=1"):
        with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
            cli.main([name, argument])
    print(name, [slow for slow in ("torch", "pytorch_lightning", "matplotlib", "wandb") if slow in sys.modules])
"""
    done = python("-c", script)
    assert done.stdout.splitlines() == [f"{name} []" for name in THERE], done.stderr


def test_it_is_a_module_and_hands_on_exit_codes():
    done = python("-m", "sharedlabel", "report", "no/such/folder")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: expected a results.json at ")
