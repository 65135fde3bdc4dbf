"""Which edits of the files of a plugin from outside change its digest, and that what runs is what was read."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from sharedlabel import config, plugins
from sharedlabel.code import digests, surroundings
from sharedlabel.errors import ConfigError
from sharedlabel.types import SetShape

PLUGIN = """
from dataclasses import dataclass
{imports}

@dataclass(frozen=True)
class Config:
    pass

def build(config, shape):
    return {value}
"""
_seconds = itertools.count(10**9)


def write(name: str, text: str) -> str:
    """Write a file, a second later than the one before."""
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    second = next(_seconds)
    os.utime(path, (second, second))
    return name


pytestmark = pytest.mark.usefixtures("apart")


def digest(given: str) -> str:
    """Return the digest of a plugin, as the next grid finds it."""
    config.refresh()
    return next(iter(plugins.code({("aggregators", plugins.take("aggregators", given))}).values()))


def value(given: str) -> object:
    """Return what a plugin builds."""
    shape: SetShape = None  # type: ignore[assignment]
    return plugins.load("aggregators", plugins.take("aggregators", given)).build(None, shape)


REGISTRY = """
REG = {}
def register(function):
    REG[function.__name__] = function
    return function
@register
def half():
    return 2
"""
LATE = """
def late():
    try:
        from h import op
    except ImportError:
        op = None
    return op()
