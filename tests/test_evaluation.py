"""From posteriors to scores, against loops over tuples."""

from __future__ import annotations

import dataclasses
import math
import statistics

import pytest
import torch
from scipy.optimize import minimize_scalar

import sharedlabel as sl
from sharedlabel import rng
from sharedlabel.aggregators import _shared, log_pool, mean_vote, refit_pool
from sharedlabel.data import tuples
from sharedlabel.errors import DataError, TrainingError
from sharedlabel.metrics.uncertainty import estimate
from sharedlabel.scoring.data import score_tuples
from sharedlabel.scoring.scores import posterior_over, score
from sharedlabel.types import SetShape, Tuples

CLASSES, N = 3, (1, 2, 4)
LABELS = torch.arange(60) % 4 % CLASSES  # class 0 is twice as frequent
PRIOR = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64)
FLOOR = 1e-6


def draw(partitions: int = 2, groups: torch.Tensor | None = None) -> Tuples:
    return tuples.partition(LABELS, max(N), partitions, PRIOR, rng.generator(0, "tuples"), groups)


def posterior_for(drawn: Tuples, sharpness: float = 1.0) -> torch.Tensor:
    """Random posteriors that lean towards the label, the more the longer the prefix."""
    labels = drawn.labels.flatten()
    logits = torch.randn(len(labels), len(N), CLASSES, generator=rng.generator(0, "posterior"), dtype=torch.float64)
    logits[torch.arange(len(labels)), :, labels] += torch.tensor([0.5, 1.0, 1.5], dtype=torch.float64)
    return (sharpness * logits).log_softmax(-1)


def floored(probabilities: list[float]) -> list[float]:
    return [(1 - FLOOR) * p + FLOOR / CLASSES for p in probabilities]


def brute(posterior: torch.Tensor, drawn: Tuples, temperature: list[float]) -> list[dict[str, float]]:
    """Every metric that has a plain definition, one tuple after the other."""
    labels, counts = drawn.labels.flatten().tolist(), torch.bincount(drawn.labels.flatten()).tolist()
    entropy = -sum(p * math.log2(p) for p in PRIOR.tolist())
    metrics = []
    for k in range(len(N)):
        right = raw_bits = bits = distance = 0.0
        bins = {version: [[0.0, 0.0, 0.0] for _ in range(15)] for version in ("", "_raw")}
        for row, label in enumerate(labels):
            weight = float(PRIOR[label]) / counts[label]
            raw = posterior[row, k].exp().tolist()
            tempered = [p ** (1 / temperature[k]) for p in raw]
            tempered = [p / sum(tempered) for p in tempered]
            right += weight * (max(range(CLASSES), key=lambda c, p=raw: (p[c], -c)) == label)
            raw_bits += weight * math.log2(floored(raw)[label])
            bits += weight * math.log2(floored(tempered)[label])
            distance += weight * sum((p - (c == label)) ** 2 for c, p in enumerate(floored(tempered)))
            for version, probabilities in (("", floored(tempered)), ("_raw", floored(raw))):
                top = max(probabilities)
                entry = bins[version][min(14, math.ceil(top * 15) - 1)]
                entry[0] += weight * top
                entry[1] += weight * (probabilities.index(top) == label)
                entry[2] += weight
        metrics.append(
            {
                "n_accuracy": right,
                "label_entropy": entropy,
                "information_gain": entropy + bits,
                "information_gain_raw": entropy + raw_bits,
                "ri": 1 + bits / entropy,
                "ri_raw": 1 + raw_bits / entropy,
                "negative_log_likelihood": -bits,
                "negative_log_likelihood_raw": -raw_bits,
                "brier_score": distance,
                "calibration_error": sum(abs(a - b) for a, b, _ in bins[""]),
                "calibration_error_raw": sum(abs(a - b) for a, b, _ in bins["_raw"]),
                "temperature": temperature[k],
            }
        )
    return metrics


def test_scores_equal_a_loop_over_tuples():
    drawn = draw()
    posterior = posterior_for(drawn)
    temperature = torch.tensor([0.7, 1.0, 2.5], dtype=torch.float64)
    scores = score(posterior, drawn, PRIOR, N, len(LABELS), None, temperature)
    for metrics, expected in zip(scores.metrics, brute(posterior, drawn, temperature.tolist()), strict=True):
        assert {name: metrics[name] for name in expected} == pytest.approx(expected, rel=1e-9)
    weights = drawn.weights / len(drawn.weights)
    assert torch.einsum("pt,ptk->k", weights, scores.correct.double()).tolist() == pytest.approx(
        [metrics["n_accuracy"] for metrics in scores.metrics]
    )
    assert torch.einsum("pt,ptk->k", weights, scores.information.double()).tolist() == pytest.approx(
        [-metrics["negative_log_likelihood"] for metrics in scores.metrics], rel=1e-6
    )


