"""The tables of costs and of error margins."""

from __future__ import annotations

import dataclasses
import statistics
from html.parser import HTMLParser
from typing import Any

import pytest

from sharedlabel.report import costs, html, views


@pytest.fixture
def view(results: Any) -> views.View:
    return views.split(results)[0]


def test_a_network_is_a_line_with_the_numbers_of_its_records(results, view):
    table = costs.costs(view)
    assert [line[0] for line in table.lines][:3] == ["dense", "magnitude 2x", "magnitude 4x"]
    assert len(table.lines) == 11
    assert table.header[-6:] == tuple(
        f"cpu, {mode}, batch {batch}" for mode in ("eager", "compiled") for batch in (1, 32, 256)
    )
    line = dict(zip(table.header, next(line for line in table.lines if line[0] == "random 8x"), strict=True))
    own = [r for r in results.latencies if (r.pruner, r.ratio, r.mode, r.batch) == ("random", 8, "eager", 32)]
    speedup = statistics.median(r.measured_speedup for r in own)
    median = statistics.median(r.measured_median_ms for r in own)
    assert line["cpu, eager, batch 32"] == f"{median:.3g} ms, {speedup:.2f}x"
    assert line["parameters"] == "9.62k"
    assert line["file, bytes"] == "311k"
    assert line["peak memory, bytes, batch 256"] == "23.3M"
    assert line["theoretical speedup"] == f"{8**0.82:.2f}x"
    assert table.caption == "cifar10-small, resnet_cifar-8, 2 seeds; 2 CPU threads, wall-clock time"
    assert table.notes == ()


def test_times_of_a_busy_machine_are_marked(view):
    marked = tuple(
        dataclasses.replace(r, threads=1, measured_clock="cpu", measured_contended=True, measured_contention=2.34)
        if (r.pruner, r.ratio, r.mode, r.batch) == ("random", 8, "eager", 32)
        else dataclasses.replace(r, threads=1, measured_clock="cpu")
        for r in view.latencies
    )
    table = costs.costs(dataclasses.replace(view, latencies=marked))
    cells = [cell for line in table.lines for cell in line if "busy" in cell]
    assert len(cells) == 1
    assert " ms (busy), " in cells[0]
    assert "up to 2.3 times as long on the wall as on the processor" in table.notes[0]
    assert table.caption.endswith("1 CPU thread, processor time")


def test_seeds_that_were_timed_on_a_quiet_machine_count_alone(view):
    """As for a choice by latency."""
    marked = tuple(
        dataclasses.replace(
            r, measured_contended=True, measured_contention=2.34, measured_median_ms=30 * r.measured_median_ms
        )
        if r.seed == 1
        else r
        for r in view.latencies
    )
    some, quiet = (
        costs.costs(dataclasses.replace(view, latencies=records))
        for records in (marked, tuple(r for r in view.latencies if r.seed == 0))
    )
    names = len(some.header) - len([name for name in some.header if "eager" in name or "compiled" in name])
    assert [line[names:] for line in some.lines] == [line[names:] for line in quiet.lines]
    assert some.notes == ()


def test_a_measurement_that_is_missing_leaves_its_cell_empty(view):
    some = tuple(r for r in view.latencies if (r.pruner, r.mode) != ("random", "compiled"))
    lines = {line[0]: line for line in costs.costs(dataclasses.replace(view, latencies=some)).lines}
    assert lines["random 8x"][-3:] == ("", "", "")
    assert all(lines["magnitude 8x"])


def test_a_layer_is_a_line_per_epsilon(view):
    table = costs.margins(view)
    assert [line[:3] for line in table.lines] == [
        ("body.0", "0.1 (2)", "432"),
        ("body.3", "0.1 (2)", "4,096"),
        ("body.0", "0.2 (4)", "432"),
        ("body.3", "0.2 (4)", "4,096"),
    ]
    assert table.lines[0][3:] == ("", "", "44 (10.2%)", "1.99", "20 (4.6%)")
    assert table.lines[1][3:] == ("121 (3.0%)", "0.1", "411 (10.0%)", "1.99", "64 (1.6%)")
    assert table.notes == ("No certificate: expected a chain of linear layers, got Conv2d at 'body.0'.",)


def test_nothing_measured_is_no_table(view):
    empty = dataclasses.replace(view, latencies=(), margins=())
    assert costs.costs(empty) is None
    assert costs.margins(empty) is None


class Headings(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.feed(page)

    def handle_data(self, data: str) -> None:
        self.words.append(" ".join(data.split()))


def test_the_page_shows_a_table_per_network_not_per_protocol(results):
    words = Headings(html.render(results, [])).words
    assert words.count("What does it cost?") == 2  # in the contents, too
    margins = "How many weights of each layer can go before the output moves by epsilon"
    assert words.count(margins) == 1
    assert words[words.index("network") : words.index(margins)].count("magnitude 16x") == 1
    without = dataclasses.replace(results, latencies=(), margins=())
    assert "What does it cost?" not in Headings(html.render(without, [])).words
