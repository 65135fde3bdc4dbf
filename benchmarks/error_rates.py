"""Error rates of the verdicts: simulations through the public functions, beside the method used before.

    python -m benchmarks.error_rates            # all settings; takes about an hour on one core
    python -m benchmarks.error_rates --quick    # fewer repetitions of a few settings, under a minute

Methods are compared on several networks over some training seeds. Every score of a tuple is a part of the image, half
of it shared by the networks, and a part of training, correlated between networks (`shared`); V/I is the variance of a
mean difference over seeds divided by that over images, and variances differ between methods and networks (`spread`, the
standard deviation of their logarithm). Printed are

- the family-wise error: the share of repetitions with any verdict `better` or `worse` where all methods are equal,
  family by family in the pooled table and on single networks, and with any rank interval that misses the true rank;
- the coverage of the 95% intervals of differences, each by itself, on single networks and pooled;
- the power: the share of true differences that are shown, pooled, where methods are a constant step apart.

Then two methods that are alike and nearly always right, on few images that are cut into tuples many times: how often
p < .05, and the coverage of the intervals of n-accuracy, of RI, and of the symmetric interval that RI had before.

The exit code is 1 where, from five seeds on, a family-wise error is above .06, or a coverage outside .93 to .97, by
more than the repetitions leave open (a one-sided test at 1%).
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import math
import multiprocessing
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy import special, stats
from torch import Tensor

from benchmarks._rows import made_row
from sharedlabel import rng
from sharedlabel.config.names import Protocol
from sharedlabel.config.sections import ComparisonConfig
from sharedlabel.data.tuples import partition
from sharedlabel.leaderboard.board.standings import verdicts
from sharedlabel.metrics.behrens_fisher import p_value
from sharedlabel.metrics.intervals import interval
from sharedlabel.metrics.paired import all_pairs
from sharedlabel.metrics.uncertainty import estimate, independent, seed_average
from sharedlabel.records import MIN_SEEDS, Comparison, Identity, Pooled, Row
from sharedlabel.scoring.scores import accuracy_and_ri
from sharedlabel.summary.comparisons import compare
from sharedlabel.summary.ranks import rank
from sharedlabel.summary.seeds import SeedScores, Split
from sharedlabel.summary.verdicts import ALPHA
from sharedlabel.types import Tuples

FAMILY_WISE, COVERED = 0.06, (0.93, 0.97)
TUPLES = 120


@dataclass(frozen=True)
class Setting:
    """What is simulated.

    Attributes:
        seeds: training seeds.
        ratio: V/I, variance over seeds by that over images.
        shared: correlation of the training part between networks.
        spread: standard deviation of the logarithm of single variances.
        tails: degrees of freedom of Student's t for the training part; infinite for a Gaussian one.
        methods: how many.
        networks: how many.
        step: distance of neighbours in standard errors of a pooled difference over images; 0 for equal methods.
    """

    seeds: int
    ratio: float
    shared: float = 0.5
    spread: float = 0.4
    tails: float = math.inf
    methods: int = 12
    networks: int = 13
    step: float = 0.0

    @property
    def name(self) -> str:
        """One line of the table."""
        odd = f", t with {self.tails:g} df" if math.isfinite(self.tails) else ""
        return (
            f"{self.seeds} seeds, V/I {self.ratio:g}, shared {self.shared:g}, spread {self.spread:g}, "
            f"{self.methods} methods x {self.networks} networks{odd}{', steps' if self.step else ''}"
        )


def settings(quick: bool) -> Iterator[Setting]:
    """Yield what is simulated; the last ones are as the cap of the moderation was not chosen on."""
    if quick:
        yield from (Setting(seeds, 2.0, methods=6, networks=5) for seeds in (3, 5, 10))
        yield Setting(5, 2.0, methods=6, networks=5, step=2.0)
        return
    for seeds, ratio in itertools.product((2, 3, 5, 10), (0.0, 0.5, 2.0, 10.0)):
        yield Setting(seeds, ratio)
    for seeds in (5, 10):
        yield Setting(seeds, 2.0, step=2.0)
        yield Setting(seeds, 3.0, shared=0.9, spread=1.0)
        yield Setting(seeds, 3.0, shared=0.0, spread=0.0)
        yield Setting(seeds, 3.0, tails=4.0)
        yield Setting(seeds, 2.0, methods=21, networks=5)
        yield Setting(seeds, 5.0, methods=4, networks=4, spread=1.0)
        yield Setting(seeds, 2.0, methods=6, networks=1)


class Drawn:
    """Scored methods of a repetition, and the truth."""

    def __init__(self, setting: Setting, number: int) -> None:
        """Draw them."""
        draw = np.random.default_rng(rng.derive(number, "error rates", setting.name))
        methods, networks, seeds = setting.methods, setting.networks, setting.seeds
        shape = methods, networks, seeds
        scale = np.exp(0.5 * draw.normal(size=(methods, 1)) + 0.7 * draw.normal(size=(1, networks)))
        scale = scale * np.exp(setting.spread * draw.normal(size=(methods, networks)))
        if not setting.spread:
            scale = np.ones_like(scale)
        scale *= math.sqrt(setting.ratio * seeds / TUPLES / np.square(scale).mean())
        common, own = self._noise(draw, setting, (methods, 1, seeds)), self._noise(draw, setting, shape)
        training = scale[..., None] * (math.sqrt(setting.shared) * common + math.sqrt(1 - setting.shared) * own)
        images = math.sqrt(0.5) * draw.normal(size=(methods, 1, 1, TUPLES))
        images = images + math.sqrt(0.5) * draw.normal(size=(methods, networks, 1, TUPLES))
        step = setting.step * math.sqrt((1 + 1 / networks) / TUPLES)
        self.truth = step * np.arange(methods)
        self.latent = self.truth[:, None, None, None] + images + training[..., None]

    @staticmethod
    def _noise(draw: np.random.Generator, setting: Setting, shape: tuple[int, ...]) -> np.ndarray:
        if math.isinf(setting.tails):
            return draw.normal(size=shape)
        return draw.standard_t(setting.tails, size=shape) / math.sqrt(setting.tails / (setting.tails - 2))

    def scored(self) -> dict[Identity, SeedScores]:
        """Return what `compare` takes: methods on networks, over seeds."""
        methods, networks, seeds, _ = self.latent.shape
        result = {}
        for method, network in itertools.product(range(methods), range(networks)):
            identity = Identity("made", "magnitude", 2.0 + network, f"m{method}", "frozen", "iid")
            latent = torch.from_numpy(self.latent[method, network])[:, None, :, None]  # [s, p, t, k]
            rows = tuple((_row(identity, seed),) for seed in range(seeds))
            stored = tuple({"test.correct": one > 0, "test.information": one - 5} for one in latent)
            result[identity] = SeedScores("test", rows, stored)
        return result


def _row(identity: Identity, seed: int) -> Row:
    return made_row(**identity._asdict(), data="made", seed=seed, split="test", n=1)


def _splits() -> dict[Protocol, Split]:
    return {"iid": split()}


def split() -> Split:
    """Return tuples of one image each, of two classes."""
    labels = (torch.arange(TUPLES) % 2)[None]
    drawn = Tuples(torch.arange(TUPLES)[None, :, None], labels, torch.full((1, TUPLES), 1 / TUPLES))
    return Split(drawn, TUPLES, None, 1.0)


def repetition(setting: Setting, number: int) -> dict[str, float]:
    """Return what one repetition found: errors (0 or 1), shares covered and shown."""
    drawn = Drawn(setting, number)
    scored, splits = drawn.scored(), _splits()
    asked = ComparisonConfig(reference="m0")
    comparisons, pooled = compare(scored, splits, asked)
    truth = {f"m{at}": float(value) for at, value in enumerate(drawn.truth)}
    result: dict[str, float] = {}
    for name, records in (("pooled", pooled), ("single", comparisons)):
        apart = [(truth[r.method] - truth[r.reference], r) for r in records if r.metric == "ri"]
        result[f"cover {name}"] = float(np.mean([r.low <= gap <= r.high for gap, r in apart]))
        result[f"power {name}"] = float(np.mean([r.verdict in {"better", "worse"} for _, r in apart]))
        for family in ("primary", "secondary"):
            own = [r for r in records if family in r.correction]
            result[f"error {name} {family}"] = float(any(_wrong(r, truth) for r in own))
    primary = [r for r in pooled if r.endpoint and "primary" in r.correction]
    result["power primary"] = float(np.mean([r.verdict in {"better", "worse"} for r in primary]))
    columns = list(torch.from_numpy(drawn.latent).mean(dim=1)[:, :, None, :, None])
    standing = verdicts(list(truth), columns, splits["iid"].drawn, (1,), TUPLES, 1.0)
    shown = {pair for pair, verdict in standing.items() if verdict in {"better", "worse"}}
    result["error standings"] = float(any(truth[a] == truth[b] for a, b in shown))
    ranks = rank(scored, splits, pooled, asked)
    order = {
        name: [1 + sum(other > own for other in truth.values()), sum(other >= own for other in truth.values())]
        for name, own in truth.items()
    }
    missed = [
        r.rank_best > order[r.aggregator][0] or r.rank_worst < order[r.aggregator][1] for r in ranks if r.metric == "ri"
    ]
    result["error ranks"] = float(any(missed))
    for name, value in zip(("error", "cover", "power"), _before(drawn), strict=True):
        result[f"{name} before"] = value
    return result


def _wrong(record: Pooled | Comparison, truth: dict[str, float]) -> bool:
    """Tell whether a difference was shown that is not there, or the other way round."""
    gap = truth[record.method] - truth[record.reference]
    return record.verdict in {"better", "worse"} and (gap == 0 or (record.verdict == "better") != (gap > 0))


def _before(drawn: Drawn) -> tuple[float, float, float]:
    """Judge single networks as it was done before: Welch-Satterthwaite degrees of freedom and Holm over all."""
    p_values: list[Tensor] = []
    covered: list[Tensor] = []
    upper = torch.triu_indices(len(drawn.truth), len(drawn.truth), 1)
    for network in range(drawn.latent.shape[1]):
        scores = torch.from_numpy(drawn.latent[:, network])[:, :, None, :, None]
        pairs = all_pairs(scores, split().drawn, [1], TUPLES)
        spread = pairs.spread[upper[1], upper[0], 0]
        apart = torch.from_numpy(drawn.truth)
        gap = pairs.difference[upper[1], upper[0], 0]
        weight = spread.of_images.square() / spread.image_freedom + spread.of_seeds.square() / spread.seed_freedom
        freedom = spread.se.pow(4) / weight
        for values, centre in ((p_values, 0.0), (covered, apart[upper[1]] - apart[upper[0]])):
            ratio = ((gap - centre).abs() / spread.se).numpy()
            values.append(torch.from_numpy(2 * special.stdtr(freedom.numpy(), -ratio)))
    shown = (holm(torch.cat(p_values)) < ALPHA).double()
    held = (torch.cat(covered) >= ALPHA).double()
    return float(shown.any()) if not drawn.truth.any() else 0.0, float(held.mean()), float(shown.mean())


def holm(p_values: Tensor) -> Tensor:
    """Adjust p-values for the number of comparisons (Holm 1979)."""
    order = p_values.argsort(stable=True)
    steps = torch.arange(len(p_values), 0, -1, dtype=torch.float64)
    adjusted = (p_values[order] * steps).clamp(max=1).cummax(dim=0).values
    return torch.empty_like(adjusted).scatter_(0, order, adjusted)


def faults(setting: Setting, columns: dict[str, list[float]]) -> list[str]:
    """Say which promises a setting breaks, beyond what the number of repetitions leaves open."""
    if setting.seeds < MIN_SEEDS:
        said = [name for name in columns if name.startswith("error") and "before" not in name and any(columns[name])]
        return [f"{name}: a verdict with {setting.seeds} seeds" for name in said]
    broken = []
    for name, values in columns.items():
        if "before" in name:
            continue
        mean, count = float(np.mean(values)), len(values)
        error = float(np.std(values, ddof=1)) / math.sqrt(count)
        if (
            name.startswith("error")
            and stats.binomtest(round(sum(values)), count, FAMILY_WISE, "greater").pvalue < 0.01
        ):
            broken.append(f"{name}: {mean:.3f}, at most {FAMILY_WISE}")
        if name.startswith("cover") and not COVERED[0] - 2.33 * error <= mean <= COVERED[1] + 2.33 * error:
            broken.append(f"{name}: {mean:.3f}, expected {COVERED[0]} to {COVERED[1]}")
    return broken


COLUMNS = {
    "error pooled primary": "pooled, primary family: error",
    "error pooled secondary": "pooled, secondary family: error",
    "error single primary": "single networks, primary family: error",
    "error single secondary": "single networks, secondary family: error",
    "error ranks": "ranks: error",
    "error standings": "standings of a leaderboard: error",
    "error before": "single networks, method before: error",
    "cover pooled": "pooled: coverage",
    "cover single": "single networks: coverage",
    "cover before": "single networks, method before: coverage",
    "power primary": "primary questions: shown",
    "power pooled": "pooled: shown",
    "power single": "single networks: shown",
    "power before": "single networks, method before: shown",
}


@dataclass(frozen=True)
class Saturated:
    """Two methods that are alike and nearly always right, tuples cut several times from few images.

    Attributes:
        images: of each of ten classes.
        n: instances per tuple.
        partitions: times that the images are cut.
        ease: mean of a tuple's evidence, in its standard deviations; 3.1 is right in 99.9%.
    """

    images: int
    n: int
    partitions: int
    ease: float

    @property
    def name(self) -> str:
        """One line of the table."""
        return f"{self.images} images a class, n = {self.n}, {self.partitions} partitions, ease {self.ease:g}"


SATURATED = (
    Saturated(45, 8, 20, 3.1), Saturated(45, 8, 20, 2.3), Saturated(200, 8, 20, 3.0), Saturated(200, 8, 20, 2.0),
    Saturated(100, 16, 10, 2.0), Saturated(100, 16, 10, 1.0), Saturated(100, 4, 5, 2.0), Saturated(200, 1, 10, 2.0),
)  # fmt: skip


def _evidence(setting: Saturated, draw: torch.Generator, drawn: Tuples, images: int) -> Tensor:
    """Return the evidence of two methods on every tuple, `[2 p t]`: half of every image's is common to both."""
    common, *own = (torch.randn(images, generator=draw, dtype=torch.float64) for _ in range(3))
    quality = [(common + one) / math.sqrt(2) for one in own]
    return torch.stack([one[drawn.indices].sum(dim=2) / math.sqrt(setting.n) + setting.ease for one in quality])


