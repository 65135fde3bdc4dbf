"""Plausible synthetic results: two pruners, six ratios, five aggregators, four n, both protocols, two seeds."""

from __future__ import annotations

import importlib
import itertools
import math
import statistics
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from sharedlabel import records
from sharedlabel.report import plots

RATIOS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
NS = (1, 2, 4, 8)
SKILL = {"mean_vote": 0.74, "log_pool": 0.95, "attention": 0.88, "lstm": 0.93, "residual_lstm": 1.03}
ERROR = {"magnitude": 0.11, "random": 0.34}
PARAMETERS, MACS = 77_000, 12_500_000
ENTROPY = math.log2(10)
KEYS = ("data", "backbone", "pruner", "ratio", "aggregator", "training", "protocol", "split", "n")


def noise(*parts: object) -> float:
    """A reproducible number in [-1, 1)."""
    return zlib.crc32(repr(parts).encode()) / 2**31 - 1


def quality(pruner: str, ratio: float, aggregator: str, protocol: str, n: int, *salt: object) -> tuple[float, float]:
    """n-accuracy and RI that fall with the ratio and rise with n."""
    single = 0.22 + (ERROR[pruner] if pruner != "none" else 0) * math.log2(ratio) ** 1.6 / 12
    useful = 1 + (n - 1) * (1 if protocol == "iid" else 0.35)
    skill = 1 if n == 1 else SKILL[aggregator] + (0.06 if aggregator == "residual_lstm" and ratio >= 8 else 0)
    accuracy = 1 - single ** (useful**0.7 * skill) * (1 + 0.03 * noise(pruner, ratio, aggregator, n, salt))
    ri = 1 - (single * 1.25) ** (useful**0.7 * skill) * (1 + 0.03 * noise(aggregator, pruner, n, ratio, salt))
    return accuracy, ri


def row(data: str, pruner: str, ratio: float, aggregator: str, seed: int, protocol: Any, split: Any, n: int) -> Any:
    """One row with every column consistent with the others."""
    accuracy, ri = quality(pruner, ratio, aggregator, protocol, n, split, seed)
    margin = 0.0005 + 0.06 * (1 - accuracy)
    speedup = ratio**0.82
    aggregator_macs = n * (90_000 if "lstm" in aggregator else 2_000)
    cost = n * MACS / speedup + aggregator_macs
    raw = ri - (0.16 if aggregator == "mean_vote" and n > 1 else 0.01)
    single = quality(pruner, ratio, "log_pool", protocol, 1)[0]
    return records.Row(
        cell=f"{zlib.crc32(repr((data, pruner, ratio, aggregator, seed)).encode()):016x}",
        data=data,
        backbone="resnet_cifar-8",
        pruner=pruner,
        ratio=ratio,
        aggregator=aggregator,
        training="frozen",
        seed=seed,
        protocol=protocol,
        split=split,
        n=n,
        tuples=1000 // n * 10,
        partitions=10,
        achieved_ratio=ratio * 0.9999,
        prunable_ratio=ratio * 1.01,
        sparsity=1 - 1 / ratio,
        parameters_dense=PARAMETERS,
        parameters=round(PARAMETERS / ratio),
        macs_dense=MACS,
        macs_executed=MACS,
        macs_effective=MACS / speedup,
        theoretical_speedup=speedup,
        bytes_dense=4 * PARAMETERS,
        bytes_sparse=round(4 * PARAMETERS / ratio + PARAMETERS / 8),
        collapsed_layers="stages.2.0.shortcut" if (pruner, ratio) == ("random", 32.0) else "",
        measured_latency_ms=21.5 * (1 + 0.03 * noise(pruner, ratio, seed)),
        measured_latency_batch=256,
        measured_threads=2,
        measured_device="cpu",
        measured_contended=False,
        validation_accuracy_before_retrain=max(0.1, single - 0.03 * (ratio - 1)),
        validation_accuracy=single,
        training_epochs=30.0,
        n_accuracy=accuracy,
        n_accuracy_low=accuracy - margin,
        n_accuracy_high=min(1.0, accuracy + margin),
        label_entropy=ENTROPY,
        information_gain=ri * ENTROPY,
        information_gain_raw=raw * ENTROPY,
        information_gain_decision=ri * ENTROPY * 0.93,
        information_gain_decision_corrected=ri * ENTROPY * 0.92,
        information_gain_decision_null=0.02,
        information_gain_accuracy=ri * ENTROPY * 0.9,
        ri=ri,
        ri_low=ri - margin,
        ri_high=min(1.0, ri + margin),
        ri_raw=raw,
        negative_log_likelihood=(1 - ri) * ENTROPY,
        negative_log_likelihood_raw=(1 - raw) * ENTROPY,
        calibration_error=0.008 + 0.004 * abs(noise(aggregator, n)),
        calibration_error_raw=0.19 if aggregator == "mean_vote" and n > 1 else 0.035 + 0.02 * noise(aggregator, ratio),
        temperature=0.4 if aggregator == "mean_vote" else 1.1,
        aggregator_macs=aggregator_macs,
        cost_macs=cost,
        cost_dense_passes=cost / MACS,
        efficiency=ri * ENTROPY / (cost / MACS),
    )


