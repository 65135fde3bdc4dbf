"""Which labels the recommended method of a run takes for which, and tuples that it gets wrong."""

from __future__ import annotations

from dataclasses import dataclass

from sharedlabel.records.identity import OfMethod


@dataclass(frozen=True, kw_only=True)
class Confusion(OfMethod):
    """How often one label was taken for another, or for itself, on test; all seeds and partitions together.

    They are of the recommended method, at the n that is recommended or, where it makes no mistake there, at the largest
    below with one.

    Attributes:
        n: instances per tuple.
        label: name of the label that tuples have.
        predicted: name of the most probable one.
        tuples: how many.
    """

    n: int
    label: str
    predicted: str
    tuples: int


@dataclass(frozen=True, kw_only=True)
class Mistake(OfMethod):
    """A tuple of test that was taken for another label, by the first seed.

    Attributes:
        seed: training seed.
        n: instances per tuple.
        label: name of its label.
        predicted: name of the most probable one.
        probability: calibrated, of its own label.
        instances: positions of its instances in the data set, in the order in which they were looked at.
        pictures: the same, or the first of them, as small images: `data:` addresses of PNG or WebP files; empty where
            instances are no pictures.
    """

    seed: int
    n: int
    label: str
    predicted: str
    probability: float
    instances: tuple[int, ...]
    pictures: tuple[str, ...]
