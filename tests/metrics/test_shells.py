from __future__ import annotations

import matplotlib.pyplot as plt
import pytest
import torch
import torchmetrics

from sharedlabel.errors import DataError
from sharedlabel.metrics import _shells as shells
from sharedlabel.metrics import (
    brier_score,
    calibration_error,
    information_gain,
    n_accuracy,
    negative_log_likelihood,
    relative_information,
)
from sharedlabel.rng import generator


@pytest.fixture
def data() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    stream = generator(0, "shells")
    labels = torch.randint(4, (101,), generator=stream)
    logits = torch.randn(101, 3, 4, generator=stream) * 3
    logits[torch.arange(101), :, labels] += 2
    logits[5, :, labels[5]] = -1e8  # a mistake that is sure of itself
    logits[6, :, labels[6]] = -torch.inf
    return logits.log_softmax(2), labels, torch.rand(101, generator=stream)


def _pure(log_posterior: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None) -> dict[str, torch.Tensor]:
    return {
        "accuracy": n_accuracy(log_posterior, labels, weights),
        "gain": information_gain(log_posterior, labels, weights),
        "relative": relative_information(log_posterior, labels, weights),
        "likelihood": negative_log_likelihood(log_posterior, labels, weights),
        "brier": brier_score(log_posterior, labels, weights),
        "calibration": calibration_error(log_posterior, labels, weights),
    }


def _shells(**options: object) -> dict[str, shells.Metric]:
    """Build one of each shell."""
    return {
        "accuracy": shells.NAccuracy(3, **options),
        "gain": shells.InformationGain(4, 3, **options),
        "relative": shells.RelativeInformation(4, 3, **options),
        "likelihood": shells.NegativeLogLikelihood(3, **options),
        "brier": shells.BrierScore(3, **options),
        "calibration": shells.CalibrationError(3, **options),
    }


@pytest.mark.parametrize("weighted", [True, False])
def test_split_updates_equal_one_pure_call(data, weighted: bool) -> None:
    log_posterior, labels, weights = data
    expected = _pure(log_posterior, labels, weights if weighted else None)
    for name, metric in _shells().items():
        for part in torch.arange(101).split(17):
            metric.update(log_posterior[part], labels[part], weights[part] if weighted else None)
        torch.testing.assert_close(metric.compute(), expected[name])
        metric.reset()
        metric.update(log_posterior[:9], labels[:9])
        torch.testing.assert_close(metric.compute(), _pure(log_posterior[:9], labels[:9], None)[name])


@pytest.mark.parametrize("name", _shells())
def test_two_processes_equal_one_pure_call(data, name: str) -> None:
    """What torchmetrics gathers from processes is put together as one call would."""
    other = _shells()[name]

    def gather(state: torch.Tensor, group: object) -> list[torch.Tensor]:
        [place] = [place for place, value in own.metric_state.items() if value is state]
        return [state, getattr(other, place)]

    own = _shells(dist_sync_fn=gather, distributed_available_fn=lambda: True)[name]
    for rank, metric in enumerate((own, other)):
        metric.update(*(part[rank::2] for part in data))
    torch.testing.assert_close(own.compute(), _pure(*data)[name])


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric")
@pytest.mark.parametrize("name", _shells())
def test_before_the_first_tuple_there_is_no_value(name: str) -> None:
    metric = _shells()[name]
    with pytest.raises(DataError, match=r"expected at least one tuple to take a mean over, got none; check .* before"):
        metric.compute()
    if name in ("brier", "calibration"):
        with pytest.raises(DataError, match="probabilities sum to 1"):
            metric.update(torch.ones(2, 3, 4), torch.tensor([0, 1]))
        assert not any(value.any() for value in metric.metric_state.values())


@pytest.mark.parametrize("name", _shells())
def test_one_batch_may_weigh_nothing(data, name: str) -> None:
    """As on one of several processes; all together have to weigh something."""
    log_posterior, labels, weights = data
    weights = weights.clone()
    weights[50:] = 0
    metric = _shells()[name]
    metric.update(log_posterior[50:], labels[50:], weights[50:])
    with pytest.raises(DataError, match="expected weights with a finite sum above 0, got 0; leave them out"):
        metric.compute()
    metric.update(log_posterior[:50], labels[:50], weights[:50])
    torch.testing.assert_close(metric.compute(), _pure(log_posterior, labels, weights)[name])


