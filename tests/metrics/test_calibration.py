from __future__ import annotations

import math

import pytest
import torch
from scipy.optimize import minimize_scalar
from sklearn.metrics import log_loss

from sharedlabel.errors import DataError
from sharedlabel.metrics import calibration, diagrams
from sharedlabel.metrics._weights import independent_tuples
from sharedlabel.rng import generator
from sharedlabel.types import Tuples


def _posteriors(tuples: int = 3000, classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels drawn from the posteriors themselves, so T = 1 is right."""
    stream = generator(0, "calibration")
    log_posterior = (2 * torch.randn(tuples, 3, classes, generator=stream, dtype=torch.float64)).log_softmax(2)
    log_posterior = log_posterior[:, :1].expand(-1, 3, -1)
    return log_posterior, torch.multinomial(log_posterior[:, 0].exp(), 1, generator=stream).flatten()


@pytest.mark.parametrize("factor", [0.01, 0.2, 8.0, 100.0])
def test_temperature_undoes_a_distortion(factor: float) -> None:
    log_posterior, labels = _posteriors()
    fitted = calibration.fit_temperature(log_posterior, labels)
    assert fitted.tolist() == pytest.approx([1, 1, 1], abs=0.05)
    distorted = calibration.fit_temperature((log_posterior * factor).log_softmax(2), labels)
    assert (distorted / factor).tolist() == pytest.approx(fitted.tolist(), rel=1e-9)


def test_temperature_is_the_minimiser_of_the_weighted_loss_where_evidence_is_ample() -> None:
    log_posterior, labels = _posteriors(300)
    weights = torch.rand(300, generator=generator(1), dtype=torch.float64)
    logs = log_posterior[:, :1] * 3

    def loss(temperature: float) -> float:
        applied = calibration.apply_temperature(logs, torch.tensor([temperature]))
        return calibration.negative_log_likelihood(applied, labels, weights).item()

    expected = minimize_scalar(loss, bounds=(0.02, 50), method="bounded", options={"xatol": 1e-8}).x
    fitted = calibration.fit_temperature(logs, labels, weights, independent=torch.tensor([1e9]))
    assert fitted.item() == pytest.approx(expected, rel=1e-5)
    assert calibration.fit_temperature(logs, labels, weights).item() == pytest.approx(expected, rel=1e-2)


@pytest.mark.parametrize("factor", [0.01, 1.0, 100.0])
def test_what_is_always_right_gets_a_finite_temperature_that_follows_its_scale(factor: float) -> None:
    sure = (factor * torch.tensor([0.0, -60.0, -60.0])).expand(40, 1, 3)
    labels = torch.zeros(40, dtype=torch.int64)
    fitted = calibration.fit_temperature(sure, labels)
    unsure = 1 - calibration.apply_temperature(sure, fitted)[0, 0, 0].exp().item()
    assert 1 / 4100 < unsure < 1 / 41  # about as sure as 40 right answers out of 40 allow
    more = calibration.fit_temperature(sure, labels, independent=torch.tensor([4000.0]))
    assert 1 / 410000 < 1 - calibration.apply_temperature(sure, more)[0, 0, 0].exp().item() < 1 / 4001


def test_what_is_always_wrong_becomes_nearly_uniform() -> None:
    sure = torch.tensor([0.0, -60.0, -60.0]).expand(400, 1, 3)
    fitted = calibration.fit_temperature(sure, torch.ones(400, dtype=torch.int64))
    assert calibration.apply_temperature(sure, fitted)[0, 0].exp().tolist() == pytest.approx([1 / 3] * 3, abs=0.02)


def test_temperature_of_hugely_overconfident_posteriors_is_found() -> None:
    log_posterior = torch.tensor([[[0.0, -900.0]]] * 3 + [[[-900.0, 0.0]]]) / 30
    labels = torch.zeros(4, dtype=torch.int64)
    fitted = calibration.fit_temperature(log_posterior, labels, independent=torch.tensor([1e6])).item()
    assert fitted == pytest.approx(30 / math.log(3), rel=1e-5)
    assert fitted < calibration.fit_temperature(log_posterior, labels).item() < 1.3 * fitted  # four tuples say little


def test_a_size_without_evidence_of_its_own_follows_the_one_below() -> None:
    log_posterior, labels = _posteriors(400)
    log_posterior = torch.cat([log_posterior[:, :1], torch.zeros_like(log_posterior[:, :1])], 1)
    few = torch.tensor([400.0, 2.0])
    fitted = calibration.fit_temperature(log_posterior, labels, sizes=(1, 2), independent=few)
    assert fitted[1].item() == pytest.approx(fitted[0].item(), rel=0.02)


def test_temperatures_between_the_anchors_do_not_depend_on_what_else_is_asked_for() -> None:
    log_posterior, labels = _posteriors(200)
    every = log_posterior[:, :1] * torch.arange(1, 7)[:, None].sqrt()
    fitted = calibration.fit_temperature(every, labels)
    some = torch.tensor([0, 1, 2, 3, 5])
    temperatures = calibration.fit_temperature(every[:, some], labels, sizes=(1, 2, 3, 4, 6))
    torch.testing.assert_close(temperatures, fitted[some], rtol=1e-12, atol=0)
    assert fitted[2].log().item() == pytest.approx(
        fitted[1].log().item() + math.log(1.5) / math.log(2) * (fitted[3] / fitted[1]).log().item()
    )


def test_temperature_refuses_what_is_not_finite() -> None:
    with pytest.raises(DataError, match="NaN or infinity"):
        calibration.fit_temperature(torch.tensor([[[0.0, -torch.inf]]]), torch.tensor([0]))


def test_negative_log_likelihood_is_the_log_loss_in_bits() -> None:
    log_posterior, labels = _posteriors(200)
    weights = torch.rand(200, generator=generator(2))
    expected = log_loss(labels, log_posterior[:, 0].exp(), sample_weight=weights) / math.log(2)
    assert calibration.negative_log_likelihood(log_posterior, labels, weights)[0].item() == pytest.approx(expected)


def _brute_force(log_posterior: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor, bins: int) -> float:
    total = 0.0
    confidence, decision = log_posterior.exp().max(1)
    for index in range(bins):
        inside = (confidence > index / bins) & (confidence <= (index + 1) / bins)
        if inside.any():
            mass = weights[inside].sum()
            right = (weights * (decision == labels))[inside].sum() / mass
            sure = (weights * confidence)[inside].sum() / mass
            total += float(mass / weights.sum() * (right - sure).abs())
    return total


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_calibration_error_by_brute_force(bins: int) -> None:
    log_posterior, labels = _posteriors(500)
    logs = calibration.apply_temperature(log_posterior, torch.tensor([0.3, 1.0, 4.0]))
    weights = torch.rand(500, generator=generator(3), dtype=torch.float64)
    errors = diagrams.calibration_error(logs, labels, weights, bins)
    assert errors.tolist() == pytest.approx([_brute_force(logs[:, k], labels, weights, bins) for k in range(3)])


def test_bins_are_closed_on_the_right() -> None:
    log_posterior = torch.tensor([[[0.5, 0.5]], [[0.75, 0.25]], [[1.0, 0.0]]], dtype=torch.float64).log()
    diagram = diagrams.reliability(log_posterior, torch.tensor([1, 0, 0]), bins=4)
    assert diagram.mass[0].tolist() == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3])
    assert diagram.accuracy[0].tolist() == [0, 0, 1, 1]
    assert diagram.confidence[0].tolist() == pytest.approx([0, 0.5, 0.75, 1])


def test_confidences_below_a_bin_s_width_are_in_the_first() -> None:
    logs = torch.tensor([[[0.4, 0.35, 0.25]], [[0.2, 0.9, -0.1]]]).double().clamp(min=1e-9).log()
    logs[1] = torch.tensor([1e-9, 1.0, 1e-9]).double().log().log_softmax(0)
    sums = diagrams.bin_sums(logs, torch.tensor([0, 0]), torch.tensor([3.0, 5.0]), 2)
    assert sums[2].tolist() == [[3.0, 5.0]]
    assert sums[1].tolist() == [[3.0, 0.0]]
    assert sums[0].flatten().tolist() == pytest.approx([1.2, 5.0])


def test_logits_become_posteriors_under_another_prior() -> None:
    logits = torch.tensor([[1.0, 2.0, 0.5], [0.0, -1.0, 3.0]], dtype=torch.float64)
    correction = torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64)
    log_posterior = calibration.calibrate_logits(logits, correction, 2.5)
    torch.testing.assert_close(log_posterior.exp(), ((logits + correction) / 2.5).softmax(1))


def test_temperatures_of_drawn_tuples_count_groups_and_weights() -> None:
    """Those of four groups of images are worth as much evidence as four tuples, not as their images."""
    stream = generator(3, "drawn")
    labels = torch.arange(40) % 2
    drawn = Tuples(torch.arange(80).view(1, 40, 2), labels[None], torch.rand(1, 40, generator=stream) + 0.5)
    evidence = (2.0 * labels[:, None] - 1) + 1.5 * torch.randn(40, 2, generator=stream)
    logs = torch.stack([-evidence.cumsum(1), evidence.cumsum(1)], dim=2).log_softmax(2)
    groups = torch.arange(80) // 2 % 4
    for clusters in (None, groups):
        worth = independent_tuples(drawn, (1, 2), clusters)
        expected = calibration.fit_temperature(logs, labels, drawn.weights.flatten(), (1, 2), worth)
        torch.testing.assert_close(calibration.temperatures(logs, drawn, (1, 2), clusters), expected)
    apart = [calibration.temperatures(logs, drawn, (1, 2), clusters) for clusters in (None, groups)]
    assert float((apart[0] - apart[1]).abs().max()) > 0.01


def test_uneven_weights_are_worth_less_evidence() -> None:
    stream = generator(4, "uneven")
    labels = torch.arange(30) % 2
    evidence = (2.0 * labels - 1) + torch.randn(30, generator=stream)
    logs = torch.stack([-evidence, evidence], dim=1)[:, None].log_softmax(2)
    weights = torch.rand(30, generator=stream).double() ** 2
    share = weights / weights.sum()
    worth = (1 / share.square().sum())[None]
    expected = calibration.fit_temperature(logs, labels, weights, independent=worth)
    torch.testing.assert_close(calibration.fit_temperature(logs, labels, weights), expected)


def test_calibrated_posteriors_have_a_small_error_and_sharpened_ones_do_not() -> None:
    log_posterior, labels = _posteriors()
    logs = calibration.apply_temperature(log_posterior, torch.tensor([0.25, 1.0, 4.0]))
    sharp, fair, flat = diagrams.calibration_error(logs, labels).tolist()
    assert fair < 0.03
    assert min(sharp, flat) > 0.1


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_degenerate_temperatures_are_refused(value: float) -> None:
    with pytest.raises(DataError, match=rf"temperatures above 0, got \[1.0, {value}\]"):
        calibration.apply_temperature(torch.zeros(3, 2, 4).double(), torch.tensor([1.0, value]).double())


def test_posteriors_that_know_nothing_keep_their_temperature() -> None:
    flat = torch.full((5, 1, 4), -math.log(4)).double()
    assert calibration.fit_temperature(flat, torch.tensor([0, 1, 2, 3, 0])).tolist() == [1.0]
