"""Choosing from literal rows: limits, ties, misses, contrasts, JSON, and mistakes."""

from __future__ import annotations

import dataclasses
import itertools
import json
import subprocess
import sys
from typing import Any

import pytest

from sharedlabel import choose
from sharedlabel import results as records
from sharedlabel.choosing.candidates import Request, options
from sharedlabel.choosing.recommendation import recommend
from sharedlabel.choosing.text import render
from sharedlabel.errors import ConfigError, DataError, StoreError

TYPES = {"int": 1, "float": 1.0, "int | None": None}
MACS = 1_000
# (aggregator, pruner, ratio, n) -> dense passes, RI and n-accuracy on validation, RI and n-accuracy on test.
POINTS = {
    ("pool", "none", 1.0, 1): (1.0, 0.70, 0.80, 0.69, 0.79),
    ("pool", "none", 1.0, 4): (4.0, 0.95, 0.98, 0.94, 0.97),
    ("pool", "prune", 4.0, 1): (0.25, 0.60, 0.72, 0.59, 0.71),
    ("pool", "prune", 4.0, 4): (1.0, 0.90, 0.95, 0.89, 0.945),
    ("lstm", "none", 1.0, 1): (1.1, 0.71, 0.81, 0.70, 0.80),
    ("lstm", "none", 1.0, 4): (4.1, 0.96, 0.985, 0.95, 0.975),
    ("lstm", "prune", 4.0, 1): (0.3, 0.61, 0.73, 0.60, 0.72),
    ("lstm", "prune", 4.0, 4): (1.05, 0.91, 0.955, 0.90, 0.952),
}
MS = {"none": 2.0, "prune": 1.5}  # of one image


def blank(kind: type, **values: Any) -> Any:
    filled = {item.name: TYPES.get(str(item.type), "") for item in dataclasses.fields(kind)}
    return kind(**{**filled, **values})


def comparison(method: dict[str, Any], axis: str, name: str, reference: str, metric: str, difference: float) -> Any:
    return records.Comparison(
        data="made", **method, training="frozen", protocol="iid", axis=axis, method=name, reference=reference, seeds=2,
        metric=metric, difference=difference, low=difference - 0.004, high=difference + 0.004, p_value=0.2, p_holm=0.2,
        verdict="tied",
    )  # fmt: skip


def made(backbones: tuple[str, ...] = ("mlp",), scale: float = 1.0) -> records.Results:
    rows, summaries, latencies = [], [], []
    for backbone, (place, values) in itertools.product(backbones, POINTS.items()):
        aggregator, pruner, ratio, n = place
        dense = MACS if backbone == "mlp" else 10 * MACS
        for split, (ri, right) in (("validation", values[1:3]), ("test", values[3:])):
            names = {"data": "made", "backbone": backbone, "pruner": pruner, "ratio": ratio, "aggregator": aggregator}
            names |= {"training": "frozen", "protocol": "iid", "split": split, "n": n}
            rows += [
                blank(records.Row, **names, seed=seed, macs_dense=dense, cost_macs=values[0] * dense,
                      aggregator_macs=10, parameters=100, parameters_dense=400)
                for seed in (0, 1)
            ]  # fmt: skip
            summaries.append(
                blank(records.Summary, **names, seeds=2, cost_dense_passes=values[0], ri=ri, ri_low=ri - 0.03,
                      ri_high=ri + 0.02, n_accuracy=right, n_accuracy_low=right - 0.01, n_accuracy_high=right + 0.01)
            )  # fmt: skip
    for backbone, pruner, batch, seed in itertools.product(backbones, MS, (1, 32), (0, 1)):
        latencies.append(
            blank(records.Latency, backbone=backbone, pruner=pruner, ratio=1.0 if pruner == "none" else 4.0, seed=seed,
                  device="cpu", mode="eager", batch=batch, threads=2, file_bytes_dense=4000, file_bytes_sparse=1000,
                  measured_median_ms=scale * MS[pruner] * (1 if batch == 1 else 16), training="frozen")
        )  # fmt: skip
    own = {"backbone": "mlp", "pruner": "prune", "ratio": 4.0, "n": 4}
    comparisons = [
        made_one
        for metric, by in (("ri", 0.01), ("n_accuracy", 0.007))
        for made_one in (
            comparison({**own, "aggregator": "lstm"}, "aggregator", "lstm", "pool", metric, by),
            comparison({**own, "aggregator": "pool"}, "compression", "prune 4x", "dense", metric, -5 * by),
        )
    ]
    return records.Results(
        records.FORMAT, "made", {}, {}, records.DatasetFacts(("a", "b"), (1, 1, 1), "uint8", None, None, (0.5, 0.5)),
        tuple(rows), tuple(summaries), tuple(comparisons), (), (), tuple(latencies),
    )  # fmt: skip


