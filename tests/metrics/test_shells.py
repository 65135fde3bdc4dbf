from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sharedlabel.metrics import calibration, information, shells
from sharedlabel.metrics.n_accuracy import n_accuracy
from sharedlabel.rng import generator


@pytest.fixture
def data() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    stream = generator(0, "shells")
    labels = torch.randint(4, (101,), generator=stream)
    logits = torch.randn(101, 3, 4, generator=stream) * 3
    logits[torch.arange(101), :, labels] += 2
    return logits.log_softmax(2), labels, torch.rand(101, generator=stream)


def _pure(log_posterior: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None) -> dict[str, torch.Tensor]:
    floored = information.floor_posterior(log_posterior)
    log2 = information.log2_posterior_of_label(floored, labels)
    return {
        "accuracy": n_accuracy(log_posterior, labels, weights),
        "gain": information.posterior_gain(log2, weights, 2.0),
        "likelihood": calibration.negative_log_likelihood(floored, labels, weights),
        "calibration": calibration.expected_calibration_error(log_posterior, labels, weights),
    }


@pytest.fixture
def gloo(monkeypatch: pytest.MonkeyPatch) -> object:
    """The worker module, importable by name in a spawned process too."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    import gloo_worker

    return gloo_worker


@pytest.mark.parametrize("weighted", [True, False])
def test_split_updates_equal_one_pure_call(gloo, data, weighted: bool) -> None:
    log_posterior, labels, weights = data
    expected = _pure(log_posterior, labels, weights if weighted else None)
    for name, metric in gloo.metrics(3).items():
        for part in torch.arange(101).split(17):
            metric.update(log_posterior[part], labels[part], weights[part] if weighted else None)
        torch.testing.assert_close(metric.compute(), expected[name])
        metric.reset()
        metric.update(log_posterior[:9], labels[:9])
        torch.testing.assert_close(metric.compute(), _pure(log_posterior[:9], labels[:9], None)[name])


def test_two_processes_equal_one_pure_call(gloo, data, tmp_path: Path) -> None:
    torch.save(data, tmp_path / "data.pt")
    other = torch.multiprocessing.spawn(gloo.spawned, (str(tmp_path),), nprocs=1, join=False)
    gloo.work(0, str(tmp_path))
    assert other.join()
    expected = _pure(*data)
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt")
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value)


def test_sums_are_wide_and_options_reach_torchmetrics(gloo) -> None:
    for metric in gloo.metrics(3).values():
        assert {state.dtype for state in metric.metric_state.values()} == {torch.float64}
    quiet = (
        shells.NAccuracy(2, sync_on_compute=False),
        shells.InformationGain(2, 1.0, sync_on_compute=False),
        shells.CalibrationError(2, sync_on_compute=False),
    )
    assert [metric.sync_on_compute for metric in quiet] == [False] * 3


def test_every_shell_states_its_facts() -> None:
    facts = {
        shells.NAccuracy: (True, "share", (0, 1)),
        shells.InformationGain: (True, "bits", (-torch.inf, torch.inf)),
        shells.NegativeLogLikelihood: (False, "bits", (0, torch.inf)),
        shells.CalibrationError: (False, "share", (0, 1)),
    }
    for shell, (better, unit, limits) in facts.items():
        assert (shell.higher_is_better, shell.unit, shell.range) == (better, unit, limits)
