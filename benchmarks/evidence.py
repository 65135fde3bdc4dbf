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
from typing import Any, TypeVar

from sharedlabel import records
from sharedlabel.config.names import DENSE, EXACT
from sharedlabel.errors import ConfigError, guarded, nearest
from sharedlabel.files import together
from sharedlabel.records import Comparison, Pooled, Rank, Results, Summary

SHOWN = ("better", "worse")
Record = TypeVar("Record", Comparison, Pooled)
TABLES = ("summaries", "comparisons", "pooled", "ranks", "wins", "sweet_spots", "adaptive")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the Markdown and return the exit code: 0, or 2 for what the user can fix."""
    return guarded(lambda: _main(arguments))


def _main(arguments: Sequence[str] | None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evidence", description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a run, or its results.json")
    parser.add_argument("--method", default="crafted_lstm", help="aggregator that the others are compared with")
    parser.add_argument("--reference", default="tempered_log_pool", help="the baseline of the gap that is closed")
    parser.add_argument("--show", nargs="*", default=[], help="aggregators of the tables by ratio; all by default")
    parser.add_argument("--csv", type=Path, help="folder for the CSV files")
    chosen = parser.parse_args(arguments)
    results = records.read(chosen.run)
    check(results, chosen.method, chosen.reference, chosen.show)
    for text in sections(results, chosen.method, chosen.reference, chosen.show):
        print(text, end="\n\n")
    if chosen.csv:
        write(results, chosen.method, chosen.reference, chosen.csv)


def check(results: Results, method: str, reference: str, shown: Sequence[str]) -> None:
    """Refuse names that the run does not have, and runs without anything to compare: aggregators or trainings.

    Raises:
        ConfigError: says which, and what there is.
    """
    names = aggregators(results)
    if len(names) == 1 and len({s.training for s in results.summaries}) > 1:  # only trainings are compared
        return
    for option, name in (("--method", method), ("--reference", reference), *(("--show", name) for name in shown)):
        if name not in names:
            raise ConfigError(f"{option}: this run has no aggregator {name!r}; {nearest(name, names)}")
    if max((s.n for s in results.summaries), default=1) == 1 or len(names) == 1:
        raise ConfigError("expected a run with two aggregators and n above 1, got a smaller one; run a wider grid")


def aggregators(results: Results) -> list[str]:
    """Return the aggregators of a run in its order, without the exact posterior."""
    return list(dict.fromkeys(s.aggregator for s in results.summaries if s.aggregator != EXACT))


def sections(results: Results, method: str, reference: str, shown: Sequence[str] = ()) -> Iterator[str]:
    """Yield the tables as Markdown, backbone by backbone; methods are compared within the first training."""
    backbones = list(dict.fromkeys(s.backbone for s in results.summaries if s.aggregator != EXACT))
    for backbone in backbones:
        every = _only(results, "backbone", backbone)
        own = _only(every, "training", next(s.training for s in every.summaries if s.aggregator != EXACT))
        for protocol in dict.fromkeys(s.protocol for s in own.summaries):
            yield f"### {f'{backbone}, ' if len(backbones) > 1 else ''}{protocol}"
            if len({s.training for s in every.summaries}) > 1:
                yield "\n".join(trainings(every, protocol))
            if len(aggregators(own)) == 1:
                continue
            yield "\n".join(verdicts(own, protocol, method, aggregators(own)))
            yield "\n".join(standing(own, protocol))
            for n in sorted({s.n for s in own.summaries}):
                yield "\n".join(by_ratio(own, protocol, n, list(shown) or aggregators(own)))
            yield "\n".join(ceiling(own, protocol, reference, method))
            yield "\n".join(budgets(own, protocol))


def _only(results: Results, column: str, value: str) -> Results:
    """Return the records with a value in a column; those of the exact posterior belong to all."""
    kept: dict[str, Any] = {
        name: tuple(
            r for r in getattr(results, name) if getattr(r, column) == value or getattr(r, "aggregator", "") == EXACT
        )
        for name in TABLES
    }
    return dataclasses.replace(results, **kept)


def trainings(results: Results, protocol: str) -> Iterator[str]:
    """Compare every way of training with frozen features, aggregator by aggregator and network by network: RI."""
    own = [c for c in results.comparisons if (c.axis, c.metric, c.protocol) == ("training", "ri", protocol)]
    first = own[0].reference
    own = [c for c in own if c.reference == first]
    sizes = sorted({c.n for c in own})
    sizes = sorted({sizes[0], sizes[len(sizes) // 2], sizes[-1]})
    networks = sorted({(c.pruner, c.ratio) for c in own}, key=lambda key: (key[0] != DENSE, key))
    cells = {(c.method, c.aggregator, c.pruner, c.ratio, c.n): c for c in own}
    title = "frozen features" if first == "frozen" else first
    yield f"**Each training minus {title}: RI [95%]; bold where a difference is shown, all comparisons considered**"
    yield ""
    yield from header(["training", "aggregator", *(f"{network(*key)}, n = {n}" for key in networks for n in sizes)])
    for training, aggregator in dict.fromkeys((c.method, c.aggregator) for c in own):
        row = [cells.get((training, aggregator, *key, n)) for key in networks for n in sizes]
        yield line([training, aggregator, *(_difference(c) for c in row)])


def network(pruner: str, ratio: float) -> str:
    """Name a network."""
    return "dense" if pruner == DENSE else f"{pruner} {ratio:g}x"


def _difference(c: Comparison | None) -> str:
    if c is None:
        return ""
    text = interval(c.difference, c.low, c.high, 3)
    return f"**{text}**" if c.verdict in SHOWN else text


def interval(middle: float, low: float, high: float, digits: int) -> str:
    """Write a difference with the ends of its interval, never as minus zero."""
    first, second, third = (f"{round(value, digits) + 0.0:+.{digits}f}" for value in (middle, low, high))
    return f"{first} [{second}, {third}]"


def verdicts(results: Results, protocol: str, method: str, names: Sequence[str]) -> Iterator[str]:
    """Compare the method with every other: RI on each network, and on all at once."""
    yield f"**{method} against each, RI on all networks: {' / '.join(records.VERDICTS)} (ahead in the mean)**"
    yield ""
    single = planned(results.comparisons, protocol, method)
    pooled = list(oriented(results.pooled, method))
    whole = {(p.reference, p.n): p for p in planned(pooled, protocol, method) if not p.endpoint}
    primary = {p.reference: p for p in pooled if p.protocol == protocol and p.endpoint}
    sizes = sorted({c.n for c in single})
    shown = sorted({sizes[0], sizes[-1]})
    yield from header(
        [
            "against",
            *(f"n = {n}" for n in sizes),
            "all",
            *(f"mean over networks, n = {n} [95%]" for n in shown),
            "primary endpoint [95%]",
        ]
    )
    for other in names:
        if other != method:
            own = [c for c in single if c.reference == other]
            cells = [count([c for c in own if c.n == n]) for n in sizes]
            yield line([other, *cells, count(own), *(_whole(whole[other, n]) for n in shown), _whole(primary[other])])


def _whole(pooled: Pooled) -> str:
    text = interval(pooled.difference, pooled.low, pooled.high, 4)
    return f"**{text}**" if pooled.verdict in SHOWN else text


def planned(records_: Iterable[Record], protocol: str, method: str) -> list[Record]:
    """Return the comparisons of a method with every other in RI, n above 1."""
    return [
        c
        for c in oriented(records_, method)
        if (c.protocol, c.metric) == (protocol, "ri") and c.n is not None and c.n > 1 and c.reference != EXACT
    ]


def oriented(records_: Iterable[Record], method: str) -> Iterator[Record]:
    """Yield the comparisons of an aggregator with the others as the aggregator minus the other."""
    for c in records_:
        if c.axis != "aggregator" or method not in {c.method, c.reference}:
            continue
        if c.method == method:
            yield c
        else:
            yield dataclasses.replace(
                c,
                method=method,
                reference=c.method,
                difference=-c.difference,
                low=-c.high,
                high=-c.low,
                low_adjusted=-c.high_adjusted,
                high_adjusted=-c.low_adjusted,
                verdict=records.OPPOSITE[c.verdict],
            )


def standing(results: Results, protocol: str) -> Iterator[str]:
    """Tabulate the rank of every aggregator as an interval: mean RI over networks, at every n."""
    own = [r for r in results.ranks if (r.protocol, r.metric, r.endpoint) == (protocol, "ri", False)]
    sizes = sorted({r.n for r in own if r.n is not None})
    cells = {(r.aggregator, r.n): r for r in own}
    yield "**Mean RI over networks and rank: from 1 + those shown to be better, to all but those shown to be worse**"
    yield ""
    yield from header(["aggregator", *(f"n = {n}" for n in sizes)])
    for name in sorted({r.aggregator for r in own}, key=lambda name: -cells[name, sizes[-1]].mean):
        yield line([name, *(_rank(cells[name, n]) for n in sizes)])


def _rank(rank: Rank) -> str:
    worst = f" to {rank.rank_worst}" if rank.rank_worst > rank.rank_best else ""
    return f"{rank.mean:.4f}, {rank.rank_best}{worst}"


def count(own: Sequence[Comparison]) -> str:
    """Write how many verdicts of each kind there are, and how many means are ahead."""
    tally = " / ".join(str(sum(c.verdict == verdict for c in own)) for verdict in records.VERDICTS)
    ahead = sum(c.difference > 0 for c in own)
    return f"{tally} ({ahead} of {len(own)})"


def by_ratio(results: Results, protocol: str, n: int, names: Sequence[str]) -> Iterator[str]:
    """Tabulate RI on test by network; the highest of a column is bold."""
    own = [s for s in results.summaries if s.split == "test" and s.protocol == protocol and s.n == n]
    networks = sorted({(s.pruner, s.ratio) for s in own}, key=lambda key: (key[0] != DENSE, key))
    cells = {(s.aggregator, s.pruner, s.ratio): s for s in own}
    best = {key: max(cells[name, *key].ri for name in names if (name, *key) in cells) for key in networks}
    yield f"**RI at n = {n}**"
    yield ""
    yield from header(["aggregator", *(network(*key) for key in networks)])
    for name in [*names, *([EXACT] if (EXACT, *networks[0]) in cells else [])]:
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


def ceiling(results: Results, protocol: str, reference: str, method: str) -> Iterator[str]:
    """Tabulate the gap between the reference and the best, or the exact posterior where it is known."""
    yield f"**Gap above {reference} in RI, means over networks**"
    yield ""
    own = [s for s in results.summaries if s.split == "test" and s.protocol == protocol]
    exact = {s.n: s.ri for s in own if s.aggregator == EXACT}
    largest = max(s.ratio for s in own)
    yield from header(
        [
            "n",
            "ratios",
            reference,
            "best on test",
            "by",
            method,
            *(["exact", f"share closed by {method}"] if exact else []),
        ]
    )
    for n in sorted({s.n for s in own}):
        for label, ratios in (("below 16x", range(16)), ("16x and up", range(16, 10_000))):
            kept = [s for s in own if s.n == n and int(s.ratio) in ratios and s.aggregator != EXACT]
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


def budgets(results: Results, protocol: str) -> Iterator[str]:
    """Tabulate the sweet spot of one dense pass for every aggregator and pruner."""
    yield "**Sweet spot of one dense pass, chosen on validation**"
    yield ""
    yield from header(
        ["aggregator", "pruner", "chosen", "passes", "n-accuracy, % [95%]", "RI", "inside", "same choice"]
    )
    for spot in results.sweet_spots:
        if (spot.rule, spot.value, spot.protocol) != ("budget", 1.0, protocol) or spot.aggregator == EXACT:
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


def write(results: Results, method: str, reference: str, folder: Path) -> None:
    """Write the tables behind the Markdown: test rows, and the comparisons of the method and of trainings."""
    tables: dict[str, Sequence[Any]] = {
        "summaries": [s for s in results.summaries if s.split == "test"],
        "ranks": results.ranks,
        "sweet_spots": results.sweet_spots,
        "adaptive": [a for a in results.adaptive if a.aggregator in {method, reference}],
        "searches": results.searches,
    }
    for name, records_ in (("comparisons", results.comparisons), ("pooled", results.pooled), ("wins", results.wins)):
        own = [r for r in records_ if method in {r.method, r.reference} or getattr(r, "axis", "") == "training"]
        tables[name] = own
    csv = {f"{name}.csv": records.to_csv(type(rows[0]), rows, digits=6) for name, rows in tables.items() if rows}
    together.replace(folder, csv)


if __name__ == "__main__":
    sys.exit(main())
