"""Which edits of code change which digests, and so which stored results are used no more."""

from __future__ import annotations

import ast
import os
from collections.abc import Callable, Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path

import pytest

from sharedlabel import plugins, sources
from sharedlabel.errors import ConfigError
from sharedlabel.stages import STAGES

NETWORKS = {"dense", "early", "prune"}
REACHED = [
    ("stages", "aggregate", {"aggregate"}),
    ("stages", "CalibrateConfig", {"calibrate"}),
    ("training.compression", "compress", {"prune"}),
    ("training.backbone", "BackboneModule", NETWORKS),
    ("training.aggregator", "AggregatorModule", {"aggregate"}),
    ("training.joint", "SharedLabelModule", {"joint"}),
    ("training.embedding", "embed", {*NETWORKS, "features", "joint"}),
    ("training.search", "train", {"aggregate"}),
    ("training.search", "lasting", {"aggregate"}),
    ("measure", "latency", {"latency"}),
    ("error_margin", "margins", {"margin"}),
    ("training.alignment", "align", {"crossfit"}),
    ("training.resume", "Keeper", {*NETWORKS, "aggregate", "joint"}),
    ("evaluation", "score", {"evaluate", "exact"}),
    ("adaptive", "fit", {"adaptive"}),
    ("cost", "aggregator_macs", {"evaluate", "adaptive"}),
    ("backbones._restore", "state", {*NETWORKS, "joint", "latency"}),
    ("store", "Output", set(STAGES)),
]
# What people see, what is read from stored results, and what shows in keys by itself.
NOT_REACHED = [
    ("training.scores", "TupleScores"),
    ("training.callbacks", "watching"),
    ("report.html", "write_report"),
    ("report.terminal", "print_report"),
    ("progress", "describe"),
    ("tracking", "Tracker"),
    ("results", "Row"),
    ("collect", "rows"),
    ("summary", "summarize"),
    ("ranking", "rank"),
    ("provenance", "collect"),
    ("grid", "prepare"),
    ("data.splits", "split"),
    ("store", "Store"),
    ("config", "resolve"),
    ("config", "JointConfig"),
    ("plugins", "load"),
    ("errors", "nearest"),
]


@pytest.fixture(scope="module")
def reached() -> dict[str, set[tuple[str, str]]]:
    """Return what the stages reach, by module and name."""
    found = {}
    for stage in STAGES:
        places = sources._reached(sources._named("sharedlabel.stages", (stage,)))
        found[stage] = {
            (module, name) for module, number in places for name in sources._module(module).statements[number].names
        }
    return found


@pytest.mark.parametrize(("module", "name", "expected"), REACHED)
def test_a_stage_depends_on_the_code_that_it_reaches(reached, module, name, expected):
    assert {stage for stage, found in reached.items() if (f"sharedlabel.{module}", name) in found} == expected


@pytest.mark.parametrize(("module", "name"), NOT_REACHED)
def test_no_stage_depends_on_other_code(reached, module, name):
    assert name in {n for statement in sources._module(f"sharedlabel.{module}").statements for n in statement.names}
    assert all((f"sharedlabel.{module}", name) not in found for found in reached.values())


def test_the_configuration_which_no_digest_sees_holds_values_and_computes_none():
    classes = [
        one.tree for one in sources._module("sharedlabel.config").statements if isinstance(one.tree, ast.ClassDef)
    ]
    written = {(one.name, part.name) for one in classes for part in ast.walk(one) if isinstance(part, ast.FunctionDef)}
    assert written == {("Plugin", "payload"), ("Plugin", "key")}


@pytest.fixture
def edited(monkeypatch) -> Iterator[Callable[[str, str, str], None]]:
    """Let a module of this package read as if a part of it said something else, in this test alone."""
    read, edits = SourceFileLoader.get_source, dict[str, tuple[str, str]]()

    def get_source(loader: SourceFileLoader, name: str) -> str | None:
        old, new = edits.get(name, ("", ""))
        source = read(loader, name)
        assert old in source
        return source.replace(old, new, 1)

    def edit(module: str, old: str, new: str) -> None:
        edits[f"sharedlabel.{module}"] = (old, new)
        forget()

    monkeypatch.setattr(SourceFileLoader, "get_source", get_source)
    yield edit
    forget()


def forget() -> None:
    """Forget what was read, as a new process has."""
    for cached in (sources.digest, sources._said, sources._next, sources._module, sources._is_module):
        cached.cache_clear()


@pytest.mark.parametrize(
    ("module", "old", "new", "expected"),
    [
        (
            "training.alignment",
            "x_mean, y_mean = x.mean(0), y.mean(0)",
            "x_mean, y_mean = x.mean(0), -y.mean(0)",
            {"crossfit"},
        ),
        (
            "training.alignment",
            "x_mean, y_mean = x.mean(0), y.mean(0)",
            "x_mean, y_mean = x.mean(0), y.mean(0)  # why",
            set(),
        ),
        ("training.alignment", "Fit the affine map from one", "Fit an affine map from one", set()),
        ("training.alignment", "def align(", "def unused():\n    return -1\n\n\ndef align(", set()),
    ],
)
def test_an_edit_changes_the_digests_of_the_stages_that_it_may_change(edited, module, old, new, expected):
    stages = ("crossfit", "calibrate")
    before = {stage: sources.digest("sharedlabel.stages", stage) for stage in stages}
    edited(module, old, new)
    assert {stage for stage in stages if sources.digest("sharedlabel.stages", stage) != before[stage]} == expected


