"""`sharedlabel new` and `sharedlabel check`: what is written works, and what is broken is told."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sharedlabel import conformance, plugins
from sharedlabel.cli.new import __main__ as new
from sharedlabel.code import digests
from sharedlabel.config import resolve
from sharedlabel.conformance import __main__ as check

NEVER_TWICE = "(1 + __import__('time').perf_counter_ns() % 1000003 / 1000003)"
# What each kind can do wrong: what is replaced in what `new` writes, and the promise that is broken then.
BROKEN = {
    "looks ahead": ("aggregator", "evidence.cumsum(1)", "evidence.sum(1, keepdim=True).expand_as(evidence)", "causal"),
    "no posterior": ("aggregator", "return normalize(self", "return (self", "normalised_at_every_prefix"),
    "other tuples": (
        "aggregator",
        "weight * (normalize(logits)",
        "weight * (normalize(logits.mean(0))",
        "exact_contract",
    ),
    "order": ("aggregator", "permutation_invariant = True", "permutation_invariant = False", "order"),
    "state": ("aggregator", "nn.init.zeros_(self.weigh.bias)", f"self.largest *= {NEVER_TWICE}", "copied"),
    "idle": (
        "aggregator",
        "self.largest = config",
        "self.idle = nn.Linear(1, 1)\n        self.largest = config",
        "gradients",
    ),
    "default": ("aggregator", "(1.0, 2.0, 4.0)", "(1.0, 4.0)", "default_among_choices"),
    "chance": ("aggregator", "weight = self.largest", "weight = torch.rand(1) * self.largest", "deterministic"),
    "batches": (
        "backbone",
        "nn.Conv2d(channels, config.width, 3, padding=1)",
        "Batched(channels, config.width)",
        "separate_images",
    ),
    "unseeded": ("backbone", "initialize(backbone)", f"nn.init.constant_(body[0].bias, {NEVER_TWICE})", "reproducible"),
    "dead": ("backbone", "nn.AdaptiveAvgPool2d(1)", "nn.AdaptiveAvgPool2d(1), nn.Threshold(1e9, 0)", "gradients"),
    "needs": ("pruner", "NEEDS = frozenset()", 'NEEDS = frozenset({"luck"})', "constants"),
    "random": ("pruner", "size / size.max()", "size.clone().normal_() / size.max()", "deterministic"),
    "in place": ("pruner", "layer.weight.detach().abs()", "layer.weight.detach().abs_()", "untouched"),
    "luck": ("data", "torch.Generator().manual_seed(config.seed)", "torch.default_generator", "reproducible"),
    "silent": ("data", "per_class: instances of each.", "", "documented_options"),
}
BATCHED = """
class Batched(nn.Conv2d):
    def forward(self, x):
        return super().forward(x - x.mean(0))
"""


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plugins, "_taken", {})
    monkeypatch.setenv("SHAREDLABEL_PLUGIN_FILES", "{}")
    yield
    digests.forget()
    for name in [name for name in sys.modules if name.startswith("sharedlabel.plugins.files.")]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("kind", "promise"),
    [(kind, promise) for kind, (folder, _) in new.KINDS.items() for promise in conformance.promises(folder)],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_what_is_written_keeps_its_promises(kind, promise):
    plugin = conformance.named(str(new.write(kind, "my_own")))
    assert (plugin.kind, plugin.label) == (new.KINDS[kind][0], "my_own")
    assert conformance.tried(promise, conformance.subject(plugin)).state in {"kept", "not tried"}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_promise_is_told(case):
    kind, old, broken, name = BROKEN[case]
    path = new.write(kind, "my_own")
    text = path.read_text()
    assert old in text
    text = text.replace(old, broken)
    path.write_text(text.replace("\n\n\n@dataclass", f"\n\n{BATCHED}\n\n@dataclass") if "Batched" in broken else text)
    plugin = conformance.named("./my_own.py")
    (promise,) = (promise for promise in conformance.promises(plugin.kind) if promise.__name__ == name)
    outcome = conformance.tried(promise, conformance.subject(plugin))
    assert outcome.state == "broken"
    assert outcome.reason


def test_a_line_is_printed_for_every_promise(capsys):
    assert new.main(["data", "my_own"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "wrote my_own.py; next: sharedlabel check ./my_own.py",
        "then run it: sharedlabel train --data.name=./my_own.py",
    ]
    assert check.main(["./my_own.py"]) == 0
    first, *lines, last = capsys.readouterr().out.splitlines()
    assert (first, last) == ("my_own, a data set", "5 kept, 0 broken, 0 not tried")
    assert lines == [f"  kept       {conformance.sentence(promise)}" for promise in conformance.promises("data")]
    assert check.main(["{name: ./my_own.py, classes: 5}"]) == 0
    assert capsys.readouterr().out.startswith("my_own(classes=5), a data set\n")


def test_exit_codes(capsys):
    path = new.write("data", "my_own")
    path.write_text(path.read_text().replace("torch.Generator().manual_seed(config.seed)", "torch.default_generator"))
    assert check.main(["./my_own.py"]) == check.BROKEN == 1
    out = capsys.readouterr().out
    assert (
        "  broken     A second load gives the same, with the same fingerprint: expected the same fingerprint twice"
        in out
    )
    assert "4 kept, 1 broken, 0 not tried" in out
    for given, message in (
        ("./absent.py", "expected a Python file, got './absent.py', which is not there"),
        (
            "{name: ./my_own.py, clases: 5}",
            "data 'my_own': unknown option 'clases'; did you mean 'classes'?",
        ),
        ("{name: [}", "expected a mapping such as {name: ./my_pool.py}, got '{name: [}'"),
        ("{path: x}", "expected a plugin, or a mapping with 'name', got '{path: x}'; write ./FILE.py"),
    ):
        assert check.main([given]) == 2
        assert message in capsys.readouterr().err


def test_data_that_are_not_there_are_not_tried(capsys):
    text = new.write("data", "my_own").read_text()
    text = text.replace(
        "    del root\n", "    from sharedlabel.errors import DataError\n\n    raise DataError('no files')\n"
    )
    Path("my_own.py").write_text(text)
    assert check.main(["./my_own.py"]) == 0
    assert "1 kept, 0 broken, 4 not tried" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["aggregators", "my_own"],
            "unknown value 'aggregators'; did you mean 'aggregator'? available: aggregator, back",
        ),
        (["pruner", "magnitude"], "expected a name that this package does not use, got 'magnitude'; choose another"),
        (["pruner", "there"], "expected a new file, got there.py, which is there; choose another name"),
        (
            ["pruner", "../mine"],
            "expected a name of small letters, digits and '_' that starts with a letter, got '../m",
        ),
        (
            ["aggregator", "torch"],
            "expected a name that no module has, got 'torch', for which Python would then import",
        ),
        (["data", "json"], "expected a name that no module has, got 'json'"),
        (["data", "sys"], "import this file instead of built-in; choose another"),
        (["pruner", "class"], "starts with a letter, got 'class'; rename it"),
        (["pruner"], "expected NAME after sharedlabel new, got none; sharedlabel new --help"),
    ],
)
def test_what_cannot_be_written_is_a_sentence(capsys, arguments, message):
    Path("there.py").write_text("mine")
    assert new.main(arguments) == 2
    assert message in capsys.readouterr().err
    assert Path("there.py").read_text() == "mine"
    assert [path.name for path in Path().iterdir()] == ["there.py"]


def test_what_is_written_is_found_by_its_name_in_the_grid():
    assert (
        resolve("aggregators", {"name": f"./{new.write('aggregator', 'my_own.py')}", "largest": 1.0}).name == "my_own"
    )
