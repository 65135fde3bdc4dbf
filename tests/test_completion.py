"""Completion in real shells: commands, options by dotted name, names of plugins, files."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from sharedlabel import cli, plugins
from sharedlabel.cli.completion import scripts
from sharedlabel.cli.completion.words import Option, Place, Slot, places
from sharedlabel.config import Experiment, schema

ROOT = Path(__file__).parents[1]
ASK = """
source "$1"; complete -p sharedlabel
compopt() { :; }  # which bash allows while a key completes alone
COMP_WORDS=("${@:2}"); COMP_CWORD=$(( $# - 2 ))
_sharedlabel; printf '%s\\n' "${COMPREPLY[@]}"
"""


def shell(name: str) -> str:
    program = shutil.which(name)
    if program is None:
        pytest.skip(f"{name} is not installed")
    return program


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """The scripts of all shells, in a folder."""
    folder, words = tmp_path_factory.mktemp("completion"), places()
    for name, script in scripts.SHELLS.items():
        (folder / name).write_text(script(words))
    return folder


def in_bash(written: Path, *line: str, folder: Path = ROOT) -> list[str]:
    """Words that bash proposes for the last word of a line, which it splits at `=`."""
    done = subprocess.run(
        [shell("bash"), "-c", ASK, "bash", str(written / "bash"), *line],
        cwd=folder, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    registered, *proposed = done.stdout.splitlines()
    assert registered == "complete -F _sharedlabel sharedlabel"
    return proposed


LINES = [
    (["tr"], ["train"]),
    (["leaderboard", "che"], ["check"]),
    (["leaderboard", "--root", "elsewhere", "ver"], ["verify"]),
    (["leaderboard", "check", "--sa"], ["--sandbox"]),
    (["leaderboard", "check", "mine", "--sandbox", "p"], ["podman"]),
    (["train", "--dense.fl"], ["--dense.flip"]),
    (["train", "--fail"], ["--fail-fast"]),
    (["evaluate", "--fail"], []),
    (["train", "--retrain.optimizer", "ad"], ["adamw"]),
    (["train", "--evaluation.protocols", "[gr"], ["[grouped]"]),
    (["train", "--pruners", "[mag"], ["[magnitude]"]),
    (["train", "--data", "dig"], ["digits"]),
    (["predict", "--on-bad-image", ""], ["error", "skip"]),
    (["predict", "--threshold", ""], []),
    (["new", ""], ["data", "backbone", "pruner", "aggregator"]),
    (["completion", ""], ["bash", "zsh", "fish"]),
    (["choose", "runs/digits", "--tar"], ["--target-accuracy"]),
    (["export", "--pub"], ["--publish"]),
    (["dashboards", "runs/digits", "--off"], ["--offline"]),
    (["trian", "--dense"], []),
]


@pytest.mark.parametrize(("line", "proposed"), LINES, ids=" ".join)
def test_bash_completes(written, line, proposed):
    plain = [word.replace("\\", "") for word in in_bash(written, "sharedlabel", *line)]
    assert [word for word in plain if word] == proposed


def test_bash_completes_after_an_equals_sign_and_quotes_brackets(written):
    assert in_bash(written, "sharedlabel", "train", "--pruners", "=", "[magn") == [r"\[magnitude\]"]
    assert in_bash(written, "sharedlabel", "train", "--pruners", "=", r"\[magn") == [r"\[magnitude\]"]
    assert in_bash(written, "sharedlabel", "train", "--pruners", "=", "magn") == [r"\[magnitude\]"]
    every = in_bash(written, "sharedlabel", "train", "--aggregators", "=")
    assert [word[2:-2] for word in every] == list(plugins.available("aggregators"))


def test_bash_completes_files(written, tmp_path):
    for name in ("grid.yaml", "grid.yml", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "green folder").mkdir()
    configs = in_bash(written, "sharedlabel", "train", "--config", "g", folder=tmp_path)
    assert sorted(configs) == ["green folder", "grid.yaml", "grid.yml", "gtsrb"]  # and the configuration of that name
    assert in_bash(written, "sharedlabel", "report", "n", folder=tmp_path) == ["notes.txt"]
    assert in_bash(written, "sharedlabel", "report", "--output", "n", folder=tmp_path) == ["notes.txt"]


def test_bash_proposes_every_command_first(written):
    assert in_bash(written, "sharedlabel", "") == list(cli.COMMANDS)


def in_fish(written: Path, line: str) -> list[str]:
    done = subprocess.run(
        [shell("fish"), "--no-config", "-c", 'source $argv[1]; complete -C "$argv[2]"', str(written / "fish"), line],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    return [word.partition("\t")[0] for word in done.stdout.splitlines()]


@pytest.mark.parametrize(("line", "proposed"), LINES, ids=" ".join)
def test_fish_completes(written, line, proposed):
    assert sorted(in_fish(written, " ".join(["sharedlabel", *line]))) == sorted(proposed)


@pytest.mark.parametrize("name", ["zsh", "bash", "fish"])
def test_scripts_are_programs_of_their_shell(written, name):
    done = subprocess.run([shell(name), "-n", str(written / name)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_zsh_registers_its_function(written):
    line = 'autoload -Uz compinit; compinit -u -D; source "$1"; print $_comps[sharedlabel] $+functions[_sharedlabel]'
    done = subprocess.run(
        [shell("zsh"), "-f", "-c", line, "zsh", str(written / "zsh")], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("_sharedlabel 1\n", "")


def test_texts_with_quotes_stay_texts(tmp_path):
    """An option's explanation may hold anything; no shell runs it."""
    evil = Option("--it's", "it's `touch a` $(touch b) 'c' \\", Slot(("it's", "$(touch d)")))
    place = Place(("odd",), {}, (evil,), Slot())
    for name, script in scripts.SHELLS.items():
        (tmp_path / name).write_text(script([Place((), {"odd": evil.about}, (), Slot()), place]))
        given = ["-f"] if name == "zsh" else ["--no-config"] if name == "fish" else []
        line = "compdef() { :; }; source" if name == "zsh" else "source"
        subprocess.run([shell(name), *given, "-c", f"{line} ./{name}"], cwd=tmp_path, check=True)
    assert in_bash(tmp_path, "sharedlabel", "odd", "--it's", "", folder=tmp_path) == [r"it\'s", r"\$\(touch\ d\)"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(scripts.SHELLS)


def test_every_option_of_an_experiment_is_there():
    train = next(place for place in places() if place.path == ("train",))
    names = {option.name for option in train.options}
    assert names == {f"--{name}" for name, _ in schema.leaves(Experiment)} | {
        "--config", "--plan", "--fail-fast", "--json", "--print_config", "--help"
    }  # fmt: skip
