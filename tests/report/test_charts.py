"""Charts: where values lie, what is drawn of them, and what is said."""

from __future__ import annotations

import itertools
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharedlabel.config.names import EXACT
from sharedlabel.report.charts import axes
from sharedlabel.report.charts.figure import Figure, Guide, Panel, Point, Series
from sharedlabel.report.charts.marks import COLORS, SHAPES, Mark, Palette
from sharedlabel.report.charts.svg import file_svg, panel_svg, said

SHARES = st.lists(st.integers(-500, 100).map(lambda value: value / 100), min_size=1, max_size=5)
POSITIVE = st.lists(st.integers(1, 10**6).map(lambda value: value / 1000), min_size=1, max_size=5)
ANY = st.lists(st.integers(-(10**5), 10**5).map(lambda value: value / 10), min_size=1, max_size=5)
DIFFERENCES = st.lists(st.integers(-500, 500).map(lambda value: value / 1000), max_size=5)
EACH = st.one_of(
    ANY.map(lambda values: (axes.linear("y", values), values)),
    POSITIVE.map(lambda values: (axes.log("y", values), values)),
    SHARES.map(lambda values: (axes.stretched("y", values), values)),
    st.lists(st.floats(-5, 5).map(lambda value: round(value, 4)), max_size=9).map(
        lambda values: (axes.signed("y", values), values)
    ),
)


@given(EACH)
def test_every_value_has_a_place_on_its_axis_in_their_order(made):
    axis, values = made
    places = [axis.at(value) for value in sorted(values)]
    assert all(-1e-9 <= place <= 1 + 1e-9 for place in places)
    assert places == sorted(places)
    inside = [value for value in values if axis.low < value < axis.high]
    assert all(0 < axis.at(value) < 1 for value in inside)
    assert axis.scale == "stretched" or axis.low <= min(values, default=0) <= max(values, default=0) <= axis.high


@given(EACH)
def test_named_values_are_apart_and_inside(made):
    axis, _ = made
    places = [axis.at(value) for value, _ in axis.ticks]
    assert all(axis.low <= value <= axis.high or value == pytest.approx(axis.low) for value, _ in axis.ticks)
    assert axis.scale == "log" or all(abs(a - b) > 0.02 for a, b in itertools.combinations(places, 2))


def test_a_stretched_axis_spreads_what_is_near_one():
    axis = axes.stretched("RI", [0.5, 0.9, 0.99])
    assert axis.at(0.99) - axis.at(0.9) > 0.9 * (axis.at(0.9) - axis.at(0.5))
    assert tuple(name for _, name in axis.ticks if name in {"0.9", "0.98"}) >= ("0.9", "0.98")


def test_a_stretched_axis_is_filled_by_its_values_whatever_their_intervals():
    wide = axes.stretched("RI", [0.0, 0.1, 0.2], [-11.7, 1.0])
    assert wide.at(0.2) - wide.at(0.0) > 0.3
    assert -0.3 < wide.low < 0
    assert 0.2 < wide.high < 0.4
    bare = axes.stretched("RI", [0.0, 0.1, 0.2])
    assert bare.at(0.2) - bare.at(0.0) > 0.6
    assert len(bare.ticks) >= 3
    perfect = axes.stretched("RI", [0.9995, 1.0], [-11.7, 1.0])
    assert 0.9 < perfect.low < 0.995
    narrow = axes.stretched("RI", [0.5, 0.9], [0.45, 0.92])
    assert narrow.low < 0.45
    assert narrow.high > 0.92


def test_a_signed_axis_shows_small_and_large_differences():
    axis = axes.signed("difference", [-0.3, 0.004])
    assert [name for _, name in axis.ticks] == ["-0.3", "-0.1", "-0.03", "-0.01", "0"]
    assert axis.at(0.004) - axis.at(0) > 0.05