def saturated(setting: Saturated, number: int) -> dict[str, float]:
    """Return whether two methods that are alike differ (p < .05), and whether intervals hold the truth.

    A tuple loses all of its information where it is wrong, and next to nothing where it is right; the truth is known.
    """
    images, classes = 10 * setting.images, 10
    draw = rng.generator(number, "saturated", setting.name)
    prior = torch.full((classes,), 1 / classes, dtype=torch.float64)
    drawn = partition(torch.arange(images) % classes, setting.n, setting.partitions, prior, draw)
    right = _evidence(setting, draw, drawn, images) > 0
    truth = float(stats.norm.cdf(setting.ease))
    bits = torch.where(right, -1e-4, -1.0)
    scores = torch.stack([right.double(), bits.double()], dim=-1)[:, None]  # [m, s, p, t, k]
    pairs = all_pairs(scores, drawn, [setting.n] * 2, images)
    result = {"error alike": float(p_value(pairs.difference, pairs.spread)[1, 0, 1] < ALPHA)}
    count = independent([setting.n], images)
    accuracy, ri = accuracy_and_ri(seed_average(scores[0], drawn, [setting.n] * 2, images), count, 1.0)
    exact = 1 - (1 - truth) - 1e-4 * truth
    result["cover n-accuracy"] = float(accuracy[1] <= truth <= accuracy[2])
    result["cover RI"] = float(ri[1] <= exact <= ri[2])
    estimated = estimate(scores[0, 0], drawn, [setting.n] * 2, images)
    low, high = interval(estimated.mean, estimated.spread)
    result["cover symmetric"] = float(low[1] <= exact - 1 <= high[1])
    return result


