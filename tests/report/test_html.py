"""The HTML report: content, escaping, no request, determinism."""

from __future__ import annotations

import dataclasses
import json
import re
from html import unescape
from html.parser import HTMLParser

import pytest

from sharedlabel.choose.candidates import Request
from sharedlabel.choose.recommendation import recommend
from sharedlabel.errors import StoreError
from sharedlabel.report import html, layout, plots, tables
from sharedlabel.report.answer import answer
from sharedlabel.report.views import split, winners

VOID = {"meta", "link", "input", "br", "img"}


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
def page(results, drawn):
    return html.render(results, drawn)


def embedded(page, name):
    part = page[page.index(f'id="{name}"') :]
    told = json.loads(re.search(r'<script type="application/json">(.*?)</script>', part, re.DOTALL)[1])
    columns = [
        one["values"] if "values" in one else [one["words"][place] for place in one.get("places", [0] * told["count"])]
        for one in told["columns"]
    ]
    return list(zip(*columns, strict=True))


def test_the_answer_comes_first_and_is_what_choose_recommends(results, page):
    words = Outline(page).words
    found = recommend(results, Request(protocol="iid")).recommended
    lead = f"At most 1 dense pass. With {found.n} images per object, compress {found.ratio:g}x ({found.aggregator} on"
    assert words.index("What to deploy?") < words.index(lead) < words.index("How to read it")
    cells = [
        r.cell
        for r in results.rows
        if (r.pruner, r.ratio, r.aggregator) == (found.pruner, found.ratio, found.aggregator)
    ]
    assert f"Export it, in the folder of this page: sharedlabel export {cells[0]} --run ." in words
    assert "against the dense network on the same" in words
    assert "runner-up" in words
    assert all(f"{value}:" in words for value in ("0.5 dense passes", "2 dense passes", "98% of dense RI, n = 8"))
    assert "Nothing qualifies" in words
    assert "Warning: random at 32x left layers" in words
    assert all(kind.CAPTION in words for kind in plots._KINDS)


def test_where_nothing_qualifies_the_answer_says_so(results):
    hopeless = tuple(dataclasses.replace(s, ri_low=-0.5) for s in results.summaries)
    view = split(dataclasses.replace(results, summaries=hopeless))[0]
    said = answer(dataclasses.replace(results, summaries=hopeless), view)
    assert said.lead.startswith("Nothing to recommend (1 dense pass): expected an option with budget at most 1")
    assert (said.facts, said.command) == ((), "")


