"""`python -m benchmarks.evidence RUN --method NAME`: what a run says about one aggregator, as Markdown and CSV.

Everything is read from the tables that the run wrote; nothing is computed anew but means and counts of them.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from sharedlabel import results as records
from sharedlabel.comparing import LEVEL
from sharedlabel.metrics.intervals import holm
from sharedlabel.results import Comparison, Results, Summary

DENSE, ORACLE = "none", "exact"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the Markdown; with `--csv`, write the tables that it is made from."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evidence", description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a run, or its results.json")
    parser.add_argument("--method", default="crafted_lstm", help="aggregator that the others are compared with")
    parser.add_argument("--reference", default="tempered_log_pool", help="the baseline of the gap that is closed")
    parser.add_argument("--show", nargs="*", default=[], help="aggregators of the tables by ratio; all by default")
    parser.add_argument("--csv", type=Path, help="folder for the CSV files")
    chosen = parser.parse_args(arguments)
    found = records.read(chosen.run)
    for text in sections(found, chosen.method, chosen.reference, chosen.show):
        print(text, end="\n\n")
    if chosen.csv:
        write(found, chosen.method, chosen.reference, chosen.csv)
    return 0


def sections(found: Results, method: str, reference: str, shown: Sequence[str] = ()) -> Iterator[str]:
    """Yield the tables as Markdown, protocol by protocol; methods are compared within the first training."""
    names = list(dict.fromkeys(s.aggregator for s in found.summaries if s.aggregator != ORACLE))
    every, found = found, first_training(found)
    for protocol in dict.fromkeys(s.protocol for s in found.summaries):
        yield f"### {protocol}"
        if every is not found:
            yield "\n".join(trainings(every, protocol))
        yield "\n".join(verdicts(found, protocol, method, names))
        for n in sorted({s.n for s in found.summaries} - {1}):
            yield "\n".join(by_ratio(found, protocol, n, list(shown) or names))
        yield "\n".join(ceiling(found, protocol, reference, method))
        yield "\n".join(budgets(found, protocol))


def first_training(found: Results) -> Results:
    """Return the records of the first training alone; the same object where there is no other."""
    names = list(dict.fromkeys(s.training for s in found.summaries if s.aggregator != ORACLE))
    if len(names) == 1:
        return found
    tables = ("summaries", "comparisons", "pooled", "ranks", "wins", "sweet_spots", "adaptive")
    kept = {
        name: tuple(r for r in getattr(found, name) if r.training == names[0] or getattr(r, "aggregator", "") == ORACLE)
        for name in tables
    }
    return dataclasses.replace(found, **kept)


def trainings(found: Results, protocol: str) -> Iterator[str]:
    """Compare every way of training with frozen features, aggregator by aggregator and network by network: RI."""
    own = [c for c in found.comparisons if (c.axis, c.metric, c.protocol) == ("training", "ri", protocol)]
    own = [c for c in own if c.reference == "frozen"]
    sizes = sorted({c.n for c in own})
    sizes = sorted({sizes[0], sizes[len(sizes) // 2], sizes[-1]})
    networks = sorted({(c.pruner, c.ratio) for c in own}, key=lambda key: (key[0] != DENSE, key))
    cells = {(c.method, c.aggregator, c.pruner, c.ratio, c.n): c for c in own}
    yield "**Each training minus frozen features: RI [95%]; bold where Holm's correction leaves a difference**"
    yield ""
    yield from header(["training", "aggregator", *(f"{_network(*key)}, n = {n}" for key in networks for n in sizes)])
    for training, aggregator in dict.fromkeys((c.method, c.aggregator) for c in own):
        row = [cells.get((training, aggregator, *key, n)) for key in networks for n in sizes]
        yield line([training, aggregator, *(_difference(c) for c in row)])


def _network(pruner: str, ratio: float) -> str:
    return "dense" if pruner == DENSE else f"{pruner} {ratio:g}x"


def _difference(c: Comparison | None) -> str:
    if c is None:
        return ""
    text = f"{c.difference:+.3f} [{c.low:+.3f}, {c.high:+.3f}]"
    return text if c.verdict == "tied" else f"**{text}**"


def verdicts(found: Results, protocol: str, method: str, names: Sequence[str]) -> Iterator[str]:
    """Compare the method with every other: RI over networks, n above 1, adjusted over these comparisons alone."""
    yield f"**{method} against each, RI on all networks: better / tied / worse (ahead in the mean)**"
    yield ""
    planned = adjusted(found, protocol, method)
    sizes = sorted({c.n for c in found.comparisons} - {1})
    yield from header(
        ["against", *(f"n = {n}" for n in sizes), "all", "mean difference over networks [95%], largest n"]
    )
    for other in names:
        if other == method:
            continue
        own = [c for c in planned if c.reference == other]
        pooled = [
            p
            for p in oriented(found.pooled, method, other)
            if p.protocol == protocol and p.metric == "ri" and p.n == sizes[-1]
        ]
        cells = [count([c for c in own if c.n == n]) for n in sizes]
        every = count([c for c in own if c.n > 1])
        gap = pooled[0]
        yield line([other, *cells, every, f"{gap.difference:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}]"])


def adjusted(found: Results, protocol: str, method: str) -> list[Comparison]:
    """Return the comparisons of a method with every other in RI, n above 1; Holm over these, not over all pairs."""
    own = [
        c
        for other in dict.fromkeys(c.aggregator for c in found.summaries)
        if other not in {method, ORACLE}
        for c in oriented(found.comparisons, method, other)
        if (c.protocol, c.metric) == (protocol, "ri") and c.n > 1
    ]
    corrected = holm(torch.tensor([c.p_value for c in own], dtype=torch.float64)).tolist()
    return [
        dataclasses.replace(c, p_holm=p, verdict=("better" if c.difference > 0 else "worse") if p < LEVEL else "tied")
        for c, p in zip(own, corrected, strict=True)
    ]


def oriented(comparisons: Iterable[Any], method: str, other: str) -> Iterator[Any]:
    """Yield the comparisons of two aggregators as method minus other."""
    for c in comparisons:
        if getattr(c, "axis", "aggregator") != "aggregator" or {c.method, c.reference} != {method, other}:
            continue
        if c.method == method:
            yield c
        else:
            yield dataclasses.replace(
                c,
                method=method,
                reference=other,
                difference=-c.difference,
                low=-c.high,
                high=-c.low,
                verdict=records.OPPOSITE[c.verdict],
            )


def count(own: Sequence[Comparison]) -> str:
    """Write better / tied / worse, and how many means are ahead."""
    tally = [sum(c.verdict == verdict for c in own) for verdict in ("better", "tied", "worse")]
    ahead = sum(c.difference > 0 for c in own)
    return f"{tally[0]} / {tally[1]} / {tally[2]} ({ahead} of {len(own)})"


def by_ratio(found: Results, protocol: str, n: int, names: Sequence[str]) -> Iterator[str]:
    """Tabulate RI on test by network; the highest of a column is bold."""
    own = [s for s in found.summaries if s.split == "test" and s.protocol == protocol and s.n == n]
    networks = sorted({(s.pruner, s.ratio) for s in own}, key=lambda key: (key[0] != DENSE, key))
    cells = {(s.aggregator, s.pruner, s.ratio): s for s in own}
    best = {key: max(cells[name, *key].ri for name in names if (name, *key) in cells) for key in networks}
    yield f"**RI at n = {n}**"
    yield ""
    yield from header(["aggregator", *(_network(*key) for key in networks)])
    for name in [*names, *([ORACLE] if (ORACLE, *networks[0]) in cells else [])]:
        row = [cells.get((name, *key)) for key in networks]
        yield line([name, *(_bold(s, best[key]) for s, key in zip(row, networks, strict=True))])
    widths = [(s.ri_high - s.ri_low) / 2 for s in own if s.aggregator in names]
    yield ""
    yield f"Half-widths of the intervals: median {statistics.median(widths):.3f}, largest {max(widths):.3f}."


def _bold(summary: Summary | None, best: float) -> str:
    if summary is None:
        return ""
    text = f"{summary.ri:.3f}"
    return f"**{text}**" if summary.ri == best else text


def ceiling(found: Results, protocol: str, reference: str, method: str) -> Iterator[str]:
    """Tabulate the gap between the reference and the best, or the exact posterior where it is known."""
    yield f"**Gap above {reference} in RI, means over networks**"
    yield ""
    own = [s for s in found.summaries if s.split == "test" and s.protocol == protocol]
    exact = {s.n: s.ri for s in own if s.aggregator == ORACLE}
    largest = max(s.ratio for s in own)
    yield from header(
        ["n", "ratios", reference, "best", "by", method, *(["exact", f"share closed by {method}"] if exact else [])]
    )
    for n in sorted({s.n for s in own}):
        for label, ratios in (("below 16x", range(16)), ("16x and up", range(16, 10_000))):
            kept = [s for s in own if s.n == n and int(s.ratio) in ratios and s.aggregator != ORACLE]
            if not kept or (label == "16x and up" and largest < 16):
                continue
            means = {
                name: statistics.mean(s.ri for s in kept if s.aggregator == name)
                for name in {s.aggregator for s in kept}
            }
            best = max(means, key=lambda name: means[name])
            row = [str(n), label, f"{means[reference]:.4f}", f"{means[best]:.4f}", best, f"{means[method]:.4f}"]
            if exact:
                share = (means[method] - means[reference]) / (exact[n] - means[reference])
                row += [f"{exact[n]:.4f}", f"{100 * share:.0f}%"]
            yield line(row)


def budgets(found: Results, protocol: str) -> Iterator[str]:
    """Tabulate the sweet spot of one dense pass for every aggregator and pruner."""
    yield "**Sweet spot of one dense pass, chosen on validation**"
    yield ""
    yield from header(
        ["aggregator", "pruner", "chosen", "passes", "n-accuracy, % [95%]", "RI", "inside", "same choice"]
    )
    for spot in found.sweet_spots:
        if (spot.rule, spot.value, spot.protocol) != ("budget", 1.0, protocol) or spot.aggregator == ORACLE:
            continue
        if spot.ratio is None:
            yield line([spot.aggregator, spot.pruner, spot.reason, "", "", "", "", ""])
            continue
        accuracy = f"{_percent(spot.n_accuracy)} [{_percent(spot.n_accuracy_low)}, {_percent(spot.n_accuracy_high)}]"
        yield line(
            [
                spot.aggregator,
                spot.pruner,
                f"{spot.ratio:g}x, n = {spot.n}",
                f"{spot.cost_dense_passes:.2f}",
                accuracy,
                f"{spot.ri:.3f}",
                f"{'yes' if spot.interior else '**no**'}, {100 * spot.interior_share:.0f}%",
                f"{100 * spot.modal_share:.0f}%",
            ]
        )


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"


def header(names: Sequence[str]) -> Iterator[str]:
    """Yield the two lines that open a Markdown table."""
    yield line(names)
    yield line(["---"] * len(names))


def line(cells: Sequence[str]) -> str:
    """Return a line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def write(found: Results, method: str, reference: str, folder: Path) -> None:
    """Write the tables behind the Markdown: test rows, and the comparisons of the method and of trainings."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "summaries.csv", [s for s in found.summaries if s.split == "test"])
    _write(folder / "ranks.csv", found.ranks)
    _write(folder / "sweet_spots.csv", found.sweet_spots)
    _write(folder / "adaptive.csv", [a for a in found.adaptive if a.aggregator in {method, reference}])
    for name, records_ in (("comparisons", found.comparisons), ("pooled", found.pooled), ("wins", found.wins)):
        own = [r for r in records_ if method in {r.method, r.reference} or getattr(r, "axis", "") == "training"]
        _write(folder / f"{name}.csv", own)
    _write(folder / "searches.csv", found.searches)


def _write(path: Path, rows: Sequence[Any]) -> None:
    if rows:
        path.write_text(records.to_csv(type(rows[0]), rows, digits=6), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