def near_saturation(setting: Saturated, columns: dict[str, list[float]]) -> list[str]:
    """Say which promises are broken; intervals may cover too much here, where the variance has a floor."""
    count, broken = len(columns["error alike"]), []
    for name, nominal, side in (("error alike", FAMILY_WISE, "greater"), ("cover n-accuracy", COVERED[0], "less"),
                                ("cover RI", COVERED[0], "less")):  # fmt: skip
        if stats.binomtest(round(sum(columns[name])), count, nominal, side).pvalue < 0.01:
            broken.append(f"{setting.name}: {name}: {np.mean(columns[name]):.3f}, expected {nominal}")
    return broken


def _task(task: tuple[Setting | Saturated, int]) -> dict[str, float]:
    setting, number = task
    torch.set_num_threads(1)
    return repetition(setting, number) if isinstance(setting, Setting) else saturated(setting, number)


def main(arguments: list[str] | None = None) -> int:
    """Simulate, print a line per setting, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.error_rates", description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few repetitions of few settings")
    parser.add_argument("--repetitions", type=int, help="of every setting")
    parser.add_argument("--part", choices=("verdicts", "saturation"), help="one of the two tables alone")
    parser.add_argument("--only", default="", metavar="TEXT", help="settings whose name, as printed, holds this text")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    asked = parser.parse_args(arguments)
    every = list(settings(asked.quick)) if asked.part != "saturation" else []
    wanted = [setting for setting in every if asked.only in setting.name]
    alike = SATURATED[:: 4 if asked.quick else 1] if asked.part != "verdicts" else ()
    near = [one for one in alike if asked.only in one.name]
    if not wanted and not near:
        parser.error(f"--only: no setting holds {asked.only!r}; without it their names are printed")
    repetitions = asked.repetitions or (60 if asked.quick else 400)
    broken, started = [], time.perf_counter()
    print(f"{repetitions} repetitions, columns:", *COLUMNS.values(), sep="\n  ")
    context = multiprocessing.get_context("spawn")
    with contextlib.ExitStack() as stack:
        run = map if asked.workers == 1 else stack.enter_context(context.Pool(asked.workers)).imap
        for setting in wanted:
            columns = collected(run(_task, [(setting, number) for number in range(repetitions)]))
            few = " (no verdict)" if setting.seeds < MIN_SEEDS else ""
            print(f"{setting.name}{few}: " + " ".join(f"{np.mean(columns[name]):.3f}" for name in COLUMNS), flush=True)
            broken += [f"{setting.name}: {fault}" for fault in faults(setting, columns)]
        print("two methods that are alike, nearly always right: " + ", ".join(NEAR))
        for one in near:
            columns = collected(run(_task, [(one, number) for number in range(5 * repetitions)]))
            print(f"{one.name}: " + " ".join(f"{np.mean(columns[name]):.3f}" for name in NEAR), flush=True)
            broken += near_saturation(one, columns)
    print(*(broken or ["every promise holds"]), f"{time.perf_counter() - started:.0f} s", sep="\n")
    return 1 if broken else 0


NEAR = ("error alike", "cover n-accuracy", "cover RI", "cover symmetric")


def collected(repetitions: Iterable[dict[str, float]]) -> dict[str, list[float]]:
    """Turn what every repetition found into a list per name."""
    every = list(repetitions)
    return {name: [one[name] for one in every] for name in every[0]}


if __name__ == "__main__":
    sys.exit(main())