@pytest.fixture(scope="module")
def results() -> records.Results:
    return made()


def place(option: Any) -> tuple[str, str, float, int]:
    return option.aggregator, option.pruner, option.ratio, option.n


LIMITS = {"budget": (0.5, 1.0, 5.0), "target_accuracy": (0.75, 0.95), "n": (1, 4), "latency_ms": (1.7, 6.5)}


@pytest.mark.parametrize("chosen", list(itertools.product(*[(None, *values) for values in LIMITS.values()])))
def test_every_combination_of_limits_is_what_brute_force_finds(results, chosen) -> None:
    asked = dict(zip(LIMITS, chosen, strict=True))
    request = Request(**asked)
    assert request.budget == (1.0 if chosen[0] is chosen[1] is chosen[3] is None else chosen[0])

    def fits(key: tuple[str, str, float, int]) -> bool:
        cost, _, right, _, _ = POINTS[key]
        return (
            (request.budget is None or cost <= request.budget)
            and (request.target_accuracy is None or right >= request.target_accuracy)
            and (request.n is None or key[3] == request.n)
            and (request.latency_ms is None or key[3] * MS[key[1]] <= request.latency_ms)
        )

    left = [key for key in POINTS if fits(key)]
    if not left:
        with pytest.raises(DataError, match=r"nearest miss is (pool|lstm) on .*n = [14] with"):
            recommend(results, request)
        return
    by_cost, by_ri = (lambda key: (POINTS[key][0], -POINTS[key][2])), (lambda key: -POINTS[key][1])
    found = recommend(results, request)
    best = min(left, key=by_ri if request.target_accuracy is None else by_cost)
    assert place(found.recommended) == best
    assert (found.qualified, found.considered) == (len(left), sum(request.n in {None, key[3]} for key in POINTS))
    others = [key for key in left if key[:2] != best[:2]]
    assert (found.runner_up is None) == (not others)
    if found.runner_up is not None:
        expected = min(others, key=by_ri if request.target_accuracy is None else by_cost)
        assert place(found.runner_up.option) == expected


def test_the_default_costs_at_most_one_dense_pass_and_reports_on_test(results) -> None:
    found = recommend(results, Request())
    best = found.recommended
    assert place(best) == ("pool", "prune", 4.0, 4)
    assert (best.ri, best.ri_low, best.ri_high) == pytest.approx((0.89, 0.86, 0.91))
    assert (best.n_accuracy, best.validation_n_accuracy, best.validation_ri) == (0.945, 0.95, 0.90)
    assert (best.cost_dense_passes, best.cost_macs, best.aggregator_macs) == (1.0, 1000, 10)
    assert (best.parameters, best.parameters_dense, best.file_bytes_dense, best.file_bytes_sparse) == (
        100,
        400,
        4000,
        1000,
    )
    assert best.timing is not None
    assert (best.timing.ms_per_image, best.timing.ms_per_tuple, best.timing.threads) == (1.5, 6.0, 2)


def test_contrasts_are_paired_where_the_run_compared_both(results) -> None:
    found = recommend(results, Request())
    assert found.dense is not None
    assert found.dense.option.ratio == 1
    assert (found.dense.ri.difference, found.dense.ri.low) == pytest.approx((-0.05, -0.054))
    assert found.dense.ri.paired
    assert found.dense.ri.verdict == "tied"
    assert found.best is not None
    assert place(found.best.option) == ("lstm", "none", 1.0, 4)
    assert not found.best.ri.paired
    # 0.89 [0.86, 0.91] and 0.95 [0.92, 0.97]: -0.06 - hypot(0.03, 0.02) and + hypot(0.02, 0.03).
    gap = found.best.ri
    assert (gap.difference, gap.low, gap.high) == pytest.approx((-0.06, -0.06 - 0.036056, -0.06 + 0.036056), abs=1e-5)
    assert gap.verdict == "worse"


def test_a_comparison_is_read_in_both_directions(results) -> None:
    forward = recommend(results, Request(budget=1.05, n=4, pruner="prune"))
    assert place(forward.recommended) == ("lstm", "prune", 4.0, 4)
    assert forward.runner_up is not None
    assert forward.runner_up.ri.difference == 0.01
    backward = recommend(results, Request(target_accuracy=0.95, n=4))
    assert place(backward.recommended) == ("pool", "prune", 4.0, 4)
    assert backward.runner_up is not None
    gap = backward.runner_up.ri
    assert (gap.difference, gap.low, gap.high) == pytest.approx((-0.01, -0.014, -0.006))
    assert "tied; recommended minus runner-up" in " ".join(render(backward).split())


