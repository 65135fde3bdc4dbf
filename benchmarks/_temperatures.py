"""What calibration on few images costs: `python -m benchmarks._temperatures` prints a table of test likelihoods.

Posteriors are exact (the right temperature is 1), averaged over the instances (1 / n), or pooled as if instances of a
group were independent (more with every instance). Beside temperatures as they are fitted stands T = 1.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sharedlabel import rng
from sharedlabel.aggregators._pool import log_evidence
from sharedlabel.data import gaussian, tuples
from sharedlabel.logs import log_normalize
from sharedlabel.metrics.calibration import apply_temperature, negative_log_likelihood, temperatures
from sharedlabel.metrics.information import floor_posterior
from sharedlabel.types import Tuples

CLASSES, N_MAX, FRESH = 10, 8, 400
EVERY = range(1, N_MAX + 1)
_PRIOR = torch.full((CLASSES,), 1 / CLASSES, dtype=torch.float64)


@dataclass(frozen=True)
class Split:
    """Tuples of a split and their log-posteriors, by what kind."""

    drawn: Tuples
    clusters: Tensor | None
    posteriors: dict[str, Tensor]


def splits(each: int, groups: int, seed: int) -> tuple[Split, Split]:
    """Draw validation, with some images of each class in so many groups (0: independent), and a large test split."""
    size = max(each // groups, N_MAX) if groups else 1
    kept = size * groups if groups else each
    config = gaussian.Config(
        classes=CLASSES,
        separation=5.0,
        instances_per_class=kept + FRESH // size * size,
        group_size=size,
        nuisance=1.0 if groups else 0.0,
        seed=seed,
    )
    dataset = gaussian.load(config, Path())
    seen = torch.arange(config.instances_per_class).repeat(CLASSES) < kept

    def split(name: str, images: Tensor) -> Split:
        clusters = None if dataset.groups is None else dataset.groups[images]
        drawn = tuples.partition(dataset.labels[images], N_MAX, 10, _PRIOR, rng.generator(seed, name), clusters)
        index = images[drawn.indices.flatten(0, 1)]
        exact = gaussian.exact_log_posterior(config, dataset, index, _PRIOR.log())
        single = gaussian.exact_log_posterior(config, dataset, index.reshape(-1, 1), _PRIOR.log()).view_as(exact)
        sums = log_evidence(single, _PRIOR.log()).cumsum(1)
        posteriors = {"exact": exact, "mean": log_normalize(sums / torch.tensor(EVERY)[:, None])}
        return Split(drawn, clusters, posteriors | ({"pooled": log_normalize(sums)} if groups else {}))

    return split("seen", seen.nonzero().flatten()), split("fresh", (~seen).nonzero().flatten())


def loss(split: Split, kind: str, temperature: Tensor) -> Tensor:
    """Return the negative log-likelihood after every instance, bits."""
    drawn, tempered = split.drawn, floor_posterior(apply_temperature(split.posteriors[kind], temperature))
    return negative_log_likelihood(tempered, drawn.labels.flatten(), drawn.weights.flatten())


def rows(each: int, groups: int, repetitions: int) -> Iterator[tuple[str, Tensor, Tensor, Tensor]]:
    """Yield for each kind of posterior the mean loss at T = 1 and as fitted, and the median T, after every instance."""
    drawn = [splits(each, groups, seed) for seed in range(repetitions)]
    for kind in drawn[0][0].posteriors:
        fitted = [temperatures(seen.posteriors[kind], seen.drawn, EVERY, seen.clusters) for seen, _ in drawn]
        ones, own = (
            torch.stack([loss(fresh, kind, given) for (_, fresh), given in zip(drawn, chosen, strict=True)]).mean(0)
            for chosen in ([torch.ones(N_MAX)] * repetitions, fitted)
        )
        yield kind, ones, own, torch.stack(fitted).median(0).values


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks._temperatures", description=__doc__)
    parser.add_argument("--repetitions", type=int, default=20, help="splits drawn for each row")
    options = parser.parse_args(arguments)
    print(
        "images  groups  posterior  bits at n = 1, 2, 4, 5 to 8 with T = 1 | as fitted        | median T at n = 5 to 8"
    )
    for each, groups in ((33, 0), (100, 0), (500, 0), (33, 4), (100, 12), (500, 60)):
        for kind, ones, own, median in rows(each, groups, options.repetitions):
            bits = (f"{v[0]:.4f} {v[1]:.4f} {v[3]:.4f} {v[4:].mean():.4f}" for v in (ones, own))
            late = " ".join(f"{value:.2f}" for value in median[4:].tolist())
            print(f"{each:6}  {groups or '-':>6}  {kind:9}  {' | '.join(bits)} | {late}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
