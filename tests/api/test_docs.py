"""The pages of the API and of Lightning: their examples run, in order, and the first speaks of every public name."""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

import sharedlabel as sl
from sharedlabel.api.plot._selection import WHERE, takes

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "api.md"
# Lightning's remarks on this machine, and its own use of what newer versions of torch deprecate.
REMARKS = "ignore:.*(does not have many workers|logging interval|treespec, LeafSpec|GPU available but not used)"


def _run(page: Path) -> dict[str, object]:
    """Run the examples of a page, in order, and return their names."""
    examples = re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    names: dict[str, object] = {"examples": len(examples)}
    for example in examples:
        exec(compile(example, str(page), "exec"), names)
    plt.close("all")
    return names


def test_the_page_names_all_that_is_public() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for name in set(sl.__all__) - {"__version__"}:
        assert re.search(rf"\bsl\.{name}\b", text), name
    for name in sl.metrics.__all__:
        assert re.search(rf"\bsl\.metrics\.{name}\b", text), name
    for name in sl.plot.__all__:
        assert re.search(rf"\bsl\.plot\.{name}\b", text), name


def test_the_page_says_what_each_plot_takes() -> None:
    rows = re.findall(r"^\| (`\w+`.*) \| (`\w+=`.*) \|$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    said = {name: re.findall(r"`(\w+)=`", taken) for names, taken in rows for name in re.findall(r"`(\w+)`", names)}
    common = {"ax", "pruner", *WHERE}
    assert said == {
        name: [taken for taken in takes(getattr(sl.plot, name)) if taken not in common] for name in sl.plot.__all__
    }


def test_packages_list_their_public_names_alone() -> None:
    for package in (sl, sl.metrics, sl.plot):
        assert {name for name in dir(package) if not name.startswith("__")} == {*package.__all__} - {"__version__"}


@pytest.mark.filterwarnings(REMARKS)
def test_the_examples_of_the_page_run(tmp_path, monkeypatch, capsys) -> None:
    pytest.importorskip("pandas", reason='pandas is not installed; pip install "sharedlabel[pandas]"')
    monkeypatch.chdir(tmp_path)
    assert _run(PAGE)["examples"] > 12
    printed = capsys.readouterr().out
    assert "4.0 4\n" in printed
    assert "\n4.0\n" in printed
    assert (tmp_path / "ri.svg").read_text().startswith("<?xml")
    assert (tmp_path / "runs" / "tour" / "report.html").exists()


@pytest.mark.filterwarnings(REMARKS)
def test_the_examples_of_the_page_on_lightning_run(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = _run(DOCS / "lightning.md")
    assert names["log_posterior"].shape[1:] == (8, 10)
    assert (tmp_path / "logs" / "lightning_logs" / "version_0" / "metrics.csv").exists()