@pytest.mark.parametrize(
    ("target", "expected", "words"),
    [
        (0.94, "missed", "on test it stays below 94.0%"),
        (0.93, "reached", "the lower end of the interval on test reaches 93.0% too"),
        (0.72, "missed", "below 72.0%"),
        (0.705, "mean", "the lower end of its interval does not"),
    ],
)
def test_a_target_is_checked_on_test(results, target: float, expected: str, words: str) -> None:
    if target == 0.94:  # chosen on validation at 0.95, on test 0.945 - 0.01
        results = dataclasses.replace(
            results,
            summaries=tuple(
                dataclasses.replace(s, n_accuracy=s.n_accuracy - 0.01) if s.split == "test" else s
                for s in results.summaries
            ),
        )
    found = recommend(results, Request(target_accuracy=target))
    assert found.target_on_test == expected
    assert words in " ".join(render(found).split())


def test_equal_relative_information_goes_to_the_cheaper(results) -> None:
    equal = tuple(dataclasses.replace(s, ri=0.8) for s in results.summaries)
    found = recommend(dataclasses.replace(results, summaries=equal), Request(budget=9))
    assert place(found.recommended) == ("pool", "prune", 4.0, 1)


def test_a_miss_names_the_nearest_and_what_it_lacks(results) -> None:
    with pytest.raises(DataError, match=r"budget at most 0.2, got none of 8; the nearest miss is pool on prune 4x "
                       r"of mlp, n = 1 with 0.25 dense passes where at most 0.2 was asked for; relax"):  # fmt: skip
        recommend(results, Request(budget=0.2))
    with pytest.raises(DataError, match=r"lstm on the dense network of mlp, n = 4 with n-accuracy 0.9850 on validation "
                       r"where at least 0.99 was asked for \(4.1 dense passes\)"):  # fmt: skip
        recommend(results, Request(budget=5, target_accuracy=0.99))
    with pytest.raises(DataError, match=r"1.5 ms where at most 0.1 was asked for"):
        recommend(results, Request(latency_ms=0.1))


def test_latency_is_of_the_batch_that_is_asked_for(results) -> None:
    found = recommend(results, Request(latency_ms=3.1, batch=32))
    assert place(found.recommended) == ("pool", "prune", 4.0, 4) or found.recommended.n == 4
    assert found.recommended.timing is not None
    assert found.recommended.timing.ms_per_tuple <= 3.1
    with pytest.raises(ConfigError, match=r"batch 7 on cpu, got none; choose .*batch 1 on cpu, batch 32 on cpu"):
        recommend(results, Request(latency_ms=3, batch=7))
    with pytest.raises(ConfigError, match="batch 1 on phone"):
        recommend(results, Request(device="phone"))
    unmeasured = recommend(results, Request(batch=7))
    assert unmeasured.recommended.timing is None
    assert "latency not measured with batch 7" in render(unmeasured)


