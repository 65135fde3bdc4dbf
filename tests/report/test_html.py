"""The HTML report: content, escaping, no request, determinism, and its behaviour in a real browser."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from sharedlabel import records
from sharedlabel.errors import StoreError
from sharedlabel.report import html, plots
from sharedlabel.report.views import headline, split, winners

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
VOID = {"meta", "link", "input", "br"}


class Outline(HTMLParser):
    """Tags, text, and whether every element is closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.open and self.open[-1] not in {"script", "style"}:
            self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


@pytest.fixture(scope="module")
def page(results, figures):
    return html.render(results, figures)


def embedded(page, name):
    part = page[page.index(f'id="{name}"') :]
    return json.loads(re.search(r'<script type="application/json">(.*?)</script>', part, re.DOTALL)[1])


def test_headline_budgets_warning_and_captions_come_first(results, page):
    words = Outline(page).words
    spot = headline(split(results)[0])
    assert words.index(f"With {spot.n} images per object, compress {spot.ratio:g}x") < words.index("How to read it")
    assert all(f"At most {value}" in words for value in ("0.5 dense passes", "1 dense pass", "2 dense passes"))
    assert "Warning: random at 32x left layers" in words
    assert "Nothing qualifies" in words
    assert all(caption in words for _, caption in plots.CAPTIONS.values())


def test_tables_hold_the_numbers_of_the_records(results, page):
    for name in ("rows", "comparisons", "sweet_spots", "latencies", "margins"):
        table, stored = embedded(page, name), getattr(results, name)
        assert len(table["rows"]) == len(stored)
        assert set(table["columns"]) == {field.name for field in dataclasses.fields(stored[0])}
        for line, record in zip(table["rows"], stored, strict=True):
            for column, value in zip(table["columns"], line, strict=True):
                expected = getattr(record, column)
                assert value == (pytest.approx(expected, rel=1e-5) if isinstance(expected, float) else expected)
        assert all(table["titles"]) or name in {"comparisons", "sweet_spots"}


def test_a_long_table_is_cut_and_says_so(results, monkeypatch):
    monkeypatch.setattr(html, "EMBEDDED", 50)
    page = html.render(results, {})
    assert len(embedded(page, "comparisons")["rows"]) == 50 < len(results.comparisons)
    assert f"This page holds the first 50 of {len(results.comparisons):,} rows" in Outline(page).words
    assert f"the first 50 of {len(results.margins)} rows" not in Outline(page).words


def test_digest_counts_the_verdicts(results, page):
    counted = [
        c.verdict
        for c in results.comparisons
        if (c.method, c.reference, c.metric, c.protocol) == ("residual_lstm", "mean_vote", "ri", "iid") and c.n >= 2
    ]
    better, undecided, worse = (counted.count(verdict) for verdict in ("better", "undecided", "worse"))
    assert better > 0
    assert f'<b class="better">{better}</b> / 0 / {undecided} / <b class="worse">{worse}</b>' in page


def test_page_is_well_formed_and_ids_are_unique(page):
    outline = Outline(page)
    ids = [attributes["id"] for _, attributes in outline.tags if "id" in attributes]
    assert outline.open == []
    assert len(ids) == len(set(ids))


def test_names_cannot_inject_anything(hostile, page):
    outline = Outline(html.render(hostile))
    scripts = [attributes for tag, attributes in outline.tags if tag == "script"]
    assert scripts == [attributes for tag, attributes in Outline(page).tags if tag == "script"]
    assert "</script><script>[bold]$x$ `${1}`" in outline.words
    assert "<b>&amp;</b>" in outline.words


def test_nothing_is_loaded_from_anywhere(page):
    assert set(re.findall(r'https?://[^"\s]+', page)) == {"http://www.w3.org/1999/xlink", "http://www.w3.org/2000/svg"}
    assert not re.search(r"@import|url\((?!#)|fetch\(|XMLHttpRequest", page)
    loads = [
        v for _, a in Outline(page).tags for k, v in a.items() if k in {"src", "href", "srcset", "data", "xlink:href"}
    ]
    assert {v for v in loads if not v.startswith("#")} == {
        "data:,", "./rows.csv", "./comparisons.csv", "./sweet_spots.csv", "./latencies.csv", "./margins.csv",
        "./adaptive.csv", "./thresholds.csv", "./pooled.csv", "./ranks.csv", "./wins.csv",
    }  # fmt: skip


def test_two_renders_are_equal(results, figures, page):
    assert html.render(results, figures) == page


def test_figures_take_their_colours_from_the_page(page, figures):
    assert "var(--series-0)" in page
    body = page[page.index("<main>") :]
    assert not re.search(r'style="[^"]*#(0072b2|1f2328|ffffff)', body)
    assert "#0072b2" in figures["cost-iid"]