"""
TRY = "try:\n    from h import op\nexcept ImportError:\n    op = None"
TABLE = "T = []\n{}\ndef total():\n    return T[0]"
# Imports of the plugin, what it builds, and its files; the 2 in the first of them is what it builds.
FILES: dict[str, tuple[str, str, dict[str, str]]] = {
    "a loop": ("from h import total", "total()", {"h.py": TABLE.format("for i in range(1):\n    T.append(2)")}),
    "a call that is assigned": ("from h import total", "total()", {"h.py": TABLE.format("_ = T.append(2)")}),
    "a with": ("from h import total", "total()", {"h.py": TABLE.format("with open('h.py') as c:\n    T.append(2)")}),
    "a condition": ("from h import total", "total()", {"h.py": TABLE.format("if True:\n    X = 1\n    T.append(2)")}),
    "a decorator": ("from h import REG", "REG['half']()", {"h.py": REGISTRY}),
    "a subclass": ("from h import B", "B.__subclasses__()[-1].k", {"h.py": "class B: pass\nclass C(B):\n    k = 2"}),
    "a default": ("from h import k", "k()", {"h.py": "def k(a=lambda: 2):\n    return a()"}),
    "an effect": ("import h, side", "h.K", {"side.py": "import h\nh.K = 2", "h.py": "K = 1"}),
    "an effect of a package": (
        "from pack import h",
        "h.K",
        {
            "pack/side.py": "from pack import h\nh.K = 2",
            "pack/h.py": "K = 1\nfrom pack import side",
            "pack/__init__.py": "",
        },
    ),
    "a package": (
        "from pack.h import k",
        "k()",
        {"pack/__init__.py": "from pack import h\nh.K = 2", "pack/h.py": "K = 1\ndef k():\n    return K"},
    ),
    "in a function": (LATE, "late()", {"h.py": "def op():\n    return 2"}),
    "in a try": (TRY, "op()", {"h.py": "def op():\n    return 2"}),
    "in a class": ("class L:\n    from h import op", "L.op()", {"h.py": "def op():\n    return 2"}),
    "by a literal": ("import importlib", "importlib.import_module('h').K", {"h.py": "K = 2"}),
    "by an attribute": ("import pack", "pack.h.K", {"pack/h.py": "K = 2", "pack/__init__.py": "exec('import pack.h')"}),
    "a folder alone": ("from n.h import K", "K", {"n/h.py": "K = 2"}),
    "a module of a folder alone": ("from n import h", "h.K", {"n/h.py": "K = 2"}),
    "a module of a module": ("import n.h", "n.h.K", {"n/h.py": "K = 2"}),
    "beside a package beside": (
        "from pack.sub import k",
        "k()",
        {"h.py": "K = 2", "pack/sub.py": "from h import K\ndef k():\n    return K", "pack/__init__.py": ""},
    ),
    "relative": ("from pack import K", "K", {"pack/h.py": "K = 2", "pack/__init__.py": "from .h import K"}),
    "relative or not": (
        "from h import K",
        "K",
        {"k.py": "K = 2", "h.py": f"{TRY}\ntry:\n    from .k import K\nexcept ImportError:\n    from k import K"},
    ),
    "everything": ("from pack import *", "K", {"pack/h.py": "K = 2", "pack/__init__.py": "from pack.h import *"}),
    "in a circle": (
        "from a import k",
        "k()",
        {"b.py": "from a import *\nK = 2", "a.py": "from b import *\ndef k():\n    from b import K\n    return K"},
    ),
}


@pytest.mark.parametrize("way", FILES)
def test_an_edit_of_any_file_of_a_plugin_changes_its_digest_and_a_comment_does_not(way):
    imports, call, files = FILES[way]
    for name, text in files.items():
        write(name, text)
    given = write("p.py", PLUGIN.format(imports=imports, value=call))
    before, edited = digest(given), next(iter(files))
    assert value(given) == 2
    write(edited, f"{files[edited]}  # why")
    assert digest(given) == before
    write(edited, files[edited].replace("2", "30"))
    assert digest(given) != before
    assert value(given) == 30


PACKAGES = {
    "its package": ({"own/h.py": "K = 2"}, "from .h import K"),
    "what is above its module": ({"own/__init__.py": "K = 2"}, "import sys\nK = sys.modules['own'].K"),
    "a module beside its package": ({"h.py": "K = 2"}, "from h import K"),
    "a package beside its package": ({"pack/h.py": "K = 2", "pack/__init__.py": ""}, "from pack.h import K"),
}


@pytest.mark.parametrize("way", PACKAGES)
def test_the_files_of_a_plugin_that_is_a_module_are_those_of_its_package_and_beside_that(way):
    files, imports = PACKAGES[way]
    for name, text in ({"own/__init__.py": ""} | files).items():
        write(name, text)
    write("own/p.py", PLUGIN.format(imports=imports, value="K"))
    before, edited = digest("own.p"), next(iter(files))
    write(edited, files[edited].replace("2", "30"))
    assert digest("own.p") != before
    assert value("own.p") == 30


@pytest.mark.parametrize("folder", ["pack", "pack/deep"])
def test_a_file_in_a_package_has_the_files_of_that_and_what_lies_beside_it(folder):
    for name in ("pack/__init__.py", "pack/deep/__init__.py"):
        write(name, "")
    files = {"pack/h.py": "from beside import K", "beside.py": "K = 2"}
    for name, text in files.items():
        write(name, text)
    given = write(f"{folder}/p.py", PLUGIN.format(imports="from pack.h import K", value="K"))
    digested = {digest(given)}
    for name, text in files.items():
        write(name, f"{text}\nX = 1")
        digested.add(digest(given))
    assert len(digested) == 3


def test_names_of_strangers_are_kept_and_what_they_lead_to_in_this_package_is_followed():
    """Another import under the same name counts; of this package, only what is named, through whichever file."""
    write("h.py", "from sharedlabel.metrics import n_accuracy as a, brier as b, gain")
    given = write("p.py", PLUGIN.format(imports="from h import a", value="a"))
    before = digest(given)
    places = digests.reached(plugins._taken["aggregators", "p"].module)
    named = {module for module, _ in places}
    assert "sharedlabel.metrics.accuracy" in named
    assert "sharedlabel.metrics.brier" not in named
    write("p.py", PLUGIN.format(imports="from h import b as a", value="a"))
    assert digest(given) != before


def test_the_order_of_imports_counts():
    write("one.py", "")
    write("two.py", "")
    given = write("p.py", PLUGIN.format(imports="import one, two", value="2"))
    before = digest(given)
    write("p.py", PLUGIN.format(imports="import two, one", value="2"))
    assert digest(given) != before


@pytest.mark.parametrize("folder", ["site-packages", "dist-packages"])
def test_of_installed_packages_the_plugins_own_counts(folder, monkeypatch):
    monkeypatch.syspath_prepend(folder)
    for name in ("own/__init__.py", "own/h.py", "own/deep/__init__.py", "strange.py", "other/__init__.py"):
        write(f"{folder}/{name}", "")
    write(
        f"{folder}/own/deep/p.py", PLUGIN.format(imports="import strange, other, torch\nfrom own import h", value="2")
    )
    assert surroundings.files("own.deep.p") == {"own", "own.deep", "own.deep.p", "own.h"}
    plugins.take("aggregators", f"{folder}/own/deep/p.py")
    assert surroundings.files(file := plugins._taken["aggregators", "p"].module) == {file, "own", "own.h"}


def test_imports_are_looked_up_and_not_run(tmp_path):
    """A package that a function would import later, or never, is read; and what is nowhere is passed over."""
    write("pack/__init__.py", f"open({str(tmp_path / 'ran')!r}, 'w')")
    write("pack/h.py", "")
    imports = "def late():\n    import pack.h, pack.absent, absent.h, __main__\n    from ..... import above"
    digest(write("p.py", PLUGIN.format(imports=imports, value="2")))
    assert "pack.h" in surroundings.files(plugins._taken["aggregators", "p"].module)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", [f"h{EXTENSION_SUFFIXES[0]}", "h.py"])
def test_a_file_that_is_no_python_counts_by_its_bytes(name):
    given = write("p.py", PLUGIN.format(imports="def late():\n    import h", value="2"))
    digested = set()
    for text in ("def =", "def =="):
        write(name, text)
        digested.add(digest(given))
    assert len(digested) == 2


def test_what_runs_is_what_was_read_even_where_byte_code_looks_as_new():
    """Python knows a file by its second and length."""
    given = write("p.py", PLUGIN.format(imports="from h import K", value="K"))
    for number in (2, 3):
        Path("h.py").write_text(f"K = {number}")
        os.utime("h.py", ns=(10**18 + number, 10**18 + number))
        config.refresh()
        assert value(given) == number


def test_what_has_not_changed_is_not_imported_again():
    write("n/h.py", "K = 2")
    given = write("p.py", PLUGIN.format(imports="from n.h import K", value="K"))
    before = digest(given)
    loaded = [plugins.load("aggregators", "p"), sys.modules["n.h"]]
    assert digest(given) == before
    assert [plugins.load("aggregators", "p"), sys.modules["n.h"]] == loaded


def test_a_plugin_that_was_taken_is_there_after_an_edit_too():
    given = write("p.py", PLUGIN.format(imports="", value="2"))
    assert value(given) == 2
    write("p.py", PLUGIN.format(imports="", value="30"))
    config.refresh()
    assert plugins.load("aggregators", "p").build(None, None) == 30


def test_a_file_that_was_refused_is_read_again_once_it_is_corrected():
    given = write("p.py", PLUGIN.format(imports="", value="2").replace("frozen=True", "frozen=False"))
    with pytest.raises(ConfigError, match="expected a frozen dataclass"):
        value(given)
    write("p.py", PLUGIN.format(imports="", value="2"))
    config.refresh()
    assert value(given) == 2


def test_another_process_runs_what_it_reads_too(tmp_path, monkeypatch):
    root = Path(__file__).parents[1]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(tmp_path), str(root))))
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    write("pack/__init__.py", "")
    write("pack/p.py", PLUGIN.format(imports="from pack.h import K", value="K"))
    lines = ("from sharedlabel import plugins", "plugins.take('aggregators', 'pack.p')")
    code = "\n".join((*lines, "print(plugins.load('aggregators', 'pack.p').build(None, None))"))
    for number in (2, 3):
        Path("pack/h.py").write_text(f"K = {number}")
        os.utime("pack/h.py", (10**9, 10**9))
        done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
        assert done.stdout == f"{number}\n"
