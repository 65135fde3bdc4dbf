"""Every code block of every page: Python runs, commands are read by their own parsers, configurations are read."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import json
import os
import re
import shlex
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import yaml
from PIL import Image

from sharedlabel import cli, config
from sharedlabel.cli import COMMANDS
from sharedlabel.errors import SharedLabelError
from website import ROOT, blocks

PAGES = [
    ROOT / name
    for name in ("README.md", "SECURITY.md", "CHANGELOG.md", "leaderboard/README.md", "examples/plugin/README.md")
] + sorted((ROOT / "docs").rglob("*.md"))
LANGUAGES = {"python", "sh", "yaml", "text"}
# Lightning's remarks on this machine, and its own use of what newer versions of torch deprecate.
REMARKS = "ignore:.*(does not have many workers|logging interval|treespec, LeafSpec|GPU available but not used)"
# Programs that are not ours, and what is looked at of their arguments: nothing.
OTHERS = {"export", "ray", "sbatch", "source", "docker", "pip", "uv", "[options"}


def _name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def _blocks(page: Path) -> list[blocks.Block]:
    return list(blocks.read(page.read_text(encoding="utf-8")))


def test_every_block_says_what_it_is() -> None:
    unsaid = [
        f"{_name(page)}:{block.line}" for page in PAGES for block in _blocks(page) if block.language not in LANGUAGES
    ]
    assert not unsaid
    for page in PAGES:
        inside = {line for block in _blocks(page) if block.language != "text" for line in block.text.splitlines()}
        said = re.findall(
            r"^(?:    )?((?:sharedlabel|python -m) .*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE
        )
        assert {line for line in said if not any(line in other for other in inside)} == set(), _name(page)


def test_what_is_not_tested_says_why() -> None:
    untested = {f"{_name(page)}: {block.untested}" for page in PAGES for block in _blocks(page) if block.untested}
    assert all(reason.partition(": ")[2] for reason in untested)
    print("\n".join(sorted(untested)))  # pytest -s lists them


@pytest.mark.filterwarnings(REMARKS)
@pytest.mark.parametrize("page", [page for page in PAGES if any(block.text for block in _blocks(page))], ids=_name)
def test_the_blocks_of_a_page(page: Path, apart: None, monkeypatch: pytest.MonkeyPatch) -> None:
    del apart
    monkeypatch.setattr("sharedlabel.plugins._seals", [])
    for name in ("configs", "examples", "benchmarks", "leaderboard", "tests"):
        Path(name).symlink_to(ROOT / name)
    prepare = PREPARED.get(_name(page))
    if prepare is not None:
        prepare()
    names: dict[str, Any] = {}
    listed = _blocks(page)
    for block, after in zip(listed, [*listed[1:], None], strict=True):
        if block.untested or block.language == "text":
            continue
        where = f"{_name(page)}:{block.line}"
        if block.file:
            Path(block.file).write_text(block.text, encoding="utf-8")
        elif block.words == "fails":
            assert after is not None
            assert _words(_failure(block, names, where)) == _words(after.text), where
        else:
            {"python": _python, "yaml": _yaml, "sh": _shell}[block.language](block, names, where)
    plt.close("all")
    check = CHECKED.get(_name(page))
    if check is not None:
        check(names)


def _python(block: blocks.Block, names: dict[str, Any], where: str) -> None:
    exec(compile(block.text, where, "exec"), names)


def _yaml(block: blocks.Block, names: dict[str, Any], where: str) -> None:
    del names, where
    _resolve(config.merged(yaml.safe_load(block.text)))


def _shell(block: blocks.Block, names: dict[str, Any], where: str) -> None:
    """Run the commands of a block, or read them."""
    del names
    for words in blocks.commands(block.text):
        if block.words == "run" or words[:2] == ["sharedlabel", "new"]:
            assert words[0] == "sharedlabel", where
            assert cli.main(words[1:]) == 0, where
        else:
            _read(words, where)


def _read(words: list[str], where: str) -> None:
    """Read a command without running it.

    Raises:
        AssertionError: the program is unknown.
        SharedLabelError: it does not take these arguments.
    """
    program, *rest = words
    while "=" in program and rest:  # VARIABLE=value before a command
        program, *rest = rest
    if program == "sharedlabel":
        _read_ours(rest)
    elif program == "python" and rest[0] == "-m":
        module = rest[1]
        assert importlib.util.find_spec(module) is not None, where
        command = next(
            (name for name, known in COMMANDS.items() if known.module.removesuffix(".__main__") == module), None
        )
        if command is not None:
            _read_ours([command, *rest[2:]])
    elif program == "make":
        targets = re.findall(r"^(\S+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
        assert {target for target in rest if "=" not in target} <= set(targets), where
    elif program == "pip":
        extras = set(re.findall(r"sharedlabel\[([\w,]+)\]", " ".join(rest)))
        known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        assert {one for listed in extras for one in listed.split(",")} <= set(known), where
    else:
        assert program in OTHERS, f"{where}: {shlex.join(words)}"


def _read_ours(words: list[str]) -> None:
    """Read the arguments of a command of ours, and the plugins that an experiment names."""
    name, *rest = words
    if name in {"train", "evaluate"}:
        experiment, _ = config.parse(rest, name)
        _resolve(experiment)
        config.resolve("data", experiment.data)
    elif name in COMMANDS:
        importlib.import_module(COMMANDS[name].module).parser().parse_args(rest)
    else:
        assert name in {"--help", "--version"}


def _resolve(experiment: config.Experiment) -> None:
    for kind in ("backbones", "pruners", "aggregators"):
        for spec in getattr(experiment, kind):
            config.resolve(kind, spec)


def _failure(block: blocks.Block, names: dict[str, Any], where: str) -> str:
    """Run a block that has to fail, and return its message."""
    if block.language == "python":
        with pytest.raises(SharedLabelError) as raised:
            _python(block, names, where)
        return str(raised.value)
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        (words,) = blocks.commands(block.text)
        assert cli.main(words[1:]) == 2, where
    return said.getvalue().replace(os.getcwd(), "/home/me")


def _words(text: str) -> str:
    return " ".join(text.split())


def _examples_of_questions() -> None:
    """Write the folders and arrays that the page of questions speaks of."""
    square = np.zeros((8, 8), np.uint8)
    for name in ("photos/train/cat/1.png", "photos/train/dog/1.png", "animals/cat/1.png", "animals/dog/1.png"):
        _picture(name, square)
    for name, side in (("sizes/cat/1.png", 8), ("sizes/cat/2.png", 9), ("sizes/dog/1.png", 8), ("sizes/dog/2.png", 8)):
        _picture(name, np.zeros((side, side), np.uint8))
    Path("animals/cat/2.png").write_bytes(b"no picture")
    Path("sizes/groups.csv").write_text("path,group\ncat/1.png,tom\n")
    np.savez("last.npz", images=np.zeros((4, 8, 8, 3), np.uint8), labels=np.arange(4) % 2)
    np.savez("unlabelled.npz", features=np.zeros((4, 8), np.float32))


def _picture(name: str, pixels: np.ndarray[Any, Any]) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    pixels[0, 0] = len(name)  # so that no two are copies, and none of one colour
    Image.fromarray(pixels).save(name)


def _check_api(names: dict[str, Any]) -> None:
    assert Path("ri.svg").read_text().startswith("<?xml")
    assert Path("runs/tour/report.html").exists()
    assert names["choice"].point.ratio == 4


def _check_lightning(names: dict[str, Any]) -> None:
    assert names["log_posterior"].shape[1:] == (8, 10)
    assert Path("logs/lightning_logs/version_0/metrics.csv").exists()


def _check_tutorial(names: dict[str, Any]) -> None:
    card = json.loads(Path("my-model/card.json").read_text())
    assert card["costs"]["achieved_ratio"] > 1
    assert Path("runs/tutorial/report.html").exists()


PREPARED: dict[str, Callable[[], None]] = {"docs/faq.md": _examples_of_questions}
CHECKED: dict[str, Callable[[dict[str, Any]], None]] = {
    "docs/api.md": _check_api,
    "docs/lightning.md": _check_lightning,
    "docs/tutorial.md": _check_tutorial,
}
