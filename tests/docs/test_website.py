"""What the documentation site is made of, without building it."""

from __future__ import annotations

import importlib
import json
import posixpath
import re
import sys

import matplotlib.pyplot as plt
import nbformat
import pytest

from sharedlabel import plugins
from sharedlabel.config import schema
from website import DOCS, ROOT, __main__, methods, notebooks, outside, pictures, reference, tables

PLUGIN = '''
"""A pool that was not there before.

aggregators: [{name: unheard_of, power: 2.0}]
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Config:
    """Options.

    Args:
        power: how much every instance counts.
    """

    power: float = 1.0


def build(config, shape):
    raise NotImplementedError
'''


@pytest.mark.parametrize("kind", plugins.KINDS)
def test_every_plugin_has_a_page_with_its_options(kind) -> None:
    for name in plugins.available(kind):
        page = methods.page(kind, name)
        assert page.startswith(f"# `{name}`\n")
        for option, _ in schema.leaves(plugins.load(kind, name).Config):
            assert re.search(rf"^\| `{option}` \| .+ \| `.*` \| .{{5,}} \|$", page, flags=re.MULTILINE), (name, option)


def test_pages_have_formula_advice_numbers_and_use() -> None:
    page = methods.page("aggregators", "log_pool")
    assert "log p(y) + sum e_i" in page
    assert "Use it always, as the reference" in page
    assert re.search(r"\| cifar10-jpeg, resnet8 \| iid \| 16 \| 0\.\d{3} \[", page)
    assert "[digits](../../source/configs/digits.yaml.md)" in page
    page = methods.page("pruners", "unit")
    assert "L2 norm" in page
    assert "Times as fast as the dense network" in page
    ours = tables.records(DOCS / "results" / "compressors-cifar10" / "summaries.csv")
    (row,) = [
        one
        for one in ours
        if (one["pruner"], one["ratio"], one["aggregator"], one["split"], one["n"])
        == ("unit", "4.0", "log_pool", "test", "1")
    ]
    assert f"{100 * float(row['n_accuracy']):.1f} ({float(row['ri']):.3f})" in page


def test_a_new_file_has_a_page_by_itself(tmp_path, monkeypatch) -> None:
    (tmp_path / "unheard_of.py").write_text(PLUGIN)
    package = importlib.import_module("sharedlabel.aggregators")
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    try:
        page = methods.page("aggregators", "unheard_of")
    finally:
        sys.modules.pop("sharedlabel.aggregators.unheard_of", None)
    assert "A pool that was not there before." in page
    assert "```yaml\naggregators: [{name: unheard_of, power: 2.0}]\n```" in page
    assert "| `power` | a number | `1.0` | how much every instance counts. |" in page


def test_links_to_files_of_the_repository_are_pages() -> None:
    made = outside.pages()
    assert {"changelog.md", "leaderboard.md", "source/configs/digits.yaml.md"} <= set(made)
    assert "name: digits" in made["source/configs/digits.yaml.md"]
    for place, text in made.items():
        if place.startswith("source/") and not place.endswith(".md.md") and "````" in text:
            continue  # code, in which brackets are no links
        for link in re.findall(r"\]\(([^)\s:#]+)\)", text):
            target = posixpath.normpath(posixpath.join(posixpath.dirname(place), link))
            assert target in made or (DOCS / target).exists() or target.startswith("notebooks/"), (place, link)


def test_links_lead_from_docs_to_the_pages_of_files() -> None:
    given = "[a](../../configs/digits.yaml) [b](../api.md#x) [c](https://example.org) [d](../../README.md#start)"
    expected = "[a](../source/configs/digits.yaml.md) [b](../api.md#x) [c](https://example.org) [d](../index.md#start)"
    assert outside.relinked(given, "docs/guides/mine.md", "guides/mine.md") == expected


def test_versions_are_listed_and_the_newest_release_is_first(tmp_path) -> None:
    for name in ("0.9.0", "0.10.0", "dev"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "index.html").write_text("")
    assert __main__.index(tmp_path) == "0.10.0"
    listed = json.loads((tmp_path / "versions.json").read_text())
    assert [(one["version"], one["aliases"]) for one in listed] == [("0.10.0", ["latest"]), ("0.9.0", []), ("dev", [])]
    assert "url=0.10.0/" in (tmp_path / "index.html").read_text()


def test_a_version_is_a_number_or_dev(capsys) -> None:
    with pytest.raises(SystemExit):
        __main__.main(["--version", "../elsewhere"])
    assert "expected dev or numbers" in capsys.readouterr().err


def test_every_public_name_and_command_is_in_the_reference() -> None:
    made = reference.pages()
    assert "::: sharedlabel.api.pruning.prune\n" in made["reference.md"]
    assert "--retrain.epochs" in made["commands.md"]
    assert "--target-accuracy" in made["commands.md"]


@pytest.mark.parametrize("theme", pictures.THEMES)
def test_the_picture_says_what_was_measured(theme) -> None:
    figure = pictures.why(pictures.THEMES[theme])
    said = " ".join(text.get_text() for axes in figure.axes for text in axes.texts)
    plt.close(figure)
    assert "76.5% from one" in said
    assert "97.9% from 16 looks" in said
    assert (DOCS / "pictures" / f"why-{theme}.svg").stat().st_size < 200_000


@pytest.mark.parametrize("path", sorted(notebooks.FOLDER.glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebooks_are_stored_without_outputs(path) -> None:
    """`make docs` executes them; here their code is only compiled, since a kernel takes longer than all other pages."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
    for cell in cells:
        if cell["cell_type"] == "code":
            compile("".join(cell["source"]), path.name, "exec")


def test_a_notebook_becomes_a_page_with_its_pictures() -> None:
    cell = nbformat.v4.new_code_cell("1 + 1", execution_count=1)
    cell.outputs = [
        nbformat.v4.new_output("execute_result", {"text/plain": "2"}, execution_count=1),
        nbformat.v4.new_output("display_data", {"image/png": "iVBORw0KGgo="}),
    ]
    made = notebooks.page("sum", nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# A sum"), cell]))
    (picture,) = {place for place in made if place.startswith("notebooks/sum-files/")}
    assert made["notebooks/sum.md"].startswith("# A sum")
    assert f"({picture.removeprefix('notebooks/')})" in made["notebooks/sum.md"]


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 100
