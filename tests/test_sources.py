"""Which edits of code change which digests, and so which stored results are used no more."""

from __future__ import annotations

import ast
import importlib.util
import os
from collections.abc import Callable, Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path

import pytest

from sharedlabel import config, plugins
from sharedlabel.code import digests as sources
from sharedlabel.code import modules
from sharedlabel.errors import ConfigError
from sharedlabel.stages import STAGES

NETWORKS = {"dense", "early", "prune"}
REACHED = [
    ("stages.aggregate", "run", {"aggregate"}),
    ("metrics.calibration", "single_temperature", {"calibrate", "crossfit"}),
    ("training.compression", "compress", {"prune"}),
    ("training.backbone", "BackboneTraining", NETWORKS),
    ("training.aggregator", "AggregatorTraining", {"aggregate"}),
    ("training.joint", "SharedLabelTraining", {"joint"}),
    ("training.embedding", "embed", {*NETWORKS, "features", "joint"}),
    ("training.search", "train", {"aggregate"}),
    ("training.search", "lasting", {"aggregate"}),
    ("measurements.latency", "latency", {"latency"}),
    ("measurements.margin", "margins", {"margin"}),
    ("training.alignment", "align", {"crossfit"}),
    ("scoring.scores", "score", {"evaluate", "exact"}),
    ("scoring.thresholds", "fit", {"adaptive"}),
    ("measurements.counts", "aggregator_macs", {"evaluate", "adaptive"}),
    ("backbones._restore", "state", {*NETWORKS, "joint", "latency"}),
    ("records.rows", "NetworkCosts", {"counts"}),  # another count trains no network again
    ("records.rows", "Scores", {"evaluate", "exact"}),
]
# What people see, what is read from stored results, and what shows in keys by itself.
NOT_REACHED = [
    ("training.scores", "TupleScores"),
    ("training.logged", "LoggingModule"),
    ("training.resume", "Workplace"),
    ("training.keeping", "Keeper"),
    ("files.leases", "HEARTBEAT"),
    ("training.callbacks", "watching"),
    ("report.html", "write_report"),
    ("report.terminal", "print_report"),
    ("grid.words", "describe"),
    ("tracking.tracker", "Tracker"),
    ("training.live", "LiveLogger"),
    ("training.loggers", "Look"),
    ("records.rows", "Row"),
    ("records.rows", "NetworkTraining"),
    ("running.rows", "rows"),
    ("stages.latency", "columns"),
    ("stages.margin", "records"),
    ("stages.evaluate", "configure"),
    ("summary.tables", "summarize"),
    ("summary.ranks", "rank"),
    ("machine.provenance", "collect"),
    ("grid.prepare", "prepare"),
    ("data.splits", "split"),
    ("store.artifacts", "Output"),
    ("store.artifacts", "Artifact"),
    ("store.local", "Store"),
    ("config.plugins", "resolve"),
    ("config.sections", "JointConfig"),
    ("plugins", "load"),
    ("errors", "nearest"),
]


@pytest.fixture(scope="module")
def reached() -> dict[str, set[tuple[str, str]]]:
    """Return what the stages reach, by module and name."""
    return {
        stage: {
            (module, name)
            for module, number in sources.reached(f"sharedlabel.stages.{stage}", "run")
            for name in modules.module(module).statements[number].names
        }
        for stage in STAGES
    }


@pytest.mark.parametrize(("module", "name", "expected"), REACHED)
def test_a_stage_depends_on_the_code_that_it_reaches(reached, module, name, expected):
    assert {stage for stage, places in reached.items() if (f"sharedlabel.{module}", name) in places} == expected


@pytest.mark.parametrize(("module", "name"), NOT_REACHED)
def test_no_stage_depends_on_other_code(reached, module, name):
    assert name in {n for statement in modules.module(f"sharedlabel.{module}").statements for n in statement.names}
    assert all((f"sharedlabel.{module}", name) not in places for places in reached.values())