def test_report_and_plots_are_written(small, small_figures, tmp_path):
    path = html.write_report(small, tmp_path / "new")
    assert path.read_text() == html.render(small, small_figures)
    assert {file.stem: file.read_text() for file in (path.parent / "plots").iterdir()} == small_figures


def test_a_folder_that_cannot_be_written_is_a_user_error(small, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"expected to write .*file, got: File exists; what was there before is as"):
        html.write_report(small, tmp_path / "file")


def test_missing_tables_and_budgets_are_left_out(results):
    some = dataclasses.replace(results, comparisons=(), sweet_spots=(), reliability=())
    words = Outline(html.render(some, {})).words
    assert "No compute budget was asked for" in words
    assert "Every paired comparison" not in words
    assert not any(winners(view) for view in split(some))


@pytest.fixture(scope="module")
def opened(results, figures, tmp_path_factory):
    """The page in a real browser; whatever it requested or complained about is checked at the end."""
    if CHROMIUM is None:
        reason = "no Chromium found: install it or set CHROMIUM to its path"
        print(reason)
        pytest.skip(reason)
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    folder = tmp_path_factory.mktemp("report")
    records.write(results, folder)
    path = folder / "report.html"
    path.write_text(html.render(results, figures))
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        tab = browser.new_page(viewport={"width": 1280, "height": 900})
        problems: list[str] = []
        requests: list[str] = []
        tab.on("console", lambda message: problems.append(message.text))
        tab.on("pageerror", lambda error: problems.append(str(error)))
        tab.on("request", lambda request: requests.append(request.url))
        tab.goto(path.as_uri())
        yield tab
        browser.close()
    assert problems == []
    assert [url for url in requests if url != "data:,"] == [Path(path).as_uri()]


def column(tab, name):
    index = tab.eval_on_selector_all("#rows th", "heads => heads.map(h => h.innerText.split(' ')[0].trim())").index(
        name
    )
    cells = tab.eval_on_selector_all("#rows .rows tr", f"lines => lines.map(line => line.children[{index}].innerText)")
    return tab.locator("#rows th").nth(index), cells


def test_browser_sorts_by_mouse_and_keyboard(opened, results):
    ordered = sorted(float(f"{row.ri:.6g}") for row in results.rows)
    header, _ = column(opened, "ri")
    header.locator("button").click()
    header, cells = column(opened, "ri")
    assert header.get_attribute("aria-sort") == "ascending"
    assert [float(cell) for cell in cells] == ordered[: len(cells)]
    header.locator("button").focus()
    opened.keyboard.press("Enter")
    header, cells = column(opened, "ri")
    assert header.get_attribute("aria-sort") == "descending"
    assert [float(cell) for cell in cells] == ordered[::-1][: len(cells)]
    assert opened.locator("#rows [aria-sort]").count() == 1


def test_browser_filters_and_counts(opened, results):
    field = opened.locator("#rows input")
    field.fill("residual_lstm n=4 split=test ratio=8")
    kept = [r for r in results.rows if (r.aggregator, r.n, r.split, r.ratio) == ("residual_lstm", 4, "test", 8)]
    assert opened.locator("#rows output").inner_text() == f"{len(kept)} of {len(results.rows):,} rows"
    assert column(opened, "n")[1] == ["4"] * len(kept)
    field.fill("no such thing")
    assert opened.locator("#rows .rows tr").count() == 0
    field.fill("")
    assert opened.locator("#rows output").inner_text() == f"{len(results.rows):,} of {len(results.rows):,} rows"


def test_browser_renders_rows_as_they_are_scrolled_to(opened, results):
    header, _ = column(opened, "macs_effective")
    header.locator("button").click()
    last = sorted(results.rows, key=lambda row: row.macs_effective)[-1]
    # Rows come with the scrolling and may change the height, so the end is approached until it is there.
    opened.wait_for_function(
        """cell => {
            const box = document.querySelector('#rows .scroll');
            box.scrollTop = box.scrollHeight;
            return document.querySelector('#rows .rows tr:last-child').innerText.includes(cell);
        }""",
        arg=last.cell,
    )
    assert float(column(opened, "macs_effective")[1][-1]) == last.macs_effective
    assert opened.locator("#rows .rows tr").count() < 200


@pytest.mark.parametrize("width", [1280, 390])
def test_browser_never_scrolls_the_page_sideways(opened, width):
    opened.set_viewport_size({"width": width, "height": 900})
    assert opened.evaluate("document.documentElement.scrollWidth") == width
