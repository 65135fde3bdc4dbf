"""Differences of the methods to one of them, which the reader chooses."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from sharedlabel.config.names import DENSE, method_name
from sharedlabel.records import Comparison
from sharedlabel.report.charts import axes
from sharedlabel.report.charts.figure import Figure, Guide, Panel, Point, Series
from sharedlabel.report.charts.marks import Mark, Palette
from sharedlabel.report.figures._parts import RATIO, panel_ns, subject
from sharedlabel.report.views import View

SECTION, ORDER, PER = "method", 30, "pruner"
HEADING = "Differences to a baseline"
CAPTION = (
    "RI of each method minus that of the baseline, on the same tuples. Bands are 95% intervals of single differences, "
    "not adjusted for their number; the verdicts below are. The axis is linear up to about 0.01 and logarithmic beyond."
)
Ends: TypeAlias = tuple[float, float, float]  # a difference with both ends of its interval
Key: TypeAlias = tuple[str, str, str, float]  # training, method, reference, ratio


def draw(view: View, pruner: str, palette: Palette) -> Figure | None:
    """Draw differences in RI against the ratio, a panel per n, a line per method; None where nothing was compared."""
    own = [c for c in view.comparisons if (c.axis, c.metric) == ("aggregator", "ri") and c.pruner in {pruner, DENSE}]
    if not own:
        return None
    baseline = usual_baseline(own)
    methods = sorted({(c.training, name) for c in own for name in (c.method, c.reference)})
    marks = {method_name(name, training): palette[name] for training, name in methods}
    by_n = {n: _found(c for c in own if c.n == n) for n in panel_ns(sorted({c.n for c in own}))}
    ratios = {n: _complete(found, methods) for n, found in by_n.items()}
    panels = tuple(_panel(n, by_n[n], ratios[n], methods, baseline, marks) for n in by_n if ratios[n])
    if not panels:
        return None
    about = f"{subject(view, pruner)}, test, bands: 95% intervals"
    packed = _packed(by_n, ratios, methods, baseline)
    return Figure(about, panels, tuple(marks.items()), baseline=packed)


def usual_baseline(comparisons: Iterable[Comparison]) -> str:
    """Return the aggregator that is most often the reference; the log-pool among equals."""
    counts = Counter(c.reference for c in comparisons)
    return min(counts, key=lambda name: (-counts[name], name != "log_pool", name))


def _found(comparisons: Iterable[Comparison]) -> dict[Key, Ends]:
    """Index differences by training, method, reference and ratio, in both directions."""
    found: dict[Key, Ends] = {}
    for c in comparisons:
        found[c.training, c.method, c.reference, c.ratio] = (c.difference, c.low, c.high)
        found.setdefault((c.training, c.reference, c.method, c.ratio), (-c.difference, -c.high, -c.low))
    return found


def _complete(found: Mapping[Key, Ends], methods: Sequence[tuple[str, str]]) -> list[float]:
    """List the ratios at which all methods of a training were compared with each other, ascending."""
    pairs = [(t, a, b) for t, a in methods for other, b in methods if t == other and a != b]
    return [ratio for ratio in sorted({key[3] for key in found}) if all((*pair, ratio) in found for pair in pairs)]


def _panel(
    n: int,
    found: Mapping[Key, Ends],
    ratios: Sequence[float],
    methods: Sequence[tuple[str, str]],
    baseline: str,
    marks: Mapping[str, Mark],
) -> Panel:
    series = []
    for training, method in methods:
        name, points = method_name(method, training), []
        for ratio in ratios:
            middle, low, high = found.get((training, method, baseline, ratio), (0.0, 0.0, 0.0))
            said = f"{name}, {ratio:g}x, n = {n}: {middle:+.4f} [{low:+.4f}, {high:+.4f}]"
            points.append(Point(ratio, middle, said, low, high))
        series.append(Series(name, marks[name], tuple(points), spread="band"))
    ends = [end for one in series for p in one.points for end in (p.low or 0.0, p.high or 0.0)]
    x, y = axes.powers(RATIO, ratios, "x"), axes.signed("difference in RI", ends)
    return Panel(f"n = {n}", x, y, tuple(series), (Guide((x.low, 0.0), (x.high, 0.0)),))


def _packed(
    by_n: Mapping[int, Mapping[Key, Ends]],
    ratios: Mapping[int, Sequence[float]],
    methods: Sequence[tuple[str, str]],
    baseline: str,
) -> str:
    """Write what a script needs to draw the same for another baseline: all differences, each in one direction."""
    panels = [
        {
            "n": n,
            "ratios": list(ratios[n]),
            "pairs": [
                [a, b, [[round(end, 5) for end in found[training, first, second, ratio]] for ratio in ratios[n]]]
                for a, (training, first) in enumerate(methods)
                for b, (other, second) in enumerate(methods)
                if a < b and training == other
            ],
        }
        for n, found in by_n.items()
        if ratios[n]
    ]
    told = {
        "baseline": baseline,
        "methods": [[method_name(name, training), name, training] for training, name in methods],
        "panels": panels,
    }
    return json.dumps(told, separators=(",", ":"))