def test_tables_hold_the_numbers_of_the_records(results, page):
    for table in tables.long_tables(results):
        stored = getattr(results, table.name)
        held = embedded(page, table.name)
        assert len(held) == table.held
        names = [name for name, _ in table.columns]
        assert set(names) == {field.name for field in dataclasses.fields(stored[0])}
        for line, record in zip(held[:: max(1, len(held) // 40)], stored[:: max(1, len(held) // 40)], strict=False):
            for column, value in zip(names, line, strict=True):
                expected = getattr(record, column)
                assert value == (pytest.approx(expected, rel=1e-4) if isinstance(expected, float) else expected)
        assert list(table.rows) == [tuple(line) for line in held[: tables.PAGE]]


def test_a_long_table_is_cut_and_says_so(results, monkeypatch):
    monkeypatch.setattr(tables, "LETTERS", 20_000)
    page = html.render(results, [])
    held = len(embedded(page, "comparisons"))
    assert tables.PAGE <= held < len(results.comparisons)
    assert f"This page holds the first {held:,} of {len(results.comparisons):,} rows" in Outline(page).words
    assert f"of {len(results.margins)} rows; the file" not in Outline(page).words


def test_without_javascript_the_first_rows_are_there(results, page):
    part = page[page.index('id="ranks"') :]
    table = part[part.index("<table>") : part.index("</table>")]
    assert table.count("<tr>") == 1 + tables.PAGE
    assert f"first {tables.PAGE} of {len(results.ranks)} rows, in the order of the file" in page
    assert f"<td>{results.ranks[0].aggregator}</td>" in table


def test_digest_counts_the_verdicts(results, page):
    counted = [
        c.verdict
        for c in results.comparisons
        if (c.method, c.reference, c.metric, c.protocol) == ("residual_lstm", "mean_vote", "ri", "iid") and c.n >= 2
    ]
    better, undecided, worse = (counted.count(verdict) for verdict in ("better", "undecided", "worse"))
    assert better > 0
    assert f'<b class="better">{better}</b> / 0 / {undecided} / <b class="worse">{worse}</b>' in page


def test_confusions_and_mistakes_are_shown_where_they_are_stored(results, page):
    words = Outline(page).words
    assert "cat taken for dog: 10.0% of its tuples (100)" in words
    assert "cat, taken for dog; its own probability was 12.0%" in words
    pictures = [attributes for tag, attributes in Outline(page).tags if tag == "img"]
    assert {one["src"] for one in pictures} == {results.mistakes[0].pictures[0]}
    assert {(one["width"], one["height"]) for one in pictures} == {("40", "40")}
    assert "cat, taken for dog, image 1 of" in pictures[0]["alt"]
    assert not any("loading" in one for one in pictures)
    for protocol in ("iid", "grouped"):
        assert f"The most frequent confusions: cifar10-small, resnet_cifar-8, {protocol} tuples" in words
        assert f"of the first seed, cifar10-small, resnet_cifar-8, {protocol} tuples:" in words
    without = Outline(html.render(dataclasses.replace(results, confusions=(), mistakes=(), curves=()))).words
    assert "Where does it go wrong?" not in without
    assert "Training curves" not in without


def test_pictures_come_from_the_page_alone(results):
    strange = dataclasses.replace(results.mistakes[0], pictures=("https://example.org/a.png", "javascript:alert(1)"))
    page = html.render(dataclasses.replace(results, mistakes=(strange,)), [])
    assert "example.org" not in page
    assert "<img" not in page


def test_page_is_well_formed_and_ids_are_unique(page):
    outline = Outline(page)
    ids = [attributes["id"] for _, attributes in outline.tags if "id" in attributes]
    assert outline.open == []
    assert len(ids) == len(set(ids))
    links = {a["href"][1:] for tag, a in outline.tags if tag == "a" and a["href"].startswith("#")}
    assert links <= set(ids)


def test_there_is_one_heading_per_question(page):
    headings = re.findall(r"<h(\d)[^>]*>(.*?)</h", page)
    assert [level for level, _ in headings] == ["1", *["2"] * (len(headings) - 1)]
    assert sum(title.endswith("?") for _, title in headings) == 7
    assert len(headings) == 11


def test_names_cannot_inject_anything(hostile, page):
    outline = Outline(html.render(hostile))
    scripts = [attributes for tag, attributes in outline.tags if tag == "script"]
    assert {tuple(one.items()) for one in scripts} == {
        tuple(one.items()) for one in (attributes for tag, attributes in Outline(page).tags if tag == "script")
    }
    assert "</script><script>[bold]$x$ `${1}`" in outline.words
    assert "<b>&amp;</b>" in outline.words


def test_nothing_is_loaded_from_anywhere(page):
    assert re.findall(r'https?://[^"\s]+', page) == []
    assert not re.search(r"@import|url\((?!#)|fetch\(|XMLHttpRequest", page)
    loads = [v for _, a in Outline(page).tags for k, v in a.items() if k in {"src", "href", "srcset", "data"}]
    assert {v for v in loads if not v.startswith(("#", "data:image/png"))} == {
        "data:,", "./rows.csv", "./comparisons.csv", "./sweet_spots.csv", "./latencies.csv", "./margins.csv",
        "./layers.csv", "./adaptive.csv", "./thresholds.csv", "./pooled.csv", "./ranks.csv", "./wins.csv",
    }  # fmt: skip


def test_two_renders_are_equal(results, drawn, page):
    assert html.render(results, drawn) == page


def test_figures_take_their_colours_from_the_page(page):
    body = page[page.index("<main>") :]
    assert "var(--series-0)" in body
    assert not re.search(r'(style|fill|stroke)="[^"]*#[0-9a-f]{6}', body)


def test_report_and_plots_are_written(small, small_figures, tmp_path):
    path = html.write_report(small, tmp_path / "new")
    assert path.read_text() == html.render(small)
    assert {file.stem: file.read_text() for file in (path.parent / "plots").iterdir()} == small_figures


def test_a_folder_that_cannot_be_written_is_a_user_error(small, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"expected to write .*file, got: File exists; what was there before is as"):
        html.write_report(small, tmp_path / "file")


def test_missing_tables_and_budgets_are_left_out(results):
    some = dataclasses.replace(results, comparisons=(), sweet_spots=(), reliability=())
    words = Outline(html.render(some)).words
    assert "At most 1 dense pass. With" in words
    assert "Differences to a baseline" not in words
    assert "Every paired comparison" not in words
    assert not any(winners(view) for view in split(some))


def test_further_pruners_of_a_large_run_are_left_to_the_files_beside_the_page(results, drawn, monkeypatch):
    monkeypatch.setattr(layout, "POINTS", 0)
    page = html.render(results, drawn)
    links = set(re.findall(r'href="plots/([^"]+)\.svg"', page))
    held = set(re.findall(r'<figure class="chart" id="figure-([^"]+)"', page))
    assert links | held == {one.name for one in drawn}
    assert not links & held
    first = {one.of for one in drawn if one.kind.PER == "pruner" and one.name in held}
    assert len(first) == 1
    assert {one.of for one in drawn if one.name in links} == {"magnitude", "random"} - first


@pytest.fixture(scope="module")
def said(results):
    return answer(results, split(results)[0])


def test_masks_are_said_to_save_no_time_where_they_do_not(results, said):
    view = split(results)[0]
    found = recommend(results, Request(protocol="iid")).recommended
    masked = f"Masked weights save storage, not time on dense kernels: {found.n} images take about {found.n} passes"
    assert said.cautions == (f"{masked} of time.",)
    smaller = tuple(dataclasses.replace(row, macs_executed=row.macs_dense // 2) for row in view.rows)
    assert answer(results, dataclasses.replace(view, rows=smaller)).cautions == ()


def test_the_dense_network_is_timed_beside_the_recommended_one(results, said):
    assert dict(said.facts)["costs"][2] == "the dense network, which took turns with it: 0.4 ms per image"
    without = dataclasses.replace(split(results)[0], latencies=())
    assert "the dense network" not in " ".join(dict(answer(results, without).facts)["costs"])


def test_numbers_come_first_and_what_they_are_adjusted_for_is_opened(results, said, page):
    found = recommend(results, Request(protocol="iid"))
    told = " ".join(sentence for _, sentences in said.facts for sentence in sentences)
    assert "points right [" in told
    assert "Bonferroni" not in told
    assert "paired)" not in told
    assert f"against the runner-up: paired; {found.runner_up.ri.correction}" in said.tests
    words = Outline(page).words
    assert words.index("What the intervals of these differences are adjusted for") < words.index("pooled test")


def test_a_recommendation_that_knows_little_comes_with_a_warning(results, said):
    view = split(results)[0]
    assert said.warning == ""
    poor = tuple(dataclasses.replace(s, ri=0.12, ri_low=0.06, ri_high=0.2) for s in view.summaries)
    own = dataclasses.replace(results, summaries=poor)
    assert "RI 0.120 on test is below 0.5" in answer(own, dataclasses.replace(view, summaries=poor)).warning
    outline = Outline(html.render(own, []))
    assert "Warning: RI 0.120 on test is below 0.5" in outline.words
    assert outline.words.index("Warning: RI") < outline.words.index("Export it")


def test_the_configuration_is_written_in_few_lines(results):
    config = {
        "grid": {"ratios": list(range(40)), "names": [f"a long name of number {i}" for i in range(9)]},
        "empty": {},
    }
    page = html.render(dataclasses.replace(results, config=config), [])
    shown = unescape(re.search(r"<pre[^>]*>(.*?)</pre>", page, re.DOTALL)[1])
    assert json.loads(shown) == config
    assert '  "empty": {}' in shown.splitlines()
    assert len(shown.splitlines()) == 7
