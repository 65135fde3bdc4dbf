"""Paired comparisons of methods that differ along one axis: aggregator, training, pruner or compression.

Every axis has one primary question per pair of methods, declared in the configuration: the difference in RI, averaged
over all places where the two were tried and over all n (or at one n). Only where that difference is shown are the
single places and the single n looked at.
"""

from __future__ import annotations

import dataclasses
import itertools
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from sharedlabel.config.names import DENSE_NETWORK, EXACT, FROZEN, Protocol, network_name
from sharedlabel.config.sections import ComparisonConfig
from sharedlabel.metrics.behrens_fisher import Spread
from sharedlabel.metrics.moderation import moderate
from sharedlabel.metrics.paired import Pairs, all_pairs
from sharedlabel.records import Axis, Comparison, Identity, Pooled
from sharedlabel.summary.seeds import SeedScores, Split, common_seeds
from sharedlabel.summary.verdicts import Differences

METRICS: tuple[Literal["n_accuracy", "ri"], ...] = ("n_accuracy", "ri")
Members: TypeAlias = dict[str, tuple[Identity, SeedScores]]


@dataclass(frozen=True)
class _Axis:
    """How to find the methods that differ along an axis alone.

    Attributes:
        block: fields of an identity that tables keep apart.
        place: fields over which differences are pooled.
        name: what a method is called on the axis.
        reference: the method that the others are compared with; None where none stands out.
        pairs: whether the others are compared with each other, too.
    """

    block: tuple[str, ...]
    place: tuple[str, ...]
    name: Callable[[Identity], str]
    reference: str | None = None
    pairs: bool = True


_USUAL = ("backbone", "training", "protocol")
_AXES: dict[Axis, _Axis] = {
    "aggregator": _Axis(_USUAL, ("pruner", "ratio"), lambda i: i.aggregator),
    "training": _Axis(("backbone", "protocol"), ("pruner", "ratio", "aggregator"), lambda i: i.training, FROZEN),
    "pruner": _Axis(_USUAL, ("ratio", "aggregator"), lambda i: i.pruner),
    "compression": _Axis(
        _USUAL, ("aggregator",), lambda i: network_name(i.pruner, i.ratio), DENSE_NETWORK, pairs=False
    ),
}


@dataclass(frozen=True)
class Block:
    """All methods of an axis, and the places where at least two of them were tried.

    Attributes:
        axis: along which they differ.
        names: of the methods, the reference first, then in the order of the grid.
        reference: the method that the primary family compares the others with; None: every pair is primary.
        places: the methods tried at each place.
        split: the tuples that were scored.
    """

    axis: Axis
    names: tuple[str, ...]
    reference: str | None
    places: tuple[Members, ...]
    split: Split

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Reference and method of every comparison."""
        every = itertools.combinations(self.names, 2)
        return [pair for pair in every if _AXES[self.axis].pairs or pair[0] == self.reference]

    @property
    def complete(self) -> tuple[Members, ...]:
        """The places where every method was tried."""
        return tuple(place for place in self.places if len(place) == len(self.names))

    @property
    def first(self) -> tuple[Identity, SeedScores]:
        """Any of its members."""
        return next(iter(self.places[0].values()))

    @property
    def n(self) -> list[int]:
        """Tuple sizes."""
        return self.first[1].n

    def family(self, pair: tuple[str, str]) -> tuple[Axis, Protocol, bool]:
        """Name the family of a pair's primary question."""
        return self.axis, self.first[0].protocol, self.reference is None or self.reference in pair


class Verdicts(NamedTuple):
    """Every comparison at a single place, and the pooled ones that they stand behind."""

    comparisons: list[Comparison]
    pooled: list[Pooled]


def compare(
    methods: Mapping[Identity, SeedScores],
    splits: Mapping[Protocol, Split],
    asked: ComparisonConfig = ComparisonConfig(),  # noqa: B008 (frozen)
) -> Verdicts:
    """Compare the methods of a split along every axis, later minus earlier.

    Args:
        methods: methods over their seeds.
        splits: by protocol.
        asked: the primary endpoint, the reference aggregator and the margin of equivalence.
    """
    every = [block for axis in _AXES for block in blocks(axis, methods, splits, asked)]
    tests = Counter(block.family(pair) for block in every for pair in block.pairs)
    comparisons: list[Comparison] = []
    pooled: list[Pooled] = []
    for block in every:
        own, gates = _pooled(block, tests, asked)
        pooled += own
        comparisons += _single(block, tests, asked, gates)
    return Verdicts(comparisons, pooled)