def test_summaries_depend_on_the_code_that_they_reach():
    def reaches(module: str) -> bool:
        found = sources._reached(sources._named(f"sharedlabel.{module}", ("summarize",)))
        return any(place[0] == "sharedlabel.ranking" for place in found)

    assert [reaches("summary"), reaches("adaptive_summary")] == [True, False]


PLUGIN = """
{imports}

FACTOR = 2

def build(config, shape):
    return {call}(FACTOR)
"""
HELPER = """
from sharedlabel.aggregators._deeper import deeper

def helped(x):
    return -deeper(x)

def unused(x):
    return x
"""
DEEPER = """
def deeper(x):
    return x + 1
"""
WAYS = {
    "absolute": ("from sharedlabel.aggregators._helper import helped", "helped"),
    "under another name": ("from sharedlabel.aggregators._helper import helped as h", "h"),
    "relative": ("from ._helper import helped", "helped"),
    "module": ("from sharedlabel.aggregators import _helper", "_helper.helped"),
    "relative module": ("from . import _helper as h", "h.helped"),
    "full name": ("import sharedlabel.aggregators._helper", "sharedlabel.aggregators._helper.helped"),
    "everything": ("from sharedlabel.aggregators._helper import *", "helped"),
    "if it is there": ("try:\n    from ._helper import helped\nexcept ImportError:\n    helped = abs", "helped"),
    "late": ("def late(x):\n    from ._helper import helped\n    return helped(x)", "late"),
    "by another plugin": ("from sharedlabel.aggregators.scratch_other import helped", "helped"),
    "handed on": ("from . import _helper\nfrom sharedlabel.logs import log_normalize as use", "use(_helper)"),
}


class Scratch:
    """Plugins in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.time = folder, 0
        self.write("_helper", HELPER)
        self.write("_deeper", DEEPER)
        self.write("scratch_other", "from ._helper import helped")

    def write(self, name: str, text: str) -> None:
        """Write a module, later than every one before."""
        path, self.time = self.folder / f"{name}.py", self.time + 1
        path.write_text(text)
        os.utime(path, (self.time, self.time))

    def digest(self) -> str:
        """Return the digest of the plugin `scratch`, as the next grid finds it."""
        sources.refresh()
        return plugins.code({("aggregators", "scratch")})["aggregators.scratch"]


@pytest.fixture
def scratch(tmp_path, monkeypatch) -> Scratch:
    import sharedlabel.aggregators as package

    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    return Scratch(tmp_path)


@pytest.mark.parametrize("way", WAYS)
def test_a_plugin_depends_on_its_file_and_what_that_imports_however_it_does(scratch, way):
    imports, call = WAYS[way]
    scratch.write("scratch", PLUGIN.format(imports=imports, call=call))
    found = {scratch.digest()}
    for name, text, old, new in (
        ("scratch", PLUGIN.format(imports=imports, call=call), "FACTOR = 2", "FACTOR = 3"),
        ("_helper", HELPER, "return -deeper(x)", "return +deeper(x)"),
        ("_deeper", DEEPER, "x + 1", "x - 1"),
    ):
        assert old in text
        scratch.write(name, text.replace(old, new))
        found.add(scratch.digest())
    assert len(found) == 4


def test_a_plugin_does_not_depend_on_words_layout_and_what_it_does_not_use(scratch):
    imports, call = WAYS["absolute"]
    text = PLUGIN.format(imports=imports, call=call)
    scratch.write("scratch", text)
    before = scratch.digest()
    scratch.write("scratch", f'"""A plugin."""\n{text.replace("FACTOR = 2", "FACTOR = (2)  # twice")}')
    scratch.write("_helper", HELPER.replace("def unused(x):\n    return x", "def unused(x):\n    return -x"))
    assert scratch.digest() == before


def test_another_function_of_the_same_name_is_another(scratch):
    scratch.write("scratch", PLUGIN.format(imports="from torch import sin as f", call="f"))
    before = scratch.digest()
    scratch.write("scratch", PLUGIN.format(imports="from torch import cos as f", call="f"))
    assert scratch.digest() != before


def test_files_are_read_once_until_the_next_grid(scratch):
    scratch.write("scratch", "x = 1")
    before = scratch.digest()
    scratch.write("scratch", "x = 2")
    assert plugins.code({("aggregators", "scratch")})["aggregators.scratch"] == before
    assert scratch.digest() != before


def test_a_plugin_without_source_is_named(scratch, monkeypatch):
    scratch.write("scratch", "x = 1")
    monkeypatch.setattr(SourceFileLoader, "get_source", lambda *_: None)
    with pytest.raises(ConfigError, match=r"the source of sharedlabel.aggregators.scratch, .*, got none; install"):
        scratch.digest()


def test_a_definition_that_is_not_there_is_named():
    with pytest.raises(LookupError, match=r"expected densed in sharedlabel.stages, got none"):
        sources.digest("sharedlabel.stages", "densed")


def test_plugins_that_an_option_holds_are_listed_with_their_own_code():
    from sharedlabel.config import plugins_in, resolve

    janossy = resolve("aggregators", {"name": "janossy", "base": "gru"})
    assert plugins_in(janossy) == {("aggregators", "janossy"), ("aggregators", "gru")}
    bursts = resolve("data", "bursts")
    assert plugins_in(bursts) == {("data", "bursts"), ("data", "digits")}
