"""How many independent instances dependent ones were worth in runs, and whether looking more often paid there.

`python -m benchmarks.effective RUN... --output FOLDER` reads runs that have the protocol `iid` beside others, writes
`effective.csv`, `break_even.csv` and `effective.svg` there, and prints both tables. n_eff is where the curve of `iid`
has the RI that the other protocol has after k instances; the ends of its interval are those of that RI.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks import evidence
from sharedlabel.config.names import DENSE, EXACT, FROZEN, IID
from sharedlabel.errors import ConfigError, guarded
from sharedlabel.files import together
from sharedlabel.metrics.dependence import break_even, correlation, effective_instances, equal_instances
from sharedlabel.records import Results, Summary, read, to_csv
from sharedlabel.report.charts import axes
from sharedlabel.report.charts.figure import Figure, Guide, Panel, Series
from sharedlabel.report.charts.figure import Point as Dot
from sharedlabel.report.charts.marks import Palette
from sharedlabel.report.charts.svg import file_svg

FILES = ("effective.csv", "break_even.csv", "effective.svg")
CORRELATIONS = (0.03, 0.1, 0.3)  # of the model's curves in the figure


@dataclass(frozen=True)
class Effective:
    """What instances of the dense network were worth on test; NaN where the curve of `iid` does not reach that far.

    Attributes:
        data: data set.
        protocol: other than `iid`.
        aggregator: whose RI it is.
        seeds: training seeds.
        k: instances.
        ri_iid: RI after as many independent ones.
        ri: after these.
        effective: independent instances that are worth as much; `_low` and `_high` are where the ends of RI lie.
        correlation: rho of two instances in the exchangeable Gaussian model, by this k.
    """

    data: str
    protocol: str
    aggregator: str
    seeds: int
    k: int
    ri_iid: float
    ri: float
    effective: float
    effective_low: float
    effective_high: float
    correlation: float


@dataclass(frozen=True)
class BreakEven:
    """Whether a compressed network that looks more often beats one look through the dense network, at the same price.

    Attributes:
        data: data set.
        pruner: of the compressed network.
        ratio: of the compressed network.
        protocol: other than `iid`.
        aggregator: whose RI it is.
        images: that it sees for the price of one dense pass, theoretical MACs.
        needed: independent images through it that say what one through the dense network does.
        break_even: correlation up to which looking more often pays.
        correlation: that was measured, by the largest k.
        pays: whether it is below.
    """

    data: str
    pruner: str
    ratio: float
    protocol: str
    aggregator: str
    images: float
    needed: float
    break_even: float
    correlation: float
    pays: bool


Curves = Mapping[tuple[str, str, float], dict[int, Summary]]  # by protocol, pruner and ratio


def curves(results: Results, aggregator: str) -> Curves:
    """Return what one aggregator has on test after each n, by protocol and network.

    Raises:
        ConfigError: the run has no such aggregator, or no `iid` beside another protocol.
    """
    made: dict[tuple[str, str, float], dict[int, Summary]] = {}
    for one in results.summaries:
        if (one.split, one.aggregator, one.training) == ("test", aggregator, FROZEN):
            made.setdefault((one.protocol, one.pruner, one.ratio), {})[one.n] = one
    protocols = {protocol for protocol, _, _ in made}
    if IID not in protocols or len(protocols) < 2:
        named = sorted({one.aggregator for one in results.summaries} - {EXACT})
        raise ConfigError(
            f"{results.experiment}: expected `iid` and another protocol of {aggregator}, got {sorted(protocols)}; "
            f"evaluate both, or choose one of {', '.join(named)}"
        )
    return made


def effective(results: Results, aggregator: str) -> Iterator[Effective]:
    """Yield what dependent instances of the dense network were worth, by protocol and k."""
    every = curves(results, aggregator)
    own = {protocol: curve for (protocol, pruner, _), curve in every.items() if pruner == DENSE}
    n = sorted(own[IID])
    independent = [own[IID][size].ri for size in n]
    for protocol, k in itertools.product(sorted(own.keys() - {IID}), n):
        one = own[protocol][k]
        worth, low, high = equal_instances([one.ri, one.ri_low, one.ri_high], n, independent).tolist()
        rho = correlation(k, worth) if k > 1 and not math.isnan(worth) else math.nan
        yield Effective(one.data, protocol, aggregator, one.seeds, k, own[IID][k].ri, one.ri, worth, low, high, rho)


def paying(results: Results, aggregator: str) -> Iterator[BreakEven]:
    """Yield, for each compressed network and protocol, up to which correlation it pays to look more often."""
    every = curves(results, aggregator)
    measured = {
        one.protocol: one.correlation for one in effective(results, aggregator) if not math.isnan(one.correlation)
    }
    dense = every[IID, DENSE, 1.0]
    first = min(dense)
    for (protocol, pruner, ratio), _ in sorted(every.items()):
        if pruner == DENSE or protocol == IID:
            continue
        curve = every[IID, pruner, ratio]
        images = first * dense[first].cost_dense_passes / curve[first].cost_dense_passes
        n = sorted(curve)
        needed = float(equal_instances([dense[first].ri], n, [curve[size].ri for size in n])[0])
        limit = break_even(images, needed) if images > 1 and not math.isnan(needed) else math.nan
        rho = measured.get(protocol, math.nan)
        yield BreakEven(dense[first].data, pruner, ratio, protocol, aggregator, images, needed, limit, rho, rho < limit)


def figure(points: Sequence[Effective]) -> str:
    """Draw n_eff against k as SVG: a line for each data set and protocol, and the model's for some correlations."""
    lines: dict[str, list[Effective]] = {}
    for one in points:
        if not math.isnan(one.effective):
            lines.setdefault(f"{one.data}, {one.protocol}", []).append(one)
    palette = Palette(sorted(lines))
    most = max(one.k for one in points)
    ticks = [1, *(2**power for power in range(1, most.bit_length()) if 2**power < most), most]
    x, y = axes.powers("instances k", ticks), axes.powers("worth so many independent ones", ticks)
    series = tuple(
        Series(
            name,
            palette[name],
            tuple(
                Dot(one.k, one.effective, f"{name}: {one.k} are worth {one.effective:.2f}", low, high)
                for one in own
                for low, high in ((_or(one.effective_low, one.effective), _or(one.effective_high, one.effective)),)
            ),
            spread="bars",
        )
        for name, own in sorted(lines.items())
    )
    steps = [float(most ** (at / 12)) for at in range(13)]
    guides = [Guide((1, 1), (most, most), "0")]
    for rho in CORRELATIONS:
        worth = effective_instances(torch.tensor(steps), rho).tolist()
        pairs = list(itertools.pairwise(zip(steps, worth, strict=True)))
        guides += [Guide(*pair, f"{rho:g}" if pair == pairs[-1] else "") for pair in pairs]
    panel = Panel("", x, y, series, tuple(guides), width=520, height=340)
    model = ", ".join(f"{rho:g}" for rho in (0.0, *CORRELATIONS))
    about = f"test, dense network; bars: where the ends of RI lie; dotted: the model at correlations of {model}"
    return file_svg(
        Figure(about, (panel,), tuple((one.name, one.mark) for one in series)), "What dependent instances are worth"
    )