def test_several_backbones_are_compared_in_macs() -> None:
    both = made(("mlp", "resnet"))
    found = recommend(both, Request(budget=0.11))
    assert (found.unit.backbone, found.unit.macs, found.backbones) == ("resnet", 10 * MACS, 2)
    assert (found.recommended.backbone, found.recommended.n) == ("mlp", 4)
    assert found.recommended.cost_units == pytest.approx(0.105)
    assert found.recommended.cost_dense_passes == 1.05
    assert "budgets count passes of the largest dense network, resnet" in " ".join(render(found).split())
    alone = recommend(both, Request(backbone="mlp"))
    assert (alone.unit.backbone, alone.recommended.cost_units) == ("mlp", 1.0)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"aggregator": "lsmt"}, "unknown aggregator 'lsmt' in 'made'; did you mean 'lstm'"),
        ({"protocol": "grouped"}, "unknown protocol 'grouped' in 'made'; available: iid"),
        ({"n": 3}, r"--n: expected a number of instances in the results, got 3; available: \[1, 4\]"),
        ({"budget": -1.0}, "--budget: expected a positive number, got -1"),
        ({"latency_ms": float("nan")}, "--latency-ms: expected a positive number, got nan"),
        ({"target_accuracy": 1.5}, r"--target-accuracy: expected a share in \(0, 1\], got 1.5"),
    ],
)
def test_mistakes(results, asked: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        recommend(results, Request(**asked))


def test_filters_keep_the_dense_network(results) -> None:
    found, _, _, _ = options(results, Request(pruner="prune", aggregator="lstm"))
    assert {option.pruner for option in found} == {"none", "prune"}
    assert {option.aggregator for option in found} == {"lstm"}


def test_results_without_cells_are_a_user_error(results) -> None:
    with pytest.raises(DataError, match="expected finished cells in 'made', got none"):
        recommend(dataclasses.replace(results, rows=()), Request())


def schema(value: Any) -> Any:
    """The names and types of a JSON value."""
    if isinstance(value, dict):
        return {name: schema(item) for name, item in value.items()}
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


def test_json_has_the_documented_schema(results, tmp_path, capsys) -> None:
    records.write(results, tmp_path)
    assert choose.main([str(tmp_path / "results.json"), "--target-accuracy", "0.95", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    timing = {
        "device": "str",
        "batch": "number",
        "threads": "number",
        "ms_per_image": "number",
        "ms_per_tuple": "number",
    }
    numbers = (
        "ratio", "n", "cost_dense_passes", "cost_macs", "aggregator_macs", "cost_units", "parameters",
        "parameters_dense", "file_bytes_dense", "file_bytes_sparse", "n_accuracy", "n_accuracy_low", "n_accuracy_high",
        "ri", "ri_low", "ri_high", "validation_n_accuracy", "validation_ri",
    )  # fmt: skip
    option = dict.fromkeys(("backbone", "pruner", "aggregator", "training"), "str") | dict.fromkeys(numbers, "number")
    option |= {"timing": timing}
    gap = {"difference": "number", "low": "number", "high": "number", "paired": "bool", "verdict": "str"}
    contrast = {"option": option, "n_accuracy": gap, "ri": gap}
    asked = dict.fromkeys(
        ("budget", "n", "latency_ms", "protocol", "backbone", "pruner", "aggregator", "device"), "NoneType"
    )
    assert schema(found) == {
        "data": "str", "protocol": "str", "seeds": "number",
        "request": asked | {"target_accuracy": "number", "batch": "number"},
        "unit": {"backbone": "str", "macs": "number"}, "backbones": "number", "recommended": option,
        "target_on_test": "str", "dense": contrast, "best": contrast, "runner_up": contrast,
        "considered": "number", "qualified": "number",
    }  # fmt: skip


def test_the_card_fits_100_columns_and_says_what_is_asked(results, tmp_path, capsys) -> None:
    records.write(results, tmp_path)
    assert choose.main([str(tmp_path), "--budget", "1.05", "--n", "4", "--latency-ms", "9"]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 100
    words = " ".join(text.split())
    for part in (
        "made, iid tuples, 2 seeds; asked for: n = 4, at most 1.05 dense passes, at most 9 ms",
        "lstm on prune 4x of mlp, n = 4",
        "6 ms per tuple: 4 x 1.5 ms per image, eager, batch 1, cpu, 2 threads",
        "100 parameters of 400; file 4kB, stored sparsely 1kB",
        "95.2% right [94.2, 96.2], RI 0.900 [0.870, 0.920] on test",
        "against the highest RI of all options, lstm on the dense network of mlp, n = 4, 4.1 dense passes",
        "(not paired)",
        "tied; recommended minus runner-up +0.7 points right [+0.3, +1.1], RI +0.010 [+0.006, +0.014] (paired)",
    ):
        assert part in words
    assert choose.main([str(tmp_path), "--budget", "9"]) == 0
    assert "nothing against the dense network: it is the dense network" in capsys.readouterr().out


def test_mistakes_end_with_code_2(results, tmp_path, capsys) -> None:
    assert choose.main([str(tmp_path)]) == 2
    assert f"expected a results.json at {tmp_path / 'results.json'}" in capsys.readouterr().err
    (tmp_path / "results.json").write_text('{"format": 1}')
    assert choose.main([str(tmp_path)]) == 2
    assert f"has format 1, this version reads {records.FORMAT}" in capsys.readouterr().err
    records.write(results, tmp_path)
    assert choose.main([str(tmp_path), "--budget", "0.01"]) == 2
    assert "the nearest miss is pool on prune 4x of mlp, n = 1" in capsys.readouterr().err


def test_tables_that_are_not_needed_are_not_read(results, tmp_path) -> None:
    records.write(results, tmp_path)
    file = tmp_path / "results.json"
    damaged = json.loads(file.read_text()) | {"ranks": [{"nonsense": 1}]}
    file.write_text(json.dumps(damaged))
    assert records.read(file, ("rows", "summaries")).comparisons == ()
    with pytest.raises(StoreError, match="is not a results file of this version"):
        records.read(file)


def test_choosing_needs_no_torch() -> None:
    code = "import sys, sharedlabel.choose; sys.exit(bool({'torch', 'matplotlib'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_networks_of_cross_fitting_have_their_own_times():
    results = made()
    twins = {
        name: (*records, *(dataclasses.replace(record, training="crossfit") for record in records))
        for name, records in (("rows", results.rows), ("summaries", results.summaries))
    }
    slower = (
        dataclasses.replace(record, training="crossfit", measured_median_ms=3 * record.measured_median_ms)
        for record in results.latencies
    )
    found = options(dataclasses.replace(results, **twins, latencies=(*results.latencies, *slower)), Request())[0]
    times = {option.place: option.timing.ms_per_image for option in found}
    assert len(times) == 2 * len(POINTS)
    for place, time in times.items():
        assert time == MS[place.pruner] * (3 if place.training == "crossfit" else 1)
