"""Plugins from outside the package: files, modules by dotted path, installed entry points."""

from __future__ import annotations

import importlib
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from sharedlabel import config, plugins, train
from sharedlabel.code import digests as sources
from sharedlabel.errors import ConfigError
from sharedlabel.plugins import outside
from sharedlabel.types import SetShape

POOL = """
from dataclasses import dataclass
from sharedlabel.aggregators._base import Aggregator, normalize

@dataclass(frozen=True)
class Config:
    \"\"\"A power of the last.

    Args:
        power: of the scores.
    \"\"\"

    power: float = 1.0

class Pool(Aggregator):
    permutation_invariant = True

    def __init__(self, power):
        super().__init__()
        self.power = power

    def forward(self, embeddings, logits):
        return normalize(self.power * logits.cumsum(1))

def build(config, shape):
    return Pool(config.power)
"""
SHAPE = SetShape(torch.zeros(3), torch.ones(3), torch.zeros(2))


pytestmark = pytest.mark.usefixtures("apart")


def write(name: str, text: str = POOL) -> str:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    stamp = 10**18 + 10**9 * len(list(Path().rglob("*"))) + hash(text) % 10**9
    os.utime(path, ns=(stamp, stamp))
    return name


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Install distributions that have entry points, as far as their metadata say."""

    def install(distribution: str, **entries: str) -> None:
        folder = Path(f"{distribution}-1.dist-info")
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1\n")
        lines = [f"{name} = {value}" for name, value in entries.items()]
        (folder / "entry_points.txt").write_text("\n".join(["[sharedlabel.aggregators]", *lines]))
        outside._entry_points.cache_clear()

    yield install
    outside._entry_points.cache_clear()


def built(spec: config.PluginSpec) -> torch.nn.Module:
    plugin = config.resolve("aggregators", spec)
    network = plugins.load("aggregators", plugin.name).build(plugin.config, SHAPE)
    assert isinstance(network, torch.nn.Module)
    return network


def test_a_file_is_a_plugin_called_by_its_stem():
    write("pools/my_pool.py")
    plugin = config.resolve("aggregators", {"name": "./pools/my_pool.py", "power": 2.0})
    assert (plugin.name, plugin.label, plugin.config.power) == ("my_pool", "my_pool(power=2.0)", 2.0)
    assert plugin.key() == {"name": "my_pool", "power": 2.0}
    assert config.plugins_in(plugin) == {("aggregators", "my_pool")}
    assert list(plugins.code(config.plugins_in(plugin))) == ["aggregators.my_pool"]


@pytest.mark.parametrize("given", ["./my_pool.py", "my_pool.py", "../mine/my_pool.py", "{absolute}"])
def test_however_the_path_is_written_it_is_the_same_plugin(tmp_path, monkeypatch, given):
    Path("mine").mkdir()
    monkeypatch.chdir("mine")
    write("my_pool.py")
    usual = config.resolve("aggregators", "./my_pool.py")
    assert config.resolve("aggregators", given.format(absolute=tmp_path / "mine" / "my_pool.py")) == usual


def test_a_module_is_a_plugin_by_its_dotted_path():
    write("my_package/__init__.py", "")
    write("my_package/pools.py")
    plugin = config.resolve("aggregators", "my_package.pools")
    assert (plugin.name, plugin.label) == ("my_package.pools", "pools")
    assert built("my_package.pools").power == 1.0


def test_an_entry_point_is_a_plugin_by_its_name(installed):
    write("my_package/__init__.py", "")
    write("my_package/pools.py")
    installed("mine", our_pool="my_package.pools")
    plugin = config.resolve("aggregators", {"name": "our_pool", "power": 3.0})
    assert (plugin.name, plugin.label) == ("our_pool", "our_pool(power=3.0)")
    assert built("our_pool").power == 1.0


def test_the_package_has_its_own_plugins_without_any_of_these(installed):
    installed("mine", our_pool="absent.module")
    assert config.resolve("aggregators", "log_pool").name == "log_pool"
    assert "our_pool" not in plugins.available("aggregators")


def test_code_in_keys_is_that_of_the_file_what_lies_beside_it_and_what_it_reaches_in_the_package():
    write("helper.py", "def used(x):\n    return x\n")
    write("other/__init__.py", "FACTOR = 1\n")
    text = POOL.replace("from dataclasses", "from helper import used\nimport other\nfrom dataclasses")
    text = text.replace("Pool(config.power)", "Pool(other.FACTOR * used(config.power))")
    write("my_pool.py", text)

    def digest() -> str:
        config.refresh()
        return plugins.code({("aggregators", plugins.take("aggregators", "./my_pool.py"))})["aggregators.my_pool"]

    before, modules = digest(), {module for module, _ in sources.reached(outside.called("./my_pool.py")[1])}
    assert {"helper", "other", "sharedlabel.aggregators._base", "sharedlabel.logs"} <= modules
    assert not any(module.startswith("torch") for module in modules)
    write("helper.py", "def used(x):\n    return -x\n")
    helped = digest()
    write("other/__init__.py", "FACTOR = 2\n")
    assert len({before, helped, digest()}) == 3


def test_code_in_keys_is_the_same_wherever_the_file_lies():
    digests = set()
    for folder in ("one", "two/three"):
        plugins.take("aggregators", write(f"{folder}/my_pool.py"))
        digests |= set(plugins.code({("aggregators", "my_pool")}).values())
        plugins._taken.clear()
    assert len(digests) == 1


def test_installed_packages_of_others_are_not_followed():
    write("site-packages/strange.py", "X = 1")
    write("site-packages/my_pool.py", POOL.replace("from dataclasses", "import strange\nfrom dataclasses"))
    sys.path.insert(0, "site-packages")
    try:
        plugins.take("aggregators", "site-packages/my_pool.py")
        modules = {module for module, _ in sources.reached(outside.called("site-packages/my_pool.py")[1])}
    finally:
        sys.path.remove("site-packages")
    assert "strange" not in modules
    assert "sharedlabel.logs" in modules


def test_the_next_grid_sees_an_edited_file_and_the_running_one_does_not():
    write("my_pool.py")
    config.refresh()
    config.resolve("aggregators", "./my_pool.py")
    before = plugins.code({("aggregators", "my_pool")})
    write("my_pool.py", POOL.replace("self.power = power", "self.power = -power"))
    assert built("./my_pool.py").power == 1.0
    assert plugins.code({("aggregators", "my_pool")}) == before
    config.refresh()
    assert built("./my_pool.py").power == -1.0
    assert plugins.code({("aggregators", "my_pool")}) != before


NESTED = {
    "from the package": ("from pack import helper", "helper.factor()", ""),
    "from the package, which imports it": ("from pack import helper", "helper.factor()", "from pack import helper"),
    "its function": ("from pack.helper import factor", "factor()", ""),
    "relative": ("from . import helper", "helper.factor()", ""),
    "full name": ("import pack.helper", "pack.helper.factor()", ""),
    "through the package": ("import pack", "pack.helper.factor()", "import pack.helper"),
    "what the package hands on": ("from pack import factor", "factor()", "from pack.helper import factor"),
    "through another module": ("from pack.other import factor", "factor()", ""),
}


@pytest.mark.parametrize("way", NESTED)
@pytest.mark.parametrize("package", ["package", "namespace"])
def test_the_next_grid_sees_an_edited_module_of_the_package_of_a_plugin(way, package):
    imports, call, initial = NESTED[way]
    if package == "namespace" and initial:
        imports = f"import pack.helper\n{imports}".replace("from pack import factor", "from pack.helper import factor")
    if package == "package":
        write("pack/__init__.py", initial)
    write("pack/helper.py", "def factor():\n    return 2.0\n")
    write("pack/other.py", "from pack.helper import factor\n")
    text = POOL.replace("from dataclasses", f"{imports}\nfrom dataclasses")
    write("pack/my_pool.py", text.replace("Pool(config.power)", f"Pool({call} * config.power)"))
    config.refresh()
    assert built("pack.my_pool").power == 2.0
    before = plugins.code({("aggregators", "pack.my_pool")})
    write("pack/helper.py", "def factor():\n    return 3.00\n")
    config.refresh()
    assert built("pack.my_pool").power == 3.0
    assert plugins.code({("aggregators", "pack.my_pool")}) != before


def test_modules_of_others_in_a_namespace_are_not_imported_again():
    write("shared/ours/__init__.py", "")
    write("shared/ours/my_pool.py")
    write("shared/theirs.py", "")
    theirs = importlib.import_module("shared.theirs")
    config.refresh()
    config.resolve("aggregators", "shared.ours.my_pool")
    plugins.code({("aggregators", "shared.ours.my_pool")})
    write("shared/ours/my_pool.py", POOL.replace("self.power = power", "self.power = -power"))
    config.refresh()
    assert built("shared.ours.my_pool").power == -1.0
    assert importlib.import_module("shared.theirs") is theirs


def test_a_file_that_is_being_edited_does_not_end_the_grid_that_runs():
    write("my_pool.py")
    plugin = config.resolve("aggregators", "./my_pool.py")
    write("my_pool.py", "def half(")
    assert config.resolve("aggregators", "./my_pool.py") == plugin
    Path("my_pool.py").unlink()
    assert config.resolve("aggregators", "./my_pool.py") == plugin


def test_an_option_may_hold_a_plugin_from_outside():
    write("my_pool.py", (Path(plugins.__file__).parent.parent / "aggregators" / "gru.py").read_text())
    janossy = config.resolve("aggregators", {"name": "janossy", "base": {"name": "./my_pool.py", "hidden": 8}})
    assert janossy.key()["base"]["name"] == "my_pool"
    assert "my_pool.py" not in janossy.label
    assert config.plugins_in(janossy) == {("aggregators", "janossy"), ("aggregators", "my_pool")}
    assert config.remade("aggregators", janossy.key()).key() == janossy.key()
    spec = {"name": "janossy", "base": {"name": str(Path("my_pool.py").resolve()), "hidden": 8}}
    assert config.public("aggregators", spec) == {"name": "janossy", "base": {"name": "my_pool.py", "hidden": 8}}


def test_what_is_stored_starts_no_code(tmp_path):
    """A manifest of a stranger may name anything; only what the user gives is imported."""
    text = f"open({str(tmp_path / 'ran')!r}, 'w').close()\n{POOL}"
    write("evil.py", text)
    write("pack/__init__.py", "")
    write("pack/evil.py", text)
    for name in ("./evil.py", "pack.evil", "evil"):
        with pytest.raises(ConfigError, match=r"unknown aggregator .*from outside, .* \(export: --plugin\)"):
            config.remade("aggregators", {"name": name, "power": 1.0})
        with pytest.raises(ConfigError, match="unknown aggregator"):
            config.remade("aggregators", {"name": "janossy", "base": name})
        with pytest.raises(ConfigError, match="unknown aggregator"):
            config.remade("aggregators", {"name": "janossy", "base": {"name": name}})
    assert not (tmp_path / "ran").exists()


def test_sealed_takes_none_from_outside(tmp_path):
    write("my_pool.py", f"open({str(tmp_path / 'ran')!r}, 'w').close()\n{POOL}")
    with plugins.sealed("in a protocol"):
        assert plugins.take("aggregators", "log_pool") == "log_pool"
        with pytest.raises(ConfigError, match=r"aggregator: expected one of this package in a protocol, got '\./my"):
            plugins.take("aggregators", "./my_pool.py")
    assert not (tmp_path / "ran").exists()
    assert plugins.take("aggregators", "./my_pool.py") == "my_pool"


def test_another_process_unpickles_what_a_file_defines():
    """As those that `ddp_spawn` starts do; nothing of sharedlabel need be imported there before."""
    network = built({"name": write("my_pool.py"), "power": 4.0})
    code = "import pickle, sys; print(pickle.load(open('pickled', 'rb')).power)"
    Path("pickled").write_bytes(pickle.dumps(network))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("4.0\n", "")


def test_the_leaderboard_loads_none(tmp_path, capsys):
    from sharedlabel.leaderboard.__main__ import main

    write("my_pool.py", f"open({str(tmp_path / 'ran')!r}, 'w').close()\n{POOL}")
    write("protocol.yaml", "aggregators: [./my_pool.py]\n")
    assert main(["freeze", "--config", "protocol.yaml", "--id", "x-v1", "--title", "x", "--about", "x"]) == 2
    assert "aggregator: expected one of this package in a protocol, got './my_pool.py'" in capsys.readouterr().err
    assert not (tmp_path / "ran").exists()


ERRORS = {
    "no such file": (
        {},
        "./absent.py",
        r"expected a Python file, got './absent.py', which is not there; paths start at",
    ),
    "folder": ({"my_pool.py/x.txt": ""}, "./my_pool.py", "got './my_pool.py', which is a folder; name a file in it"),
    "folder without suffix": ({"pools/x.py": ""}, "./pools", "got './pools', which is a folder; name a file in it"),
    "no suffix": ({"pools/x.txt": ""}, "pools/x.txt", "expected a file that ends in .py, got 'pools/x.txt'; name the"),
    "odd name": ({"my pool.py": POOL}, "./my pool.py", "expected a file whose name is made of .*, got './my pool.py'"),
    "no such module": (
        {},
        "absent.pool",
        "expected an installed module, got 'absent.pool', which Python does not find",
    ),
    "no such submodule": ({"pack/__init__.py": ""}, "pack.absent", "got 'pack.absent', which Python does not find"),
    "two builds": (
        {"p.py": POOL + "\ndef build(a, b): pass"},
        "./p.py",
        "expected one plugin in './p.py', got build 2",
    ),
    "two configs": (
        {"p.py": POOL + "\nclass Config: pass"},
        "./p.py",
        "expected one plugin in './p.py', got Config 2 t",
    ),
    "two kinds": (
        {"p.py": POOL + "\ndef load(config, root): pass"},
        "./p.py",
        "expected one plugin in './p.py', got build and load, of different kinds; make a file of each",
    ),
    "shadows": (
        {"log_pool.py": POOL},
        "./log_pool.py",
        "a name that this package does not use, got './log_pool.py'; re",
    ),
    "the package's own": (
        {},
        "sharedlabel.aggregators.log_pool",
        "got 'sharedlabel.aggregators.log_pool'; .*write log_p",
    ),
    "nothing": (
        {"p.py": "x = 1"},
        "./p.py",
        r"expected Config and build\(config, shape\) in './p.py', got none of it; d",
    ),
    "no config": (
        {"p.py": "def build(a, b): pass"},
        "./p.py",
        r"expected Config and build.* in './p.py', got build; def",
    ),
    "another kind": (
        {"p.py": "class Config: pass\ndef load(a, b): pass"},
        "./p.py",
        r"expected .*, got Config, load; de",
    ),
    "syntax error": (
        {"p.py": "x = 1\ny = ="},
        "./p.py",
        "expected Python in './p.py', got a syntax error in line 2: inv",
    ),
    "no text": (
        {"p.py": "\0"},
        "./p.py",
        "expected Python in './p.py', got a syntax error.*: source code .* null bytes",
    ),
    "raises": (
        {"p.py": POOL + "\n1 / 0"},
        "./p.py",
        "expected './p.py' to be imported, got ZeroDivisionError: division",
    ),
    "exits": (
        {"p.py": POOL + "\nexit(0)"},
        "./p.py",
        "expected './p.py' to be imported, got SystemExit: 0; correct it",
    ),
    "needs another": (
        {"p.py": "import absent\n" + POOL},
        "./p.py",
        "expected './p.py' to be imported, got ModuleNotFoundError: No module named 'absent'; correct it, or",
    ),
    "package raises": (
        {"pack/__init__.py": "raise OSError('odd')", "pack/pool.py": POOL},
        "pack.pool",
        "expected 'pack.pool' to be imported, got OSError: odd; correct it, or install what it needs",
    ),
    "thawed": (
        {"p.py": POOL.replace("frozen=True", "frozen=False")},
        "./p.py",
        r"expected a frozen dataclass Config in './p.py', got <class '.*Config'>; write @dataclass\(frozen=True\)",
    ),
    "without default": (
        {"p.py": POOL.replace("power: float = 1.0", "power: float")},
        "./p.py",
        "expected a default of every option in './p.py', got none of 'power'; give it one",
    ),
    "no function": (
        {"p.py": POOL.replace("def build", "build = 3\ndef other")},
        "./p.py",
        r"expected Config and build\(config, shape\) in './p.py', got something else of these names; define functions",
    ),
    "other arguments": (
        {"p.py": POOL.replace("def build(config, shape)", "def build(config)")},
        "./p.py",
        r"expected build\(config, shape\) in './p.py', got build\(config\); take these arguments, in this order",
    ),
    "no plugin at all": (
        {},
        "log_pol",
        "unknown aggregator 'log_pol'; did you mean 'log_pool'?.*; one from outside is gi",
    ),
    "two dots": ({}, "pkg..x", r"aggregator: expected a module as package.module, .* got 'pkg..x'; correct it"),
    "a sign": ({}, "log-pool.x", r"aggregator: expected a module as package.module, .* got 'log-pool.x'; correct it"),
    "a program": ({}, "os; print", "unknown aggregator 'os; print'; .*one from outside is given as"),
    "a tale": (
        {},
        "x" * 5000,
        r"expected a name or a path in one line of at most 1000 letters, got 'x{60}' ...; short",
    ),
    "null": (
        {},
        "./p\0.py",
        r"expected a name or a path in one line of at most 1000 letters, got './p.x00.py' ...; sh",
    ),
    "nobody's home": (
        {},
        "~nobody-here/p.py",
        "expected a path, got '~nobody-here/p.py': nobody of that name has a home",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_what_is_wrong_is_one_sentence(case):
    files, given, message = ERRORS[case]
    for name, text in files.items():
        write(name, text)
    with pytest.raises(ConfigError, match=message) as caught:
        config.resolve("aggregators", given)
    assert "\n" not in str(caught.value)
    assert "aggregator" in str(caught.value)
    assert not plugins._taken


DATA = """
from dataclasses import dataclass