def summarise(rows: list[Any]) -> list[Any]:
    """Average rows over seeds."""
    averaged = [f for f in records.Summary.__dataclass_fields__ if f not in {*KEYS, "seeds"}]
    groups: dict[tuple[Any, ...], list[Any]] = {}
    for item in rows:
        groups.setdefault(tuple(getattr(item, key) for key in KEYS), []).append(item)
    return [
        records.Summary(
            **dict(zip(KEYS, key, strict=True)),
            seeds=len(group),
            **{field: statistics.fmean(getattr(item, field) for item in group) for field in averaged},
        )
        for key, group in groups.items()
    ]


def compare(summaries: list[Any]) -> list[Any]:
    """Every pair of aggregators on the same network, test split."""
    groups: dict[tuple[Any, ...], dict[str, Any]] = {}
    for s in summaries:
        if s.split == "test":
            groups.setdefault((s.data, s.backbone, s.pruner, s.ratio, s.training, s.protocol, s.n), {})[
                s.aggregator
            ] = s
    comparisons = []
    for key, group in groups.items():
        for (method, reference), metric in itertools.product(
            itertools.permutations(group.values(), 2), ("n_accuracy", "ri")
        ):
            difference = getattr(method, metric) - getattr(reference, metric)
            p = min(1.0, math.exp(-abs(difference) / 0.0025))
            verdict = "undecided" if p * 20 >= 0.05 else ("better" if difference > 0 else "worse")
            place = dict(zip(("data", "backbone", "pruner", "ratio", "training", "protocol", "n"), key, strict=True))
            comparisons.append(
                records.Comparison(
                    **place,
                    aggregator=method.aggregator,
                    axis="aggregator",
                    method=method.aggregator,
                    reference=reference.aggregator,
                    seeds=2,
                    metric=metric,
                    difference=difference,
                    low=difference - 0.004,
                    high=difference + 0.004,
                    low_adjusted=difference - 0.008,
                    high_adjusted=difference + 0.008,
                    p_value=p,
                    p_adjusted=min(1.0, p * 20),
                    verdict=verdict,
                    correction="Bonferroni over 20 pairs",
                )
            )
    return comparisons


def pool(comparisons: list[Any]) -> list[Any]:
    """Average the comparisons of aggregators over networks."""
    groups: dict[tuple[Any, ...], list[Any]] = {}
    for c in comparisons:
        key = (c.data, c.backbone, c.training, c.protocol, c.axis, c.method, c.reference)
        groups.setdefault((*key, False, c.n, c.metric), []).append(c)
        if c.metric == "ri":
            groups.setdefault((*key, True, None, c.metric), []).append(c)
    pooled = []
    for (*key, endpoint, n, metric), group in groups.items():
        difference = statistics.fmean(c.difference for c in group)
        verdict = "undecided" if abs(difference) < 0.002 else ("better" if difference > 0 else "worse")
        ends = (difference - 0.001, difference + 0.001, difference - 0.002, difference + 0.002)
        names = ("data", "backbone", "training", "protocol", "axis", "method", "reference")
        pooled.append(
            records.Pooled(
                **dict(zip(names, key, strict=True)),
                endpoint=endpoint,
                n=n,
                cells=len({(c.pruner, c.ratio) for c in group}),
                seeds=5,
                metric=metric,
                difference=difference,
                **dict(zip(("low", "high", "low_adjusted", "high_adjusted"), ends, strict=True)),
                p_value=0.01,
                p_adjusted=0.04,
                verdict=verdict,
                correction="Bonferroni over 20 pairs",
            )
        )
    return pooled