def blocks(
    axis: Axis, methods: Mapping[Identity, SeedScores], splits: Mapping[Protocol, Split], asked: ComparisonConfig
) -> Iterator[Block]:
    """Yield the methods of an axis with the places where they meet, without the exact posterior."""
    rule, grouped = _AXES[axis], {}  # type: ignore[var-annotated]
    for identity, scored in methods.items():
        if identity.aggregator != EXACT:
            block, place = (tuple(getattr(identity, name) for name in names) for names in (rule.block, rule.place))
            grouped.setdefault(block, {}).setdefault(place, {})[rule.name(identity)] = (identity, scored)
    for places in grouped.values():
        several = tuple(members for members in places.values() if len(members) > 1)
        names = list(dict.fromkeys(name for members in several for name in members))
        wanted = asked.reference if axis == "aggregator" else rule.reference
        reference = wanted if wanted in names else None
        if names and (rule.pairs or reference is not None):
            names.sort(key=lambda name: name != reference)
            protocol = next(iter(several[0].values()))[0].protocol
            yield Block(axis, tuple(names), reference, several, splits[protocol])


def pooled_scores(block: Block, seeds: Sequence[int], asked: ComparisonConfig) -> Tensor:
    """Average the scores of every tuple over the complete places: `[m s p t 2k+1]`, the primary endpoint last.

    Without it where tuples are ragged (`averaged`).
    """
    total: Tensor | None = None
    for place in block.complete:
        scores = torch.stack([place[name][1].scores(seeds) for name in block.names])
        total = scores if total is None else total.add_(scores)
    assert total is not None
    total /= len(block.complete)
    if ragged(block):
        return total
    return torch.cat([total, total[..., _endpoint(block.n, asked)].mean(dim=-1, keepdim=True)], dim=-1)


def ragged(block: Block) -> bool:
    """Tell whether other tuples count at each n, so that no score of a tuple is the primary endpoint."""
    return block.split.drawn.lengths is not None


def averaged(block: Block, asked: ComparisonConfig) -> list[int]:
    """Return the columns of `pooled_scores` whose average is the primary endpoint, where no column of it is."""
    return _endpoint(block.n, asked) if ragged(block) else []


def _endpoint(n: Sequence[int], asked: ComparisonConfig) -> list[int]:
    """Return the columns that the primary endpoint averages: RI at every n, or at the one that was asked for."""
    return [len(n) + at for at, size in enumerate(n) if asked.n in (None, size)]


def shared_seeds(block: Block) -> tuple[int, ...]:
    """Return the training seeds of all methods at all complete places."""
    every = [scored for place in block.complete for _, scored in place.values()]
    return common_seeds(every) if every else ()


def sizes(block: Block, asked: ComparisonConfig) -> list[int]:
    """Return how many instances each column of `pooled_scores` depends on: the endpoint on the most it looks at."""
    n = block.n
    return [*n, *n] if ragged(block) else [*n, *n, asked.n or max(n)]


def lengths(n: Sequence[int], asked: ComparisonConfig) -> list[int | float]:
    """Return the tuple size of each column of `pooled_scores`: of the endpoint the mean of those that it averages."""
    return [*n, *n, asked.n or statistics.fmean(n)]


def _pooled(
    block: Block, tests: Mapping[tuple[Axis, Protocol, bool], int], asked: ComparisonConfig
) -> tuple[list[Pooled], dict[tuple[str, str], float]]:
    """Return the pooled differences, and the adjusted p-value of every pair's primary question: its gate."""
    seeds = shared_seeds(block)
    if not seeds:  # the cells of a grid that is not finished may share no seed
        return [], {}
    scores, widths = pooled_scores(block, seeds, asked), sizes(block, asked)
    pairs = all_pairs(scores, block.split.drawn, widths, *_units(block.split), averaged(block, asked))
    table = _picked(pairs, block.names, block.pairs)
    differences = _differences(block, [table], lengths(block.n, asked), len(seeds))[0]
    family = torch.tensor([[tests[block.family(pair)]] for pair in block.pairs], dtype=torch.float64)
    primary = dataclasses.replace(
        differences,
        value=differences.value[:, -1:],
        spread=differences.spread[:, -1:],
        unit=differences.unit[-1:],
        independent=differences.independent[-1:],
    )
    gates = primary.judged(family, asked.margin)
    opened = torch.tensor([[one.p_adjusted] for (one,) in gates], dtype=torch.float64)
    columns = 2 * len(block.n)
    others = differences.judged(family * columns, asked.margin, opened)
    identity, row = block.first[0], block.first[1].rows[0][0]
    records = []
    for at, (reference, method) in enumerate(block.pairs):
        count = int(family[at])
        texts = [_correction(block, (reference, method), count, columns)] * columns
        texts.append(_correction(block, (reference, method), count))
        named = [(metric, size) for metric in METRICS for size in block.n] + [("ri", asked.n)]
        lines = [*others[at][:-1], gates[at][0]]
        for (metric, size), numbers, text in zip(named, lines, texts, strict=True):
            records.append(
                Pooled(
                    data=row.data,
                    backbone=identity.backbone,
                    training=method if block.axis == "training" else identity.training,
                    protocol=identity.protocol,
                    axis=block.axis,
                    method=method,
                    reference=reference,
                    endpoint=numbers is lines[-1],
                    n=size,
                    cells=len(block.complete),
                    seeds=len(seeds),
                    metric=metric,  # type: ignore[arg-type]
                    **numbers._asdict(),
                    correction=text,
                )
            )
    return records, {pair: one.p_adjusted for pair, (one,) in zip(block.pairs, gates, strict=True)}


