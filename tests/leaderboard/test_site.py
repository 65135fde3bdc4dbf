"""The pages, in a real browser: sort, filter, open an entry; nothing is requested, nothing complains."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import re
import shutil
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from sharedlabel.errors import StoreError, printable
from sharedlabel.leaderboard.board import downloads, markdown, plots, site
from sharedlabel.leaderboard.board.standings import Standing, entries, standings
from sharedlabel.leaderboard.folder import Board
from tests.leaderboard.conftest import listed, make_board, submit

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu"]
TITLE = 'Best <b>of</b> "all" & more'
SKILLS = {"aaa": 0.3, "best": 4.0, "middle": 1.2, "unverified": 3.0}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    board = make_board(tmp_path_factory.mktemp("site") / "leaderboard", seeds=(0, 1, 2, 3, 4))
    for name, skill in SKILLS.items():
        submit(board, name, skill, TITLE if name == "best" else f"Entry {name}")
        listed(board, name, "self-reported" if name == "unverified" else "verified")
    (board.root / "README.md").write_text(f"before\n{markdown.BEGIN}\nold\n{markdown.END}\nafter\n")
    assert site.build(board, board.root / "site") == len(SKILLS)
    return board


def test_the_readme_has_the_top_of_the_table_between_its_marks(made):
    text = (made.root / "README.md").read_text()
    assert text.startswith(f"before\n{markdown.BEGIN}\n")
    assert text.endswith(f"{markdown.END}\nafter\n")
    assert "old" not in text
    listed_there = [line.split("submissions/")[1].split("/")[0] for line in text.splitlines() if "submissions/" in line]
    assert listed_there == ["best", "middle", "aaa"]  # a request of an author changes nothing here


def test_building_again_changes_nothing(made):
    def files():
        return {path.relative_to(made.root): path.read_bytes() for path in made.root.rglob("*") if path.is_file()}

    before = files()
    site.build(made, made.root / "site")
    assert files() == before


def test_downloads_hold_every_row(made):
    folder = made.root / "site" / "toy-v1"
    with (folder / "standings.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["name"] for row in rows] == ["best", "middle", "aaa", "unverified"]
    assert [row["rank_best"] for row in rows] == ["1", "2", "3", ""]
    lines = json.loads((folder / "standings.json").read_text())
    assert lines[0]["title"] == TITLE
    assert float(rows[0]["ri"]) == pytest.approx(lines[0]["ri"], rel=1e-5)


def rows_of(board: Board) -> list[Standing]:
    protocol = board.protocol("toy-v1")
    return standings(entries(board, protocol), protocol, board.answers(protocol))


def retitled(row: Standing, title: str) -> Standing:
    """Return a row whose metadata was not checked."""
    metadata = row.entry.submission.metadata.model_copy(update={"title": title})
    entry = dataclasses.replace(row.entry, submission=dataclasses.replace(row.entry.submission, metadata=metadata))
    return dataclasses.replace(row, entry=entry)


def copied(board: Board, root: Path) -> Board:
    shutil.copytree(board.root, root)
    return Board(root)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("title", "shown"),
    [
        (f"a\n{markdown.END}\n| 1 | [b](c) |", f"a {markdown.END} | 1 | [b](c) |"),
        ("x](https://a.b) [y", "x](https://a.b) [y"),
        ("ends with a backslash \\", "ends with a backslash \\"),
        ("\\| `code` ``", "\\| `code` ``"),
        ("`a | b` \\` | c", "`a | b` \\` | c"),
        ("![i](j) <b>k</b> <https://l.m> https://n.o www.p.q", "![i](j) <b>k</b> <https://l.m> https://n.o www.p.q"),
        ("*a* __b__ ~~c~~ &amp; &#124; $d$", "*a* __b__ ~~c~~ &amp; &#124; $d$"),
        ("a\u2028b\x1b[31m\u202ec\r\n\n# d", "a b [31m c # d"),
    ],
)
def test_a_title_is_text_whatever_it_holds(made, title, shown):
    rows = [row for row in rows_of(made) if row.best is not None]
    readme = f"before\n{markdown.BEGIN}\nold\n{markdown.END}\nafter"
    written = markdown.with_tables(readme, {"toy-v1": [retitled(rows[0], title), *rows[1:]]})
    assert written.splitlines().count(markdown.END) == 1
    assert markdown.with_tables(written, {"toy-v1": rows}) == markdown.with_tables(readme, {"toy-v1": rows})

    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(written)
    assert [token.type for token in tokens].count("tr_open") == 1 + len(rows)
    assert [token.type for token in tokens].count("td_open") == 6 * len(rows)
    cells = [token.children for token in tokens if token.type == "inline" and "](submissions/" in token.content]
    assert [[token.type for token in cell if token.type not in ("text", "text_special")] for cell in cells] == [
        ["link_open", "link_close"]
    ] * len(rows)
    assert [cell[0].attrs["href"] for cell in cells] == [f"submissions/{row.entry.result.name}/" for row in rows]
    assert "".join(token.content for token in cells[0]) == shown


def test_marks_are_lines_of_their_own_and_none_may_be_missing(made):
    rows = rows_of(made)
    named = f"says `{markdown.BEGIN}` and `{markdown.END}`"
    text = markdown.with_tables(
        f"{named}\n{markdown.BEGIN}  \n{markdown.END}\nold\n{markdown.END}\n{named}\n", {"toy-v1": rows}
    )
    assert text.startswith(f"{named}\n{markdown.BEGIN}\n")
    assert text.endswith(f"|\n\n{markdown.END}\n{named}\n")
    assert "old" not in text
    for broken in (
        named,
        f"{markdown.BEGIN}\n{named}",
        f"{named}\n{markdown.END}",
        f"{markdown.END}\n{markdown.BEGIN}",
    ):
        with pytest.raises(StoreError, match="put both back"):
            markdown.with_tables(broken, {"toy-v1": rows})


def test_a_readme_without_a_mark_stops_the_site_and_none_is_made(made, tmp_path):
    copy = copied(made, tmp_path / "copy")
    readme = copy.root / "README.md"
    readme.write_text(f"{markdown.BEGIN}\n")
    with pytest.raises(StoreError, match="1 and 0 of them"):
        site.build(copy, tmp_path / "site")
    assert readme.read_text() == f"{markdown.BEGIN}\n"
    assert not (tmp_path / "site").exists()
    readme.unlink()
    site.build(copy, tmp_path / "site")
    assert readme.read_text().startswith(f"{markdown.BEGIN}\n\n### toy-v1\n")


def test_what_a_long_table_leaves_out_is_said_below_it(made):
    rows = [row for row in rows_of(made) if row.best is not None] * 4
    text = markdown.with_tables(f"{markdown.BEGIN}\n{markdown.END}", {"toy-v1": rows})
    assert f"|\n\nand {len(rows) - markdown.TOP} more.\n\n{markdown.END}" in text
    assert text.count("](submissions/") == markdown.TOP


@pytest.mark.parametrize(("seeds", "said"), [(1, "has 1 training seed,"), (4, "has 4 training seeds,"), (5, "")])
def test_a_table_without_verdicts_says_so_beside_it(tmp_path, seeds, said):
    board = make_board(tmp_path / "leaderboard", seeds=tuple(range(seeds)))
    for name, skill in SKILLS.items():
        submit(board, name, skill)
        listed(board, name, "self-reported" if name == "unverified" else "verified")
    site.build(board, tmp_path / "site")
    readme = (board.root / "README.md").read_text()
    page = (tmp_path / "site" / "toy-v1" / "index.html").read_text()
    sentence = markdown.caution(rows_of(board))
    if not said:
        assert sentence == ""
        assert "1 to 3" not in readme
        return
    assert said in sentence
    assert "so every rank is 1 to 3." in sentence
    assert readme.count("| 1 to 3 |") == 3
    assert f"### toy-v1\n\n{sentence}\n\n| rank |" in readme
    assert sentence in page


def test_a_table_of_one_entry_needs_no_verdict(tmp_path):
    board = make_board(tmp_path / "leaderboard")
    submit(board, "only", 1.0)
    listed(board, "only")
    assert markdown.caution(rows_of(board)) == markdown.caution([]) == ""


@pytest.mark.parametrize("first", ["=", "+", "-", "@", "\t", "\r"])
def test_no_text_of_the_csv_is_a_formula(made, tmp_path, monkeypatch, first):
    copy, rows = copied(made, tmp_path / "copy"), rows_of(made)
    hostile = [dataclasses.replace(retitled(row, f"{first}1+1\rx"), ri=-0.25, low=-0.5) for row in rows]
    monkeypatch.setattr(site, "standings", lambda *_: hostile)
    site.build(copy, tmp_path / "site")
    with (tmp_path / "site" / "toy-v1" / "standings.csv").open(newline="") as stream:
        lines = list(csv.DictReader(stream))
    assert [row["title"] for row in lines] == [f"'{printable(first)}1+1\\rx"] * len(rows)
    assert [row["ri"] for row in lines] == ["-0.25"] * len(rows)
    assert [row["name"] for row in lines] == [row.entry.result.name for row in rows]
    data = json.loads((tmp_path / "site" / "toy-v1" / "standings.json").read_text())
    assert data[0]["title"] == f"{first}1+1\rx"


@pytest.mark.parametrize("kind", ["folder", "link", "dangling", "file"])
def test_only_sites_and_empty_folders_are_replaced(made, tmp_path, kind):
    copy, out = copied(made, tmp_path / "copy"), tmp_path / "out"
    kept = tmp_path / "kept" if kind == "link" else out
    if kind in ("folder", "link"):
        kept.mkdir()
        (kept / "thesis.txt").write_text("years")
    if kind in ("link", "dangling"):
        out.symlink_to(tmp_path / "kept")
    if kind == "file":
        out.write_text("years")
    before = files(tmp_path)
    with pytest.raises(StoreError, match=rf"{re.escape(str(out))}.*--out"):
        site.build(copy, out)
    assert files(tmp_path) == before
    assert out.is_symlink() == (kind in ("link", "dangling"))


def test_an_empty_folder_and_an_older_site_are_replaced_as_a_whole(made, tmp_path):
    copy, out = copied(made, tmp_path / "copy"), tmp_path / "out"
    out.mkdir()
    site.build(copy, out)
    first = files(out)
    assert {site.MADE, "index.html", "toy-v1/index.html", "toy-v1/entries/best.html"} <= set(first)
    (out / "stale.html").write_text("old")
    site.build(copy, out)
    assert files(out) == first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "out"]


@pytest.mark.parametrize("failing", ["write_bytes", "rename"])
def test_a_site_that_cannot_be_written_leaves_the_old_one_and_nothing_beside_it(made, tmp_path, monkeypatch, failing):
    copy, out = copied(made, tmp_path / "copy"), tmp_path / "out"
    site.build(copy, out)
    (out / "old.html").write_text("old")
    before, honest = files(tmp_path), getattr(Path, failing)

    def full(path, *args, **options):
        if path.name in ("best.html", "made"):
            raise OSError(28, "No space left on device")
        return honest(path, *args, **options)

    monkeypatch.setattr(Path, failing, full)
    with pytest.raises(OSError, match="No space left"):
        site.build(copy, out)
    assert files(tmp_path) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "out"]


def test_a_folder_that_is_no_leaderboard_is_refused_and_stays_as_it_is(tmp_path):
    with pytest.raises(StoreError, match=r"protocols.*--root"):
        site.build(Board(tmp_path / "typo"), tmp_path / "typo" / "site")
    assert list(tmp_path.iterdir()) == []


def test_entries_cannot_take_the_place_of_other_pages(tmp_path):
    board = make_board(tmp_path / "leaderboard")
    for name in ("index", "standings"):
        submit(board, name, 1.0, f"Entry {name}")
        listed(board, name)
    site.build(board, tmp_path / "site")
    folder = tmp_path / "site" / "toy-v1"
    assert set(files(folder)) == {
        "index.html",
        "standings.csv",
        "standings.json",
        "entries/index.html",
        "entries/standings.html",
    }
    assert "<h1>Toy, toy-v1</h1>" in (folder / "index.html").read_text()
    assert "<h1>Entry index</h1>" in (folder / "entries" / "index.html").read_text()


def test_every_link_within_the_site_leads_to_a_file(made):
    pages = list((made.root / "site").rglob("*.html"))
    links = [
        (page, target) for page in pages for target in re.findall(r'<a [^>]*?href="([^"#][^"]*)"', page.read_text())
    ]
    assert len(links) == 1 + (1 + len(SKILLS) + 2) + 2 * len(SKILLS)
    assert [(page, target) for page, target in links if not (page.parent / target).is_file()] == []


def test_the_axis_of_costs_has_plain_labels(made):
    assert not any("mathdefault" in page.read_text() for page in (made.root / "site").rglob("*.html"))
    rows = [
        dataclasses.replace(row, macs=macs)
        for row, macs in zip(rows_of(made), (0, 700, 30_000, 2_000_000), strict=True)
    ]
    drawn = plots.against_cost(rows, made.protocol("toy-v1"))
    labels = re.findall(r'<text class="tick"[^>]*text-anchor="middle">([^<]*)</text>', drawn)
    assert labels == ["0", "500", "1k", "10k", "100k", "1M"]


def test_an_entry_says_where_it_stands_and_who_measured_its_time(made):
    folder = made.root / "site" / "toy-v1" / "entries"
    best, unverified = (" ".join((folder / f"{name}.html").read_text().split()) for name in ("best", "unverified"))
    assert "<strong>Rank 1, verified</strong> on toy-v1." in best
    assert "<strong>Not ranked: self-reported</strong> on toy-v1." in unverified
    assert "Rank \N{EN DASH}" not in unverified
    assert "Training took 1.00 s and prediction 0.50 s, as measured from outside on the maintainer's machine" in (
        best.replace("&#39;", "'")
    )
    assert "on its author's machine: medians over 5 processes" in unverified.replace("&#39;", "'")


def test_seconds_are_medians_over_processes(made):
    result = rows_of(made)[0].entry.result
    times = {"dense.0": (1.0, 9.0), "dense.1": (2.0, 1.0), "dense.2": (30.0, 2.0)}
    medians = downloads.seconds(result.model_copy(update={"seconds": times}))
    assert medians == {"training": 2.0, "prediction": 2.0, "both": 10.0}
    with pytest.raises(StoreError, match="expected seconds in the result of best, got none"):
        downloads.seconds(result.model_copy(update={"seconds": {}}))
    with (made.root / "site" / "toy-v1" / "standings.csv").open() as stream:
        assert [row["seconds"] for row in csv.DictReader(stream)] == ["1.5"] * len(SKILLS)


def test_the_table_says_what_its_front_is(made):
    text = " ".join((made.root / "site" / "toy-v1" / "index.html").read_text().split())
    assert "at least its mean RI for at most its MACs, and more RI or fewer MACs" in text
    assert "one tuple of the largest n, 4. Both are point estimates" in text


def test_an_altered_result_stops_the_site_and_leaves_the_old_one(made, tmp_path):
    copy = Board(tmp_path / "copy")
    shutil.copytree(made.root, copy.root)
    path = copy.root / "results" / "toy-v1" / "best" / "result.json"
    path.write_text(path.read_text().replace("0.", "0.9", 1))
    before = {p: p.read_bytes() for p in (copy.root / "site").rglob("*") if p.is_file()}
    with pytest.raises(Exception, match="altered"):
        site.build(copy, copy.root / "site")
    assert {p: p.read_bytes() for p in (copy.root / "site").rglob("*") if p.is_file()} == before


@pytest.fixture
def opened(made):
    """The table in a real browser; whatever it requested or complained about is checked at the end."""
    if CHROMIUM is None:
        reason = "no Chromium found: install it or set CHROMIUM to its path"
        print(reason)
        pytest.skip(reason)
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    home = (made.root / "site").as_uri()
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        tab = browser.new_page(viewport={"width": 1280, "height": 900})
        problems: list[str] = []
        requests: list[str] = []
        tab.on("console", lambda message: problems.append(message.text))
        tab.on("pageerror", lambda error: problems.append(str(error)))
        tab.on("request", lambda request: requests.append(request.url))
        tab.goto(f"{home}/toy-v1/index.html")
        yield tab
        browser.close()
    assert problems == []
    assert all(url.startswith(home) or url == "data:," for url in requests)


def names(tab) -> list[str]:
    return tab.eval_on_selector_all(
        ".standings tbody tr:not([hidden]) th a", "links => links.map(a => a.getAttribute('href').slice(8, -5))"
    )


def test_browser_sorts_by_mouse_and_keyboard(opened):
    assert names(opened) == ["best", "middle", "aaa", "unverified"]
    opened.get_by_role("button", name="MACs").click()
    assert names(opened)[0] == "aaa"
    assert opened.locator('[aria-sort="ascending"]').count() == 1
    opened.keyboard.press("Enter")
    assert names(opened)[-1] == "aaa"
    assert opened.locator('[aria-sort="descending"]').count() == 1
    opened.get_by_role("button", name="entry").click()
    assert names(opened) == ["best", "aaa", "middle", "unverified"]


def test_browser_filters_and_counts(opened):
    opened.get_by_label("Filter").fill("entry")
    assert names(opened) == ["middle", "aaa", "unverified"]
    opened.get_by_label("verified only").check()
    assert names(opened) == ["middle", "aaa"]
    assert opened.locator("output").inner_text() == "2 of 4 entries"


def test_browser_opens_an_entry_with_its_card_code_and_history(opened):
    opened.get_by_role("link", name=TITLE).click()
    assert opened.locator("h1").inner_text() == TITLE
    text = opened.locator("main").inner_text()
    assert "An aggregator of the tests, honest or not." in text
    assert "self-reported" in text
    assert "submission sha256" in text
    opened.get_by_text("aggregator.py").click()
    assert "from sharedlabel.aggregators.log_pool import" in opened.locator("pre").first.inner_text()
    opened.get_by_role("link", name="toy-v1").click()
    assert names(opened)[0] == "best"


@pytest.mark.parametrize(
    "page", ["index.html", "toy-v1/index.html", "toy-v1/entries/best.html", "toy-v1/entries/unverified.html"]
)
def test_browser_shows_no_sideways_scrolling_on_a_phone(opened, made, page):
    opened.set_viewport_size({"width": 390, "height": 844})
    opened.goto((made.root / "site" / page).as_uri())
    assert opened.evaluate("document.documentElement.scrollWidth") <= 390
    assert opened.locator("h1").count() == 1
    assert all(opened.eval_on_selector_all("svg", "all => all.map(s => s.getAttribute('aria-label') !== null)"))


def test_the_readme_of_the_repository_is_as_it_would_be_made(tmp_path):
    source = Path(__file__).parents[2] / "leaderboard"
    copy = Board(tmp_path / "leaderboard")
    shutil.copytree(source, copy.root, ignore=shutil.ignore_patterns("site"))
    site.build(copy, tmp_path / "site")
    assert (copy.root / "README.md").read_text() == (source / "README.md").read_text()