def test_public_metrics_give_the_columns_of_rows():
    """Posteriors that are sure of themselves, some of them wrongly: flooring twice would show in every digit."""
    drawn = draw()
    posterior = posterior_for(drawn, sharpness=20.0)
    posterior[3, :, drawn.labels.flatten()[3]] = -200
    posterior = posterior.log_softmax(-1)
    temperature = torch.tensor([0.3, 0.5, 1.0], dtype=torch.float64)
    rows = score(posterior, drawn, PRIOR, N, len(LABELS), None, temperature).metrics
    log_prior, data = PRIOR.log(), (drawn.labels.flatten(), drawn.weights.flatten())
    calibrated = sl.metrics.apply_temperature(posterior, temperature)
    own = {
        "n_accuracy": sl.metrics.n_accuracy(posterior, *data),
        "label_entropy": [sl.metrics.label_entropy(log_prior)] * len(N),
        "brier_score": sl.metrics.brier_score(sl.metrics.floor_posterior(calibrated), *data),
    }
    for end, version in (("", calibrated), ("_raw", posterior)):
        own[f"information_gain{end}"] = sl.metrics.information_gain(version, *data, log_prior)
        own[f"ri{end}"] = sl.metrics.relative_information(version, *data, log_prior)
        own[f"negative_log_likelihood{end}"] = sl.metrics.negative_log_likelihood(version, *data)
        own[f"calibration_error{end}"] = sl.metrics.calibration_error(sl.metrics.floor_posterior(version), *data)
    for name, values in own.items():
        assert list(map(float, values)) == pytest.approx([row[name] for row in rows], rel=1e-12), name
    twice = sl.metrics.negative_log_likelihood(sl.metrics.floor_posterior(calibrated), *data)
    assert twice.tolist() != pytest.approx(own["negative_log_likelihood"].tolist(), rel=1e-3)
    assert sl.metrics.brier_score(calibrated, *data).tolist() == pytest.approx(own["brier_score"].tolist(), abs=4e-6)


def test_the_temperature_goes_where_the_likelihood_is_largest_but_not_so_far():
    """Sixty images say little: temperatures of three sizes that agree are held together."""
    drawn = draw()
    posterior = posterior_for(drawn, sharpness=3.0)
    scores = score(posterior, drawn, PRIOR, N, len(LABELS), None, None)
    labels, weights = drawn.labels.flatten(), drawn.weights.flatten()
    for k, temperature in enumerate(scores.temperature.tolist()):

        def loss(log_temperature: float, k: int = k) -> float:
            tempered = (posterior[:, k] / math.exp(log_temperature)).log_softmax(-1)
            return -float((weights * tempered.gather(1, labels[:, None])[:, 0]).sum())

        best = minimize_scalar(loss, bounds=(-3, 3), method="bounded").x
        assert loss(best) < loss(math.log(temperature)) < loss(0)
        assert temperature > 1.2
        assert scores.metrics[k]["ri"] > scores.metrics[k]["ri_raw"]


def test_a_temperature_from_elsewhere_is_applied_as_it_is():
    drawn = draw()
    posterior = posterior_for(drawn)
    given = torch.tensor([0.5, 4.0, 9.0], dtype=torch.float64)
    own, other = (score(posterior, drawn, PRIOR, N, len(LABELS), None, t) for t in (None, given))
    assert torch.equal(other.temperature, given)
    for mine, theirs in zip(own.metrics, other.metrics, strict=True):
        assert theirs["n_accuracy"] == mine["n_accuracy"]
        assert theirs["ri_raw"] == mine["ri_raw"]
        assert theirs["ri"] < mine["ri"]


def test_reliability_bins_hold_every_tuple_once():
    drawn = draw()
    scores = score(posterior_for(drawn), drawn, PRIOR, N, len(LABELS), None, None)
    assert [(entry["n"], entry["calibrated"]) for entry in scores.reliability] == [
        (n, calibrated) for calibrated in (True, False) for n in N
    ]
    for entry in scores.reliability:
        assert sum(entry["mass"]) == pytest.approx(1)
        metrics = scores.metrics[N.index(entry["n"])]
        gap = sum(m * abs(c - a) for c, a, m in zip(entry["confidence"], entry["accuracy"], entry["mass"], strict=True))
        assert gap == pytest.approx(metrics["calibration_error" if entry["calibrated"] else "calibration_error_raw"])
        assert sum(a * m for a, m in zip(entry["accuracy"], entry["mass"], strict=True)) == pytest.approx(
            metrics["n_accuracy"]
        )


