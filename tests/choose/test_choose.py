"""Choosing from literal rows: limits, ties, misses, contrasts, JSON, and mistakes."""

from __future__ import annotations

import dataclasses
import itertools
import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharedlabel import records
from sharedlabel.choose import __main__ as choose
from sharedlabel.choose.candidates import Request, options
from sharedlabel.choose.differences import Gap, square_and_add
from sharedlabel.choose.recommendation import recommend
from sharedlabel.choose.text import _points, _ri, render
from sharedlabel.errors import ConfigError, DataError, StoreError

TYPES = {
    "int": 1,
    "float": 1.0,
    "int | None": None,
    "float | None": 1.0,
    "str | None": None,
    "bool": False,
    "bool | None": None,
}
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
    return blank(
        records.Comparison, data="made", **method, training="frozen", protocol="iid", axis=axis, method=name,
        reference=reference, seeds=2, metric=metric, difference=difference, low=difference - 0.004,
        high=difference + 0.004, low_adjusted=difference - 0.02, high_adjusted=difference + 0.02,
        verdict="undecided", correction="Bonferroni over 20 pairs",
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
            blank(records.measurements.Latency, backbone=backbone, pruner=pruner,
                  ratio=1.0 if pruner == "none" else 4.0, seed=seed, device="cpu", mode="eager", batch=batch, threads=2,
                  file_bytes_dense=4000, file_bytes_sparse=1000, measured_clock="wall", training="frozen",
                  measured_median_ms=scale * MS[pruner] * (1 if batch == 1 else 16))
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
    facts = records.DatasetFacts(
        ("a", "b"), (1, 1, 1), "uint8", None, None, (0.5, 0.5), {"validation": 500, "test": 1960}, {"test": 6}
    )
    return records.Results(
        format=records.FORMAT, experiment="made", config={}, provenance={}, dataset=facts, rows=tuple(rows),
        summaries=tuple(summaries), comparisons=tuple(comparisons), sweet_spots=(), reliability=(),
        latencies=tuple(latencies),
    )  # fmt: skip


def changed(results: records.Results, wanted: Any, **values: Any) -> records.Results:
    """Change the summaries for which `wanted` holds."""
    summaries = tuple(dataclasses.replace(s, **values) if wanted(s) else s for s in results.summaries)
    return dataclasses.replace(results, summaries=summaries)


def words(results: records.Results, request: Request) -> str:
    return " ".join(render(recommend(results, request)).split())


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
    advice = recommend(results, request)
    best = min(left, key=by_ri if request.target_accuracy is None else by_cost)
    assert place(advice.recommended) == best
    assert (advice.qualified, advice.considered) == (len(left), sum(request.n in {None, key[3]} for key in POINTS))
    others = [key for key in left if key[:2] != best[:2]]
    assert (advice.runner_up is None) == (not others)
    if advice.runner_up is not None:
        expected = min(others, key=by_ri if request.target_accuracy is None else by_cost)
        assert place(advice.runner_up.option) == expected


def test_the_default_costs_at_most_one_dense_pass_and_reports_on_test(results) -> None:
    advice = recommend(results, Request())
    best = advice.recommended
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
    advice = recommend(results, Request())
    assert advice.dense is not None
    assert advice.dense.option.ratio == 1
    assert (advice.dense.ri.difference, advice.dense.ri.low) == pytest.approx(
        (-0.05, -0.07)
    )  # of the verdict's interval
    assert advice.dense.ri.paired
    assert (advice.dense.ri.verdict, advice.dense.ri.correction) == ("undecided", "Bonferroni over 20 pairs")
    assert advice.best is not None
    assert place(advice.best.option) == ("lstm", "none", 1.0, 4)
    assert not advice.best.ri.paired
    # 0.89 [0.86, 0.91] and 0.95 [0.92, 0.97]: -0.06 - hypot(0.03, 0.02) and + hypot(0.02, 0.03).
    gap = advice.best.ri
    assert (gap.difference, gap.low, gap.high) == pytest.approx((-0.06, -0.06 - 0.036056, -0.06 + 0.036056), abs=1e-5)
    assert (gap.verdict, gap.correction) == ("no verdict", "one comparison, not adjusted")  # two seeds
    many = recommend(changed(results, lambda s: True, seeds=5), Request()).best
    assert many is not None
    assert many.ri.verdict == "worse"


def test_a_comparison_is_read_in_both_directions(results) -> None:
    forward = recommend(results, Request(budget=1.05, n=4, pruner="prune"))
    assert place(forward.recommended) == ("lstm", "prune", 4.0, 4)
    assert forward.runner_up is not None
    assert forward.runner_up.ri.difference == 0.01
    backward = recommend(results, Request(target_accuracy=0.95, n=4))
    assert place(backward.recommended) == ("pool", "prune", 4.0, 4)
    assert backward.runner_up is not None
    gap = backward.runner_up.ri
    assert (gap.difference, gap.low, gap.high) == pytest.approx((-0.01, -0.03, 0.01))
    assert "not shown to differ on test; recommended minus runner-up" in " ".join(render(backward).split())


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
    advice = recommend(results, Request(target_accuracy=target))
    assert advice.target_on_test == expected
    assert words in " ".join(render(advice).split())


def test_equal_relative_information_goes_to_the_cheaper(results) -> None:
    equal = tuple(dataclasses.replace(s, ri=0.8) for s in results.summaries)
    advice = recommend(dataclasses.replace(results, summaries=equal), Request(budget=9))
    assert place(advice.recommended) == ("pool", "prune", 4.0, 1)


def test_a_miss_names_the_nearest_and_what_it_lacks(results) -> None:
    with pytest.raises(DataError, match=r"budget at most 0.2, got none of 8; the nearest miss is pool on prune 4x "
                       r"of mlp, n = 1 with 0.25 dense passes where at most 0.2 was asked for; relax"):  # fmt: skip
        recommend(results, Request(budget=0.2))
    with pytest.raises(DataError, match=r"lstm on the dense network of mlp, n = 4 with 98.5% right on validation "
                       r"where at least 99.0% was asked for \(4.1 dense passes\)"):  # fmt: skip
        recommend(results, Request(budget=5, target_accuracy=0.99))
    with pytest.raises(DataError, match=r"1.5 ms where at most 0.1 was asked for"):
        recommend(results, Request(latency_ms=0.1))


def test_latency_is_of_the_batch_that_is_asked_for(results) -> None:
    advice = recommend(results, Request(latency_ms=3.1, batch=32))
    assert place(advice.recommended) == ("pool", "prune", 4.0, 4) or advice.recommended.n == 4
    assert advice.recommended.timing is not None
    assert advice.recommended.timing.ms_per_tuple <= 3.1
    with pytest.raises(ConfigError, match=r"batch 7 on cpu, got none; choose .*batch 1 on cpu, batch 32 on cpu"):
        recommend(results, Request(latency_ms=3, batch=7))
    with pytest.raises(ConfigError, match="batch 1 on phone"):
        recommend(results, Request(device="phone"))
    unmeasured = recommend(results, Request(batch=7))
    assert unmeasured.recommended.timing is None
    assert "latency not measured with batch 7" in render(unmeasured)


def test_several_backbones_are_compared_in_macs() -> None:
    both = made(("mlp", "resnet"))
    advice = recommend(both, Request(budget=0.11))
    assert (advice.unit.backbone, advice.unit.macs, advice.backbones) == ("resnet", 10 * MACS, 2)
    assert (advice.recommended.backbone, advice.recommended.n) == ("mlp", 4)
    assert advice.recommended.cost_units == pytest.approx(0.105)
    assert advice.recommended.cost_dense_passes == 1.05
    assert "budgets count passes of the largest dense network, resnet" in " ".join(render(advice).split())
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
    advice, _, _, _ = options(results, Request(pruner="prune", aggregator="lstm"))
    assert {option.pruner for option in advice} == {"none", "prune"}
    assert {option.aggregator for option in advice} == {"lstm"}


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
    advice = json.loads(capsys.readouterr().out)
    timing = {
        "device": "str",
        "batch": "number",
        "threads": "number",
        "ms_per_image": "number",
        "ms_per_tuple": "number",
        "contention": "number",
        "contended": "bool",
    }
    numbers = (
        "ratio", "n", "cost_dense_passes", "cost_macs", "aggregator_macs", "cost_units", "parameters",
        "parameters_dense", "file_bytes_dense", "file_bytes_sparse", "n_accuracy", "n_accuracy_low", "n_accuracy_high",
        "ri", "ri_low", "ri_high", "validation_n_accuracy", "validation_n_accuracy_low", "validation_n_accuracy_high",
        "validation_ri", "validation_ri_low", "validation_ri_high", "seeds",
    )  # fmt: skip
    names = ("backbone", "pruner", "aggregator", "training", "protocol")
    option = dict.fromkeys(names, "str") | dict.fromkeys(numbers, "number") | {"timing": timing, "guessing": "bool"}
    ends = dict.fromkeys(("difference", "low", "high"), "number")
    gap = ends | {"paired": "bool", "verdict": "str", "correction": "str"}
    shift = ends | {"beyond_chance": "bool"}
    contrast = {"option": option, "n_accuracy": gap, "ri": gap}
    asked = dict.fromkeys(
        ("budget", "n", "latency_ms", "protocol", "backbone", "pruner", "aggregator", "device"), "NoneType"
    )
    assert schema(advice) == {
        "data": "str", "protocol": "str", "seeds": "number",
        "request": asked | {"target_accuracy": "number", "batch": "number"},
        "unit": {"backbone": "str", "macs": "number"}, "backbones": "number", "recommended": option,
        "target_on_test": "str", "dense": contrast, "best": contrast, "cheaper": "NoneType",
        "margin": "number", "runner_up": contrast,
        "considered": "number", "qualified": "number", "passed_over": "NoneType", "agreement": "NoneType",
        "ratio_edge": "str", "n_edge": "str", "images": {"validation": "number", "test": "number"},
        "groups": {"test": "number"}, "shift_n_accuracy": shift, "shift_ri": shift,
        "export": "str",
    }  # fmt: skip


def test_what_is_as_good_for_less_is_told(results) -> None:
    """Within the margin of equivalence on validation: 0.005 below the best is not, with a margin of 0.01 it is."""
    near = changed(
        results, lambda s: (s.aggregator, s.pruner, s.n, s.split) == ("pool", "prune", 4, "validation"), ri=0.905
    )
    assert recommend(near, Request(budget=1.05)).cheaper is None  # 1.0 is no tenth less than 1.05
    near = changed(near, lambda s: (s.aggregator, s.pruner, s.n) == ("pool", "prune", 4), cost_dense_passes=0.9)
    rows = tuple(
        dataclasses.replace(row, cost_macs=900) if (row.aggregator, row.pruner, row.n) == ("pool", "prune", 4) else row
        for row in near.rows
    )
    near = dataclasses.replace(near, rows=rows)
    assert recommend(near, Request(budget=1.05)).cheaper is None
    wide = dataclasses.replace(near, config={"comparison": {"margin": 0.01}})
    found = recommend(wide, Request(budget=1.05))
    assert place(found.recommended) == ("lstm", "prune", 4.0, 4)
    assert found.cheaper is not None
    assert place(found.cheaper.option) == ("pool", "prune", 4.0, 4)
    assert "for less pool on prune 4x of mlp, n = 4, 0.9 dense passes: within 0.01 RI" in words(
        wide, Request(budget=1.05)
    )
    assert recommend(wide, Request(target_accuracy=0.95)).cheaper is None


def test_it_ends_with_the_command_that_exports_the_choice(results, tmp_path, capsys) -> None:
    rows = tuple(
        dataclasses.replace(row, cell=f"{row.aggregator}-{row.pruner}-{row.ratio:g}-{row.seed}") for row in results.rows
    )
    config = {
        "data": "digits",
        "pruners": ["prune.by.us", "magnitude"],
        "aggregators": ["log_pool", "mine.py", {"name": "mine.py", "label": "other"}],
    }
    records.write(dataclasses.replace(results, rows=rows, config=config), tmp_path)
    assert choose.main([str(tmp_path), "--budget", "9"]) == 0
    written = f"sharedlabel export lstm-none-1-0 --run {tmp_path} --plugin prune.by.us --plugin ./mine.py"
    assert capsys.readouterr().out.splitlines()[-1] == f"{written}  # seed 0, one of 2"
    assert choose.main([str(tmp_path / "results.json"), "--budget", "9", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["export"] == written


def test_the_card_fits_100_columns_and_says_what_is_asked(results, tmp_path, capsys) -> None:
    records.write(results, tmp_path)
    assert choose.main([str(tmp_path), "--budget", "1.05", "--n", "4", "--latency-ms", "9"]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines()[:-1])) <= 100  # the last one is to be pasted
    words = " ".join(text.split())
    for part in (
        "made, iid tuples, 2 seeds; asked for: n = 4, at most 1.05 dense passes, at most 9 ms",
        "lstm on prune 4x of mlp, n = 4",
        "6 ms per tuple: 4 x 1.5 ms per image, eager, batch 1, cpu, 2 threads",
        "100 parameters of 400; file 4kB, stored sparsely 1kB",
        "95.2% right [94.2, 96.2], RI 0.900 [0.870, 0.920] on test",
        "against the highest RI of all options, lstm on the dense network of mlp, n = 4, 4.1 dense passes",
        "(not paired; one comparison, not adjusted)",
        "not shown to differ on test; recommended minus runner-up +0.7 points right [-1.3, +2.7], RI +0.010 [-0.010, "
        "+0.030] (paired; Bonferroni over 20 pairs)",
        "stands on 500 validation images, 1,960 test images of 6 groups, 2 training seeds",
        "how stable the choice is: unknown, since the run has no sweet spot of this method by these limits",
        "4x is the largest ratio of the grid: a larger one may do better",
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
    with pytest.raises(
        StoreError,
        match=r"is not a results file of this version: .*, got ranks.0.data = .* .Field required.; run the grid",
    ):
        records.read(file)


def test_choosing_needs_no_torch() -> None:
    code = "import sys, sharedlabel.choose.__main__; sys.exit(bool({'torch', 'matplotlib'} & set(sys.modules)))"
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
    advice = options(dataclasses.replace(results, **twins, latencies=(*results.latencies, *slower)), Request())[0]
    times = {option.place: option.timing.ms_per_image for option in advice}
    assert len(times) == 2 * len(POINTS)
    for (method, _), time in times.items():
        assert time == MS[method.pruner] * (3 if method.training == "crossfit" else 1)


def test_what_is_no_better_than_guessing_is_passed_over(results) -> None:
    chosen = lambda s: (s.aggregator, s.pruner, s.n) == ("pool", "prune", 4)  # noqa: E731
    for split in ("validation", "test"):
        some = changed(results, lambda s, split=split: chosen(s) and s.split == split, ri=0.93, ri_low=0.0)
        advice = recommend(some, Request())
        assert advice.passed_over is not None
        assert place(advice.passed_over) == ("pool", "prune", 4.0, 4)
        assert place(advice.recommended) == ("pool", "none", 1.0, 1)
        assert (advice.qualified, recommend(results, Request()).qualified) == (3, 4)
        assert "passed over: pool on prune 4x of mlp, n = 4, which is no better than guessing as far as" in words(
            some, Request()
        )
    assert recommend(results, Request()).passed_over is None


def test_nothing_better_than_guessing_is_a_miss(results, tmp_path, capsys) -> None:
    records.write(changed(results, lambda s: True, ri=0.004, ri_low=-0.02, ri_high=0.028), tmp_path)
    assert choose.main([str(tmp_path)]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "with an RI that is no better than guessing (0.004 [-0.020, 0.028] on validation, 0.004 [" in said


def test_intervals_of_methods_that_are_next_to_alike_are_no_row_of_zeros() -> None:
    narrow = Gap(2e-6, -3.1e-5, 3.5e-5, True, "equivalent", "one comparison")
    assert _ri(narrow) == "+0.000002 [-0.000031, +0.000035]"
    assert _points(narrow) == "+0.0002 points right [-0.0031, +0.0035]"
    assert _ri(Gap(0.0, -1e-12, 1e-12, True, "equivalent", "one comparison")) == "+0.000 [+0.000, +0.000]"
    assert _ri(Gap(0.0, 0.0, 0.0, True, "equivalent", "one comparison")) == "+0.000 [+0.000, +0.000]"


def busy(results: records.Results, wanted: Any) -> records.Results:
    """Mark the measurements for which `wanted` holds, which took 30 times as long."""
    marked = tuple(
        dataclasses.replace(
            r, measured_contended=True, measured_contention=3.2, measured_median_ms=30 * r.measured_median_ms
        )
        if wanted(r)
        else r
        for r in results.latencies
    )
    return dataclasses.replace(results, latencies=marked)


def test_no_recommendation_by_a_time_of_a_busy_machine(results) -> None:
    contended = busy(results, lambda r: r.pruner == "prune")
    advice = recommend(contended, Request(latency_ms=100.0))
    assert advice.recommended.pruner == "none"
    with pytest.raises(DataError, match=r"lstm on prune 4x of mlp, n = 4 with a time that was measured on a busy "
                       r"machine \(3.20 times as long on the wall as on the processor\).*; measure again on a quiet "
                       r"machine \(delete artifacts/latency in the store, run the grid again\)$"):  # fmt: skip
        recommend(busy(results, lambda r: True), Request(latency_ms=1000.0, budget=1.05, n=4, target_accuracy=0.951))
    by_budget = recommend(contended, Request())
    assert place(by_budget.recommended) == ("pool", "prune", 4.0, 4)
    assert "measured on a busy machine (3.20 times as long on the wall" in " ".join(render(by_budget).split())


def test_seeds_that_were_measured_on_a_quiet_machine_count_alone(results) -> None:
    advice = recommend(busy(results, lambda r: r.seed == 1), Request(latency_ms=6.5))
    assert advice.recommended.timing is not None
    assert (advice.recommended.timing.ms_per_image, advice.recommended.timing.contended) == (1.5, False)


def test_a_gap_between_validation_and_test_that_is_no_chance_is_told(results) -> None:
    advice = recommend(results, Request())
    # 0.90 [0.87, 0.92] and 0.89 [0.86, 0.91]: 0.01 - hypot(0.03, 0.02) and + hypot(0.02, 0.03).
    ends = advice.shift_ri.difference, advice.shift_ri.low, advice.shift_ri.high
    assert ends == pytest.approx((0.01, 0.01 - 0.036056, 0.01 + 0.036056), abs=1e-5)
    assert not advice.shift_ri.beyond_chance
    assert "more than chance" not in render(advice)
    lucky = changed(results, lambda s: s.split == "test", ri=0.6, ri_low=0.57, ri_high=0.62)
    assert (
        "validation and test differ by more than chance: validation minus test +0.5 points right [-0.9, +1.9], "
        "RI +0.300 [+0.264, +0.336]" in words(lucky, Request())
    )


def spot(**values: Any) -> records.SweetSpot:
    own = {"data": "made", "backbone": "mlp", "pruner": "prune", "aggregator": "pool", "training": "frozen"}
    own |= {"protocol": "iid", "rule": "budget", "value": 1.0, "ratio": 4.0, "n": 4, "replicates": 200}
    return blank(records.SweetSpot, **{**own, "modal_share": 0.31, **values})


def test_the_sweet_spot_of_the_same_rule_and_method_tells_how_stable_the_choice_is(results) -> None:
    others = [
        {"value": 0.5},
        {"rule": "knee", "value": None},
        {"aggregator": "lstm"},
        {"ratio": 1.0},
        {"n": 1},
        {"replicates": 0},
    ]
    known = dataclasses.replace(results, sweet_spots=(*(spot(**o, modal_share=0.1) for o in others), spot()))
    advice = recommend(known, Request())
    assert advice.agreement is not None
    assert (advice.agreement.share, advice.agreement.replicates) == (0.31, 200)
    assert "31.0% of 200 replicates of images and seeds choose the same ratio and n" in words(known, Request())
    assert recommend(known, Request(n=4)).agreement is None  # the sweet spot chose n itself
    assert recommend(known, Request(budget=1.0, latency_ms=6.5)).agreement is None


def test_edges_of_the_grid_are_told(results) -> None:
    largest = recommend(results, Request())
    assert (largest.ratio_edge, largest.n_edge) == ("largest", "largest")
    dense = recommend(results, Request(budget=9, n=4))
    assert (dense.ratio_edge, dense.n_edge) == ("smallest", "only")
    assert "1x is the smallest ratio of the grid: within these limits compressing does not pay" in render(dense)
    assert recommend(results, Request(budget=0.3)).n_edge == "smallest"


def test_one_seed_says_that_intervals_are_over_images_alone(results) -> None:
    text = words(changed(results, lambda s: True, seeds=1), Request())
    assert "1 training seed; with one seed, intervals are over images alone and say nothing of training anew" in text


@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        ("better", "worse on test"),
        ("worse", "better on test"),
        ("equivalent", "equivalent on test"),
        ("undecided", "not shown to differ on test"),
        ("no verdict", "no verdict with 2 seeds, 5 are needed"),
    ],
)
def test_the_runner_up_is_called_by_the_verdict_of_the_run(results, verdict: str, said: str) -> None:
    judged = tuple(dataclasses.replace(c, verdict=verdict) for c in results.comparisons)
    text = words(dataclasses.replace(results, comparisons=judged), Request(budget=1.05, n=4, pruner="prune"))
    assert f"1 dense pass: {said}; recommended minus runner-up" in text


ENDS = st.tuples(*[st.floats(-1, 1)] * 3)


@given(ENDS, ENDS)
def test_a_difference_never_lies_outside_its_interval(one, two) -> None:
    difference, low, high = square_and_add(one, two)
    assert low <= difference <= high
    assert difference == one[0] - two[0]


@given(ENDS)
def test_no_interval_is_narrower_than_that_of_either_estimate(ends) -> None:
    low, middle, high = sorted(ends)
    difference, below, above = square_and_add((middle, low, high), (0.0, 0.0, 0.0))
    assert (below, above) == pytest.approx((low, high), abs=1e-12)
    assert difference == middle