@dataclass(frozen=True)
class Config:
    pass

def load(config, root):
    return 3
"""
BACKBONE = DATA.replace("load(config, root)", "build(config, image_shape, num_classes)")
RAISING = {
    "an option": (
        POOL.replace("class Pool", "    def __post_init__(self):\n        {}['k']\n\nclass Pool"),
        "aggregators=[./p.py]",
        r"expected a plugin that raises no error, got KeyError: 'k', from line 16 of .*p.py \(in __post_init__\); corr",
    ),
    "an aggregator": (
        POOL.replace("return Pool(", "raise ValueError('odd')\n    return Pool("),
        "aggregators=[./p.py]",
        r"got ValueError: odd, from line 26 of .*p.py \(in build\); correct it",
    ),
    "deeper": (
        POOL.replace("return Pool(", "shape.log_prior.cumsum(7)\n    return Pool("),
        "aggregators=[./p.py]",
        r"got IndexError: Dimension .*, from line 26 of .*p.py \(in build\); correct it",
    ),
    "an exit": (
        POOL.replace("return Pool(", "exit(0)\n    return Pool("),
        "aggregators=[./p.py]",
        r"got SystemExit: 0, from line 26 of .*p.py \(in build\)",
    ),
    "a space": (
        POOL + "\ndef space(config):\n    assert False\n",
        "space",
        r"got AssertionError, from line 29 of .*p.py",
    ),
    "data": (
        DATA.replace("return 3", "open('x.bin')"),
        "data=./p.py",
        r"got FileNotFoundError: .*x.bin.*line 9 of .*p.py",
    ),
    "no data": (DATA, "data=./p.py", "data: expected a Dataset from p, got a int; return one"),
    "no backbone": (BACKBONE, "backbones=[./p.py]", "backbones: expected a Backbone from p, got a int; return one"),
    "a pruner": (
        DATA.replace("load(config, root)", "ceiling(backbone, config)").replace("return 3", "1 / 0")
        + "\nSTRUCTURED, NESTED, NEEDS = False, True, frozenset()"
        + "\ndef prune(backbone, ratio, config, context):\n    pass\n",
        "pruners=[./p.py]",
        r"got ZeroDivisionError: division by zero, from line 9 of .*p.py \(in ceiling\)",
    ),
}


@pytest.mark.parametrize("case", RAISING)
def test_what_a_plugin_raises_while_a_run_is_prepared_is_one_sentence_with_its_place(case, capsys):
    text, option, message = RAISING[case]
    write("p.py", text)
    options = ["--aggregators=[./p.py]", "--fit.trials=2"] if option == "space" else [f"--{option}"]
    assert train.main(["--plan", "--tracking=none", *options]) == 2
    error = capsys.readouterr().err
    assert re.fullmatch(f"error: .*{message}.*\n", error), error


def test_two_files_of_one_name_are_not_told_apart():
    plugins.take("aggregators", write("one/my_pool.py"))
    with pytest.raises(ConfigError, match=r"expected one plugin called 'my_pool', got 'one/my_pool.py' and 'two/my_po"):
        plugins.take("aggregators", write("two/my_pool.py"))


@pytest.mark.parametrize(
    ("entries", "given", "message"),
    [
        (
            {"a": {"our_pool": "absent.pool"}},
            "our_pool",
            r"got the entry point 'our_pool' of a \(absent.pool\), which Py",
        ),
        (
            {"a": {"our_pool": "raising.pool"}},
            "our_pool",
            r"the entry point .* \(raising.pool\) to be imported, got OSE",
        ),
        (
            {"a": {"our_pool": "pack.pool:build"}},
            "our_pool",
            r"expected a module, got the entry .*; write package.module",
        ),
        (
            {"a": {"our_pool": "pack.pool"}, "b": {"our_pool": "pack.pool"}},
            "our_pool",
            "expected one entry point 'our_pool' of sharedlabel.aggregators, got 2, of a and b; uninstall all but one",
        ),
        (
            {"a": {"log_pool": "pack.pool"}},
            "log_pool",
            "a name that this package does not use, got the entry point 'log_pool' of a; rename it there, or",
        ),
        (
            {"a": {"p": "pack.pool"}},
            "./p.py",
            "one plugin called 'p', got the entry point of a and './p.py'; rename one",
        ),
    ],
)
def test_what_is_wrong_with_an_entry_point_is_one_sentence(installed, entries, given, message):
    for name, text in (("pack/pool.py", POOL), ("p.py", POOL), ("raising/pool.py", POOL)):
        write(name, text)
    write("raising/__init__.py", "raise OSError('odd')")
    for distribution, of_it in entries.items():
        installed(distribution, **of_it)
    with pytest.raises(ConfigError, match=message):
        config.resolve("aggregators", given)


def test_kinds_are_told_by_what_a_file_defines():
    folder = Path(plugins.__file__).parent.parent
    kinds = {
        kind: {
            plugins.contract.kind_of((folder / kind / f"{name}.py").read_text(), name)
            for name in plugins.available(kind)
        }
        for kind in plugins.KINDS
    }
    assert kinds == {kind: {kind} for kind in plugins.KINDS}
    for check in (plugins.contract.kind_of, lambda text, name: plugins.contract.check_text("aggregators", text, name)):
        with pytest.raises(ConfigError, match=r"expected one plugin in p.py, got build and load, of different kinds"):
            check(POOL + "\ndef load(c, r): pass", "p.py")
        with pytest.raises(ConfigError, match=r"in p.py.*, got `raise OSError\('no licence'\)` in line 2; "):
            check("if True:\n    raise OSError('no licence')", "p.py")


def test_a_plugin_is_taken_without_saying_its_kind(installed):
    write("pack/__init__.py", "")
    write("pack/pool.py")
    installed("a", our_pool="pack.pool")
    for given, name in ((write("p.py"), "p"), ("pack.pool", "pack.pool"), ("our_pool", "our_pool")):
        assert plugins.take_any(given) == ("aggregators", name)
    with pytest.raises(ConfigError, match=r"a plugin in 'q.py', which defines one of build, load, .*, got none of it"):
        plugins.take_any(write("q.py", "x = 1"))
    with pytest.raises(ConfigError, match=r"expected Python in 'q.py', got a syntax error in line 1"):
        plugins.take_any(write("q.py", "x ="))


def test_every_plugin_of_the_package_is_what_its_kind_needs():
    folder = Path(plugins.__file__).parent.parent
    for kind in plugins.KINDS:
        for name in plugins.available(kind):
            plugins.contract.check_text(kind, (folder / kind / f"{name}.py").read_text(), name)
            plugins.contract.check_module(kind, plugins.load(kind, name), name)
