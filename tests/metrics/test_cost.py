from __future__ import annotations

import numpy as np
import pytest

from sharedlabel.metrics.cost import cost, dense_passes, efficiency


def test_cost_of_every_prefix_at_once() -> None:
    k = np.array([1, 2, 4])
    macs = cost(k, 250.0, np.array([0, 10, 40]))
    assert isinstance(macs, np.ndarray)
    assert macs.tolist() == [250, 510, 1040]
    passes = dense_passes(macs, 1000)
    assert isinstance(passes, np.ndarray)
    assert passes.tolist() == pytest.approx([0.25, 0.51, 1.04])


def test_efficiency_is_bits_per_dense_pass() -> None:
    assert efficiency(3.0, dense_passes(cost(2, 300, 0), 1200)) == pytest.approx(6.0)
