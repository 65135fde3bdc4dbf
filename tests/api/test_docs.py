"""The page of the API speaks of every public name, and of what each plot takes."""

from __future__ import annotations

import re
from pathlib import Path

import sharedlabel as sl
from sharedlabel.api.plot._selection import WHERE, takes

PAGE = Path(__file__).parents[2] / "docs" / "api.md"


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