def test_marks_are_told_apart():
    palette = Palette([*(f"m{i}" for i in range(3 * COLORS)), EXACT])
    looks = {(palette[f"m{i}"].color, palette[f"m{i}"].dash) for i in range(3 * COLORS)}
    assert len(looks) == 3 * COLORS
    assert palette[EXACT].color == "var(--ink)"
    assert len(set(SHAPES)) == COLORS


def panel(*series: Series, guides: tuple[Guide, ...] = ()) -> Panel:
    ends = [end for s in series for p in s.points for end in (p.y, p.low or p.y, p.high or p.y)]
    return Panel("n = 4", axes.powers("ratio", [1, 2, 4]), axes.linear("RI", ends), series, guides)


LINE = Series(
    "<lstm>",
    Mark(1),
    (Point(1, 0.5, "<lstm>, 1x: 0.5", 0.2, 0.9), Point(4, 0.3, "<lstm>, 4x: 0.3", -0.1, 0.6)),
    spread="band",
)


def test_a_panel_is_well_formed_and_says_every_point_and_what_is_seen():
    drawn = ElementTree.fromstring(panel_svg(panel(LINE)))
    assert [title.text for title in drawn.iter("title")] == ["<lstm>, 1x: 0.5", "<lstm>, 4x: 0.3"]
    assert drawn.attrib["role"] == "img"
    assert drawn.attrib["aria-label"] == said(panel(LINE)) == "n = 4. RI against ratio. <lstm>, 1x: 0.5 to 4x: 0.3."
    assert [group.attrib["data-m"] for group in drawn.iter("g") if "data-m" in group.attrib] == ["<lstm>"]


def test_a_name_of_wide_letters_has_its_room():
    drawn = ElementTree.fromstring(panel_svg(Panel("", axes.share("x"), axes.names(["mean_vote"]), (LINE,))))
    (name,) = [text for text in drawn.iter("text") if text.text == "mean_vote"]
    assert float(name.attrib["x"]) > 58.2  # as wide as DejaVu Sans draws it


def numbers(path: str) -> list[float]:
    return [float(number) for number in re.findall(r"-?[\d.]+", path)]


def test_a_band_is_drawn_whole():
    drawn = ElementTree.fromstring(panel_svg(panel(LINE)))
    (band,) = [path.attrib["d"] for path in drawn.iter("path") if path.attrib["class"] == "band"]
    inner = {name: float(drawn.attrib[f"data-{name}"]) for name in ("x0", "x1", "y0", "y1")}
    x, y = numbers(band)[::2], numbers(band)[1::2]
    assert inner["x0"] <= min(x) <= max(x) <= inner["x1"]
    assert inner["y0"] <= min(y) <= max(y) <= inner["y1"]
    assert len(set(y)) == 4


@pytest.mark.parametrize(("line", "commands"), [("straight", "ML"), ("steps", "MHV"), ("", None)])
def test_lines_are_straight_or_steps(line, commands):
    drawn = ElementTree.fromstring(panel_svg(panel(Series("m", Mark(0), LINE.points, line=line))))
    paths = [path.attrib["d"] for path in drawn.iter("path") if path.attrib["class"] == "line"]
    assert [re.sub(r"[-\d. ]", "", path) for path in paths] == ([] if commands is None else [commands])


def test_a_file_needs_nothing_else_and_has_heading_legend_and_notes():
    figure = Figure("digits, 2 seeds", (panel(LINE),) * 5, (("<lstm>", Mark(1)),), ("line: front",))
    text = file_svg(figure, "Heading & more")
    drawn = ElementTree.fromstring(text)
    words = [node.text for node in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert {"Heading & more", "digits, 2 seeds", "<lstm>", "line: front"} <= set(words)
    assert re.findall(r'https?://[^"]+', text) == ["http://www.w3.org/2000/svg"]
    assert "--series-1" in text
    rows = [node.attrib["y"] for node in drawn if node.tag.endswith("svg")]
    assert len(rows) == 5
    assert len(set(rows)) == 2
    assert file_svg(figure, "Heading & more") == text