def test_sums_are_wide_and_options_reach_torchmetrics() -> None:
    for metric in _shells().values():
        assert {state.dtype for state in metric.metric_state.values()} == {torch.float64}
    quiet = (
        shells.NAccuracy(2, sync_on_compute=False),
        shells.InformationGain(4, sync_on_compute=False),
        shells.CalibrationError(2, sync_on_compute=False),
    )
    assert [metric.sync_on_compute for metric in quiet] == [False] * 3


def test_every_shell_states_its_facts() -> None:
    facts = {
        shells.NAccuracy: (True, "share", 0, 1),
        shells.InformationGain: (True, "bits", None, None),
        shells.RelativeInformation: (True, "share", None, 1),
        shells.NegativeLogLikelihood: (False, "bits", 0, None),
        shells.BrierScore: (False, "squared distance", 0, 2),
        shells.CalibrationError: (False, "share", 0, 1),
    }
    for shell, (better, unit, lowest, highest) in facts.items():
        assert (shell.higher_is_better, shell.unit) == (better, unit)
        assert (shell.plot_lower_bound, shell.plot_upper_bound) == (lowest, highest)


def test_without_n_the_last_posterior_counts_of_tuples_of_any_length(data) -> None:
    log_posterior, labels, weights = data
    expected = {name: values[-1] for name, values in _pure(log_posterior, labels, weights).items()}
    alone = {
        "accuracy": shells.NAccuracy(),
        "gain": shells.InformationGain(4),
        "relative": shells.RelativeInformation(4),
        "likelihood": shells.NegativeLogLikelihood(),
        "brier": shells.BrierScore(),
        "calibration": shells.CalibrationError(),
    }
    for name, metric in alone.items():
        metric.update(log_posterior[:50], labels[:50], weights[:50])
        metric.update(log_posterior[50:, 2:], labels[50:], weights[50:])
        assert metric.compute().shape == ()
        torch.testing.assert_close(metric.compute(), expected[name])
        assert {tuple(getattr(metric, state).shape) for state in metric._defaults} <= {(), (1,), (4,), (3, 1, 15)}


def test_a_prior_stands_in_for_the_frequencies_of_labels(data) -> None:
    log_posterior, labels, _ = data
    uniform = torch.full((4,), 0.25).log()
    metric = shells.RelativeInformation(4, n=3, log_prior=uniform)
    metric.update(log_posterior, labels)
    torch.testing.assert_close(metric.compute(), relative_information(log_posterior, labels, log_prior=uniform))
    assert metric.entropy() == pytest.approx(2)
    one_label = labels == 0
    metric.reset()
    metric.update(log_posterior[one_label], labels[one_label])
    assert metric.compute().isfinite().all()
    seen = shells.RelativeInformation(4)
    seen.update(log_posterior[one_label], labels[one_label])
    with pytest.raises(DataError, match="at least two labels that occur"):
        seen.compute()


def test_a_collection_keeps_apart_what_differs_and_draws_it(data) -> None:
    # One tuple that is right with a posterior of 1/2: one bit is missing and one answer right, the same sums.
    collection = torchmetrics.MetricCollection(
        [shells.NAccuracy(), shells.NegativeLogLikelihood(), shells.RelativeInformation(4), shells.CalibrationError()]
    )
    half = torch.tensor([[[0.5, 0.3, 0.1, 0.1]]]).log()
    collection.update(half, torch.tensor([0]))
    log_posterior, labels, _ = data
    collection.update(log_posterior, labels)
    both = torch.cat([half, log_posterior[:, -1:]]), torch.cat([torch.zeros(1, dtype=torch.int64), labels])
    values = collection.compute()
    torch.testing.assert_close(values["NAccuracy"], n_accuracy(*both)[0])
    torch.testing.assert_close(values["RelativeInformation"], relative_information(*both)[0])
    assert values["NegativeLogLikelihood"] != values["NAccuracy"]
    _, axes = collection["RelativeInformation"].plot()
    assert axes.get_ylim()[1] == pytest.approx(1, abs=0.2)
    curve = shells.NAccuracy(n=3)
    curve.update(log_posterior, labels)
    _, own = plt.subplots()
    assert curve.plot(ax=own)[1] is own
    assert len(own.lines) + len(own.collections) >= 3
    plt.close("all")
