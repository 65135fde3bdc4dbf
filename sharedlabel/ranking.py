"""Aggregators over all networks of a backbone: pooled differences, rank intervals, wins and losses.

Scores of a tuple are averaged over networks before any variance is taken, so the pairing over tuples, seeds and
networks is kept: what is left is one score per tuple and seed, to which the formulas of `metrics.uncertainty` apply.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sharedlabel.comparing import METRICS, adjusted, differences
from sharedlabel.evaluation import accuracy_and_ri
from sharedlabel.metrics.uncertainty import seed_average
from sharedlabel.results import OPPOSITE, Comparison, Pooled, Rank, Row, Verdict, Wins
from sharedlabel.scored import EXACT, Identity, Scored, Split, common_seeds
from sharedlabel.types import Protocol


@dataclass(frozen=True)
class _Pool:
    """All aggregators on all networks that every one of them has finished.

    Attributes:
        aggregators: in the order of the grid.
        members: per network, then per aggregator.
        seeds: training seeds that all have.
    """

    aggregators: tuple[str, ...]
    members: tuple[tuple[Scored, ...], ...]
    seeds: tuple[int, ...]

    @property
    def row(self) -> Row:
        return self.members[0][0].rows[0][0]

    def scores(self) -> Tensor:
        """Mean over networks of the scores of every tuple, `[m s p t 2k]`."""
        total = torch.stack([scored.scores(self.seeds) for scored in self.members[0]])
        for network in self.members[1:]:
            for position, scored in enumerate(network):
                total[position] += scored.scores(self.seeds)
        return total.div_(len(self.members))


def rank(found: Mapping[Identity, Scored], splits: Mapping[Protocol, Split]) -> tuple[list[Pooled], list[Rank]]:
    """Compare and rank the aggregators of each backbone, training and protocol by their mean over all networks.

    Args:
        found: methods over their seeds, of one split.
        splits: by protocol.

    Returns:
        Every paired difference, and the aggregators by n and metric from best to worst mean. Networks that some
        aggregator has not finished are left out.
    """
    pooled, ranks = [], []
    for pool in _pools(found):
        split, scores = splits[pool.row.protocol], pool.scores()
        own = adjusted(_pooled(pool, scores, split), lambda record: (record.metric,))
        pooled += own
        ranks += list(_ranks(pool, scores, split, own))
    return pooled, ranks


def _pools(found: Mapping[Identity, Scored]) -> Iterator[_Pool]:
    groups: dict[tuple[str, str, str], dict[tuple[str, float], dict[str, Scored]]] = {}
    for identity, scored in found.items():
        if identity.aggregator != EXACT:
            networks = groups.setdefault((identity.backbone, identity.training, identity.protocol), {})
            networks.setdefault((identity.pruner, identity.ratio), {})[identity.aggregator] = scored
    for networks in groups.values():
        aggregators = tuple(dict.fromkeys(name for network in networks.values() for name in network))
        whole = [network for network in networks.values() if len(network) == len(aggregators)]
        members = tuple(tuple(network[name] for name in aggregators) for network in whole)
        seeds = common_seeds([scored for network in members for scored in network]) if members else ()
        if seeds and len(aggregators) > 1:
            yield _Pool(aggregators, members, seeds)


def _pooled(pool: _Pool, scores: Tensor, split: Split) -> Iterator[Pooled]:
    pairs = list(itertools.combinations(range(len(pool.aggregators)), 2))
    row = pool.row
    for (reference, method), metric, n, numbers in differences(scores, pairs, split, pool.members[0][0].n):
        yield Pooled(
            data=row.data,
            backbone=row.backbone,
            training=row.training,
            protocol=row.protocol,
            n=n,
            method=pool.aggregators[method],
            reference=pool.aggregators[reference],
            networks=len(pool.members),
            seeds=len(pool.seeds),
            metric=metric,
            **numbers._asdict(),
            p_holm=1.0,
            verdict="tied",
        )


def _ranks(pool: _Pool, scores: Tensor, split: Split, pooled: Sequence[Pooled]) -> Iterator[Rank]:
    n, row = pool.members[0][0].n, pool.row
    means = [_mean(one, split, n) for one in scores]  # [aggregator][metric] -> mean, low, high
    for (column, metric), (index, size) in itertools.product(enumerate(METRICS), enumerate(n)):
        verdicts = {
            (record.method, record.reference): record.verdict
            for record in pooled
            if (record.metric, record.n) == (metric, size)
        }
        numbers = {
            name: [float(values[index]) for values in means[position][column]]
            for position, name in enumerate(pool.aggregators)
        }
        order = sorted(pool.aggregators, key=lambda name: -numbers[name][0])
        for name, (best, worst, tied) in rank_intervals(order, verdicts).items():
            mean, low, high = numbers[name]
            yield Rank(
                data=row.data,
                backbone=row.backbone,
                training=row.training,
                protocol=row.protocol,
                n=size,
                aggregator=name,
                networks=len(pool.members),
                seeds=len(pool.seeds),
                metric=metric,
                mean=mean,
                low=low,
                high=high,
                rank_best=best,
                rank_worst=worst,
                tied=",".join(tied),
            )


def _mean(scores: Tensor, split: Split, n: Sequence[int]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    found = seed_average(scores, split.drawn, [*n, *n], split.instances, split.groups)
    return accuracy_and_ri(found, n, split.instances, split.entropy)


def rank_intervals(
    names: Sequence[str], verdicts: Mapping[tuple[str, str], Verdict]
) -> dict[str, tuple[int, int, tuple[str, ...]]]:
    """Return the best and the worst rank of every method, and the methods that it is not shown to differ from.

    Args:
        names: methods.
        verdicts: `better`, `worse` or `tied` of (method, reference), one entry per pair.

    >>> rank_intervals(["a", "b", "c"], {("b", "a"): "worse", ("c", "a"): "tied", ("c", "b"): "tied"})
    {'a': (1, 2, ('c',)), 'b': (2, 3, ('c',)), 'c': (1, 3, ('a', 'b'))}
    """
    both = dict(verdicts) | {(b, a): OPPOSITE[verdict] for (a, b), verdict in verdicts.items()}
    found = {}
    for name in names:
        others = {other: both[name, other] for other in names if other != name}
        counts = Counter(others.values())
        tied = tuple(other for other, verdict in others.items() if verdict == "tied")
        found[name] = (1 + counts["worse"], len(names) - counts["better"], tied)
    return found


def count_wins(comparisons: Iterable[Comparison]) -> list[Wins]:
    """Count how often each aggregator was better than another, tied or worse, over the networks of a backbone.

    Args:
        comparisons: after Holm's adjustment; those of other axes are ignored.
    """
    counts: dict[tuple[str, str, str, str, int, str, str, str], Counter[str]] = {}
    for c in comparisons:
        if c.axis == "aggregator":
            where = (c.data, c.backbone, c.training, c.protocol, c.n)
            counts.setdefault((*where, c.method, c.reference, c.metric), Counter())[c.verdict] += 1
            counts.setdefault((*where, c.reference, c.method, c.metric), Counter())[OPPOSITE[c.verdict]] += 1
    return [
        Wins(*key, count["better"], count["tied"], count["worse"])  # type: ignore[arg-type]
        for key, count in counts.items()
    ]