def test_intervals_over_groups_are_wider_when_groups_answer_as_one():
    groups = torch.arange(60) // 20
    drawn = draw(groups=groups)
    posterior = torch.full((drawn.labels.numel(), len(N), CLASSES), -8.0, dtype=torch.float64)
    member, labels = groups[drawn.indices[..., 0]].flatten(), drawn.labels.flatten()
    answer = torch.where(member % 2 == 0, labels, (labels + 1) % CLASSES)  # every second group is always wrong
    posterior[torch.arange(len(labels)), :, answer] = 0.0
    within, over = (
        score(posterior.log_softmax(-1), drawn, PRIOR, N, len(LABELS), clusters, torch.ones(3, dtype=torch.float64))
        for clusters in (None, groups)
    )
    for narrow, wide in zip(within.metrics, over.metrics, strict=True):
        assert narrow["n_accuracy"] == wide["n_accuracy"]
        assert wide["n_accuracy_high"] - wide["n_accuracy_low"] > narrow["n_accuracy_high"] - narrow["n_accuracy_low"]
        assert wide["ri_high"] - wide["ri_low"] > narrow["ri_high"] - narrow["ri_low"]


def pool_shape(width: int, prior: torch.Tensor) -> SetShape:
    return SetShape(torch.zeros(width), torch.ones(width), prior.log().float())


@pytest.fixture
def pool() -> log_pool.Aggregator:
    return log_pool.build(log_pool.Config(), pool_shape(4, PRIOR)).eval()


def features() -> tuple[torch.Tensor, torch.Tensor]:
    generator = rng.generator(0, "features")
    return torch.randn(60, 4, generator=generator), torch.randn(60, CLASSES, generator=generator)


@pytest.mark.parametrize("chunk", [1, 7, 4096])
def test_one_pass_gives_every_tuple_its_prefixes_in_order(pool, monkeypatch, chunk):
    monkeypatch.setattr(_shared, "CHUNK", chunk)
    monkeypatch.setattr(_shared, "_INSTANCES", chunk)
    drawn, (embeddings, logits) = draw(), features()
    posterior = posterior_over(pool, (embeddings, logits), drawn, N)
    for row, members in enumerate(drawn.indices.flatten(0, 1)):
        for column, n in enumerate(N):
            alone = pool(embeddings[members[:n]][None], logits[members[:n]][None])[0, -1]
            torch.testing.assert_close(posterior[row, column], alone)


def test_posteriors_of_another_device_are_those_of_this_one_and_the_aggregator_stays(pool):
    drawn, sources = draw(), features()
    expected = posterior_over(pool, sources, drawn, N)
    elsewhere = posterior_over(pool, sources, drawn, N, torch.device("cpu", 0))  # by its number: another one to torch
    assert elsewhere.device == torch.device("cpu")
    assert torch.equal(elsewhere, expected)
    assert {buffer.device for buffer in pool.buffers()} == {torch.device("cpu")}


def test_posteriors_that_are_not_finite_are_an_error(pool):
    embeddings, logits = features()
    logits[7, 0] = torch.nan
    with pytest.raises(TrainingError, match="expected finite posteriors, got NaN or Inf from LogPool"):
        posterior_over(pool, (embeddings, logits), draw(), N)


def test_the_temperature_of_validation_is_used_on_test(finished):
    """Re-score a cell's stored features by hand: fitted on validation, applied to test."""
    cell = next(cell for cell in finished.grid.cells if cell.aggregator == "mean_vote")
    inputs = {role: finished.store.load(node.stage, node.key) for role, node in cell.evaluate.inputs}
    config, data = cell.evaluate.config, finished.grid.data
    lengths = [len(data.splits[role]) for role in ("aggregator", "validation", "test")]
    features, calibration = inputs["features"].tensors(), inputs["calibrate"]
    embeddings, logits = (features[name].split(lengths) for name in ("embeddings", "logits"))
    correction = calibration.tensors()["log_correction"]
    aggregator = mean_vote.build(mean_vote.Config(), pool_shape(embeddings[0].shape[1], data.prior))
    scores, temperature = {}, None
    for index, role in ((1, "validation"), (2, "test")):
        calibrated = ((logits[index] + correction) / calibration.meta["temperature"]).log_softmax(-1)
        drawn = data.tuples(role, "iid", 4, config.partitions, config.seed)
        posterior = posterior_over(aggregator, (embeddings[index], calibrated), drawn, config.n)
        scores[role] = score(posterior, drawn, data.prior, config.n, len(data.splits[role]), None, temperature)
        temperature = scores["validation"].temperature
    own = score(posterior, drawn, data.prior, config.n, len(data.splits["test"]), None, None)
    assert own.temperature.tolist() != temperature.tolist()
    rows = {(row.split, row.n): row for row in finished.results.rows if row.cell == cell.id}
    for role, scored in scores.items():
        for n, metrics in zip(config.n, scored.metrics, strict=True):
            stored = {name: getattr(rows[role, n], name) for name in metrics}
            assert stored == pytest.approx(metrics)
            assert rows[role, n].temperature == pytest.approx(float(temperature[config.n.index(n)]))