def rank(summaries: list[Any], pooled: list[Any]) -> list[Any]:
    """Rank by the mean over networks, with the verdicts of the pooled comparisons."""
    groups: dict[tuple[Any, ...], list[Any]] = {}
    for s, metric in itertools.product(summaries, ("n_accuracy", "ri")):
        if s.split == "test":
            key = (s.data, s.backbone, s.training, s.protocol, s.n, False, s.aggregator, metric)
            groups.setdefault(key, []).append(s)
            if metric == "ri":
                groups.setdefault((*key[:4], None, True, s.aggregator, metric), []).append(s)
    ranks = []
    for key, group in groups.items():
        own = [
            p
            for p in pooled
            if (p.protocol, p.n, p.endpoint, p.method, p.metric) == (key[3], key[4], key[5], key[6], key[7])
        ]
        verdicts = [p.verdict for p in own]
        mean = statistics.fmean(getattr(s, key[7]) for s in group)
        places = (1 + verdicts.count("worse"), 1 + len(own) - verdicts.count("better"))
        alike = ",".join(p.reference for p in own if p.verdict == "undecided")
        names = ("data", "backbone", "training", "protocol", "n", "endpoint", "aggregator", "metric")
        ranks.append(
            records.Rank(
                **dict(zip(names, key, strict=True)),
                networks=len(group),
                seeds=5,
                mean=mean,
                low=mean - 0.003,
                high=min(1.0, mean + 0.003),
                rank_best=places[0],
                rank_worst=places[1],
                alike=alike,
            )
        )
    return ranks


def count(comparisons: list[Any]) -> list[Any]:
    """Count verdicts over networks."""
    groups: dict[tuple[Any, ...], list[str]] = {}
    for c in comparisons:
        key = (c.data, c.backbone, c.training, c.protocol, c.n, c.method, c.reference, c.metric)
        groups.setdefault(key, []).append(c.verdict)
    names = ("data", "backbone", "training", "protocol", "n", "method", "reference", "metric")
    counted = {"wins": "better", "equivalent": "equivalent", "undecided": "undecided", "losses": "worse"}
    return [
        records.Wins(
            **dict(zip(names, key, strict=True)), **{name: verdicts.count(one) for name, one in counted.items()}
        )
        for key, verdicts in groups.items()
    ]


def spot(candidates: list[Any], chosen: Any, rule: Any, value: float | None, rule_n: int | None, reason: str) -> Any:
    """Describe a choice on validation by what it gives on test."""
    some = candidates[0]
    pruner = next((c.pruner for c in candidates if c.pruner != "none"), "none")
    asked = {
        "data": some.data,
        "backbone": some.backbone,
        "pruner": pruner,
        "aggregator": some.aggregator,
        "training": some.training,
        "protocol": some.protocol,
        "rule": rule,
        "value": value,
        "rule_n": rule_n,
        "replicates": 200,
        "reason": reason,
    }
    if chosen is None:
        empty = dict.fromkeys(f for f in records.SweetSpot.__dataclass_fields__ if f not in asked)
        shares = {"interior": False, "interior_share": 0.0, "modal_share": 0.0, "guessing": False}
        return records.SweetSpot(**empty | asked | shares)

    def at(ratio: float) -> Any:
        return next(c for c in candidates if c.split == "test" and (c.ratio, c.n) == (ratio, chosen.n))

    test, dense = at(chosen.ratio), at(1.0)
    interior = RATIOS[0] < chosen.ratio < RATIOS[-1]
    return records.SweetSpot(
        **asked,
        ratio=chosen.ratio,
        n=chosen.n,
        cost_dense_passes=chosen.cost_dense_passes,
        validation_ri=chosen.ri,
        **{name: getattr(test, name) for name in records.MainScores.__dataclass_fields__},
        dense_ri=dense.ri,
        dense_n_accuracy=dense.n_accuracy,
        interior=interior,
        interior_share=0.93 if interior else 0.11,
        modal_share=0.71,
        guessing=min(test.ri_low, chosen.ri_low) <= 0,
    )