def test_the_configuration_which_no_digest_sees_holds_values_and_computes_none():
    names = [
        f"{config.__name__}.{name}" for name in ("sections", "experiment", "fields", "plugins", "trainings", "keys")
    ]
    classes = [
        one.tree for name in names for one in modules.module(name).statements if isinstance(one.tree, ast.ClassDef)
    ]
    assert len(classes) > 10
    written = {(one.name, part.name) for one in classes for part in ast.walk(one) if isinstance(part, ast.FunctionDef)}
    assert written == {("Plugin", "payload"), ("Plugin", "key")}


@pytest.fixture
def edited(monkeypatch) -> Iterator[Callable[[str, str, str], None]]:
    """Let a module of this package read as if a part of it said something else, in this test alone."""
    read, edits = SourceFileLoader.get_source, list[tuple[str, str, str]]()

    def get_source(loader: SourceFileLoader, name: str) -> str | None:
        source = read(loader, name)
        for old, new in [(old, new) for module, old, new in edits if module == name]:
            assert old in source
            source = source.replace(old, new, 1)
        return source

    def edit(module: str, old: str, new: str) -> None:
        assert importlib.util.find_spec(f"sharedlabel.{module}") is not None
        edits.append((f"sharedlabel.{module}", old, new))
        sources.forget()

    monkeypatch.setattr(SourceFileLoader, "get_source", get_source)
    yield edit
    sources.forget()


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
    before = {stage: sources.digest(f"sharedlabel.stages.{stage}", "run") for stage in stages}
    edited(module, old, new)
    assert {
        stage for stage in stages if sources.digest(f"sharedlabel.stages.{stage}", "run") != before[stage]
    } == expected


EDITS_WITHOUT_NUMBERS = [
    ("files.leases", "HEARTBEAT = 30.0", "HEARTBEAT = 20.0"),
    ("files.unfinished", "together.flush(path)", "pass"),
    ("training.resume", "_SHARE = 50", "_SHARE = 40"),
    ("training.callbacks", "GPU available but not used|", ""),
    ("training.callbacks", '"enable_progress_bar": False', '"enable_progress_bar": True'),
    ("training.logged", '"train/loss_step"', '"train/loss_of_step"'),
    ("training.logged", '{f"{phase}/loss": loss}', '{f"{phase}/nats": loss}'),
    ("store.artifacts", "if len(shards) == 1:", "if len(shards) == 1 and shards:"),
]


def test_edits_of_what_computes_no_number_keep_what_is_stored(edited):
    """All edits at once: digests of stages are those of before, those of the modules are not."""

    def of_stages() -> list[str]:
        return [sources.digest(f"sharedlabel.stages.{stage}", "run") for stage in ("dense", "aggregate")]

    def of_modules() -> list[str]:
        return [sources.digest(f"sharedlabel.{module}") for module in edited_ones]

    edited_ones = sorted({module for module, _, _ in EDITS_WITHOUT_NUMBERS})
    stages_before, modules_before = of_stages(), of_modules()
    for edit in EDITS_WITHOUT_NUMBERS:
        edited(*edit)
    assert of_stages() == stages_before
    assert all(now != before for now, before in zip(of_modules(), modules_before, strict=True))


def test_summaries_depend_on_the_code_that_they_reach():
    def reaches(module: str) -> bool:
        places = sources.reached(f"sharedlabel.{module}", "summarize")
        return any(place[0] == "sharedlabel.summary.ranks" for place in places)

    assert [reaches("summary.tables"), reaches("summary.adaptive_n")] == [True, False]


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
    digests = {scratch.digest()}
    for name, text, old, new in (
        ("scratch", PLUGIN.format(imports=imports, call=call), "FACTOR = 2", "FACTOR = 3"),
        ("_helper", HELPER, "return -deeper(x)", "return +deeper(x)"),
        ("_deeper", DEEPER, "x + 1", "x - 1"),
    ):
        assert old in text
        scratch.write(name, text.replace(old, new))
        digests.add(scratch.digest())
    assert len(digests) == 4


def test_a_plugin_does_not_depend_on_words_layout_and_what_it_does_not_use(scratch):
    imports, call = WAYS["absolute"]
    text = PLUGIN.format(imports=imports, call=call)
    scratch.write("scratch", text)
    before = scratch.digest()
    scratch.write("scratch", f'"""A plugin."""\n{text.replace("FACTOR = 2", "FACTOR = (2)  # twice")}')
    scratch.write("_helper", HELPER.replace("def unused(x):\n    return x", "def unused(x):\n    return -x"))
    assert scratch.digest() == before


