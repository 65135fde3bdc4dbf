"""The pages, in a real browser: sort, filter, open an entry; nothing is requested, nothing complains."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path

import pytest

from sharedlabel.leaderboard import site
from sharedlabel.leaderboard.protocol import Board
from tests.leaderboard.conftest import listed, make_board, submit

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu"]
TITLE = 'Best <b>of</b> "all" & more'
SKILLS = {"aaa": 0.4, "best": 2.5, "middle": 1.2, "unverified": 3.0}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    board = make_board(tmp_path_factory.mktemp("site") / "leaderboard", seeds=(0, 1, 2))
    for name, skill in SKILLS.items():
        submit(board, name, skill, TITLE if name == "best" else f"Entry {name}")
        listed(board, name, "self-reported" if name == "unverified" else "verified")
    (board.root / "README.md").write_text(f"before\n{site.BEGIN}\nold\n{site.END}\nafter\n")
    assert site.build(board, board.root / "site") == len(SKILLS)
    return board


def test_the_readme_has_the_top_of_the_table_between_its_marks(made):
    text = (made.root / "README.md").read_text()
    assert text.startswith(f"before\n{site.BEGIN}\n")
    assert text.endswith(f"{site.END}\nafter\n")
    assert "old" not in text
    ranked = [line for line in text.splitlines() if line.startswith(("| 1", "| \N{EN DASH}"))]
    assert [line.split("submissions/")[1].split("/")[0] for line in ranked] == ["best", "unverified"]


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
    found = json.loads((folder / "standings.json").read_text())
    assert found[0]["title"] == TITLE
    assert float(rows[0]["ri"]) == pytest.approx(found[0]["ri"], rel=1e-5)


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
        ".standings tbody tr:not([hidden]) th a", "links => links.map(a => a.getAttribute('href').slice(0, -5))"
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


@pytest.mark.parametrize("page", ["index.html", "toy-v1/index.html", "toy-v1/best.html"])
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