def sweet_spots(summaries: list[Any], pruners: tuple[str, ...], protocols: tuple[str, ...]) -> list[Any]:
    """Choose on validation: budgets, retained RI per n, an unreachable target, and the knee."""
    spots = []
    for pruner, aggregator, protocol in itertools.product(pruners, SKILL, protocols):
        some = [
            s
            for s in summaries
            if s.aggregator == aggregator and s.protocol == protocol and s.pruner in {pruner, "none"}
        ]
        validation = [s for s in some if s.split == "validation"]
        for budget in (0.5, 1.0, 2.0):
            fits = [s for s in validation if s.cost_dense_passes <= budget]
            spots.append(spot(some, max(fits, key=lambda s: s.ri), "budget", budget, None, ""))
        for n in NS:
            here = [s for s in validation if s.n == n]
            dense = next(s for s in here if s.ratio == 1)
            kept = [s for s in here if s.ri >= 0.98 * dense.ri]
            spots.append(spot(some, max(kept, key=lambda s: s.ratio), "retain", 0.98, n, ""))
        best = max(s.n_accuracy for s in validation)
        spots.append(spot(some, None, "target", 0.9999, None, f"the highest n-accuracy on validation is {best:.4f}"))
        knee = next(s for s in validation if (s.ratio, s.n) == (8.0, 4))
        spots.append(spot(some, knee, "knee", None, None, ""))
        spots.append(spot(some, knee, "marginal", 0.02, None, ""))
    return spots


def reliability(rows: list[Any]) -> list[Any]:
    """Ten bins per method, over- or under-confident before calibration."""
    bins = []
    for item in rows:
        if item.seed or item.split != "test":
            continue
        for calibrated, i in itertools.product((False, True), range(1, 11)):
            confidence = i / 10 - 0.04
            shift = item.calibration_error if calibrated else item.calibration_error_raw
            bent = 4 * confidence * (1 - confidence) * shift * (1 if item.aggregator == "mean_vote" else -1)
            bins.append(
                records.measurements.ReliabilityBin(
                    data=item.data,
                    **records.Identity.of(item)._asdict(),
                    n=item.n,
                    calibrated=calibrated,
                    confidence=confidence,
                    accuracy=confidence + bent,
                    mass=0.02 * i - 0.01,
                )
            )
    return bins


def latencies(data: str, networks: list[tuple[str, float]], seeds: int) -> list[Any]:
    """Masked networks are as slow as the dense one; `random` stands in for a method that is really faster."""
    measured = []
    for (pruner, ratio), seed, mode, batch in itertools.product(
        networks, range(seeds), ("eager", "compiled"), (1, 32, 256)
    ):
        speedup = ratio ** (0.6 if pruner == "random" else 0) * (1 + 0.05 * noise(pruner, ratio, seed, mode, batch))
        dense = 0.4 * batch**0.8
        measured.append(
            records.measurements.Latency(
                data=data,
                backbone="resnet_cifar-8",
                pruner=pruner,
                ratio=ratio,
                seed=seed,
                device="cpu",
                mode=mode,
                batch=batch,
                threads=2,
                parameters=round(PARAMETERS / ratio),
                macs_effective=MACS / ratio**0.82,
                theoretical_speedup=ratio**0.82,
                file_bytes_dense=4 * PARAMETERS + 3000,
                file_bytes_sparse=round(4 * PARAMETERS / ratio + PARAMETERS / 8 + 4000),
                peak_memory_bytes=None if mode == "compiled" else 4 * PARAMETERS + 90_000 * batch,
                measured_median_ms=dense / speedup,
                measured_low_ms=0.9 * dense / speedup,
                measured_high_ms=1.2 * dense / speedup,
                measured_images_per_second=1000 * batch * speedup / dense,
                measured_dense_ms=dense,
                measured_speedup=speedup,
                measured_clock="wall",
                measured_wall_ms=dense / speedup,
                measured_contention=1.0,
                measured_contended=False,
                measured_load=0.5,
            )
        )
    return measured


def margins(data: str, seeds: int) -> list[Any]:
    """Two layers, one of them without a certificate."""
    return [
        records.measurements.Margin(
            data=data,
            backbone="resnet_cifar-8",
            seed=seed,
            layer=layer,
            weights=weights,
            epsilon=epsilon,
            epsilon_absolute=20 * epsilon,
            certified_weights=certified and round(10 * certified * epsilon) + 2 * seed,
            certified_gap_max=certified and epsilon,
            certified_gap_mean=certified and epsilon / 2,
            observed_weights=round(weights * epsilon) + 2 * seed,
            observed_gap_max=19.9 * epsilon,
            observed_gap_mean=9 * epsilon,
            asymptotic_weights=int(weights**0.5),
            alpha=0.5,
            inputs=256,
            radius=31.0,
            refusal="" if certified else "expected a chain of linear layers, got Conv2d at 'body.0'",
        )
        for seed, epsilon, (layer, weights, certified) in itertools.product(
            range(seeds), (0.1, 0.2), (("body.0", 432, None), ("body.3", 4096, 120))
        )
    ]


