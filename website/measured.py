"""What was measured of a method, as tables, from the CSV files of `docs/results`."""

from __future__ import annotations

import collections
import functools
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeAlias

from website import DOCS, tables

_RESULTS = DOCS / "results"
_RATIOS = (2.0, 4.0, 8.0, 16.0, 32.0)
_DENSE = "none"
_LATENCY_BATCH = "256"
Record: TypeAlias = dict[str, str]


def text(kind: str, name: str) -> str:
    """Return the measurements of a plugin in Markdown; empty where there are none.

    Args:
        kind: its folder in the package.
        name: its file without the ending.
    """
    makers: dict[str, Callable[[str], str]] = {"aggregators": _aggregator, "pruners": _pruner}
    return makers[kind](name) if kind in makers else ""


def _aggregator(name: str) -> str:
    """Return an aggregator's RI and rank in every grid, after two instances and after the most."""
    lines = []
    for records in _files("aggregators-*/ranks.csv").values():
        of_ri = [one for one in records if one["metric"] == "ri"]
        for protocol in sorted({one["protocol"] for one in of_ri}, reverse=True):
            places = [one for one in of_ri if one["protocol"] == protocol]
            largest = str(max(int(one["n"]) for one in places))
            lines += [
                [
                    f"{one['data']}, {one['backbone']}",
                    protocol,
                    one["n"],
                    f"{float(one['mean']):.3f} [{float(one['low']):.3f}, {float(one['high']):.3f}]",
                    f"{one['rank_best']} to {one['rank_worst']} of {sum(other['n'] == one['n'] for other in places)}",
                ]
                for one in places
                if one["aggregator"] == name and one["n"] in {"2", largest}
            ]
    if not lines:
        return ""
    listed = tables.table(["data, network", "protocol", "n", "mean RI over all networks [95%]", "rank"], lines)
    return f"{listed}\n\n{_origin('aggregators')}"


def _pruner(name: str) -> str:
    """Return a pruner's accuracy and speed at every ratio in the grids that compare pruners."""
    accuracy = [
        line
        for records in _files("compressors-*/summaries.csv").values()
        for line in _lines(filter(_is_single, records), name, _shown_accuracy)
    ]
    speed = [
        line
        for records in _files("compressors-*/latencies.csv").values()
        for line in _lines(filter(_is_timed, records), name, _shown_speed)
    ]
    if not accuracy:
        return ""
    header = ["data, network", "called", "dense", *(f"{ratio:g}x" for ratio in _RATIOS)]
    parts = ["n-accuracy in % (RI) of single images on test, log-pool:", tables.table(header, accuracy)]
    if speed:
        parts += [f"Times as fast as the dense network, eager, batch {_LATENCY_BATCH}, mean over seeds:"]
        parts += [tables.table(header, speed)]
    return "\n\n".join([*parts, _origin("compressors")])


def _lines(records: Iterable[Record], name: str, shown: Callable[[Sequence[Record]], str]) -> Iterator[list[str]]:
    """Yield a line for each network and label of a pruner, with a cell for the dense network and each ratio."""
    cells = collections.defaultdict[tuple[str, str, float], list[Record]](list)
    for one in records:
        cells[f"{one['data']}, {one['backbone']}", one["pruner"], float(one["ratio"])].append(one)
    for network, label in dict.fromkeys((network, label) for network, label, _ in cells):
        places = [(network, _DENSE, 1.0), *((network, label, ratio) for ratio in _RATIOS)]
        if _is_called(name, label) and any(place in cells for place in places[1:]):
            yield [network, label, *(shown(cells[place]) if place in cells else "" for place in places)]


def _is_called(name: str, label: str) -> bool:
    """Tell whether a label of a table is that of a pruner, on any schedule.

    >>> _is_called("magnitude", "magnitude at init"), _is_called("lottery_ticket", "lottery ticket")
    (True, True)
    >>> _is_called("magnitude", "gradual magnitude"), _is_called("unit", "magnitude (masks)")
    (True, False)
    """
    return f" {name.replace('_', ' ')} " in f" {label.replace('_', ' ')} "


def _is_single(one: Record) -> bool:
    return (one["split"], one["protocol"], one["n"], one["aggregator"]) == ("test", "iid", "1", "log_pool")


def _is_timed(one: Record) -> bool:
    return (one["mode"], one["batch"]) == ("eager", _LATENCY_BATCH)


def _shown_accuracy(found: Sequence[Record]) -> str:
    (one,) = found  # a summary is over seeds already
    return f"{100 * float(one['n_accuracy']):.1f} ({float(one['ri']):.3f})"


def _shown_speed(found: Sequence[Record]) -> str:
    return f"{statistics.fmean(float(one['measured_speedup']) for one in found):.1f}"


def _origin(page: str) -> str:
    return (
        f"Read from `docs/results/{page}-*`. [The page on {page}](../../results/{page}.md) has the commands, the "
        "hardware, the dates and all other numbers, and says at its top which of them are to be computed again."
    )


@functools.cache
def _files(pattern: str) -> dict[str, list[Record]]:
    return {path.parent.name: tables.records(path) for path in sorted(_RESULTS.glob(pattern))}