def _or(value: float, other: float) -> float:
    return other if math.isnan(value) else value


def tables(points: Sequence[Effective], paid: Sequence[BreakEven]) -> Iterator[str]:
    """Yield both tables as Markdown."""
    head = ["data", "protocol", "k", "RI, iid", "RI", "worth", "rho"]
    yield "\n".join(
        [*evidence.header(head)]
        + [
            evidence.line(
                [
                    one.data,
                    one.protocol,
                    str(one.k),
                    f"{one.ri_iid:.3f}",
                    f"{one.ri:.3f}",
                    f"{_number(one.effective)} [{_number(one.effective_low)}, {_number(one.effective_high)}]",
                    _number(one.correlation),
                ]
            )
            for one in points
        ]
    )
    head = ["data", "network", "protocol", "images a dense pass", "needed", "pays below rho =", "measured rho", "pays"]
    yield "\n".join(
        [*evidence.header(head)]
        + [
            evidence.line(
                [
                    one.data,
                    evidence.network(one.pruner, one.ratio),
                    one.protocol,
                    f"{one.images:.1f}",
                    _number(one.needed),
                    _number(one.break_even),
                    _number(one.correlation),
                    "yes" if one.pays else "not known" if math.isnan(one.break_even + one.correlation) else "no",
                ]
            )
            for one in paid
        ]
    )


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 0, or 2 for what the user can fix."""
    return guarded(lambda: _main(arguments))


def _main(arguments: Sequence[str] | None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.effective", description=__doc__, allow_abbrev=False)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs, with results.json")
    parser.add_argument(
        "--aggregator", default="tempered_log_pool", help="whose RI is looked at (default: %(default)s)"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    chosen = parser.parse_args(arguments)
    runs = [read(path, ("summaries",)) for path in chosen.runs]
    points = [one for run in runs for one in effective(run, chosen.aggregator)]
    paid = [one for run in runs for one in paying(run, chosen.aggregator)]
    for text in tables(points, paid):
        print(text, end="\n\n")
    chosen.output.mkdir(parents=True, exist_ok=True)
    made = (to_csv(Effective, points), to_csv(BreakEven, paid), figure(points))
    together.replace(chosen.output, dict(zip(FILES, made, strict=True)))
    for name in FILES:
        print(chosen.output / name)


if __name__ == "__main__":
    sys.exit(main())
