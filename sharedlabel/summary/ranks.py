"""Aggregators over all networks of a backbone: rank intervals, wins and losses.

Scores of a tuple are averaged over networks before any variance is taken, so the pairing over tuples, seeds and
networks is kept: what is left is one score per tuple and seed, to which the formulas of `metrics.uncertainty` apply.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from torch import Tensor

from sharedlabel.config.names import Protocol
from sharedlabel.config.sections import ComparisonConfig
from sharedlabel.metrics.uncertainty import seed_average
from sharedlabel.records import MIN_SEEDS, OPPOSITE, Comparison, Identity, Pooled, Rank, Verdict, Wins
from sharedlabel.scoring.scores import accuracy_and_ri, relative_information_ends
from sharedlabel.summary.comparisons import (
    METRICS,
    Block,
    averaged,
    blocks,
    lengths,
    pooled_scores,
    shared_seeds,
    sizes,
)
from sharedlabel.summary.seeds import SeedScores, Split
from sharedlabel.summary.verdicts import ALPHA


def rank(
    methods: Mapping[Identity, SeedScores],
    splits: Mapping[Protocol, Split],
    pooled: Sequence[Pooled],
    asked: ComparisonConfig = ComparisonConfig(),  # noqa: B008 (frozen)
) -> list[Rank]:
    """Rank the aggregators of each backbone, training and protocol by their mean over all networks.

    Args:
        methods: methods over their seeds, of one split.
        splits: by protocol.
        pooled: their pooled comparisons, from `comparisons.compare`.
        asked: as for `comparisons.compare`.

    Returns:
        The aggregators, at the primary endpoint and at every n and metric, from best to worst mean. Networks that some
        aggregator has not finished are left out.
    """
    own = [record for record in pooled if record.axis == "aggregator"]
    tests = Counter(record.protocol for record in own if record.endpoint)
    columns = 2 * len({record.n for record in own if not record.endpoint})
    shown: dict[tuple[object, ...], dict[tuple[str, str], Verdict]] = {}
    gates = {_pair(record): record.p_value * tests[record.protocol] for record in own if record.endpoint}
    for record in own:
        count = tests[record.protocol] * (1 if record.endpoint else columns)
        open_ = max(record.p_value * count, gates[_pair(record)]) < ALPHA and record.seeds >= MIN_SEEDS
        verdict: Verdict = "undecided" if not open_ else "better" if record.difference > 0 else "worse"
        shown.setdefault(_table(record), {})[record.method, record.reference] = verdict
    every = blocks("aggregator", methods, splits, asked)
    return [one for block in every if shared_seeds(block) for one in _ranks(block, asked, shown)]


def _table(record: Pooled) -> tuple[object, ...]:
    """Name the table that a comparison belongs to."""
    return record.backbone, record.training, record.protocol, record.endpoint, record.n, record.metric


def _pair(record: Pooled) -> tuple[str, ...]:
    return record.backbone, record.training, record.protocol, record.method, record.reference


def _ranks(
    block: Block, asked: ComparisonConfig, shown: Mapping[tuple[object, ...], Mapping[tuple[str, str], Verdict]]
) -> Iterator[Rank]:
    seeds, n = shared_seeds(block), block.n
    identity, row = block.first[0], block.first[1].rows[0][0]
    where = identity.backbone, identity.training, identity.protocol
    scores = pooled_scores(block, seeds, asked)
    means = [_means(one, block, asked) for one in scores]  # [aggregator][table] -> mean, low, high
    tables: list[tuple[bool, int | None, Literal["n_accuracy", "ri"]]]
    tables = [(False, size, metric) for metric, size in itertools.product(METRICS, n)]
    for at, (endpoint, size, metric) in enumerate([*tables, (True, asked.n, METRICS[1])]):
        numbers = {name: means[position][at] for position, name in enumerate(block.names)}
        order = sorted(block.names, key=lambda name: -numbers[name][0])
        places = rank_intervals(order, shown[*where, endpoint, size, metric])
        for name, (best, worst, alike) in places.items():
            mean, low, high = numbers[name]
            yield Rank(
                data=row.data,
                backbone=identity.backbone,
                training=identity.training,
                protocol=identity.protocol,
                n=size,
                endpoint=endpoint,
                aggregator=name,
                networks=len(block.complete),
                seeds=len(seeds),
                metric=metric,
                mean=mean,
                low=low,
                high=high,
                rank_best=best,
                rank_worst=worst,
                alike=json.dumps(alike, ensure_ascii=False),
            )


def _means(scores: Tensor, block: Block, asked: ComparisonConfig) -> list[tuple[float, float, float]]:
    """Return mean, low and high of n-accuracy and then of RI at every n, and of the primary endpoint."""
    split, widths = block.split, sizes(block, asked)
    means = seed_average(scores, split.drawn, widths, split.instances, split.groups)
    if chosen := averaged(block, asked):
        means = means.with_average(chosen, len(scores))
    k, length = len(block.n), lengths(block.n, asked)[-1]
    usual = accuracy_and_ri(means[slice(2 * k)], split.independent(block.n), split.entropy)
    endpoint = relative_information_ends(means[slice(2 * k, None)], split.independent([length]), split.entropy)
    return [
        (mean, low, high)
        for ends in (*usual, endpoint)
        for mean, low, high in zip(*(values.tolist() for values in ends), strict=True)
    ]


def rank_intervals(
    names: Sequence[str], verdicts: Mapping[tuple[str, str], Verdict]
) -> dict[str, tuple[int, int, tuple[str, ...]]]:
    """Return the best and the worst rank of every method, and the methods that it is not shown to differ from.

    Args:
        names: methods.
        verdicts: of (method, reference), one entry per pair; only `better` and `worse` order two methods.

    >>> rank_intervals(["a", "b", "c"], {("b", "a"): "worse", ("c", "a"): "undecided", ("c", "b"): "equivalent"})
    {'a': (1, 2, ('c',)), 'b': (2, 3, ('c',)), 'c': (1, 3, ('a', 'b'))}
    """
    both = dict(verdicts) | {(b, a): OPPOSITE[verdict] for (a, b), verdict in verdicts.items()}
    intervals = {}
    for name in names:
        others = {other: both[name, other] for other in names if other != name}
        counts = Counter(others.values())
        alike = tuple(other for other, verdict in others.items() if verdict not in {"better", "worse"})
        intervals[name] = (1 + counts["worse"], len(names) - counts["better"], alike)
    return intervals


_WINS = ("data", "backbone", "training", "protocol", "n", "method", "reference", "metric")


def count_wins(comparisons: Iterable[Comparison]) -> list[Wins]:
    """Count the verdicts on every two aggregators over the networks of a backbone.

    Args:
        comparisons: those of other axes are ignored.
    """
    counts: dict[tuple[Any, ...], Counter[str]] = {}
    for c in comparisons:
        if c.axis == "aggregator":
            where = (c.data, c.backbone, c.training, c.protocol, c.n)
            counts.setdefault((*where, c.method, c.reference, c.metric), Counter())[c.verdict] += 1
            counts.setdefault((*where, c.reference, c.method, c.metric), Counter())[OPPOSITE[c.verdict]] += 1
    return [
        Wins(
            **dict(zip(_WINS, key, strict=True)),
            wins=count["better"],
            equivalent=count["equivalent"],
            undecided=count["undecided"] + count["no verdict"],
            losses=count["worse"],
        )
        for key, count in counts.items()
    ]