def layers(data: str, networks: list[tuple[str, float]], seeds: int) -> list[Any]:
    """Two layers, the smaller of which a random choice of weights empties at 32x."""
    return [
        records.measurements.LayerWeights(
            data=data,
            backbone="resnet_cifar-8",
            pruner=pruner,
            ratio=ratio,
            seed=seed,
            training="frozen",
            layer=layer,
            weights_dense=dense,
            weights=left,
            sparsity=1 - left / dense,
        )
        for (pruner, ratio), seed, (layer, dense) in itertools.product(
            networks, range(seeds), (("stages.1.0.conv1", 4608), ("stages.2.0.shortcut", 2048))
        )
        for left in [0 if (pruner, ratio, dense) == ("random", 32.0, 2048) else round(dense / ratio)]
    ]


def adaptive(summaries: list[Any]) -> list[Any]:
    """Stops that save a quarter of the images, and err a little less than they may; the dearest never decides."""
    points = []
    for s in summaries:
        if s.split != "test" or s.n == 1:
            continue
        for aim, value in (("error", 0.1 / s.n), ("instances", s.n**0.5), ("instances", float(s.n))):
            used = float(s.n) if (aim, value) == ("instances", float(s.n)) else 0.75 * s.n
            gain = 0.02 * (1 - used / NS[-1])
            realised = None if used == NS[-1] else 0.9 * value if aim == "error" else 0.03
            points.append(
                records.AdaptivePoint(
                    data=s.data,
                    **records.Identity.of(s)._asdict(),
                    rule="threshold",
                    aim=aim,
                    value=value,
                    n_max=NS[-1],
                    seeds=s.seeds,
                    threshold=0.9,
                    validation_error=realised,
                    validation_instances=used,
                    instances=used,
                    instances_low=used - 0.05,
                    instances_high=used + 0.05,
                    cost_dense_passes=s.cost_dense_passes * used / s.n,
                    error=realised,
                    error_low=realised and realised / 1.5,
                    error_high=realised and realised * 1.5,
                    truncated=1.0 if realised is None else 0.08,
                    n_accuracy=s.n_accuracy,
                    n_accuracy_low=s.n_accuracy_low,
                    n_accuracy_high=s.n_accuracy_high,
                    ri=s.ri,
                    ri_low=s.ri_low,
                    ri_high=s.ri_high,
                    n_accuracy_gain=gain,
                    n_accuracy_gain_low=gain - 0.004,
                    n_accuracy_gain_high=gain + 0.004,
                    ri_gain=gain,
                    ri_gain_low=gain - 0.005,
                    ri_gain_high=gain + 0.005,
                )
            )
    return points


def thresholds(rows: list[Any]) -> list[Any]:
    """One threshold per cell, and an error that none attains."""
    cells = {(row.cell, row.protocol): row for row in rows}
    return [
        records.Threshold(
            cell=row.cell,
            artifact=row.cell[::-1],
            **{name: getattr(row, name) for name in ("data", *records.AXES)},
            n_max=NS[-1],
            rule="threshold",
            nominal_error=error,
            threshold=threshold,
            validation_error=threshold and 0.04,
            validation_instances=threshold and 2.5,
            validation_truncated=threshold and 0.1,
        )
        for row in cells.values()
        for error, threshold in ((0.05, 0.9), (0.001, None))
    ]


def curves(data: str, networks: list[tuple[str, float]], protocols: tuple[str, ...]) -> list[Any]:
    """Losses that halve with every epoch, of the first seed."""

    def curve(pruner: str, ratio: float, stage: str, **method: Any) -> Any:
        about = {"training": "frozen", "aggregator": None, "protocol": None, **method}
        losses = tuple(2.0**-epoch * ratio for epoch in range(4))
        return records.training.TrainingCurve(
            data=data,
            backbone="resnet_cifar-8",
            pruner=pruner,
            ratio=ratio,
            seed=0,
            stage=stage,
            losses=losses,
            **about,
        )

    return [
        curve("none", 1.0, "dense"),
        *(curve(*network, "prune") for network in networks),
        *(
            curve(*network, "aggregate", aggregator=aggregator, protocol=protocol)
            for network, aggregator, protocol in itertools.product(networks, SKILL, protocols)
        ),
    ]


PICTURE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR42mNgAAAAAgAB4iG8MwAAAABJRU5ErkJggg=="
)