USER = """
from sharedlabel.aggregators._near import even, first, second

def build(config, shape):
    return first(even(2)) - second(even(3))
"""
NEAR = """
def first(x):
    return helped(x)

def second(x):
    return -helped(x)

def helped(x):
    return x + CACHE[0]

CACHE = [1]

def even(x):
    return not x or odd(x - 1)

def odd(x):
    return x and even(x - 1)
"""
FAR = """
from sharedlabel.aggregators import _near

def helped(x):
    return x + CACHE[0]

CACHE = [1]

def odd(x):
    return x and _near.even(x - 1)
"""
LEFT = """
from sharedlabel.aggregators import _far as far

def second(x):
    return -far.helped(x)

def first(x):
    return far.helped(x)

def even(x):
    return not x or far.odd(x - 1)
"""


def digest_of(scratch: Scratch, /, **modules: str) -> str:
    for name, text in modules.items():
        scratch.write(name, text)
    return scratch.digest()


def test_where_a_definition_stands_changes_nothing(scratch):
    """Functions that call each other, and what they use, are moved to a module of another name, and back into one."""
    before = digest_of(scratch, scratch=USER, _near=NEAR)
    assert digest_of(scratch, _near=LEFT, _far=FAR) == before
    renamed = USER.replace("_near", "_renamed")
    assert digest_of(scratch, scratch=renamed, _renamed=NEAR, _near="", _far="") == before
    assert digest_of(scratch, scratch=NEAR + USER.replace("from sharedlabel", "# from sharedlabel")) == before


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("scratch", "first(even(2)) - second", "second(even(2)) - first"),  # which of two helpers a name leads to
        ("scratch", "import even, first, second", "import even, second as first, first as second"),
        ("_near", "not x or odd(x - 1)", "not x or even(x - 1)"),  # within functions that call each other
        ("_near", "return x and even(x - 1)", "return x and odd(x - 1)"),
        ("_near", "CACHE = [1]", "CACHE = [2]"),
        ("_near", "-helped(x)", "-abs(x)"),
    ],
)
def test_what_a_name_leads_to_counts(scratch, module, old, new):
    texts = {"scratch": USER, "_near": NEAR}
    before = digest_of(scratch, **texts)
    assert old in texts[module]
    assert digest_of(scratch, **texts | {module: texts[module].replace(old, new)}) != before


def test_two_equal_states_are_not_one_that_is_shared(scratch):
    one = "from ._near import CACHE\nfrom ._other import CACHE as other\ndef build(x, y):\n    return CACHE, other"
    before = digest_of(scratch, scratch=one, _near="CACHE = []", _other="from ._near import CACHE")
    assert digest_of(scratch, _other="CACHE = []") != before


def test_a_statement_that_binds_nothing_moves_with_what_it_is_beside(scratch):
    text = "from ._near import f\ndef build(x, y):\n    return f"
    before = digest_of(scratch, scratch=text, _near="import torch\ntorch.seed()\ndef f(): pass")
    assert digest_of(scratch, _near="import torch\ntorch.rand(1)\ndef f(): pass") != before
    moved = "import torch as t\ndef f(): pass\nt.seed()"
    assert digest_of(scratch, scratch=text.replace("_near", "_far"), _far=moved) == before


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
    with pytest.raises(LookupError, match=r"expected densed in sharedlabel.stages.dense, got none"):
        sources.digest("sharedlabel.stages.dense", "densed")


def test_plugins_that_an_option_holds_are_listed_with_their_own_code():
    from sharedlabel.config import plugins_in, resolve

    janossy = resolve("aggregators", {"name": "janossy", "base": "gru"})
    assert plugins_in(janossy) == {("aggregators", "janossy"), ("aggregators", "gru")}
    bursts = resolve("data", "bursts")
    assert plugins_in(bursts) == {("data", "bursts"), ("data", "digits")}
