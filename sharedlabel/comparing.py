"""Paired comparisons of methods that differ along one axis: aggregator, training, pruner or compression."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar

import torch
from torch import Tensor

from sharedlabel.metrics.intervals import holm
from sharedlabel.metrics.paired import all_pairs
from sharedlabel.results import Axis, Comparison, Pooled, Verdict
from sharedlabel.scored import EXACT, Identity, Scored, Split, common_seeds
from sharedlabel.types import Protocol

LEVEL = 0.05
ROUNDING = 1e-6  # stored scores are float32: smaller mean differences, in bits or shares, are none
METRICS: tuple[Literal["n_accuracy", "ri"], ...] = ("n_accuracy", "ri")
Record = TypeVar("Record", Comparison, Pooled)
Members: TypeAlias = list[tuple[Identity, Scored]]


class Numbers(NamedTuple):
    """A paired difference, the ends of its 95% interval, and its two-sided p-value."""

    difference: float
    low: float
    high: float
    p_value: float


@dataclass(frozen=True)
class _Axis:
    """How to find the methods that differ along an axis alone.

    Attributes:
        fixed: the fields of an identity that they share.
        name: what a method is called on the axis.
        reference: the method that the others are compared with; None where none stands out.
        pairs: whether the others are compared with each other, too.
    """

    fixed: tuple[str, ...]
    name: Callable[[Identity], str]
    reference: str | None = None
    pairs: bool = True


def _compression(identity: Identity) -> str:
    return "dense" if identity.pruner == "none" else f"{identity.pruner} {identity.ratio:g}x"


_AXES: dict[Axis, _Axis] = {
    "aggregator": _Axis(("backbone", "pruner", "ratio", "training", "protocol"), lambda i: i.aggregator),
    "training": _Axis(("backbone", "pruner", "ratio", "aggregator", "protocol"), lambda i: i.training, "frozen"),
    "pruner": _Axis(("backbone", "ratio", "aggregator", "training", "protocol"), lambda i: i.pruner),
    "compression": _Axis(("backbone", "aggregator", "training", "protocol"), _compression, "dense", pairs=False),
}


def compare(found: Mapping[Identity, Scored], splits: Mapping[Protocol, Split]) -> list[Comparison]:
    """Compare the methods of a split along every axis, later minus earlier; Holm within axis, metric and protocol.

    Args:
        found: methods over their seeds.
        splits: by protocol.
    """
    records = [record for axis, rule in _AXES.items() for record in _along(axis, rule, found, splits)]
    return adjusted(records, lambda record: (record.axis, record.metric, record.protocol))


def _along(
    axis: Axis, rule: _Axis, found: Mapping[Identity, Scored], splits: Mapping[Protocol, Split]
) -> Iterator[Comparison]:
    groups: dict[tuple[Any, ...], Members] = {}
    for identity, scored in found.items():
        if identity.aggregator != EXACT:
            key = tuple(getattr(identity, name) for name in rule.fixed)
            groups.setdefault(key, []).append((identity, scored))
    for members in groups.values():
        if len(members) > 1:
            yield from _compared(axis, rule, members, splits[members[0][0].protocol])


def _compared(axis: Axis, rule: _Axis, members: Members, split: Split) -> Iterator[Comparison]:
    names = [rule.name(identity) for identity, _ in members]
    pairs = _pairs(names, rule)
    seeds = common_seeds([scored for _, scored in members])
    if not pairs or not seeds:  # the cells of a grid that is not finished may share no seed
        return
    scores = torch.stack([scored.scores(seeds) for _, scored in members])
    n = members[0][1].n
    for (reference, method), metric, size, numbers in differences(scores, pairs, split, n):
        identity, row = members[method][0], members[method][1].rows[0][0]
        yield Comparison(
            data=row.data,
            **identity._asdict(),
            n=size,
            axis=axis,
            method=names[method],
            reference=names[reference],
            seeds=len(seeds),
            metric=metric,
            **numbers._asdict(),
            p_holm=1.0,
            verdict="tied",
        )


def _pairs(names: Sequence[str], rule: _Axis) -> list[tuple[int, int]]:
    """Return the positions of every reference and method."""
    order = sorted(range(len(names)), key=lambda position: names[position] != rule.reference)
    pairs = itertools.combinations(order, 2)
    return [pair for pair in pairs if rule.pairs or names[pair[0]] == rule.reference]


def differences(
    scores: Tensor, pairs: Sequence[tuple[int, int]], split: Split, n: Sequence[int]
) -> Iterator[tuple[tuple[int, int], Literal["n_accuracy", "ri"], int, Numbers]]:
    """Yield each pair, metric and n with the difference, its interval and its p-value.

    Args:
        scores: `[m s p t 2k]`, of every method.
        pairs: positions of reference and method.
        split: the tuples that were scored.
        n: tuple sizes, k of them.
    """
    if not pairs:
        return
    found = all_pairs(scores, split.drawn, [*n, *n], split.instances, split.groups)
    reference, method = torch.tensor(pairs).T
    scale = torch.tensor([1.0, split.entropy], dtype=torch.float64).repeat_interleave(len(n))
    low, high = found.interval()
    p_value = torch.where(found.difference.abs() < ROUNDING, 1.0, found.p_value())
    columns = [values[method, reference] for values in (found.difference / scale, low / scale, high / scale, p_value)]
    for pair, *rows in zip(pairs, *(column.tolist() for column in columns), strict=True):
        for (metric, size), values in zip(itertools.product(METRICS, n), zip(*rows, strict=True), strict=True):
            yield pair, metric, size, Numbers(*values)


def adjusted(records: Iterable[Record], family: Callable[[Record], tuple[str, ...]]) -> list[Record]:
    """Return the records with Holm's p-values and verdicts.

    Args:
        records: with their own p-values.
        family: names the family that a record is adjusted in.
    """
    result = list(records)
    families: dict[tuple[str, ...], list[int]] = {}
    for position, record in enumerate(result):
        families.setdefault(family(record), []).append(position)
    for positions in families.values():
        p_values = torch.tensor([result[position].p_value for position in positions], dtype=torch.float64)
        for position, p_holm in zip(positions, holm(p_values).tolist(), strict=True):
            result[position] = _judged(result[position], p_holm)
    return result


def _judged(record: Record, p_holm: float) -> Record:
    shown: Verdict = "better" if record.difference > 0 else "worse"
    return dataclasses.replace(record, p_holm=p_holm, verdict=shown if p_holm < LEVEL else "tied")
