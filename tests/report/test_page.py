"""The report in a real browser: what can be pressed, pointed at and read, on any screen, with a script and without."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from sharedlabel import records
from sharedlabel.report import html

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


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        reason = "no Chromium found: install it or set CHROMIUM to its path"
        print(reason)
        pytest.skip(reason)
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def results(small):
    """A run of one pruner and protocol, whose page browsers are quick with."""
    return small


@pytest.fixture(scope="module")
def file(results, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    records.write(results, folder)
    path = folder / "report.html"
    path.write_text(html.render(results))
    return path


@pytest.fixture(scope="module")
def opened(browser, file) -> Iterator:
    """The page; whatever it requested or complained about is checked at the end."""
    tab = browser.new_page(viewport={"width": 1280, "height": 800})
    problems: list[str] = []
    requests: list[str] = []
    tab.on("console", lambda message: problems.append(message.text))
    tab.on("pageerror", lambda error: problems.append(str(error)))
    tab.on("request", lambda request: requests.append(request.url))
    tab.goto(file.as_uri())
    yield tab
    assert problems == []
    assert {url for url in requests if not url.startswith("data:")} == {file.as_uri()}


@pytest.fixture
def tab(opened):
    """The page as it is when it is opened."""
    opened.set_viewport_size({"width": 1280, "height": 800})
    opened.reload()
    return opened


FIRST = "#figure-ratio-magnitude-iid"
DIFFERENCE = "#figure-difference-magnitude-iid"


def test_the_first_figure_is_seen_at_once(tab):
    box = tab.locator("figure.chart .panel").first.bounding_box()
    assert box["y"] + box["height"] <= 800
    assert tab.locator("h2").first.inner_text() == "What to deploy?"


def test_a_value_is_said_where_one_points_at_it(tab):
    dot = tab.locator(f'{FIRST} .s[data-m="lstm"] .dot').first
    dot.scroll_into_view_if_needed()
    box = dot.bounding_box()
    tab.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    said = tab.locator(".tip").inner_text()
    assert "1x, n = 1: RI 0." in said
    assert tab.locator(f"{FIRST} .now").count() == 1
    tab.mouse.move(1, 1)
    assert tab.locator(".tip").is_hidden()


def test_no_name_at_an_axis_is_cut(tab):
    tab.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    beyond = tab.evaluate(
        """() => [...document.querySelectorAll(".panel .ticks text")].filter(
            (text) => text.getBBox().x < 0).map((text) => text.textContent)"""
    )
    assert tab.locator(".panel .ticks text", has_text="mean_vote").count() > 0
    assert beyond == []


def test_the_keyboard_goes_from_value_to_value(tab):
    panel = tab.locator(f"{FIRST} .panel").first
    panel.focus()
    assert tab.locator(".tip").is_hidden()
    said = []
    for _ in range(3):
        tab.keyboard.press("ArrowRight")
        said.append(tab.locator(".tip").inner_text())
    assert [text.split(", ")[:2] for text in said] == [["attention", "1x"], ["attention", "8x"], ["attention", "32x"]]
    tab.keyboard.press("ArrowLeft")
    assert tab.locator(".tip").inner_text() == said[1]
    tab.keyboard.press("Escape")
    assert tab.locator(".tip").is_hidden()


def test_a_method_is_hidden_in_all_figures_and_shown_again(tab):
    button = tab.locator(f'{FIRST} button[data-m="mean_vote"]')
    series = f'{FIRST} .s[data-m="mean_vote"] .line'
    assert tab.locator(series).first.is_visible()
    button.focus()
    tab.keyboard.press("Space")
    assert button.get_attribute("aria-pressed") == "false"
    assert not tab.locator(series).first.is_visible()
    assert not tab.locator(f'{DIFFERENCE} .s[data-m="mean_vote"] .line').first.is_visible()
    others = tab.locator('button[data-m="mean_vote"]')
    assert {others.nth(i).get_attribute("aria-pressed") for i in range(others.count())} == {"false"}
    button.click()
    assert tab.locator(series).first.is_visible()


def test_differences_are_drawn_for_the_baseline_that_is_chosen(tab, results):
    dots = f'{DIFFERENCE} .panel >> nth=3 >> .s[data-m="lstm"] .dot'
    wanted = {c.ratio: c for c in results.comparisons if _pair(c) == ("lstm", "attention", "ri", "iid", 8)}
    select = tab.locator(f"{DIFFERENCE} select")
    assert select.input_value() == "log_pool"
    before = tab.locator(dots).nth(2).get_attribute("d")
    select.select_option("attention")
    said = tab.locator(dots).evaluate_all("dots => dots.map(dot => dot.dataset.said)")
    assert len(said) == len(wanted)
    for text, ratio in zip(said, sorted(wanted), strict=True):
        c = wanted[ratio]
        assert text.startswith(f"lstm, {ratio:g}x, n = 8: ")
        numbers = [float(number) for number in re.findall(r"[-+][\d.]+", text)]
        assert numbers == pytest.approx([c.difference, c.low, c.high], abs=1.1e-4)
    assert tab.locator(dots).nth(2).get_attribute("d") != before
    select.select_option("log_pool")
    x, y = _place(tab.locator(dots).nth(2).get_attribute("d"))
    assert (x, y) == pytest.approx(_place(before), abs=0.11)  # what is drawn here is what was drawn in the file


def _pair(c):
    return c.method, c.reference, c.metric, c.protocol, c.n if c.pruner in {"magnitude", "none"} else None


def _place(path: str) -> tuple[float, float]:
    x, y = path[1:].split("m", maxsplit=1)[0].split(" ")
    return float(x), float(y)


def test_axes_of_differences_fit_what_is_shown(tab):
    ticks = f"{DIFFERENCE} .panel >> nth=3 >> .ticks text"
    before = tab.locator(ticks).all_text_contents()
    for name in ("mean_vote", "attention"):
        tab.locator(f'{DIFFERENCE} button[data-m="{name}"]').click()
    after = tab.locator(ticks).all_text_contents()
    assert "0" in before
    assert "0" in after
    assert min(map(float, after)) > min(map(float, before))


def column(tab, name):
    index = tab.locator("#rows th").all_inner_texts().index(name)
    cells = tab.locator("#rows tbody tr").evaluate_all(
        f"lines => lines.map(line => line.children[{index}].textContent)"
    )
    return tab.locator("#rows th").nth(index), cells


def opened_rows(tab):
    tab.locator("#rows > summary").click()
    tab.locator("#rows .tools").wait_for(state="visible")


def test_a_long_table_is_sorted_by_mouse_and_keyboard(tab, results):
    opened_rows(tab)
    ordered = sorted(float(f"{row.ri:.5g}") for row in results.rows)
    header, _ = column(tab, "ri")
    header.locator("button").click()
    header, cells = column(tab, "ri")
    assert header.get_attribute("aria-sort") == "ascending"
    assert [float(cell) for cell in cells] == ordered[:20]
    header.locator("button").focus()
    tab.keyboard.press("Enter")
    header, cells = column(tab, "ri")
    assert header.get_attribute("aria-sort") == "descending"
    assert [float(cell) for cell in cells] == ordered[::-1][:20]
    assert tab.locator("#rows [aria-sort]").count() == 1


def test_a_long_table_is_filtered_and_paged(tab, results):
    opened_rows(tab)
    output = tab.locator("#rows output")
    count = f"{len(results.rows)}"
    assert output.inner_text() == f"1 to 20 of {count} rows"
    tab.locator("#rows .next").click()
    assert output.inner_text() == f"21 to 40 of {count} rows"
    assert column(tab, "cell")[1] == [row.cell for row in results.rows[20:40]]
    tab.locator("#rows .back").click()
    assert output.inner_text() == f"1 to 20 of {count} rows"
    assert tab.locator("#rows .back").is_disabled()
    field = tab.locator("#rows input")
    field.fill("residual_lstm n=4 split=test ratio=8")
    kept = [r for r in results.rows if (r.aggregator, r.n, r.split, r.ratio) == ("residual_lstm", 4, "test", 8)]
    assert output.inner_text() == f"1 to {len(kept)} of {len(kept)} rows"
    assert column(tab, "n")[1] == ["4"] * len(kept)
    field.fill("no such thing")
    assert output.inner_text() == "0 to 0 of 0 rows"


def test_what_a_column_means_is_said_on_focus(tab):
    opened_rows(tab)
    tab.locator("#rows th button", has_text="macs_effective").focus()
    assert "MACs" in tab.locator(".tip").inner_text()


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("open_all", [False, True])
def test_the_page_never_scrolls_sideways(tab, width, open_all):
    tab.set_viewport_size({"width": width, "height": 800})
    if open_all:
        tab.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    assert tab.evaluate("document.documentElement.scrollWidth") == width


def test_a_table_scrolls_within_the_page_only_where_it_is_long_and_then_fades(tab):
    boxes = tab.locator(".tall")
    assert boxes.count() > 1
    assert tab.locator(".fades").count() == 0
    assert boxes.evaluate_all("boxes => boxes.every(box => box.scrollHeight <= box.clientHeight + 2)")
    tab.evaluate(
        """() => {
          const body = document.querySelector("#cost .tall tbody");
          for (let i = 0; i < 60; i++) body.append(body.lastElementChild.cloneNode(true));
          dispatchEvent(new Event("resize"));
        }"""
    )
    assert tab.locator(".fades").count() == 1
    tab.locator("#cost .tall").evaluate("box => { box.scrollTop = box.scrollHeight; }")
    tab.locator(".fades").wait_for(state="detached")


def test_the_contents_stay_beside_the_text_or_are_closed_on_a_phone(tab):
    link = tab.locator("nav a", has_text="Which method?")
    assert link.is_visible()
    tab.mouse.wheel(0, 3000)
    tab.wait_for_function("scrollY > 1000")
    assert 0 <= link.bounding_box()["y"] < 800
    tab.set_viewport_size({"width": 390, "height": 800})
    assert not link.is_visible()
    tab.locator("nav summary").click()
    assert link.is_visible()
    assert tab.locator(f"{FIRST} button").first.is_visible()  # legends stay


def test_the_first_key_leads_to_the_answer(tab):
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.textContent") == "Skip to the answer"
    tab.keyboard.press("Enter")
    assert tab.evaluate("location.hash") == "#deploy"


def test_paper_has_everything_and_nothing_to_press(tab):
    tab.emulate_media(media="print")
    try:
        assert tab.locator("#config, #how pre").first.is_visible()
        assert not tab.locator("nav").is_visible()
        assert tab.locator("figure.chart").last.bounding_box()["height"] > 50
    finally:
        tab.emulate_media(media="screen")


def test_without_a_script_all_can_be_read(browser, file, results):
    context = browser.new_context(java_script_enabled=False, viewport={"width": 1280, "height": 800})
    tab = context.new_page()
    tab.goto(file.as_uri())
    assert tab.locator("button:visible, select:visible").count() == 0
    assert tab.locator(f"{FIRST} .key").first.is_visible()
    assert tab.locator(f"{FIRST} .dot title").first.text_content().startswith("attention, 1x, n = 1: RI")
    assert tab.locator("nav a").first.is_visible()
    tab.locator("#rows > summary").click()
    assert tab.locator("#rows tbody tr").count() == 20
    assert "Without JavaScript the page shows the first 20 of" in tab.locator("#rows").inner_text()
    context.close()


CONTRAST = {"runOnly": {"type": "rule", "values": ["color-contrast"]}}
PARTS = {"include": [["header"], ["nav"], ["#deploy"], ["#wrong"], ["#ranks"]]}  # of every kind; all would take long


@pytest.mark.parametrize(
    ("scheme", "context", "options"),
    [
        ("light", None, {"rules": {"color-contrast": {"enabled": False}}}),
        ("light", PARTS, CONTRAST),
        ("dark", PARTS, CONTRAST),
    ],
    ids=["rules", "light", "dark"],
)
def test_nothing_keeps_people_out(tab, scheme, context, options):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    tab.emulate_media(color_scheme=scheme)
    tab.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    found = axe.Axe().run(tab, context, {"resultTypes": ["violations"], **options}).response
    assert [(one["id"], one["nodes"][0]["html"][:200]) for one in found["violations"]] == []
    assert found["passes"]