def answers(data: str, protocols: tuple[str, ...]) -> dict[str, tuple[Any, ...]]:
    """Cats that are taken for dogs, and a picture of one."""
    method = {"data": data, "backbone": "resnet_cifar-8", "pruner": "magnitude", "ratio": 8.0, "n": 4}
    about = [method | {"aggregator": "lstm", "training": "frozen", "protocol": protocol} for protocol in protocols]
    counts = {("cat", "cat"): 900, ("cat", "dog"): 100, ("dog", "dog"): 990, ("dog", "cat"): 10}
    return {
        "confusions": tuple(
            records.answers.Confusion(**own, label=label, predicted=predicted, tuples=tuples)
            for own in about
            for (label, predicted), tuples in counts.items()
        ),
        "mistakes": tuple(
            records.answers.Mistake(
                **own,
                seed=0,
                label="cat",
                predicted="dog",
                probability=0.12,
                instances=(3, 1, 4, 2),
                pictures=(PICTURE,) * 4,
            )
            for own in about
        ),
    }


def make(
    data: str = "cifar10-small",
    ratios: tuple[float, ...] = RATIOS,
    seeds: int = 2,
    pruners: tuple[str, ...] = tuple(ERROR),
    protocols: tuple[str, ...] = ("iid", "grouped"),
) -> records.Results:
    """Make the whole file."""
    networks = [("none", 1.0), *itertools.product(pruners, ratios[1:])]
    rows = [
        row(data, pruner, ratio, aggregator, seed, protocol, split, n)
        for (pruner, ratio), aggregator, seed, protocol, split, n in itertools.product(
            networks, SKILL, range(seeds), protocols, ("validation", "test"), NS
        )
    ]
    summaries = summarise(rows)
    comparisons = compare(summaries)
    pooled = pool(comparisons)
    return records.Results(
        format=records.FORMAT,
        experiment=f"{data} sweep",
        config={"data": {"name": data}, "grid": {"ratios": list(ratios), "ns": list(NS)}, "note": "<b>&amp;</b>"},
        provenance={"commit": "0123abc", "device": "cpu", "versions": {"torch": "2.11.0"}, "seconds": 912.5},
        dataset=records.DatasetFacts(("cat", "dog"), (3, 32, 32), "uint8", None, None, (0.5, 0.5)),
        rows=tuple(rows),
        summaries=tuple(summaries),
        comparisons=tuple(comparisons),
        pooled=tuple(pooled),
        ranks=tuple(rank(summaries, pooled)),
        wins=tuple(count(comparisons)),
        sweet_spots=tuple(sweet_spots(summaries, pruners, protocols)),
        reliability=tuple(reliability(rows)),
        latencies=tuple(latencies(data, networks, seeds)),
        layers=tuple(layers(data, networks, seeds)),
        margins=tuple(margins(data, seeds)),
        adaptive=tuple(adaptive(summaries)),
        thresholds=tuple(thresholds(rows)),
        curves=tuple(curves(data, networks, protocols)),
        **answers(data, protocols),
    )


@pytest.fixture(scope="session")
def results() -> records.Results:
    """The standard synthetic results."""
    return make()


@pytest.fixture(scope="session")
def hostile() -> records.Results:
    """Results whose data set name is markup for HTML, rich, mathtext and JavaScript at once."""
    return make("</script><script>[bold]$x$ `${1}`", (1.0, 8.0, 32.0), 1, ("magnitude",), ("iid",))


@pytest.fixture(scope="session")
def small() -> records.Results:
    """One pruner, three ratios, one seed, one protocol."""
    return make("digits", (1.0, 8.0, 32.0), 1, ("magnitude",), ("iid",))


@pytest.fixture(autouse=True)
def _few_figures() -> None:
    """Draw all kinds of figures, other than elsewhere."""


@pytest.fixture
def kinds(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Draw figures of some kinds alone."""

    def choose(*names: str) -> None:
        chosen = [importlib.import_module(f"sharedlabel.report.figures.{name}") for name in names]
        monkeypatch.setattr(plots, "_KINDS", chosen)

    return choose


@pytest.fixture(scope="session")
def drawn(results: records.Results) -> list[plots.Drawn]:
    """Figures of the standard results."""
    return plots.drawn(results)


@pytest.fixture(scope="session")
def figures(drawn: list[plots.Drawn]) -> dict[str, str]:
    """The same as files."""
    return plots.files(drawn)


@pytest.fixture(scope="session")
def small_figures(small: records.Results) -> dict[str, str]:
    """Figures of the small results."""
    return plots.figures(small)