def _correction(block: Block, pair: tuple[str, str], pairs: int, columns: int | None = None) -> str:
    """Say in words what a p-value is adjusted for: the pairs of its family, and the tests behind the gate of each."""
    family = f"{'primary' if block.family(pair)[2] else 'secondary'} {'pairs' if pairs > 1 else 'pair'}"
    further = "" if columns is None else f" x {columns} tests, behind the pooled test"
    return f"Bonferroni over {pairs} {family}{further}"


def _units(split: Split) -> tuple[int, Tensor | None]:
    return split.instances, split.groups


def _single(
    block: Block,
    tests: Mapping[tuple[Axis, Protocol, bool], int],
    asked: ComparisonConfig,
    gates: Mapping[tuple[str, str], float],
) -> Iterator[Comparison]:
    """Yield the differences at every single place, each behind the pooled one of its pair."""
    shared = shared_seeds(block)
    whole = block.complete if shared else ()
    widths = [*block.n, *block.n]
    tables = [_at(block, place, shared) for place in whole]
    by_place = _differences(block, tables, widths, len(shared))
    for place, differences in zip(whole, by_place, strict=True):
        yield from _lines(block, place, block.pairs, differences, tests, asked, gates)
    for place in block.places:
        seeds = common_seeds([scored for _, scored in place.values()])
        if place in whole or not seeds:
            continue
        pairs = [pair for pair in block.pairs if pair[0] in place and pair[1] in place]
        if pairs:
            own = _differences(block, [_at(block, place, seeds, pairs)], widths, len(seeds))[0]
            yield from _lines(block, place, pairs, own, tests, asked, gates)


class _Table(NamedTuple):
    """Differences of some pairs, `[r k]`, before the variances over seeds are moderated."""

    value: Tensor
    spread: Spread


def _at(block: Block, place: Members, seeds: Sequence[int], pairs: Sequence[tuple[str, str]] | None = None) -> _Table:
    names = [name for name in block.names if name in place]
    scores = torch.stack([place[name][1].scores(seeds) for name in names])
    compared = all_pairs(scores, block.split.drawn, [*block.n, *block.n], *_units(block.split))
    return _picked(compared, names, block.pairs if pairs is None else pairs)


def _picked(compared: Pairs, names: Sequence[str], pairs: Sequence[tuple[str, str]]) -> _Table:
    reference, method = torch.tensor([[names.index(a), names.index(b)] for a, b in pairs]).T
    return _Table(compared.difference[method, reference], compared.spread[method, reference])


def _differences(
    block: Block, tables: Sequence[_Table], widths: Sequence[int | float], seeds: int
) -> list[Differences]:
    """Return what is to be judged, the variances over seeds moderated over all pairs and places."""
    if not tables:
        return []
    of_seeds = torch.stack([table.spread.of_seeds for table in tables], dim=1)  # [pairs, places, columns]
    freedom = tables[0].spread.seed_freedom
    if seeds > 1:
        of_seeds, moderated = moderate(of_seeds, seeds - 1)
        freedom = moderated.expand_as(freedom)
    k = len(block.n)
    unit = torch.tensor([1.0] * k + [block.split.entropy] * (len(widths) - k), dtype=torch.float64)
    count = block.split.independent(widths)
    return [
        Differences(
            table.value,
            dataclasses.replace(table.spread, of_seeds=of_seeds[:, at], seed_freedom=freedom),
            unit,
            count,
            seeds,
        )
        for at, table in enumerate(tables)
    ]


def _lines(
    block: Block,
    place: Members,
    pairs: Sequence[tuple[str, str]],
    differences: Differences,
    tests: Mapping[tuple[Axis, Protocol, bool], int],
    asked: ComparisonConfig,
    gates: Mapping[tuple[str, str], float],
) -> Iterator[Comparison]:
    columns = 2 * len(block.n) * len(block.places)
    family = torch.tensor([[tests[block.family(pair)]] for pair in pairs], dtype=torch.float64)
    gate = torch.tensor([[gates.get(pair, 1.0)] for pair in pairs], dtype=torch.float64)
    judged = differences.judged(family * columns, asked.margin, gate)
    for (reference, method), count, line in zip(pairs, family[:, 0].long().tolist(), judged, strict=True):
        identity, scored = place[method]
        for (metric, size), numbers in zip(itertools.product(METRICS, block.n), line, strict=True):
            yield Comparison(
                data=scored.rows[0][0].data,
                **identity._asdict(),
                n=size,
                axis=block.axis,
                method=method,
                reference=reference,
                seeds=differences.seeds,
                metric=metric,
                **numbers._asdict(),
                correction=_correction(block, (reference, method), count, columns),
            )