@pytest.mark.parametrize("n", [(), (0,), (0, 1), (1, 5)])
def test_numbers_of_instances_that_tuples_do_not_have_are_refused(n):
    model = mean_vote.build(mean_vote.Config(), SetShape(torch.zeros(2), torch.ones(2), PRIOR.log().float()))
    sources = (torch.zeros(len(LABELS), 2), torch.zeros(len(LABELS), CLASSES))
    with pytest.raises(DataError, match=rf"instances from 1 to the 4 of a tuple, got \[{', '.join(map(str, n))}\]"):
        posterior_over(model, sources, draw(), n)


@pytest.mark.parametrize(
    ("width", "classes", "message"),
    [
        (3, CLASSES, "embeddings of 2 values, as RefitPool was trained on, got 3; use the features of the backbone"),
        (2, 5, "logits of 3 classes, as RefitPool was trained on, got 5; use the features of the backbone"),
    ],
)
def test_features_of_another_width_than_the_checkpoint_are_refused(width, classes, message):
    model = refit_pool.build(refit_pool.Config(), SetShape(torch.zeros(2), torch.ones(2), PRIOR.log().float()))
    sources = (torch.zeros(len(LABELS), width), torch.zeros(len(LABELS), classes))
    with pytest.raises(DataError, match=message):
        posterior_over(model, sources, draw(), N)


def test_mixed_tuples_are_not_scored(finished):
    data = finished.grid.data
    drawn = data.tuples("test", "iid", 2, 1, 0)
    turned = dataclasses.replace(drawn, indices=drawn.indices.flip(1))
    posterior = torch.full((drawn.labels.numel(), 1, data.dataset.num_classes), -1.0)
    with pytest.raises(DataError, match="expected instances that share label"):
        score_tuples(data, posterior, turned, "test", "iid", (2,), None)


def decisions(signal: float, seed: int) -> dict[str, float]:
    """Information of decisions after 8 of 1,000 images of 10 classes, over ten partitions whose tuples share images."""
    labels, prior = torch.arange(10).repeat_interleave(100), torch.full((10,), 0.1, dtype=torch.float64)
    stream = rng.generator(seed, "decisions")
    drawn = tuples.partition(labels, 8, 10, prior, stream)
    evidence = torch.randn(1000, 10, generator=stream) + signal * torch.nn.functional.one_hot(labels, 10)
    posterior = evidence[drawn.indices.flatten(0, 1)].sum(1, keepdim=True).log_softmax(-1)
    (row,) = score(posterior, drawn, prior, (8,), 1000, None, None).metrics
    return {name: row[f"information_gain_decision{name}"] for name in ("", "_null", "_corrected")}


def test_the_information_of_decisions_is_nothing_where_features_know_nothing():
    """One partition has 120 independent tuples, all ten together no more than 1,000 images allow."""
    by_seed = [decisions(0.0, seed) for seed in range(8)]
    plug_in, null, corrected = (statistics.mean(one[name] for one in by_seed) for name in ("", "_null", "_corrected"))
    assert null == pytest.approx(plug_in, abs=0.025)
    assert null == pytest.approx(0.59, abs=0.01)
    assert corrected == pytest.approx(0, abs=0.025)


def test_the_information_of_decisions_that_are_all_right_is_that_of_the_label():
    gain = decisions(20.0, 0)
    assert gain[""] == pytest.approx(math.log2(10))
    assert gain["_corrected"] == pytest.approx(math.log2(10))


def test_all_right_is_one_though_weights_sum_to_a_little_less():
    labels = torch.arange(30) % 10
    prior = torch.full((10,), 0.1, dtype=torch.float64)
    drawn = tuples.partition(labels, 1, 2, prior, rng.generator(0, "tuples"))
    assert float(estimate(torch.ones(2, 30, 1), drawn, [1], 30).mean) < 1
    sure = torch.full((60, 1, 10), -9.0).scatter(2, drawn.labels.flatten()[:, None, None], 0.0).log_softmax(-1)
    (row,) = score(sure, drawn, prior, [1], 30, None, None).metrics
    assert (row["n_accuracy"], row["n_accuracy_high"]) == (1.0, 1.0)
